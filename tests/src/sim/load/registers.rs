//! Registers on several shards, written blindly and read, alone and together.
//! Nothing here waits for anything else: an answer that leaves too early shows
//! in what is read right after it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use quorate::{Answer, Transaction};
use quorate_testkit::check::{Verdict, registers};
use quorate_testkit::history::{MicroOp, Operation, Recorder};

use super::Recorded;
use super::client::{Client, if_committed, number};
use super::judging::{Judgement, keys, part};

/// Each is a group, spread over all shards that there may be.
const GROUPS: [[&str; 4]; 2] =
    [["amber", "grain", "lime", "quartz"], ["cedar", "ink", "mica", "zinc"]];
/// Operations on one group, before the next one is begun: small histories are
/// judged fast, and surely.
const GROUP_OPERATIONS: u64 = 150;
/// Operations in a row, without a rest.
const ROW_MAX: u64 = 5;
/// Of the search that decides where rules do not.
const STEPS_MAX: u64 = 200_000;

#[derive(Default)]
pub(super) struct Registers {
    pub(super) recorder: Recorder,
    begun: AtomicU64,
}

impl Registers {
    /// The registers in use, of which all clients use the same.
    fn keys(&self) -> Vec<String> {
        let group = self.begun.fetch_add(1, Ordering::Relaxed) / GROUP_OPERATIONS;
        let names = GROUPS[usize::try_from(group).unwrap() % GROUPS.len()];
        names.iter().map(|name| format!("{name}-{group}")).collect()
    }
}

impl Client {
    /// A few operations, each as soon as the one before is answered.
    pub(super) async fn use_registers(&mut self) {
        for _ in 0..self.chance.between(2, ROW_MAX) {
            let keys = self.shared.registers.keys();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let [first, second] = self.pair(&keys);
            let is_done = match self.chance.below(10) {
                0..=3 => self.read_registers(&[first]).await,
                4 => self.read_registers(&keys).await,
                5..=6 => self.set_registers(None, &[first]).await,
                7 => self.set_registers(None, &[first, second]).await,
                _ => self.set_registers(Some(second), &[first]).await,
            };
            if !is_done {
                return;
            }
        }
    }

    async fn read_registers(&mut self, keys: &[&str]) -> bool {
        let shared = self.shared.clone();
        self.read_into(&shared.registers.recorder, "read", keys, number).await
    }

    /// Reads one, if any, and writes others in the same transaction.
    async fn set_registers(&mut self, read: Option<&str>, written: &[&str]) -> bool {
        let element = self.element();
        let mut call = Transaction::new();
        let (mut asked, mut writes) = (Vec::new(), Vec::new());
        if let Some(key) = read {
            call = call.get(key);
            asked.push(MicroOp::read(key));
        }
        for key in written {
            call = call.put(*key, element.to_string().as_str());
            writes.push(MicroOp::write(*key, element));
        }
        asked.extend(writes.clone());
        let shows = |answer: &Answer| {
            let values = read.iter().zip(answer.values.iter());
            let seen = values.map(|(key, value)| MicroOp::saw(*key, number(value)));
            if_committed(seen.chain(writes).collect())(answer)
        };
        let invocation = self.invoke(&self.shared.registers.recorder, "write", asked);
        self.write(invocation, &call, shows).await.is_some()
    }

    /// Reads every group for the last time.
    pub(super) async fn read_all_registers(&mut self) -> bool {
        let operations = self.shared.registers.recorder.operations();
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for key in keys(&operations) {
            groups.entry(group(key.as_str()).to_owned()).or_default().push(key.to_string());
        }
        for keys in groups.values() {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            if !self.read_registers(&keys).await {
                return false;
            }
        }
        true
    }
}

/// The number of a key's group.
fn group(key: &str) -> &str {
    key.rsplit('-').next().unwrap_or_default()
}

pub(super) fn judge(operations: &[Operation]) -> Judgement {
    let mut judgement = Judgement::new();
    let groups: BTreeSet<String> =
        keys(operations).iter().map(|key| group(key.as_str()).to_owned()).collect();
    for number in groups {
        let of_group = part(operations, |key| group(key.as_str()) == number);
        let verdict = registers::check(&of_group, &BTreeMap::new(), STEPS_MAX);
        let is_open = matches!(verdict, Verdict::Undecided(_));
        judgement.push(("registers are strictly serializable", verdict));
        // Nobody knows of all together: each one has to be linearizable.
        for key in keys(&of_group).into_iter().filter(|_| is_open) {
            let of_key = part(&of_group, |it| *it == key);
            let verdict = registers::check(&of_key, &BTreeMap::new(), STEPS_MAX);
            judgement.push(("each register is linearizable", verdict));
        }
    }
    judgement
}
