//! The oracle: every logged transaction once more, by a model, one by one.
//!
//! The order is that of the logs. An epoch comes after what the logs of its
//! participants hold before its slices, and its transactions come in their
//! order; a direct command comes after what its shard's log holds before it.
//!
//! That leaves open what comes first where two shards have nothing to do with
//! each other. Execution does not mind; [`Oracle::order`] chooses such that
//! real time is respected where the reply gate does its work: an epoch stands
//! where it and all before it are in the logs of their participants, and a
//! direct command where it is in its log and the last epoch before it there
//! stands. The gate lets no answer out before, and nothing is logged before it
//! is asked for: so each call stands between its beginning and its end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quorate::types::{Blob, ClientId, Epoch, ShardId};
use quorate_calvin::Call;
use quorate_calvin::shard::Verdict;

use super::ledger::Report;
use super::model::Model;

type RequestKey = (ClientId, u64);

/// Why machines abort what no model would: it is too large for them.
const LIMITS: [&[u8]; 3] = [
    b"the transaction reads too much",
    b"the result is too large to be remembered",
    b"the procedure wrote a key or value that is too large",
];

/// What a shard's log holds.
#[derive(Debug)]
enum Item {
    Direct(RequestKey, Call, Place),
    Slice(Epoch),
}

/// A transaction of an epoch.
#[derive(Debug)]
pub(crate) struct Ordered {
    pub(crate) request: RequestKey,
    /// Who decides it.
    pub(crate) home: ShardId,
    pub(crate) call: Call,
}

/// What decides where a call stands in the order.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// It was logged as this step, by a shard that had accepted this epoch.
    Direct(u64, Epoch),
    /// It is of this epoch.
    Epoch(Epoch),
}

#[derive(Debug)]
struct Work {
    participants: BTreeSet<ShardId>,
    txns: Vec<Ordered>,
}

/// What is still to be executed, and the model that executes it.
pub(crate) struct Oracle {
    model: Option<Box<dyn Model>>,
    logs: BTreeMap<ShardId, VecDeque<Item>>,
    epochs: BTreeMap<Epoch, Work>,
    /// Decisions that the model has not come to. A request that writes nothing
    /// may have several.
    decided: BTreeMap<(RequestKey, ShardId), Verdict>,
    /// What was executed, as it came.
    executed: Vec<(Place, RequestKey, Call)>,
    /// Counts what shards have logged.
    steps: u64,
    /// The step at which the last participant of an epoch has logged it.
    logged: BTreeMap<Epoch, u64>,
}

impl Oracle {
    /// Without a model it takes no notice of anything.
    pub(crate) fn new(model: Option<Box<dyn Model>>) -> Self {
        Self {
            model,
            logs: BTreeMap::new(),
            epochs: BTreeMap::new(),
            decided: BTreeMap::new(),
            executed: Vec::new(),
            steps: 0,
            logged: BTreeMap::new(),
        }
    }

    /// What follows it, while nothing is under way: the model executes once
    /// more what was executed.
    pub(crate) fn continued(&self, mut model: Option<Box<dyn Model>>) -> Self {
        if let Some(model) = model.as_deref_mut() {
            self.executed.iter().for_each(|(_, _, call)| drop(model.execute(call)));
        }
        Self {
            executed: self.executed.clone(),
            steps: self.steps,
            logged: self.logged.clone(),
            decided: self.decided.clone(),
            ..Self::new(model)
        }
    }

    /// What the model has executed, in an order that the logs allow and that
    /// respects real time if no answer came too early.
    pub(crate) fn order(&self) -> Vec<(RequestKey, Call)> {
        let mut standing: BTreeMap<Epoch, u64> = BTreeMap::new();
        let mut latest = 0;
        for (epoch, step) in &self.logged {
            latest = latest.max(*step);
            standing.insert(*epoch, latest);
        }
        let stands = |epoch: Epoch| {
            let upto = standing.range(..=epoch).next_back();
            upto.map_or(0, |(_, step)| *step)
        };
        let mut order: Vec<&(Place, RequestKey, Call)> = self.executed.iter().collect();
        order.sort_by_key(|(place, ..)| match *place {
            // Those of an epoch are in their order as they came.
            Place::Epoch(epoch) => (stands(epoch), epoch, 0),
            Place::Direct(step, cursor) => (step.max(stands(cursor)), cursor, step),
        });
        order.into_iter().map(|(_, request, call)| (*request, call.clone())).collect()
    }

    /// The sequencer's log has these transactions.
    pub(crate) fn ordered(
        &mut self,
        epoch: Epoch,
        participants: BTreeSet<ShardId>,
        txns: Vec<Ordered>,
    ) {
        if self.model.is_some() && !participants.is_empty() {
            self.epochs.insert(epoch, Work { participants, txns });
        }
    }

    /// A shard's log has a direct command that is to be executed, after the
    /// slice of an epoch.
    pub(crate) fn entered(
        &mut self,
        shard: ShardId,
        cursor: Epoch,
        request: RequestKey,
        call: &Call,
    ) {
        if self.model.is_some() {
            self.steps += 1;
            let log = self.logs.entry(shard).or_default();
            log.push_back(Item::Direct(request, call.clone(), Place::Direct(self.steps, cursor)));
        }
    }

    /// A shard's log has its slice of an epoch.
    pub(crate) fn accepted(&mut self, shard: ShardId, epoch: Epoch) {
        if self.model.is_some() {
            self.steps += 1;
            self.logged.insert(epoch, self.steps);
            self.logs.entry(shard).or_default().push_back(Item::Slice(epoch));
        }
    }

    /// A shard has executed a request.
    pub(crate) fn decided(&mut self, shard: ShardId, request: RequestKey, verdict: &Verdict) {
        if self.model.is_some() {
            self.decided.insert((request, shard), verdict.clone());
        }
    }

    /// Executes what everything before is executed of.
    pub(crate) fn advance(&mut self, report: &mut Report) {
        while self.run_directs(report) | self.run_epoch(report) {}
    }

    fn run_directs(&mut self, report: &mut Report) -> bool {
        let Some(model) = self.model.as_deref_mut() else { return false };
        let mut has_run = false;
        for (shard, log) in &mut self.logs {
            while let Some(Item::Direct(request, ..)) = log.front()
                && let Some(verdict) = self.decided.remove(&(*request, *shard))
                && let Some(Item::Direct(request, call, place)) = log.pop_front()
            {
                if execute(model, request, &call, &verdict, report) {
                    self.executed.push((place, request, call));
                }
                has_run = true;
            }
        }
        has_run
    }

    fn run_epoch(&mut self, report: &mut Report) -> bool {
        let Some(model) = self.model.as_deref_mut() else { return false };
        let Some((epoch, work)) = self.epochs.first_key_value() else { return false };
        let logs = &self.logs;
        let is_front = |shard: &ShardId| {
            let front = logs.get(shard).and_then(VecDeque::front);
            matches!(front, Some(Item::Slice(front)) if front == epoch)
        };
        let decided = &self.decided;
        let is_decided = |txn: &Ordered| {
            // Nobody logs the answer of one that writes nothing.
            txn.call.footprint.is_read_only() || decided.contains_key(&(txn.request, txn.home))
        };
        if !work.participants.iter().all(is_front) || !work.txns.iter().all(is_decided) {
            return false;
        }
        let Some((epoch, work)) = self.epochs.pop_first() else { return false };
        for shard in &work.participants {
            self.logs.get_mut(shard).map(VecDeque::pop_front);
        }
        for Ordered { request, home, call } in work.txns {
            if let Some(verdict) = self.decided.remove(&(request, home))
                && execute(model, request, &call, &verdict, report)
            {
                self.executed.push((Place::Epoch(epoch), request, call));
            }
        }
        true
    }

    /// Whether the shards hold what the model does, once nothing is under way.
    pub(crate) fn compare(&self, content: &BTreeMap<Blob, Blob>) -> Result<(), String> {
        let Some(model) = self.model.as_deref() else { return Ok(()) };
        let waiting = self.logs.iter().find(|(_, log)| !log.is_empty());
        if let Some((shard, log)) = waiting {
            return Err(format!("{shard} has {} steps that are not executed", log.len()));
        }
        if let Some((epoch, work)) = self.epochs.first_key_value() {
            return Err(format!("{epoch} of {:?} is not executed", work.participants));
        }
        let expected = model.content();
        let mut keys = expected.keys().chain(content.keys());
        let differing = keys.find(|key| expected.get(*key) != content.get(*key));
        differing.map_or(Ok(()), |key| {
            let (expected, found) = (expected.get(key), content.get(key));
            Err(format!("{key:?} is {found:?}, and by the order it is {expected:?}"))
        })
    }
}

/// O8: what a client is told is what the model says. Whether it was executed.
fn execute(
    model: &mut dyn Model,
    request: RequestKey,
    call: &Call,
    verdict: &Verdict,
    report: &mut Report,
) -> bool {
    if matches!(verdict, Verdict::Aborted(reason) if LIMITS.contains(&&**reason)) {
        return false;
    }
    let expected = model.execute(call);
    report.check("O8", expected == *verdict, || {
        let (client, sequence) = request;
        format!("{client}/{sequence} is told {verdict:?}, and by the order it is {expected:?}")
    });
    true
}

#[cfg(test)]
mod tests;
