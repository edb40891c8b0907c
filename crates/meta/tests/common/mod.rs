//! A registry with its rows kept as a store would keep them, and the commands
//! that the tests give it.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

pub(crate) mod drivers;

use std::collections::BTreeMap;

use quorate_meta::{
    BeginMove, BeginSplit, Bootstrap, Command, CutRefusal, Label, NodeSpec, NodeState, Operator,
    Refusal, Registry, ReplicaChange, Reply, Split, SplitPhase, Task, ZONE_LABEL,
};
use quorate_types::{
    Blob, ClusterId, DiskId, Epoch, GroupId, MigrationId, NodeId, Seq, ShardEpoch, ShardId,
};

pub(crate) const SPLIT: MigrationId = MigrationId(500);
pub(crate) const MOVE: MigrationId = MigrationId(600);

/// A registry beside the rows that its mutations left in a store.
#[derive(Default)]
pub(crate) struct Host {
    pub(crate) registry: Registry,
    pub(crate) rows: BTreeMap<Blob, Blob>,
    pub(crate) index: u64,
}

impl Host {
    /// Three nodes, two shards cut at "m", everything replicated three times.
    pub(crate) fn bootstrapped() -> Self {
        let mut host = Self::default();
        host.propose(Command::Bootstrap(bootstrap(3, &["m"])));
        host
    }

    /// The same with `n4` as a fourth node that holds nothing.
    pub(crate) fn with_spare() -> Self {
        let mut host = Self::bootstrapped();
        host.propose(Command::Join(node(4)));
        host
    }

    pub(crate) fn propose(&mut self, command: Command) -> Reply {
        self.index += 1;
        self.deliver(&command.encode().unwrap())
    }

    /// Applies an entry at the present index and commits what comes of it.
    pub(crate) fn deliver(&mut self, entry: &[u8]) -> Reply {
        let applied = self.registry.apply(self.index, entry).unwrap();
        for (key, row) in applied.mutations {
            match row {
                Some(row) => self.rows.insert(key, row),
                None => self.rows.remove(&key),
            };
        }
        applied.reply
    }

    pub(crate) fn refused(&mut self, command: Command) -> Refusal {
        let before = self.registry.view().version();
        match self.propose(command) {
            Reply::Refused(refusal) => {
                assert_eq!(self.registry.view().version(), before);
                refusal
            }
            reply => panic!("expected a refusal, got {reply:?}"),
        }
    }

    pub(crate) fn operator(&mut self, command: Command) -> Operator {
        match self.propose(command) {
            Reply::Operator(operator) => operator,
            reply => panic!("expected an operator, got {reply:?}"),
        }
    }

    /// What a restart of this replica would load.
    pub(crate) fn reloaded(&self) -> Registry {
        Registry::load(self.rows.clone()).unwrap()
    }

    pub(crate) fn generation(&self, group: GroupId) -> u64 {
        self.registry.view().group(group).map_or(0, |group| group.generation)
    }

    pub(crate) fn begin_split(&self, shard: u64, at: &str) -> Command {
        let shard = ShardId(shard);
        let record = self.registry.view().shard(shard);
        Command::BeginSplit(BeginSplit {
            operator: SPLIT,
            shard,
            at: at.into(),
            epoch: record.map_or(ShardEpoch(1), |record| record.epoch),
            generation: record.map_or(0, |record| self.generation(record.group)),
        })
    }

    pub(crate) fn begin_move(&self, group: GroupId, change: ReplicaChange) -> Command {
        let generation = self.generation(group);
        Command::BeginMove(BeginMove { migration: MOVE, group, change, generation })
    }

    /// A split of the first shard at "f" that the sequencer has ordered.
    pub(crate) fn ordered_split(&mut self) -> Split {
        self.operator(self.begin_split(1, "f"));
        self.operator(advance(SplitPhase::Planned, SplitPhase::Ordering));
        split_of(self.operator(advance(SplitPhase::Ordering, ORDERED)))
    }
}

pub(crate) const ORDERED: SplitPhase = SplitPhase::Ordered { epoch: Epoch(9) };

pub(crate) const REFUSED: SplitPhase = SplitPhase::Refused { reason: CutRefusal::KeyOutside };

pub(crate) fn advance(from: SplitPhase, to: SplitPhase) -> Command {
    Command::AdvanceSplit { operator: SPLIT, from, to }
}

pub(crate) const FINISH: Command = Command::FinishSplit { operator: SPLIT };

pub(crate) fn install(parent: u64, child: u64) -> Command {
    Command::InstallSplit {
        operator: SPLIT,
        parent_epoch: ShardEpoch(parent),
        child_epoch: ShardEpoch(child),
    }
}

pub(crate) fn abort(expected: SplitPhase) -> Command {
    Command::AbortSplit { operator: SPLIT, expected, reason: CutRefusal::KeyOutside }
}

pub(crate) fn split_of(operator: Operator) -> Split {
    match operator.task {
        Task::Split(split) => split,
        Task::Move(_) => panic!("expected a split"),
    }
}

pub(crate) fn replace(from: u64, to: u64) -> ReplicaChange {
    ReplicaChange::Replace { from: NodeId(from), to: NodeId(to) }
}

pub(crate) fn set_state(node: u64, state: NodeState) -> Command {
    Command::SetNodeState { node: NodeId(node), state }
}

pub(crate) fn node(id: u64) -> NodeSpec {
    NodeSpec {
        node: NodeId(id),
        disk: disk(id),
        address: format!("n{id}:7000"),
        labels: Seq::new(),
        supports: 1,
    }
}

pub(crate) fn disk(id: u64) -> DiskId {
    DiskId(u128::from(id) << 64)
}

pub(crate) fn in_zone(id: u64, zone: &str) -> NodeSpec {
    let labels = vec![Label { name: ZONE_LABEL.into(), value: zone.into() }];
    NodeSpec { labels: labels.into(), ..node(id) }
}

pub(crate) fn bootstrap(nodes: u64, split_keys: &[&str]) -> Bootstrap {
    let voters: Seq<NodeId> = (1..=nodes.min(3)).map(NodeId).collect();
    Bootstrap {
        cluster: ClusterId(77),
        nodes: (1..=nodes).map(node).collect(),
        metadata_voters: voters.clone(),
        sequencer_voters: voters,
        replicas_per_shard: u32::try_from(nodes.min(3)).unwrap(),
        split_keys: split_keys.iter().map(|key| Blob::from(*key)).collect(),
    }
}
