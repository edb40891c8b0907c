//! What the data would be if one thread had executed every transaction in the
//! order of the logs: written against the meaning of calls, and not against
//! the machines that execute them.

use std::collections::BTreeMap;

use quorate::types::codec::{decode, encode};
use quorate::types::{Blob, Seq};
use quorate_calvin::Call;
use quorate_calvin::shard::Verdict;

/// Executes calls one after the other.
pub trait Model: Send {
    /// Executes a call and says what its client is to be told.
    fn execute(&mut self, call: &Call) -> Verdict;

    /// All keys that have a value.
    fn content(&self) -> &BTreeMap<Blob, Blob>;
}

/// The model of [`quorate::Transaction`]s.
#[derive(Debug, Default)]
pub struct KeyValueModel {
    content: BTreeMap<Blob, Blob>,
}

/// Conditions, reads and writes, as a call's arguments carry them.
type Arguments = (Seq<(Blob, Option<Blob>)>, Seq<Blob>, Seq<(Blob, Option<Blob>)>);

impl Model for KeyValueModel {
    fn execute(&mut self, call: &Call) -> Verdict {
        let Ok((conditions, reads, writes)) = decode::<Arguments>(&call.args) else {
            return Verdict::Done(Blob::new());
        };
        let holds =
            conditions.iter().all(|(key, expected)| self.content.get(key) == expected.as_ref());
        let values: Seq<Option<Blob>> =
            reads.iter().map(|key| self.content.get(key).cloned()).collect();
        for (key, value) in writes.0.into_iter().filter(|_| holds) {
            match value {
                Some(value) => self.content.insert(key, value),
                None => self.content.remove(&key),
            };
        }
        Verdict::Done(Blob(encode(&(holds, values))))
    }

    fn content(&self) -> &BTreeMap<Blob, Blob> {
        &self.content
    }
}
