//! Marks that their owners raise, and clients that read those of others: what
//! one has seen never goes back, and all see it rise in one order.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use quorate::Transaction;
use quorate_testkit::check::{internal, long_fork, monotonic};
use quorate_testkit::history::{Key, MicroOp, Operation, Recorder};

use super::Recorded;
use super::client::{Client, if_committed, number};
use super::judging::{Judgement, keys};

/// Where in the key space marks are.
const MARK_AT: [&str; 6] = ["a", "c", "i", "l", "q", "z"];
/// Each client has so many, in different places.
const MARKS: u64 = 2;
const READ_MAX: usize = 3;
const READ_AT_ONCE: usize = 20;

/// The marks, by their owner and number.
#[derive(Default)]
pub(super) struct Marks {
    pub(super) recorder: Recorder,
    current: Mutex<BTreeMap<(u64, u64), Mark>>,
}

/// A mark of a client.
#[derive(Clone, Copy, Default)]
struct Mark {
    /// Rises when nobody knows whether the mark was raised: a blind write that
    /// is still under way may lower it, and its successor is another key.
    generation: u64,
    value: i64,
}

impl Mark {
    fn key(self, (client, number): (u64, u64)) -> String {
        let place = (client * MARKS + number * 3) % MARK_AT.len() as u64;
        let at = MARK_AT[usize::try_from(place).unwrap()];
        format!("{at}mark-{client}-{number}-{}", self.generation)
    }
}

impl Client {
    /// Raises a mark of its own, or reads those of all. The first client only
    /// reads.
    pub(super) async fn use_marks(&mut self) {
        if self.number > 0 && self.chance.one_in(3) {
            return self.raise().await;
        }
        let marks: Vec<String> = {
            let current = self.shared.marks.current.lock();
            current.iter().map(|(owner, mark)| mark.key(*owner)).collect()
        };
        if marks.len() < 2 {
            return;
        }
        let mut marks: Vec<&str> = marks.iter().map(String::as_str).collect();
        while marks.len() > READ_MAX {
            marks.swap_remove(usize::try_from(self.chance.below(marks.len() as u64)).unwrap());
        }
        if self.chance.one_in(2) {
            // What is read twice in one transaction is twice the same.
            marks.push(marks[0]);
            self.read_marks(&marks).await;
            return;
        }
        let start = usize::try_from(self.chance.below(2)).unwrap();
        marks.rotate_left(start);
        for mark in marks {
            self.read_marks(&[mark]).await;
        }
    }

    async fn read_marks(&mut self, marks: &[&str]) -> bool {
        let shared = self.shared.clone();
        self.read_into(&shared.marks.recorder, "read", marks, number).await
    }

    /// Without a look at what stands there: nobody else writes it.
    async fn raise(&mut self) {
        let owner = (self.number, self.chance.below(MARKS));
        let mut mark = self.shared.marks.current.lock().get(&owner).copied().unwrap_or_default();
        mark.value += 1;
        let (key, process) = (mark.key(owner), self.process);
        let call = Transaction::new().put(key.as_str(), mark.value.to_string().as_str());
        let txn = vec![MicroOp::write(key.as_str(), mark.value)];
        let invocation = self.invoke(&self.shared.marks.recorder, "raise", txn.clone());
        self.write(invocation, &call, if_committed(txn)).await;
        if self.process != process {
            mark = Mark { generation: mark.generation + 1, value: 0 };
        }
        self.shared.marks.current.lock().insert(owner, mark);
    }

    /// Reads every mark for the last time.
    pub(super) async fn read_all_marks(&mut self) -> bool {
        let keys = keys(&self.shared.marks.recorder.operations());
        let keys: Vec<&str> = keys.iter().map(Key::as_str).collect();
        for chunk in keys.chunks(READ_AT_ONCE) {
            if !self.read_marks(chunk).await {
                return false;
            }
        }
        true
    }
}

pub(super) fn judge(operations: &[Operation]) -> Judgement {
    // Where no client has this kind of work there is nothing to decide.
    if operations.is_empty() {
        return Judgement::new();
    }
    let rises = |_: &Key| true;
    let monotonic = |scope| monotonic::check(operations, rises, scope);
    vec![
        ("a client sees nothing go back", monotonic(monotonic::Scope::Process)),
        ("what was seen does not go back", monotonic(monotonic::Scope::RealTime)),
        ("readers see one order", long_fork::check(operations, rises)),
        ("a transaction agrees with itself", internal::check(operations)),
    ]
}
