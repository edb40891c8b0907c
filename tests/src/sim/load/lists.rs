//! Lists that several transactions append to: what stands in one tells in
//! which order that was done.

use quorate::Transaction;
use quorate_testkit::check::list_append::{self, Consistency};
use quorate_testkit::history::{MicroOp, Operation};

use super::Shared;
use super::client::{Client, if_committed, list};
use super::judging::tell;

pub(super) const LISTS: [&str; 4] = ["apples", "berries", "nuts", "yams"];

impl Client {
    pub(super) async fn read_lists(&mut self, lists: &[&'static str]) -> bool {
        let shared = self.shared.clone();
        self.read_into(&shared.lists, "read", lists, list).await
    }

    /// Appends to two lists: reads them, then writes if they are unchanged.
    pub(super) async fn append(&mut self, lists: &[&'static str]) {
        let keys = self.pair(lists);
        let Some(before) = self.read(&keys).await else { return };
        let element = self.element();
        let (mut call, mut asked, mut seen) = (Transaction::new(), Vec::new(), Vec::new());
        for (key, value) in keys.iter().zip(before) {
            let text = value.as_ref().map_or("", |value| std::str::from_utf8(value).unwrap());
            let longer = format!("{text} {element}");
            asked.push(MicroOp::append(*key, element));
            seen.extend([MicroOp::saw(*key, list(&value)), MicroOp::append(*key, element)]);
            call = call.expect(*key, value).put(*key, longer.as_str());
        }
        let invocation = self.invoke(&self.shared.lists, "append", asked);
        self.write(invocation, &call, if_committed(seen)).await;
    }
}

pub(super) fn judge(shared: &Shared, operations: &[Operation]) {
    let verdict = list_append::check(operations, Consistency::StrictSerializable);
    tell(&shared.cluster, "lists are strictly serializable", &verdict);
}
