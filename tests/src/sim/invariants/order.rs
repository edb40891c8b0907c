//! The global order, as the sequencer's log has it, and what the shards make
//! of it. The order is restricted to each shard here once more, from the
//! batches and by a map of our own: the machines are not asked.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};

use quorate::types::{Blob, ClientId, Epoch, KeyRange, NodeId, RequestId, ShardId, TxnId};
use quorate_calvin::sequencer::{SequencerEvent, SequencerMachine, Watermarks};
use quorate_calvin::shard::{Event, FenceOutcome, Verdict};
use quorate_calvin::{
    Call, Footprint, MapChange, SequencerBatch, SequencerCommand, ShardCommand, ShardMap, Slice,
    SliceBody, Submission,
};

use crate::sim::ledger::Report;
use crate::sim::model::Model;
use crate::sim::oracle::{Oracle, Ordered};

type RequestKey = (ClientId, u64);

/// Position of a split in its epoch, where it is alone.
const BARRIER: u32 = u32::MAX;

/// What an epoch asks of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Due {
    Transactions(Vec<(u32, RequestKey)>),
    Split(ShardId),
}

impl Due {
    fn of(slice: &Slice) -> Self {
        match &slice.body {
            SliceBody::Split(change) => Self::Split(change.child),
            SliceBody::Transactions(txns) => Self::Transactions(
                txns.iter().map(|txn| (txn.position, txn.request.key())).collect(),
            ),
        }
    }

    fn positions(&self) -> BTreeSet<u32> {
        match self {
            Self::Split(_) => BTreeSet::from([BARRIER]),
            Self::Transactions(txns) => txns.iter().map(|(position, _)| *position).collect(),
        }
    }
}

/// The part of the order that concerns one shard.
#[derive(Clone, Debug, Default)]
struct Chain {
    /// Its epochs that no replica has accepted.
    due: BTreeMap<Epoch, Due>,
    last_ordered: Epoch,
    last_accepted: Epoch,
}

/// A step of a shard.
pub(crate) struct ShardStep<'a> {
    pub(crate) shard: ShardId,
    pub(crate) index: u64,
    pub(crate) command: &'a ShardCommand,
    pub(crate) events: &'a [Event],
    /// The cursor before.
    pub(crate) cursor: Epoch,
    /// What was known of a direct command's request before.
    pub(crate) known: Option<FenceOutcome>,
}

/// What is known of the answer to a call.
#[derive(Clone, Debug)]
struct Logged {
    position: Epoch,
    /// Another request has asked the same.
    is_ambiguous: bool,
}

/// An execution.
#[derive(Clone, Copy, Debug)]
struct Executed {
    shard: ShardId,
    verdict: u64,
    call: u64,
    /// The last epoch on whose writes it can depend. A request that nobody orders depends
    /// on those of none behind which its shard's log has it, whatever has been accepted
    /// since. (Only the shard's clock goes on, and decides what has expired.)
    depends_on: Epoch,
}

/// The order and its execution.
pub(crate) struct OrderBook {
    /// The maps, each from its epoch on.
    maps: BTreeMap<Epoch, ShardMap>,
    /// Everything that was ordered, and where.
    ordered: BTreeMap<RequestKey, TxnId>,
    chains: BTreeMap<ShardId, Chain>,
    /// Work that a shard owes an epoch.
    owed: BTreeMap<(Epoch, ShardId), BTreeSet<u32>>,
    /// What became of each request that writes.
    executed: BTreeMap<RequestKey, Executed>,
    /// Shards whose logs took requests that nobody orders and that are not decided, with
    /// their cursors then.
    entered: BTreeMap<RequestKey, (ShardId, Epoch)>,
    /// The calls that write and are not decided, by the hash of their arguments.
    calls: BTreeMap<RequestKey, u64>,
    /// Decided calls that write.
    logged: BTreeMap<u64, Logged>,
    oracle: Oracle,
}

/// Names a call that nobody else makes.
fn call_hash(args: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(args);
    hasher.finish()
}

fn verdict_hash(verdict: &Verdict) -> u64 {
    let (kind, bytes) = match verdict {
        Verdict::Done(result) => (0, &**result),
        Verdict::Aborted(reason) => (1, &**reason),
        Verdict::Poisoned => (2, &[] as &[u8]),
    };
    let mut hasher = DefaultHasher::new();
    hasher.write_u8(kind);
    hasher.write(bytes);
    hasher.finish()
}

/// The shards that a footprint touches, by a plain look at each of them.
fn touched(map: &ShardMap, footprint: &Footprint) -> BTreeSet<ShardId> {
    let keys = || footprint.reads.iter().chain(&footprint.writes);
    let is_touched = |range: &KeyRange| {
        keys().any(|key| range.contains(key))
            || footprint.ranges.iter().any(|access| access.range.overlaps(range))
    };
    map.shards.iter().filter(|entry| is_touched(&entry.range)).map(|entry| entry.shard).collect()
}

/// The owner of a key, by a plain look at each shard.
fn owner(map: &ShardMap, key: &Blob) -> Option<ShardId> {
    let owners = map.shards.iter().filter(|entry| entry.range.contains(key));
    owners.map(|entry| entry.shard).next()
}

impl OrderBook {
    pub(crate) fn new(model: Option<Box<dyn Model>>) -> Self {
        Self {
            maps: BTreeMap::new(),
            ordered: BTreeMap::new(),
            chains: BTreeMap::new(),
            owed: BTreeMap::new(),
            executed: BTreeMap::new(),
            entered: BTreeMap::new(),
            calls: BTreeMap::new(),
            logged: BTreeMap::new(),
            oracle: Oracle::new(model),
        }
    }

    /// What follows it, while nothing is under way.
    pub(crate) fn continued(&self, model: Option<Box<dyn Model>>) -> Self {
        Self {
            maps: self.maps.clone(),
            ordered: self.ordered.clone(),
            chains: self.chains.clone(),
            owed: self.owed.clone(),
            executed: self.executed.clone(),
            entered: self.entered.clone(),
            calls: self.calls.clone(),
            logged: self.logged.clone(),
            oracle: self.oracle.continued(model),
        }
    }

    /// What is to be executed, and by which model.
    pub(crate) fn oracle(&self) -> &Oracle {
        &self.oracle
    }

    fn map(&self) -> Option<&ShardMap> {
        self.maps.values().next_back()
    }

    /// The map at an epoch; before the first one, that.
    fn map_at(&self, epoch: Epoch) -> Option<&ShardMap> {
        let before = self.maps.range(..=epoch).next_back();
        before.or_else(|| self.maps.first_key_value()).map(|(_, map)| map)
    }

    /// A step of the sequencer.
    pub(crate) fn sequenced(
        &mut self,
        index: u64,
        command: SequencerCommand,
        events: &[SequencerEvent],
        machine: &SequencerMachine,
        report: &mut Report,
    ) {
        let epoch = Epoch(index);
        let sliced: Option<&Vec<ShardId>> = events.iter().find_map(|event| match event {
            SequencerEvent::Sliced { shards, .. } => Some(shards),
            _ => None,
        });
        let due = match command {
            SequencerCommand::Init { map, .. } => {
                if self.maps.is_empty() {
                    let is_sound = KeyRange::partition(map.shards.iter().map(|entry| &entry.range));
                    report.check("O6", is_sound, || format!("the first map is {map:?}"));
                    self.maps.insert(epoch, map);
                }
                BTreeMap::new()
            }
            SequencerCommand::Batch(batch) => self.order(epoch, batch, events, report),
            SequencerCommand::Change { change, .. } => self.change(epoch, change, events, report),
        };
        let expected: BTreeSet<ShardId> = due.keys().copied().collect();
        let cut: BTreeSet<ShardId> = sliced.into_iter().flatten().copied().collect();
        report.check("O1", expected == cut, || {
            format!("{epoch} is for {expected:?}, and slices are for {cut:?}")
        });
        report.check("O6", machine.map() == self.map(), || {
            format!("at {epoch} the map is {:?} and not {:?}", machine.map(), self.map())
        });
        for (shard, due) in due {
            let chain = self.chains.entry(shard).or_default();
            let prev = std::mem::replace(&mut chain.last_ordered, epoch);
            let slice = machine.slice(shard, epoch);
            let is_so = slice.is_some_and(|slice| slice.prev == prev && Due::of(slice) == due);
            report.check("O1", is_so, || {
                format!("{epoch} asks {due:?} of {shard} after {prev}, and its slice is {slice:?}")
            });
            self.owed.insert((epoch, shard), due.positions());
            chain.due.insert(epoch, due);
        }
        if let Some(Due::Split(child)) =
            self.chains.values().find_map(|chain| chain.due.get(&epoch))
        {
            // The child's chain begins at the barrier.
            let child = *child;
            let chain = self.chains.entry(child).or_default();
            (chain.last_ordered, chain.last_accepted) = (epoch, epoch);
            let mut participants = expected;
            participants.insert(child);
            self.oracle.ordered(epoch, participants, Vec::new());
            self.oracle.accepted(child, epoch);
        }
    }

    /// O7: a request is ordered once. Returns what each shard is to do.
    fn order(
        &mut self,
        epoch: Epoch,
        batch: SequencerBatch,
        events: &[SequencerEvent],
        report: &mut Report,
    ) -> BTreeMap<ShardId, Due> {
        let mut told: BTreeMap<RequestKey, (TxnId, ShardId)> = BTreeMap::new();
        for event in events {
            if let SequencerEvent::Ordered { request, txn, home } = event {
                told.insert(request.key(), (*txn, *home));
            }
        }
        let mut work: BTreeMap<ShardId, Vec<(u32, RequestKey)>> = BTreeMap::new();
        let mut txns = Vec::new();
        let mut position = 0;
        for Submission { request, call } in batch.txns {
            let key = request.key();
            let placed = told.get(&key).copied();
            let before = self.ordered.get(&key).copied();
            if let Some(before) = before {
                report.check("O7", placed.is_none_or(|(txn, _)| txn == before), || {
                    format!("{request} is ordered at {placed:?} and was at {before}")
                });
                continue;
            }
            let Some((txn, home)) = placed else { continue }; // Refused.
            let here = TxnId { epoch, position };
            let map = self.maps.values().next_back();
            let home_key = call.footprint.home_key();
            let owner = map.zip(home_key).and_then(|(map, key)| owner(map, key));
            report.check("O1", txn == here && owner == Some(home), || {
                format!("{request} is told {txn} at {home}, and stands at {here} at {owner:?}")
            });
            self.ordered.insert(key, here);
            for shard in map.map(|map| touched(map, &call.footprint)).unwrap_or_default() {
                work.entry(shard).or_default().push((position, key));
            }
            position += 1;
            self.note_call(key, &call);
            txns.push(Ordered { request: key, home, call });
        }
        self.oracle.ordered(epoch, work.keys().copied().collect(), txns);
        work.into_iter().map(|(shard, txns)| (shard, Due::Transactions(txns))).collect()
    }

    /// O6: maps partition the keys, and change by one cut a version.
    fn change(
        &mut self,
        epoch: Epoch,
        change: MapChange,
        events: &[SequencerEvent],
        report: &mut Report,
    ) -> BTreeMap<ShardId, Due> {
        let is_made = events.iter().any(|event| {
            matches!(event, SequencerEvent::Changed { outcome: Ok(_), child, version }
                if *child == change.child && *version == change.version)
        });
        if !is_made {
            return BTreeMap::new();
        }
        let MapChange { version, parent, at, child, epoch: rises_to, .. } = change;
        let mut map = self.map().cloned().unwrap_or_default();
        let is_next = version == map.version + 1;
        let place = map.shards.iter().position(|entry| entry.shard == parent);
        let halves = place.and_then(|place| {
            let entry = map.shards.get(place)?;
            Some((place, entry.range.split_at(&at)?, entry.epoch < rises_to))
        });
        let is_new = map.shards.iter().all(|entry| entry.shard != child);
        let Some((place, (low, high), true)) = halves.filter(|_| is_next && is_new) else {
            report.check("O6", false, || {
                format!("{parent} is cut at {at:?} for {child} in version {version} of {map:?}")
            });
            return BTreeMap::new();
        };
        map.version = version;
        map.shards[place].range = low;
        map.shards[place].epoch = rises_to;
        let entry = quorate_calvin::MapShard { shard: child, range: high, epoch: rises_to };
        map.shards.insert(place + 1, entry);
        let is_sound = KeyRange::partition(map.shards.iter().map(|entry| &entry.range));
        report.check("O6", is_sound, || format!("{epoch} makes the map {map:?}"));
        self.maps.insert(epoch, map);
        BTreeMap::from([(parent, Due::Split(child))])
    }

    /// A step of a shard.
    pub(crate) fn shard(&mut self, step: &ShardStep<'_>, report: &mut Report) {
        self.enter(step, report);
        for event in step.events {
            match event {
                Event::Accepted(epoch) => self.accept(step, *epoch, report),
                Event::Finished(txn) => self.pay(step.shard, txn.epoch, txn.position, report),
                Event::Forked { child, .. } => self.pay_barrier(step.shard, *child, report),
                Event::Decided { request, verdict, position } => {
                    self.decide(step, request, verdict, *position, report);
                }
                Event::Fenced { request, outcome: FenceOutcome::Decided(verdict), position } => {
                    self.remember(step, request, verdict, *position, report)
                }
                Event::Refused { .. } | Event::Fenced { .. } | Event::Granted { .. } => {}
            }
        }
        self.oracle.advance(report);
    }

    /// O1: the accepted slices are the order restricted to the shard.
    fn accept(&mut self, step: &ShardStep<'_>, epoch: Epoch, report: &mut Report) {
        let ShardStep { shard, index, .. } = *step;
        let chain = self.chains.entry(shard).or_default();
        let next = chain.due.first_key_value().map(|(epoch, _)| *epoch);
        report.check("O1", next == Some(epoch), || {
            format!("{shard} accepts {epoch} at {index}, and {next:?} is next")
        });
        let due = chain.due.remove(&epoch);
        self.oracle.accepted(shard, epoch);
        chain.last_accepted = chain.last_accepted.max(epoch);
        let ShardCommand::Slices(slices) = step.command else { return };
        let slice = slices.iter().find(|slice| slice.epoch == epoch);
        let is_so = slice.is_some_and(|slice| due.as_ref() == Some(&Due::of(slice)));
        report.check("O1", is_so, || {
            format!("{shard} accepts {slice:?} at {index}, and {epoch} asks {due:?} of it")
        });
    }

    fn pay(&mut self, shard: ShardId, epoch: Epoch, position: u32, report: &mut Report) {
        let owed = self.owed.get_mut(&(epoch, shard));
        let is_owed = owed.is_some_and(|owed| owed.remove(&position));
        report.check("O7", is_owed, || {
            format!("{shard} finishes {position} of {epoch}, which it does not owe")
        });
        if self.owed.get(&(epoch, shard)).is_some_and(BTreeSet::is_empty) {
            self.owed.remove(&(epoch, shard));
        }
    }

    fn pay_barrier(&mut self, shard: ShardId, child: ShardId, report: &mut Report) {
        let barrier = self
            .owed
            .iter()
            .find(|((_, at), owed)| *at == shard && owed.contains(&BARRIER))
            .map(|((epoch, _), _)| *epoch);
        match barrier {
            Some(epoch) => self.pay(shard, epoch, BARRIER, report),
            None => report.check("O1", false, || format!("{shard} forks {child} out of order")),
        }
    }

    /// O7: one execution per request, whose outcome never changes.
    fn decide(
        &mut self,
        step: &ShardStep<'_>,
        request: &RequestId,
        verdict: &Verdict,
        position: Epoch,
        report: &mut Report,
    ) {
        let ShardStep { shard, index, .. } = *step;
        let key = request.key();
        let is_retry = matches!(step.command, ShardCommand::Direct(direct)
            if direct.request.key() == key)
            && matches!(step.known, Some(FenceOutcome::Decided(_)));
        if is_retry {
            return self.remember(step, request, verdict, position, report);
        }
        self.oracle.decided(shard, key, verdict);
        // What writes nothing may well be executed again, and is not among them.
        let before = self.executed.get(&key);
        report.check("O7", before.is_none(), || {
            format!("{shard} executes {request} at {index}, which {before:?} has executed")
        });
        let Some(call) = self.calls.remove(&key) else { return };
        let entered = self.entered.remove(&key).filter(|(at, _)| *at == shard);
        let depends_on = match entered {
            Some((_, cursor)) if !self.ordered.contains_key(&key) => cursor,
            _ => position,
        };
        let executed = Executed { shard, verdict: verdict_hash(verdict), call, depends_on };
        self.executed.insert(key, executed);
        self.logged
            .entry(call)
            .and_modify(|logged| logged.is_ambiguous = true)
            .or_insert(Logged { position, is_ambiguous: false });
    }

    /// O7: a shard answers once more what was decided, to a retry or to a fence.
    fn remember(
        &mut self,
        step: &ShardStep<'_>,
        request: &RequestId,
        verdict: &Verdict,
        position: Epoch,
        report: &mut Report,
    ) {
        let ShardStep { shard, index, .. } = *step;
        let Some(before) = self.executed.get(&request.key()).copied() else { return };
        report.check("O7", before.verdict == verdict_hash(verdict), || {
            format!("{shard} remembers {verdict:?} of {request} at {index}, which was another")
        });
        if before.shard != shard {
            self.inherited(step, request, before, position, report);
        }
    }

    /// A child answers what its parent has decided before the barrier, by a cursor that
    /// begins there. The parent's may have been further: what waited for its locks was
    /// decided behind slices of whose writes it sees nothing. Nobody sees which of them an
    /// answer comes from, so the smaller cursor counts from then on.
    fn inherited(
        &mut self,
        step: &ShardStep<'_>,
        request: &RequestId,
        executed: Executed,
        position: Epoch,
        report: &mut Report,
    ) {
        let Executed { shard: parent, depends_on, call, .. } = executed;
        report.check("O5", depends_on <= position, || {
            format!(
                "{} answers {request} at {position}, which {parent} had after {depends_on}",
                step.shard
            )
        });
        if let Some(logged) = self.logged.get_mut(&call) {
            logged.position = logged.position.min(position);
        }
    }

    fn note_call(&mut self, request: RequestKey, call: &Call) {
        if !call.footprint.is_read_only() {
            self.calls.insert(request, call_hash(&call.args));
        }
    }

    /// O5: an answer leaves only when everything up to its position is in the
    /// logs of all that it concerns. A client has got one to a call with these
    /// arguments, which writes.
    pub(crate) fn answered(&self, args: &[u8], report: &mut Report) {
        let hash = call_hash(args);
        let position = match self.logged.get(&hash) {
            Some(logged) if logged.is_ambiguous => return,
            Some(logged) => Some(logged.position),
            None => self.ahead_of_log(hash),
        };
        report.check("O5", position.is_some(), || "an answer came of what no log has".to_owned());
        let Some(position) = position else { return };
        let late = self.first_due(position);
        report.check("O5", late.is_none(), || {
            format!("an answer of {position} came while {late:?} was not logged")
        });
    }

    /// Where a call stands that is ordered and not yet executed: its home may
    /// foresee the outcome.
    fn ahead_of_log(&self, hash: u64) -> Option<Epoch> {
        let undecided = self.calls.iter().filter(|(_, call)| **call == hash);
        undecided.filter_map(|(request, _)| self.ordered.get(request)).map(|txn| txn.epoch).min()
    }

    /// A slice up to an epoch that its shard has not accepted.
    fn first_due(&self, upto: Epoch) -> Option<(ShardId, Epoch)> {
        self.chains.iter().find_map(|(shard, chain)| {
            let (epoch, _) = chain.due.first_key_value()?;
            (*epoch <= upto).then_some((*shard, *epoch))
        })
    }

    /// O6: a direct command enters where the map at the cursor puts its keys.
    fn enter(&mut self, step: &ShardStep<'_>, report: &mut Report) {
        let ShardCommand::Direct(direct) = step.command else { return };
        let is_refused = step.events.iter().any(
            |event| matches!(event, Event::Refused { request, .. } if *request == direct.request),
        );
        if is_refused || step.known.is_some() {
            return;
        }
        self.note_call(direct.request.key(), &direct.call);
        if self.calls.contains_key(&direct.request.key()) {
            self.entered.insert(direct.request.key(), (step.shard, step.cursor));
        }
        self.oracle.entered(step.shard, step.cursor, direct.request.key(), &direct.call);
        let Some(map) = self.map_at(step.cursor) else { return };
        let touched = touched(map, &direct.call.footprint);
        let is_owner = touched.iter().all(|shard| *shard == step.shard);
        report.check("O6", is_owner, || {
            format!(
                "{} takes {} at {} with cursor {}, whose keys are of {touched:?}",
                step.shard, direct.request, step.index, step.cursor
            )
        });
    }

    /// O4: watermarks say only what is so.
    pub(crate) fn watermarks(&self, node: NodeId, marks: Watermarks, report: &mut Report) {
        let Watermarks { logged, done, floors } = marks;
        let late = self.first_due(logged);
        report.check("O4", late.is_none(), || {
            format!("{node} says that {logged} is logged, and {late:?} is not")
        });
        let done = done.max(floors.done);
        let owed = self.owed.first_key_value().filter(|((epoch, _), _)| *epoch <= done);
        report.check("O4", owed.is_none(), || {
            format!("{node} says that {done} is done, and {owed:?} is not")
        });
    }
}
