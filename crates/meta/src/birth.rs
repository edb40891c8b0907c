//! How a replica comes by its first state.

use quorate_types::{Blob, GroupId, NodeId, ReplicaId, ShardId};

use crate::groups::{METADATA_GROUP, Origin, Replica, ReplicaGroup, shard_of};
use crate::view::ClusterView;

/// Where the first state of a replica comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Birth {
    /// It starts from the state that all its siblings start from, as a member
    /// of the group's first membership, which is this.
    Seeded(Vec<(ReplicaId, NodeId)>),
    /// The fork of its parent on the same node fills it, or a snapshot once
    /// the parent there has passed the fork without it.
    Forked {
        /// The shard that held its range before.
        parent: ShardId,
        /// The key at which that one was cut.
        at: Blob,
    },
    /// Only the leader's log or snapshot fills it.
    Joined,
}

impl ClusterView {
    /// How a replica of a group is born; `None` while the map does not show
    /// its shard yet. A seeded replica whose group has changed since is
    /// [`Birth::Joined`]: its siblings have moved on from the state that they
    /// were seeded with.
    #[must_use]
    pub fn birth(&self, id: GroupId, replica: &Replica) -> Option<Birth> {
        // The metadata's own group is formed by hand, before there is a view.
        if id == METADATA_GROUP || replica.origin == Origin::Joined {
            return Some(Birth::Joined);
        }
        if let Some(shard) = shard_of(id)
            && let Some(lineage) = &self.shard(shard)?.parent
        {
            return Some(Birth::Forked { parent: lineage.shard, at: lineage.at.clone() });
        }
        let founded = self.group(id).filter(|group| group.is_as_founded());
        Some(founded.map_or(Birth::Joined, |group| Birth::Seeded(group.first_members())))
    }
}

impl ReplicaGroup {
    /// Whether the voters are still those that the group was seeded with. A
    /// learner is none yet: a move that waits for the group must not keep the
    /// group from coming into being. Once a move has ended, a majority was
    /// there to agree to it.
    fn is_as_founded(&self) -> bool {
        self.retired.is_empty() && self.voters().all(|replica| replica.origin == Origin::Seeded)
    }

    fn first_members(&self) -> Vec<(ReplicaId, NodeId)> {
        let mut members: Vec<_> = self.voters().map(|voter| (voter.id, voter.node)).collect();
        members.sort_unstable();
        members
    }
}
