//! The oracle: every logged transaction once more, by a model, one by one.
//!
//! The order is that of the logs. An epoch comes after what the logs of its
//! participants hold before its slices, and its transactions come in their
//! order; a direct command comes after what its shard's log holds before it.

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
    Direct(RequestKey, Call),
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
    /// What was executed, in order.
    order: Vec<(RequestKey, Call)>,
}

impl Oracle {
    /// Without a model it takes no notice of anything.
    pub(crate) fn new(model: Option<Box<dyn Model>>) -> Self {
        let (logs, epochs, decided) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { model, logs, epochs, decided, order: Vec::new() }
    }

    /// What follows it, while nothing is under way: the model executes once
    /// more what was executed.
    pub(crate) fn continued(&self, mut model: Option<Box<dyn Model>>) -> Self {
        if let Some(model) = model.as_deref_mut() {
            self.order.iter().for_each(|(_, call)| drop(model.execute(call)));
        }
        Self { order: self.order.clone(), decided: self.decided.clone(), ..Self::new(model) }
    }

    /// What the model has executed, in order.
    pub(crate) fn order(&self) -> &[(RequestKey, Call)] {
        &self.order
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

    /// A shard's log has a direct command that is to be executed.
    pub(crate) fn entered(&mut self, shard: ShardId, request: RequestKey, call: &Call) {
        if self.model.is_some() {
            let log = self.logs.entry(shard).or_default();
            log.push_back(Item::Direct(request, call.clone()));
        }
    }

    /// A shard's log has its slice of an epoch.
    pub(crate) fn accepted(&mut self, shard: ShardId, epoch: Epoch) {
        if self.model.is_some() {
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
            while let Some(Item::Direct(request, _)) = log.front()
                && let Some(verdict) = self.decided.remove(&(*request, *shard))
                && let Some(Item::Direct(request, call)) = log.pop_front()
            {
                execute(model, request, &call, &verdict, report);
                self.order.push((request, call));
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
        let Some((_, work)) = self.epochs.pop_first() else { return false };
        for shard in &work.participants {
            self.logs.get_mut(shard).map(VecDeque::pop_front);
        }
        for Ordered { request, home, call } in work.txns {
            if let Some(verdict) = self.decided.remove(&(request, home)) {
                execute(model, request, &call, &verdict, report);
                self.order.push((request, call));
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

/// O8: what a client is told is what the model says.
fn execute(
    model: &mut dyn Model,
    request: RequestKey,
    call: &Call,
    verdict: &Verdict,
    report: &mut Report,
) {
    if matches!(verdict, Verdict::Aborted(reason) if LIMITS.contains(&&**reason)) {
        return;
    }
    let expected = model.execute(call);
    report.check("O8", expected == *verdict, || {
        let (client, sequence) = request;
        format!("{client}/{sequence} is told {verdict:?}, and by the order it is {expected:?}")
    });
}
