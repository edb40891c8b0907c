//! A cluster, a policy and a past, out of decisions.

use std::time::Duration;

use quorate_placement::{
    Balancing, ClusterView, Group, History, InFlight, Members, NodeState, NodeView, Operator,
    OperatorId, Policy, ShardView, SystemGroupView,
};
use quorate_testkit::fuzz::Choices;
use quorate_types::{Blob, KeyRange, NodeId, ShardEpoch, ShardId};

/// Ids are drawn from here; groups may name nodes that the view does not have.
const NODES: usize = 10;
const SHARDS: usize = 10;

/// What a plan is made from.
#[derive(Debug)]
pub(crate) struct Situation {
    pub(crate) view: ClusterView,
    pub(crate) policy: Policy,
    pub(crate) in_flight: Vec<InFlight>,
    pub(crate) history: History,
    /// Whether an id may occur twice, as no registry would have it.
    pub(crate) is_nonsense: bool,
}

impl Situation {
    pub(crate) fn draw(choices: &mut Choices<'_>) -> Self {
        let is_nonsense = choices.byte().is_multiple_of(8);
        let mut draw = Draw { choices, is_nonsense };
        let view = draw.view();
        let policy = draw.policy();
        let in_flight = draw.in_flight();
        let history = draw.history();
        Self { view, policy, in_flight, history, is_nonsense }
    }
}

struct Draw<'a, 'b> {
    choices: &'a mut Choices<'b>,
    is_nonsense: bool,
}

impl Draw<'_, '_> {
    /// Up to `count` different numbers from one on; not different in nonsense.
    fn ids(&mut self, count: usize, below: usize) -> Vec<u64> {
        let mut ids: Vec<u64> = Vec::new();
        for _ in 0..count {
            let id = 1 + self.choices.below(below) as u64;
            if self.is_nonsense || !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids
    }

    fn node(&mut self) -> NodeId {
        NodeId(1 + self.choices.below(NODES) as u64)
    }

    fn duration(&mut self) -> Duration {
        match self.choices.below(4) {
            0 => Duration::ZERO,
            1 => Duration::from_millis(self.choices.edge()),
            _ => Duration::from_secs(u64::from(self.choices.byte()) * 10),
        }
    }

    /// Mostly within reason.
    fn amount(&mut self, usual: u64) -> u64 {
        match self.choices.below(6) {
            0 => self.choices.edge(),
            1 => 0,
            _ => u64::from(self.choices.byte()) * usual / 128,
        }
    }

    fn view(&mut self) -> ClusterView {
        let nodes = 1 + self.choices.below(8);
        let nodes = self.ids(nodes, NODES).into_iter().map(|id| self.node_view(id)).collect();
        let shards = self.choices.below(9);
        let shards = self.ids(shards, SHARDS).into_iter().map(|id| self.shard(id)).collect();
        ClusterView {
            nodes,
            metadata: self.system_group(),
            sequencer: self.system_group(),
            shards,
            shard_replicas: self.replicas(),
        }
    }

    fn replicas(&mut self) -> u32 {
        let usual = [3, 3, 3, 5, 1, 2, 0];
        self.choices.pick(&usual).copied().unwrap_or_else(|| self.choices.edge() as u32)
    }

    fn node_view(&mut self, id: u64) -> NodeView {
        let state = match self.choices.below(8) {
            0 => NodeState::Draining,
            1 => NodeState::Suspect { duration: self.duration() },
            2 => NodeState::Dead { duration: self.duration() },
            _ => NodeState::Active,
        };
        NodeView {
            id: NodeId(id),
            zone: (*self.choices.pick(&["a", "b", "c", ""]).unwrap()).to_owned(),
            state,
            weight: self.amount(4) as u32,
            disk_used_bytes: self.amount(1 << 30),
            disk_total_bytes: self.amount(1 << 31),
        }
    }

    fn members(&mut self) -> Members {
        let count = self.choices.below(6);
        let mut voters = self.ids(count, NODES);
        let learners = if self.is_nonsense {
            self.ids(2, NODES)
        } else {
            voters.split_off(voters.len() - usize::from(voters.len() > 3))
        };
        let voters: Vec<NodeId> = voters.into_iter().map(NodeId).collect();
        let leader = match self.choices.below(6) {
            0 => None,
            1 if self.is_nonsense => Some(self.node()),
            _ => self.choices.pick(&voters).copied(),
        };
        Members { leader, voters, learners: learners.into_iter().map(NodeId).collect() }
    }

    fn system_group(&mut self) -> Option<SystemGroupView> {
        (!self.choices.byte().is_multiple_of(4))
            .then(|| SystemGroupView { members: self.members(), replicas: self.replicas() })
    }

    fn key(&mut self) -> Blob {
        Blob::from([&b""[..], b"a", b"b", b"c", b"d"][self.choices.below(5)])
    }

    fn shard(&mut self, id: u64) -> ShardView {
        let end = self.choices.flag().then(|| self.key());
        ShardView {
            id: ShardId(id),
            range: KeyRange { start: self.key(), end },
            epoch: ShardEpoch(self.choices.byte().into()),
            members: self.members(),
            bytes: self.amount(1 << 29),
            rows: self.amount(10_000),
            load_ops: self.amount(10_000),
            split_key: self.choices.flag().then(|| self.key()),
        }
    }

    fn policy(&mut self) -> Policy {
        let mut policy = Policy::default();
        if self.choices.flag() {
            policy.limits.moves_total = 1 + u32::from(self.choices.byte() % 4);
            policy.limits.balance_moves_total = policy.limits.moves_total - 1;
            policy.limits.moves_per_source = 1;
            policy.limits.moves_per_destination = 1;
            policy.limits.leader_transfers_total = 1;
            policy.limits.splits_total = u32::from(self.choices.byte() % 2);
            policy.limits.blocked_total = u32::from(self.choices.byte() % 3);
        }
        if self.choices.flag() {
            policy.dead_grace = self.duration();
            policy.split.quiet = self.duration();
            policy.reverse_window = self.duration();
            policy.split.shards_max = self.choices.edge();
            policy.split.rows_min = self.choices.edge();
        }
        policy.validate().unwrap();
        policy
    }

    fn group(&mut self) -> Group {
        match self.choices.below(6) {
            0 => Group::Metadata,
            1 => Group::Sequencer,
            _ => Group::Shard(self.shard_id()),
        }
    }

    fn shard_id(&mut self) -> ShardId {
        ShardId(1 + self.choices.below(SHARDS) as u64)
    }

    fn operator(&mut self) -> Operator {
        let (group, from, to) = (self.group(), self.node(), self.node());
        match self.choices.below(7) {
            0 | 1 => Operator::MoveReplica { group, from, to },
            2 => Operator::AddReplica { group, to },
            3 => Operator::RemoveReplica { group, from },
            4 => Operator::TransferLeader { group, from, to },
            5 => {
                let at = self.choices.flag().then(|| self.key());
                Operator::Split { shard: self.shard_id(), at }
            }
            _ => Operator::Merge { left: self.shard_id(), right: self.shard_id() },
        }
    }

    fn in_flight(&mut self) -> Vec<InFlight> {
        let count = self.choices.below(5) as u128;
        (0..count).map(|id| InFlight { id: OperatorId(id), operator: self.operator() }).collect()
    }

    fn history(&mut self) -> History {
        let mut history = History::default();
        for _ in 0..self.choices.below(8) {
            match self.choices.below(4) {
                0 => history.advance(history.now().saturating_add(self.duration())),
                1 => history.record_child(self.shard_id()),
                2 => {
                    let (group, duration) = (self.group(), self.duration());
                    history.rest(group, history.now().saturating_add(duration));
                }
                _ => history.record(&self.operator()),
            }
        }
        let (replicas, leaders) = (self.choices.flag(), self.choices.flag());
        history.set_balancing(Balancing { replicas, leaders });
        history
    }
}
