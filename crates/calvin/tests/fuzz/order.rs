//! One sequencer and its shards: what clients ask for, whatever it is, is
//! accepted everywhere in the one order and never waits for ever.

use std::collections::{BTreeMap, BTreeSet};

use quorate_calvin::sequencer::{SequencerEvent, SequencerMachine};
use quorate_calvin::shard::Event;
use quorate_calvin::{
    Direct, MapChange, Member, SequencerBatch, SequencerCommand, ShardCommand, ShardContribution,
    Slice, SliceBody, Submission, TxnInputs, WriteSet,
};
use quorate_testkit::fuzz;
use quorate_testkit::fuzz::{Choices, Corpus};
use quorate_types::{Epoch, NodeId, ReplicaId, ShardEpoch, ShardId, TxnId};

use super::story::{Replica, call, key, request};
use crate::support::map_cut_at;
use crate::support::store::MemStore;

struct Shard {
    replica: Replica,
    index: u64,
    accepted: Vec<Epoch>,
    finished: BTreeSet<TxnId>,
}

impl Shard {
    fn new(replica: Replica) -> Self {
        Self { replica, index: 0, accepted: Vec::new(), finished: BTreeSet::new() }
    }
}

struct World {
    sequencer: SequencerMachine,
    store: MemStore,
    index: u64,
    shards: BTreeMap<ShardId, Shard>,
    /// The order, restricted to each shard.
    chains: BTreeMap<ShardId, Vec<Epoch>>,
    owed: BTreeSet<(ShardId, TxnId)>,
}

impl World {
    fn new() -> Self {
        let map = map_cut_at(&["b", "m"]);
        let shards = map.shards.iter().map(|shard| {
            (shard.shard, Shard::new(Replica::seeded(shard.shard, shard.range.clone())))
        });
        let shards = shards.collect();
        let store = MemStore::default();
        let sequencer = SequencerMachine::load(&store, 0).unwrap();
        let (chains, owed) = (BTreeMap::new(), BTreeSet::new());
        let mut world = Self { sequencer, store, index: 0, shards, chains, owed };
        world.order(&SequencerCommand::Init { map, retention_millis: 2_000 });
        world
    }

    fn order(&mut self, command: &SequencerCommand) {
        self.index += 1;
        let mut writes = WriteSet::default();
        let entry = command.to_bytes();
        let events = self.sequencer.apply(&mut writes, self.index, Some(&entry)).unwrap();
        self.sequencer.finish(&mut writes);
        self.store.commit_at(self.index, writes);
        for event in events {
            let SequencerEvent::Sliced { epoch, shards } = event else { continue };
            for shard in shards {
                self.chains.entry(shard).or_default().push(epoch);
                let slice = self.sequencer.slice(shard, epoch).unwrap();
                if let SliceBody::Transactions(txns) = &slice.body {
                    let ids = txns.iter().map(|txn| TxnId { epoch, position: txn.position });
                    self.owed.extend(ids.map(|txn| (shard, txn)));
                }
            }
        }
    }

    /// Everything at or below is done everywhere, as reports would tell.
    fn done(&self) -> Epoch {
        let open = self.chains.iter().filter_map(|(shard, chain)| {
            let done = self.shards.get(shard).map_or(Epoch(0), |it| it.replica.machine.done());
            chain.iter().find(|epoch| **epoch > done)
        });
        let first = open.min().map(|epoch| Epoch(epoch.0 - 1));
        first.unwrap_or(self.sequencer.applied())
    }

    fn apply(&mut self, id: ShardId, command: &ShardCommand) {
        let Some(shard) = self.shards.get_mut(&id) else { return };
        shard.index += 1;
        let entry = command.to_bytes().to_vec();
        let events = shard.replica.apply(shard.index, &[entry]).unwrap();
        for event in events {
            match event {
                Event::Accepted(epoch) => shard.accepted.push(epoch),
                Event::Finished(txn) => assert!(shard.finished.insert(txn), "finished once"),
                _ => {}
            }
        }
        let chain = self.chains.get(&id).map(Vec::as_slice).unwrap_or_default();
        assert!(chain.starts_with(&shard.accepted), "(i): {chain:?} as {:?}", shard.accepted);
        for forked in shard.replica.store.take_forked() {
            let store = MemStore::new(forked.rows, 0, 0);
            let child = Shard::new(Replica::over(forked.fork.child, store));
            assert!(self.shards.insert(forked.fork.child, child).is_none(), "born once");
        }
    }

    fn slices(&self, shard: ShardId, after: Epoch) -> Vec<Slice> {
        self.sequencer.slices_after(shard, after, 16).cloned().collect()
    }

    /// The inputs of a transaction that waits, once everyone has read.
    fn inputs(&self, shard: ShardId, nth: usize) -> Option<TxnInputs> {
        let machine = &self.shards[&shard].replica.machine;
        let work = machine.awaiting_inputs().nth(nth)?;
        let readers = work.txn.participants.iter().filter(|it| it.reads);
        let contributions = readers.map(|reader| {
            let machine = &self.shards.get(&reader.shard)?.replica.machine;
            let contribution = machine.contribution(work.id())?.clone();
            Some(ShardContribution { shard: reader.shard, contribution })
        });
        let contributions = contributions.collect::<Option<Vec<_>>>()?;
        Some(TxnInputs { txn: work.id(), contributions: contributions.into() })
    }

    fn supply(&mut self, shard: ShardId, nth: usize) -> bool {
        let Some(inputs) = self.inputs(shard, nth) else { return false };
        self.apply(shard, &ShardCommand::Inputs(inputs));
        true
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        let ids: Vec<ShardId> = self.shards.keys().copied().collect();
        let id = *choices.pick(&ids).unwrap();
        match choices.below(12) {
            0..3 => {
                let submission = |choices: &mut Choices<'_>| Submission {
                    request: request(choices),
                    call: call(choices),
                };
                let txns = (0..choices.below(4)).map(|_| submission(choices)).collect();
                let (time_millis, done) = (self.index * 300, self.done());
                let batch = SequencerBatch { time_millis, seed: choices.number(), done, txns };
                self.order(&SequencerCommand::Batch(batch));
            }
            3 => {
                let version = self.sequencer.map().map_or(0, |map| map.version) + 1;
                let change = MapChange {
                    version,
                    parent: id,
                    at: key(choices),
                    child: ShardId(100 + version),
                    members: vec![Member { replica: ReplicaId(1), node: NodeId(1) }].into(),
                    epoch: ShardEpoch(version + 1),
                };
                self.order(&SequencerCommand::Change { change, time_millis: 0 });
            }
            4..7 => {
                // Late, early, twice, with gaps.
                let back = choices.below(4) as u64;
                let cursor = self.shards[&id].replica.machine.cursor();
                let mut slices = self.slices(id, Epoch(cursor.0.saturating_sub(back)));
                if choices.below(4) == 0 && !slices.is_empty() {
                    slices.remove(choices.below(slices.len()));
                }
                slices.truncate(1 + choices.below(3));
                self.apply(id, &ShardCommand::Slices(slices.into()));
            }
            7 | 8 => {
                let nth = choices.below(3);
                self.supply(id, nth);
            }
            9 => self.shards.get_mut(&id).unwrap().replica.reopen(),
            _ => {
                let direct = Direct {
                    request: request(choices),
                    epoch: self.shards[&id].replica.machine.epoch(),
                    time_millis: self.index * 300,
                    seed: choices.number(),
                    call: call(choices),
                };
                self.apply(id, &ShardCommand::Direct(direct));
            }
        }
    }

    /// Brings everything that was ordered to its end.
    fn drain(&mut self) {
        loop {
            let mut has_moved = false;
            let ids: Vec<ShardId> = self.shards.keys().copied().collect();
            for id in ids {
                let slices = self.slices(id, self.shards[&id].replica.machine.cursor());
                if !slices.is_empty() {
                    self.apply(id, &ShardCommand::Slices(slices.into()));
                    has_moved = true;
                }
                let waiting = self.shards[&id].replica.machine.awaiting_inputs().count();
                has_moved |= (0..waiting).any(|nth| self.supply(id, nth));
            }
            if !has_moved {
                return;
            }
        }
    }
}

#[test]
fn whatever_is_asked_for_is_ordered_once_and_ends_everywhere() {
    fuzz!(Corpus::random(1_500), |input| {
        let mut choices = Choices::new(input);
        let mut world = World::new();
        while !choices.is_spent() {
            world.step(&mut choices);
        }
        world.drain();
        for (id, shard) in &world.shards {
            let chain = world.chains.get(id).map(Vec::as_slice).unwrap_or_default();
            assert_eq!(shard.accepted, chain, "everything is accepted at {id}");
            assert_eq!(shard.replica.machine.pending_count(), 0, "(iii): {id} waits for ever");
        }
        for (id, txn) in &world.owed {
            assert!(world.shards[id].finished.contains(txn), "{txn} has ended at {id}");
        }
        let map = world.sequencer.map().unwrap();
        for entry in &map.shards {
            let machine = &world.shards[&entry.shard].replica.machine;
            assert_eq!(*machine.range(), entry.range, "(vi): one owner, the map's");
        }
        assert_eq!(map.shards.len(), world.shards.len());
    });
}
