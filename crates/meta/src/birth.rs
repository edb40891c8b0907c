//! How a replica comes by its first state.

use quorate_types::{Blob, GroupId, KeyRange, NodeId, ReplicaId, ShardEpoch, ShardId};

use crate::bootstrap::FIRST_EPOCH;
use crate::groups::{METADATA_GROUP, Origin, Replica, ReplicaGroup, shard_of};
use crate::view::ClusterView;

/// Where the first state of a replica comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Birth {
    /// It starts from the state that all its siblings start from, whatever has
    /// become of the group since.
    Seeded(Founding),
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

/// What a group was founded with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Founding {
    /// Its first members.
    pub members: Vec<(ReplicaId, NodeId)>,
    /// The keys that its shard held; all of them for a service of the cluster.
    pub range: KeyRange,
    /// The epoch that its shard had.
    pub epoch: ShardEpoch,
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
        let founding = self.group(id).filter(|group| group.is_as_founded()).and_then(|group| {
            // A split may have cut the shard since, which its log tells.
            let range = match shard_of(id) {
                Some(shard) => self.bootstrap.as_ref()?.range_of(shard)?,
                None => KeyRange::all(),
            };
            Some(Founding { members: group.first_members(), range, epoch: FIRST_EPOCH })
        });
        Some(founding.map_or(Birth::Joined, Birth::Seeded))
    }
}

impl ReplicaGroup {
    /// Whether the voters are still those that the group was seeded with. A
    /// learner is none yet: a move that waits for the group must not keep the
    /// group from coming into being. Where a replica was replaced, a majority
    /// was there to agree to it.
    fn is_as_founded(&self) -> bool {
        self.retired.is_empty() && self.voters().all(|replica| replica.origin == Origin::Seeded)
    }

    fn first_members(&self) -> Vec<(ReplicaId, NodeId)> {
        let mut members: Vec<_> = self.voters().map(|voter| (voter.id, voter.node)).collect();
        members.sort_unstable();
        members
    }
}
