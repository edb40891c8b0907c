//! Writes of keys that nobody else writes: they are there in the end.

use std::collections::BTreeMap;

use quorate::Transaction;
use quorate_testkit::check::durability::{self, Writes};
use quorate_testkit::history::{Key, MicroOp};

use super::Recorded;
use super::client::{Client, if_committed, list};
use super::judging::tell;

/// Where in the key space they are put.
const PUT_AT: [&str; 5] = ["a", "c", "i", "l", "z"];
const READ_AT_ONCE: usize = 50;

impl Client {
    /// Writes a key that nobody else writes: without a look at anything.
    pub(super) async fn put(&mut self) {
        let element = self.element();
        let first = self.chance.pick(&PUT_AT);
        let key = format!("{first}put-{element}");
        let padding = " ".repeat(self.shared.cluster.options.load.padding_bytes);
        let call = Transaction::new().put(key.as_str(), format!("{element}{padding}").as_str());
        let txn = vec![MicroOp::append(key.as_str(), element)];
        let invocation = self.invoke(&self.shared.puts, "put", txn.clone());
        self.write(invocation, &call, if_committed(txn)).await;
    }

    /// Every write that was acknowledged is there, as one node has it.
    pub(super) async fn judge_puts(&mut self) {
        let operations = self.shared.puts.operations();
        let mut found = BTreeMap::new();
        let keys: Vec<String> = operations
            .iter()
            .flat_map(|operation| &operation.txn)
            .filter_map(|step| match step {
                MicroOp::Append { key, .. } => Some(key.to_string()),
                _ => None,
            })
            .collect();
        for chunk in keys.chunks(READ_AT_ONCE) {
            let names: Vec<&str> = chunk.iter().map(String::as_str).collect();
            let Some(values) = self.read(&names).await else {
                self.has_no_answer();
                return;
            };
            let seen = names.iter().map(|name| Key::from(*name));
            found.extend(seen.zip(values.iter().map(list)));
        }
        let verdict = durability::check(&operations, &found, Writes::Latest);
        tell(&self.shared.cluster, "what was acknowledged is there", &verdict);
    }
}
