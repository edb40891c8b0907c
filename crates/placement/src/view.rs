//! The cluster as the planner sees it: a value, taken at one moment.

use std::time::Duration;

use quorate_types::{Blob, KeyRange, NodeId, ShardEpoch, ShardId};

/// Everything a plan is a function of, besides the policy, what is in flight
/// and what happened lately. The order of the lists carries no meaning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterView {
    /// Every node that belongs to the cluster, *including those that hold
    /// nothing yet*.
    pub nodes: Vec<NodeView>,
    /// The group that holds the cluster's registry.
    pub metadata: Option<SystemGroupView>,
    /// The group that orders multi-shard transactions.
    pub sequencer: Option<SystemGroupView>,
    /// Every shard.
    pub shards: Vec<ShardView>,
    /// How many voters a shard should have. Rounded down to an odd number
    /// while the cluster has fewer nodes than that.
    pub shard_replicas: u32,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Its identity.
    pub id: NodeId,
    /// The failure domain it shares with nodes of the same label.
    pub zone: String,
    /// Whether it may receive, must give, or has fallen silent.
    pub state: NodeState,
    /// How much it can carry relative to other nodes. Zero counts as one.
    pub weight: u32,
    /// Bytes in use on its disk, whatever uses them.
    pub disk_used_bytes: u64,
    /// The size of its disk; zero when unknown, which exempts the node from
    /// every rule about disks.
    pub disk_total_bytes: u64,
}

/// What is known of a node's health and intentions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// Healthy; may receive replicas and leaders.
    Active,
    /// Healthy, but is to be emptied.
    Draining,
    /// Silent for a while. Receives nothing; nothing is taken from it yet.
    Suspect {
        /// How long the silence has lasted.
        duration: Duration,
    },
    /// Declared dead. Its replicas are replaced after the policy's grace.
    Dead {
        /// How long ago it was declared dead.
        duration: Duration,
    },
}

impl NodeState {
    /// Whether the node answers and its votes count.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Active | Self::Draining)
    }
}

/// Who belongs to a Raft group, by node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Members {
    /// The node whose replica leads, if one is known.
    pub leader: Option<NodeId>,
    /// Nodes with a voting replica.
    pub voters: Vec<NodeId>,
    /// Nodes with a replica that only follows.
    pub learners: Vec<NodeId>,
}

impl Members {
    /// The voters, sorted: the form in which preconditions compare them.
    #[must_use]
    pub fn sorted_voters(&self) -> Vec<NodeId> {
        let mut voters = self.voters.clone();
        voters.sort_unstable();
        voters.dedup();
        voters
    }
}

/// A group of the system itself: placed for safety, never for balance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SystemGroupView {
    /// Who belongs to it.
    pub members: Members,
    /// How many voters it should have.
    pub replicas: u32,
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardView {
    /// Its identity.
    pub id: ShardId,
    /// The keys it owns.
    pub range: KeyRange,
    /// The version of its range, a precondition of every operator on it.
    pub epoch: ShardEpoch,
    /// Who belongs to its group.
    pub members: Members,
    /// Stored bytes of one replica.
    pub bytes: u64,
    /// Stored rows.
    pub rows: u64,
    /// Operations per second, smoothed by whoever measures them.
    pub load_ops: u64,
    /// A key that halves the rows (or the load) as measured; the middle of
    /// the *data*, not of the key space.
    pub split_key: Option<Blob>,
}
