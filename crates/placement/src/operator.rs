//! What a plan consists of: operators, what each expects to find, and why it
//! was chosen.

use std::fmt;

use quorate_types::{Blob, NodeId, ShardEpoch, ShardId};

use crate::history::{Balancing, OperatorId};

/// A Raft group that placement decides about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// The cluster's registry.
    Metadata,
    /// The order of multi-shard transactions.
    Sequencer,
    /// A shard.
    Shard(ShardId),
}

impl Group {
    /// The shard, unless this is a group of the system.
    #[must_use]
    pub const fn shard(self) -> Option<ShardId> {
        match self {
            Self::Shard(shard) => Some(shard),
            Self::Metadata | Self::Sequencer => None,
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metadata => f.write_str("metadata"),
            Self::Sequencer => f.write_str("sequencer"),
            Self::Shard(shard) => write!(f, "{shard}"),
        }
    }
}

/// One change to the cluster. A group has at most one in flight.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    /// Replaces the voter on `from` by one on `to`: learner, catch-up,
    /// promotion and removal in one joint change. `from` may be dead. When
    /// `from` leads, the executor hands leadership to `to`.
    MoveReplica {
        /// The group that gets a new voter.
        group: Group,
        /// The node that loses its replica.
        from: NodeId,
        /// The node that gains one.
        to: NodeId,
    },
    /// Adds a voter, because there are fewer than there should be.
    AddReplica {
        /// The group that gets a new voter.
        group: Group,
        /// The node that gains a replica.
        to: NodeId,
    },
    /// Removes a voter, because there are more than there should be.
    RemoveReplica {
        /// The group that loses a voter.
        group: Group,
        /// The node that loses its replica.
        from: NodeId,
    },
    /// Hands leadership to another voter.
    TransferLeader {
        /// The group.
        group: Group,
        /// The leader as planned.
        from: NodeId,
        /// The voter that shall lead.
        to: NodeId,
    },
    /// Cuts a shard in two.
    Split {
        /// The shard.
        shard: ShardId,
        /// The first key of the right half; `None` asks the executor for the
        /// middle of the data.
        at: Option<Blob>,
    },
    /// Joins two neighbours. **Planned only**: it appears in
    /// [`Plan::merges`] as advice, and the scheduler never proposes it.
    Merge {
        /// The shard with the lower keys.
        left: ShardId,
        /// Its right neighbour.
        right: ShardId,
    },
}

impl Operator {
    /// The group it changes; of a merge, the left one.
    #[must_use]
    pub const fn group(&self) -> Group {
        match self {
            Self::MoveReplica { group, .. }
            | Self::AddReplica { group, .. }
            | Self::RemoveReplica { group, .. }
            | Self::TransferLeader { group, .. } => *group,
            Self::Split { shard, .. } => Group::Shard(*shard),
            Self::Merge { left, .. } => Group::Shard(*left),
        }
    }

    /// Every group it changes.
    pub fn groups(&self) -> impl Iterator<Item = Group> {
        let second = match self {
            Self::Merge { right, .. } => Some(Group::Shard(*right)),
            _ => None,
        };
        std::iter::once(self.group()).chain(second)
    }

    /// Whether executors carry it out. Merges are only planned.
    #[must_use]
    pub const fn is_executed(&self) -> bool {
        !matches!(self, Self::Merge { .. })
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MoveReplica { group, from, to } => write!(f, "move {group}: {from} -> {to}"),
            Self::AddReplica { group, to } => write!(f, "add {group}: {to}"),
            Self::RemoveReplica { group, from } => write!(f, "remove {group}: {from}"),
            Self::TransferLeader { group, from, to } => write!(f, "lead {group}: {from} -> {to}"),
            Self::Split { shard, at: Some(at) } => write!(f, "split {shard} at {at:?}"),
            Self::Split { shard, at: None } => write!(f, "split {shard} at its middle"),
            Self::Merge { left, right } => write!(f, "merge {left} and {right}"),
        }
    }
}

/// What must still hold of a group when an operator is accepted, and again
/// before each of its steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Precondition {
    /// The group.
    pub group: Group,
    /// The version of the shard's range; `None` for a group of the system.
    pub epoch: Option<ShardEpoch>,
    /// The voters, sorted.
    pub voters: Vec<NodeId>,
    /// The leader.
    pub leader: Option<NodeId>,
}

/// An operator, what it expects, and why it was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The change.
    pub operator: Operator,
    /// One for each group that the operator changes.
    pub preconditions: Vec<Precondition>,
    /// Why.
    pub reason: Reason,
}

/// Why an operator was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// A voter's node has been dead for longer than the grace.
    VoterDead,
    /// The group has fewer voters than it should.
    UnderReplicated,
    /// The group has more voters than it should.
    OverReplicated,
    /// Two voters share a failure domain without need.
    ZoneShared,
    /// The leader's node is draining.
    LeaderDraining,
    /// A shard replica's node is draining.
    ReplicaDraining,
    /// A system voter's node is draining.
    SystemVoterDraining,
    /// The node's disk is nearly full.
    DiskNearlyFull,
    /// The shard stores too much.
    ShardTooLarge,
    /// The shard serves too much.
    ShardTooHot,
    /// The node carries more than its share.
    Imbalance,
    /// The node leads more than its share.
    LeaderImbalance,
    /// Two neighbours store and serve next to nothing.
    ShardsTooSmall,
}

impl Reason {
    /// The tier that the reason belongs to.
    #[must_use]
    pub const fn tier(self) -> Tier {
        match self {
            Self::VoterDead | Self::UnderReplicated | Self::OverReplicated => Tier::QuorumSafety,
            Self::ZoneShared => Tier::Spread,
            Self::LeaderDraining | Self::ReplicaDraining | Self::SystemVoterDraining => {
                Tier::Draining
            }
            Self::DiskNearlyFull => Tier::Capacity,
            Self::ShardTooLarge | Self::ShardTooHot => Tier::Split,
            Self::Imbalance => Tier::Balance,
            Self::LeaderImbalance => Tier::Leaders,
            Self::ShardsTooSmall => Tier::Merge,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VoterDead => "a voter's node is dead",
            Self::UnderReplicated => "too few voters",
            Self::OverReplicated => "too many voters",
            Self::ZoneShared => "voters share a failure domain",
            Self::LeaderDraining => "the leader's node is draining",
            Self::ReplicaDraining => "the replica's node is draining",
            Self::SystemVoterDraining => "the system voter's node is draining",
            Self::DiskNearlyFull => "the node's disk is nearly full",
            Self::ShardTooLarge => "the shard stores too much",
            Self::ShardTooHot => "the shard serves too much",
            Self::Imbalance => "the node carries more than its share",
            Self::LeaderImbalance => "the node leads more than its share",
            Self::ShardsTooSmall => "both shards are nearly empty",
        })
    }
}

/// The tiers, most important first. A lower tier never undoes what a higher
/// one asks for. Peak, variance and bytes moved are decided together in
/// [`Tier::Balance`]: the hottest node gives first, it gives what evens out
/// most, and of equals the one that is cheapest to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Enough voters, on living nodes.
    QuorumSafety,
    /// Voters in different failure domains.
    Spread,
    /// Draining nodes emptied.
    Draining,
    /// Disks below their limit.
    Capacity,
    /// Shards of a size and heat that one group can serve.
    Split,
    /// Every node carries its share.
    Balance,
    /// Every node leads its share.
    Leaders,
    /// Nearly empty neighbours joined; advice only.
    Merge,
}

/// Something a tier wanted and could not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blocked {
    /// The group concerned.
    pub group: Group,
    /// What is in the way.
    pub obstacle: Obstacle,
}

/// What is in the way of a repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// Too few voters live to commit any change. Someone must bring a node
    /// back.
    NoQuorum,
    /// No node may receive a replica. Someone must add a node or a disk.
    NoDestination,
}

/// What to do now. Applying its operators in any order, at the same time or
/// not at all, is safe.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Operators to propose, most important first; at most one per group, and
    /// none for a group that has one in flight.
    pub operators: Vec<Proposal>,
    /// Operators in flight that can no longer succeed.
    pub cancels: Vec<OperatorId>,
    /// Merges that would be worth while. Advice: nothing executes them.
    pub merges: Vec<Proposal>,
    /// Repairs that are needed and impossible, the first few.
    pub blocked: Vec<Blocked>,
    /// Draining nodes that hold nothing any more and may be taken away.
    pub drained: Vec<NodeId>,
    /// Which kinds of balancing are under way; hand it to the next plan by
    /// [`History::set_balancing`](crate::History::set_balancing).
    pub balancing: Balancing,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.operators.is_empty() && self.cancels.is_empty()
    }
}
