//! Slots that are claimed while they are free and freed by a deletion, and
//! conditions that cannot hold: those must say so, and write nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate::types::Blob;
use quorate::{Answer, Transaction};
use quorate_testkit::check::linearizable;
use quorate_testkit::history::{Datum, Key, MicroOp, Operation, Recorder};

use super::Recorded;
use super::client::{Client, count};
use super::judging::{Judgement, keys};

/// On different shards.
const SLOTS: [&str; 3] = ["bread", "honey", "wheat"];
/// Operations on one set of slots, before the next one is begun: the search
/// for an order of few operations is short.
const SET_OPERATIONS: u64 = 100;
/// How a free slot is told in a history.
const FREE: i64 = 0;
/// What nobody may ever see, and what no slot ever holds.
const NEVER_WRITTEN: i64 = -1;
const NEVER_THERE: i64 = -2;
const STEPS_MAX: u64 = 500_000;

#[derive(Default)]
pub(super) struct Claims {
    pub(super) recorder: Recorder,
    begun: AtomicU64,
}

impl Claims {
    fn slots(&self) -> Vec<String> {
        let set = self.begun.fetch_add(1, Ordering::Relaxed) / SET_OPERATIONS;
        SLOTS.iter().map(|name| format!("{name}-{set}")).collect()
    }
}

impl Client {
    /// Claims a slot or frees it, by what it looks like, or tries what cannot
    /// be.
    pub(super) async fn use_claims(&mut self) {
        let slots = self.shared.claims.slots();
        let slots: Vec<&str> = slots.iter().map(String::as_str).collect();
        let [slot, other] = self.pair(&slots);
        match self.chance.below(6) {
            0 => drop(self.look(slot).await),
            1 => self.try_in_vain(slot, other).await,
            2 => self.swap(slot, None).await,
            _ => {
                if let Some(held) = self.look(slot).await {
                    self.swap(slot, held).await;
                }
            }
        }
    }

    async fn look(&mut self, slot: &str) -> Option<Option<Blob>> {
        let asked = vec![MicroOp::read(slot)];
        let invocation = self.invoke(&self.shared.claims.recorder, "look", asked);
        let read = self.read(&[slot]).await;
        let now = self.shared.cluster.sim.elapsed();
        match &read {
            Some(values) => invocation.ok(now, vec![MicroOp::saw_int(slot, count(&values[0]))]),
            None => invocation.fail(now, "nothing was read"),
        }
        read.map(|mut values| values.remove(0))
    }

    /// Claims a slot that was free, or frees one that was not.
    async fn swap(&mut self, slot: &str, held: Option<Blob>) {
        let before = count(&held);
        let call = Transaction::new().expect(slot, held.clone()).get(slot);
        let (call, after) = if held.is_none() {
            let element = self.element();
            (call.put(slot, element.to_string().as_str()), element)
        } else {
            (call.delete(slot), FREE)
        };
        let step = MicroOp::compare_and_set(slot, before, after);
        let what = if held.is_none() { "claim" } else { "free" };
        let invocation = self.invoke(&self.shared.claims.recorder, what, vec![step.clone()]);
        self.write(invocation, &call, |answer| Some(shown(slot, answer, before, step))).await;
    }

    /// Writes two slots on a condition that does not hold.
    async fn try_in_vain(&mut self, slot: &str, other: &str) {
        let never = NEVER_WRITTEN.to_string();
        let call = Transaction::new()
            .expect(slot, Some(NEVER_THERE.to_string().as_str().into()))
            .get(slot)
            .put(slot, never.as_str())
            .put(other, never.as_str());
        let step = MicroOp::compare_and_set(slot, NEVER_THERE, NEVER_WRITTEN);
        let invocation = self.invoke(&self.shared.claims.recorder, "in vain", vec![step.clone()]);
        self.write(invocation, &call, |answer| Some(shown(slot, answer, NEVER_THERE, step))).await;
    }

    /// Looks at every slot for the last time.
    pub(super) async fn look_at_all(&mut self) -> bool {
        for key in keys(&self.shared.claims.recorder.operations()) {
            if self.look(key.as_str()).await.is_none() {
                return false;
            }
        }
        true
    }
}

/// What an answer shows: what stood there, and what that allowed.
fn shown(slot: &str, answer: &Answer, expected: i64, swap: MicroOp) -> Vec<MicroOp> {
    let values = answer.values.iter();
    let mut seen: Vec<_> = values.map(|value| MicroOp::saw_int(slot, count(value))).collect();
    seen.push(if answer.committed { swap } else { MicroOp::differs(slot, expected) });
    seen
}

pub(super) fn judge(operations: &[Operation]) -> Judgement {
    let verdict = linearizable::check(operations, &all_free(operations), STEPS_MAX);
    vec![("conditions are linearizable", verdict)]
}

fn all_free(operations: &[Operation]) -> BTreeMap<Key, Datum> {
    keys(operations).into_iter().map(|key| (key, Datum::Int(FREE))).collect()
}
