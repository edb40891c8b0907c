//! What must hold whatever happens: the invariants of the guarantees,
//! checked from outside against the logs.

use std::collections::{BTreeMap, BTreeSet};

use quorate_calvin::sequencer::{SequencerEvent, SequencerMachine, Watermarks};
use quorate_calvin::shard::Event;
use quorate_calvin::{Footprint, MapChange, Misfit, SliceBody};
use quorate_types::{Epoch, ShardId, TxnId};

use super::{sequencer, shard};
use crate::support::store::Rows;

/// What the first replica to apply each entry brought about, and what every
/// other must agree with.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    digests: BTreeMap<(ShardId, u64), u64>,
    sequencer_digests: BTreeMap<u64, u64>,
    forks: BTreeMap<ShardId, u64>,
    seen: BTreeMap<ShardId, u64>,
    sequencer_seen: u64,
    /// The order, restricted to each shard.
    ordered: BTreeMap<ShardId, Vec<Epoch>>,
    accepted: BTreeMap<ShardId, Vec<Epoch>>,
    /// Work that a shard owes an epoch.
    owed: BTreeMap<(Epoch, ShardId), BTreeSet<u32>>,
    pub footprints: BTreeMap<TxnId, Footprint>,
    decided: BTreeSet<(ShardId, TxnId)>,
    /// The version of the map that the last change in force was said to make.
    map_version: u64,
}

/// Position of a split in its epoch, where it is alone.
const BARRIER: u32 = u32::MAX;

impl Oracle {
    /// Invariants (i) and (ii) at a shard.
    pub fn check_shard(&mut self, shard: ShardId, applied: &shard::Applied) {
        let digest = *self.digests.entry((shard, applied.index)).or_insert(applied.digest);
        assert_eq!(
            digest, applied.digest,
            "invariant ii: replicas of {shard} differ at index {}",
            applied.index
        );
        for (index, events) in &applied.events {
            let seen = self.seen.entry(shard).or_default();
            if index > seen {
                *seen = *index;
                events.iter().for_each(|event| self.note(shard, event));
            }
        }
    }

    fn note(&mut self, shard: ShardId, event: &Event) {
        match event {
            Event::Accepted(epoch) => {
                let accepted = self.accepted.entry(shard).or_default();
                let due = self.ordered.get(&shard).and_then(|order| order.get(accepted.len()));
                assert_eq!(due, Some(epoch), "invariant i: {shard} accepts in the global order");
                accepted.push(*epoch);
            }
            Event::Finished(txn) => {
                assert!(self.decided.insert((shard, *txn)), "{txn} finished twice at {shard}");
                self.pay(txn.epoch, shard, txn.position);
            }
            Event::Forked { .. } => {
                let barrier = self
                    .owed
                    .iter()
                    .find(|((_, at), owed)| *at == shard && owed.contains(&BARRIER))
                    .map(|((epoch, _), _)| *epoch);
                self.pay(barrier.expect("a fork has a barrier"), shard, BARRIER);
            }
            Event::Decided { .. }
            | Event::Refused { .. }
            | Event::Fenced { .. }
            | Event::Granted { .. } => {}
        }
    }

    fn pay(&mut self, epoch: Epoch, shard: ShardId, position: u32) {
        let Some(owed) = self.owed.get_mut(&(epoch, shard)) else { return };
        owed.remove(&position);
        if owed.is_empty() {
            self.owed.remove(&(epoch, shard));
        }
    }

    /// Both replicas of the parent give the child the same rows.
    pub fn check_fork(&mut self, child: ShardId, rows: &Rows) {
        let digest = *self.forks.entry(child).or_insert_with(|| rows.digest());
        assert_eq!(digest, rows.digest(), "invariant ii: replicas fork {child} differently");
    }

    /// Invariant (ii) at the sequencer; takes down the order.
    pub fn check_sequencer(&mut self, applied: &sequencer::Applied, machine: &SequencerMachine) {
        let digest = *self.sequencer_digests.entry(applied.index).or_insert(applied.digest);
        assert_eq!(digest, applied.digest, "invariant ii: replicas of the sequencer differ");
        for (index, events) in &applied.events {
            if *index <= self.sequencer_seen {
                continue;
            }
            self.sequencer_seen = *index;
            for event in events {
                if let SequencerEvent::Sliced { epoch, shards } = event {
                    shards.iter().for_each(|shard| self.take_down(*epoch, *shard, machine));
                }
            }
            self.check_change(*index, events, machine);
        }
    }

    /// Whoever asked for a map change is told what became of it.
    fn check_change(&mut self, index: u64, events: &[SequencerEvent], machine: &SequencerMachine) {
        let told = events.iter().find_map(|event| match event {
            SequencerEvent::Changed { version, child, outcome } => {
                outcome.ok().map(|epoch| (epoch, *version, *child))
            }
            _ => None,
        });
        let cut = barrier(events, machine);
        let is_so = cut.map(|change| (Epoch(index), change.version, change.child));
        assert_eq!(told, is_so, "what is told of a change is what the log did");
        if let Some(change) = cut {
            assert!(change.version > self.map_version, "one change per version");
            self.map_version = change.version;
            let shown = machine.map().unwrap().halves(change);
            assert_eq!(shown, Err(Misfit::InForce), "the map shows {change:?}");
        }
    }

    fn take_down(&mut self, epoch: Epoch, shard: ShardId, machine: &SequencerMachine) {
        self.ordered.entry(shard).or_default().push(epoch);
        let slice = machine.slice(shard, epoch).expect("a fresh slice is kept");
        let owed = match &slice.body {
            SliceBody::Split(_) => BTreeSet::from([BARRIER]),
            SliceBody::Transactions(txns) => {
                for txn in txns {
                    let id = TxnId { epoch, position: txn.position };
                    self.footprints.insert(id, txn.call.footprint.clone());
                }
                txns.iter().map(|txn| txn.position).collect()
            }
        };
        self.owed.insert((epoch, shard), owed);
    }

    /// Invariant (iv): L and C assert only what is so.
    pub fn check_marks(&self, marks: &Watermarks) {
        for (shard, order) in &self.ordered {
            let accepted = self.accepted.get(shard).map_or(0, Vec::len);
            let first_unlogged = order.get(accepted);
            assert!(
                first_unlogged.is_none_or(|epoch| *epoch > marks.logged),
                "invariant iv: L = {} but {shard} has not logged {first_unlogged:?}",
                marks.logged
            );
        }
        let first_owed = self.owed.keys().next();
        assert!(
            first_owed.is_none_or(|(epoch, _)| *epoch > marks.done.max(marks.floors.done)),
            "invariant iv: C = {} but {first_owed:?} is not done",
            marks.done
        );
    }
}

/// The map change that an entry with these events brought into force.
fn barrier<'a>(events: &[SequencerEvent], machine: &'a SequencerMachine) -> Option<&'a MapChange> {
    let slice = events.iter().find_map(|event| match event {
        SequencerEvent::Sliced { epoch, shards } => machine.slice(*shards.first()?, *epoch),
        _ => None,
    })?;
    match &slice.body {
        SliceBody::Split(change) => Some(change),
        SliceBody::Transactions(_) => None,
    }
}
