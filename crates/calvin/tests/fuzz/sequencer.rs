//! The sequencer's machine under any log at all.

use std::collections::BTreeMap;

use quorate_calvin::sequencer::{SequencerEvent, SequencerMachine};
use quorate_calvin::{
    MapChange, Member, SequencerBatch, SequencerCommand, ShardMap, SliceBody, Submission, WriteSet,
};
use quorate_testkit::fuzz;
use quorate_testkit::fuzz::{Choices, Corpus};
use quorate_types::{Epoch, NodeId, ReplicaId, ShardEpoch, ShardId};

use super::story::{call, key, range, request};
use crate::support::map_cut_at;
use crate::support::store::MemStore;

struct Replica {
    machine: SequencerMachine,
    store: MemStore,
}

impl Replica {
    fn new() -> Self {
        let store = MemStore::default();
        Self { machine: SequencerMachine::load(&store, 0).unwrap(), store }
    }

    fn apply(&mut self, index: u64, entry: Option<&[u8]>) -> Result<Vec<SequencerEvent>, String> {
        let mut writes = WriteSet::default();
        let events = self.machine.apply(&mut writes, index, entry);
        let events = events.map_err(|halt| halt.to_string())?;
        self.machine.finish(&mut writes);
        self.store.commit_at(index, writes);
        Ok(events)
    }

    fn summary(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let machine = &self.machine;
        let slices: Vec<_> = machine.slices_since(Epoch(0)).collect();
        (
            (machine.applied(), machine.map().cloned(), machine.floors()),
            (machine.remembered_count(), machine.slice_count(), slices),
        )
    }

    fn reopen(&mut self) {
        let before = self.summary();
        let applied = self.machine.applied().0;
        self.machine = SequencerMachine::load(&self.store, applied).unwrap();
        assert_eq!(self.summary(), before, "a restart changes nothing");
    }
}

fn map(choices: &mut Choices<'_>) -> ShardMap {
    let mut map = map_cut_at(&["b", "m"]);
    match choices.below(8) {
        0 => map.version = choices.edge(),
        1 => map.shards[1].shard = ShardId(1),
        2 => map.shards[1].range = range(choices),
        3 => map.shards.0.truncate(choices.below(3)),
        _ => {}
    }
    map
}

fn change(choices: &mut Choices<'_>, machine: &SequencerMachine) -> MapChange {
    let version = machine.map().map_or(0, |map| map.version);
    let members = if choices.below(8) == 0 { choices.below(40) } else { 3 };
    MapChange {
        version: if choices.below(8) == 0 { choices.edge() } else { version.saturating_add(1) },
        parent: ShardId(1 + choices.below(5) as u64),
        at: key(choices),
        child: ShardId(1 + choices.below(200) as u64),
        members: vec![Member { replica: ReplicaId(1), node: NodeId(1) }; members].into(),
        epoch: if choices.below(8) == 0 {
            ShardEpoch(choices.edge())
        } else {
            ShardEpoch(version.saturating_add(5))
        },
    }
}

fn command(choices: &mut Choices<'_>, machine: &SequencerMachine) -> SequencerCommand {
    let time_millis = match choices.byte() {
        255 => choices.edge(),
        byte => machine.applied().0 * 500 + u64::from(byte),
    };
    match choices.below(10) {
        0 => {
            let retention_millis = if choices.flag() { 3_000 } else { choices.edge() };
            SequencerCommand::Init { map: map(choices), retention_millis }
        }
        1 | 2 => SequencerCommand::Change { change: change(choices, machine), time_millis },
        _ => {
            let done = match choices.byte() {
                250.. => Epoch(choices.edge()),
                back => Epoch(machine.applied().0.saturating_sub(u64::from(back % 16))),
            };
            let submission = |choices: &mut Choices<'_>| Submission {
                request: request(choices),
                call: call(choices),
            };
            let txns = (0..choices.below(5)).map(|_| submission(choices)).collect();
            let seed = choices.number();
            SequencerCommand::Batch(SequencerBatch { time_millis, seed, done, txns })
        }
    }
}

/// The chain of every shard, as the slices name it.
#[derive(Default)]
struct Chains {
    last: BTreeMap<ShardId, Epoch>,
}

impl Chains {
    fn follow(&mut self, machine: &SequencerMachine, events: &[SequencerEvent]) {
        for event in events {
            let SequencerEvent::Sliced { epoch, shards } = event else { continue };
            assert_eq!(*epoch, machine.applied(), "an epoch is a log index");
            for shard in shards {
                let slice = machine.slice(*shard, *epoch).unwrap();
                let before = self.last.insert(*shard, *epoch).unwrap_or_default();
                assert_eq!(slice.prev, before, "a slice names its shard's previous epoch");
                match &slice.body {
                    SliceBody::Split(change) => {
                        assert_eq!(shards.len(), 1, "a split is alone in its epoch");
                        self.last.insert(change.child, *epoch);
                    }
                    SliceBody::Transactions(txns) => {
                        assert!(txns.windows(2).all(|two| two[0].position < two[1].position));
                        for txn in txns {
                            let is_there = |id| txn.participants.iter().any(|it| it.shard == id);
                            assert!(is_there(*shard) && is_there(txn.home));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn any_log_of_the_sequencer_leaves_replicas_alike() {
    fuzz!(Corpus::random(3_000), |input| {
        let mut choices = Choices::new(input);
        let (mut steady, mut restarted) = (Replica::new(), Replica::new());
        let mut chains = Chains::default();
        let mut index = 0;
        while !choices.is_spent() {
            index += 1 + choices.below(3) as u64;
            let mut entry = command(&mut choices, &steady.machine).to_bytes().to_vec();
            if choices.below(32) == 0 {
                let at = choices.below(entry.len());
                entry[at] = choices.byte();
            }
            let entry = (choices.below(16) > 0).then_some(&entry[..]);
            let events = steady.apply(index, entry);
            assert_eq!(restarted.apply(index, entry), events, "replicas agree");
            let Ok(events) = events else { return };
            assert_eq!(steady.store.rows(), restarted.store.rows(), "rows agree");
            chains.follow(&steady.machine, &events);
            assert!(steady.machine.map().is_none_or(ShardMap::is_partition));
            assert!(steady.machine.floors().done < steady.machine.applied());
            if choices.below(3) == 0 {
                restarted.reopen();
            }
        }
    });
}
