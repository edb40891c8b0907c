//! Raft groups: who replicates what, under ids that are never used again.

use quorate_types::{GroupId, NodeId, ReplicaId, Seq, ShardId};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::limits::RETIRED_KEPT_PER_GROUP;
use crate::registry::Registry;

/// The group that replicates this registry.
pub const METADATA_GROUP: GroupId = GroupId(1);

/// The group that orders transactions over several shards.
pub const SEQUENCER_GROUP: GroupId = GroupId(2);

/// Where the groups of shards begin; the ids below are kept for services of
/// the cluster itself.
pub const SHARD_GROUPS_START: u64 = 16;

/// The group of a shard.
#[must_use]
pub const fn shard_group(shard: ShardId) -> GroupId {
    GroupId(SHARD_GROUPS_START.saturating_add(shard.0))
}

/// The shard of a group; `None` for a group of the cluster itself.
#[must_use]
pub fn shard_of(group: GroupId) -> Option<ShardId> {
    group.0.checked_sub(SHARD_GROUPS_START).map(ShardId)
}

/// What a replica counts for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
#[msgpack(c_enum)]
#[repr(u8)]
pub enum Role {
    /// Counts towards the quorum.
    Voter = 1,
    /// Receives the log and counts for nothing yet.
    Learner = 2,
}

/// How a replica comes by its first state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
#[msgpack(c_enum)]
#[repr(u8)]
pub enum Origin {
    /// Created together with its group, with the synthetic initial state that
    /// all first replicas share.
    Seeded = 1,
    /// Created empty; only the leader's log or snapshot fills it.
    Joined = 2,
}

/// A member of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct Replica {
    /// Its id, unique in the cluster for ever.
    pub id: ReplicaId,
    /// Where it lives.
    pub node: NodeId,
    /// What it counts for. While a move runs, Raft's own membership may be
    /// ahead of this record.
    pub role: Role,
    /// How it comes by its first state.
    pub origin: Origin,
}

/// A replica that was a member once and must never be heard again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct RetiredReplica {
    /// Its id.
    pub id: ReplicaId,
    /// Where its remains may lie.
    pub node: NodeId,
    /// The metadata log index at which it was retired.
    pub retired_at: u64,
}

/// The members of a group.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct ReplicaGroup {
    /// The members, ascending by id.
    pub replicas: Seq<Replica>,
    /// The last members that left, oldest first.
    pub retired: Seq<RetiredReplica>,
    /// Rises whenever an operator begins or ends on the group. A command that
    /// begins one names it, so that a late duplicate of the command finds
    /// another generation and does nothing.
    pub generation: u64,
}

impl ReplicaGroup {
    /// A fresh group of seeded voters.
    pub(crate) fn seeded(members: impl IntoIterator<Item = (ReplicaId, NodeId)>) -> Self {
        let replicas = members
            .into_iter()
            .map(|(id, node)| Replica { id, node, role: Role::Voter, origin: Origin::Seeded })
            .collect();
        Self { replicas, retired: Seq::new(), generation: 1 }
    }

    /// The replica with that id.
    #[must_use]
    pub fn replica(&self, id: ReplicaId) -> Option<&Replica> {
        self.replicas.iter().find(|replica| replica.id == id)
    }

    /// The replica on that node.
    #[must_use]
    pub fn replica_on(&self, node: NodeId) -> Option<&Replica> {
        self.replicas.iter().find(|replica| replica.node == node)
    }

    /// The replicas that count towards the quorum, ascending by id. At birth
    /// the first of them is the one that calls the group's first election;
    /// a bootstrap spreads these over the nodes.
    pub fn voters(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(|replica| replica.role == Role::Voter)
    }

    /// Adds an empty learner.
    pub(crate) fn add_learner(&mut self, id: ReplicaId, node: NodeId) {
        let learner = Replica { id, node, role: Role::Learner, origin: Origin::Joined };
        self.replicas.push(learner);
    }

    /// Makes a learner count.
    pub(crate) fn promote(&mut self, id: ReplicaId) {
        for replica in self.replicas.iter_mut().filter(|replica| replica.id == id) {
            replica.role = Role::Voter;
        }
    }

    /// Moves a member to the retired ones, of which the oldest may go.
    pub(crate) fn retire(&mut self, id: ReplicaId, index: u64) {
        let Some(at) = self.replicas.iter().position(|replica| replica.id == id) else {
            return;
        };
        let gone = self.replicas.remove(at);
        self.retired.push(RetiredReplica { id, node: gone.node, retired_at: index });
        if self.retired.len() > RETIRED_KEPT_PER_GROUP {
            self.retired.remove(0);
        }
    }
}

impl Registry {
    /// A replica id that nobody ever had.
    pub(crate) fn allocate_replica(&mut self) -> ReplicaId {
        let header = self.header_mut();
        let id = header.next_replica;
        header.next_replica = id.next();
        id
    }

    /// The id of the group's member that left last, which forgets that it left.
    pub(crate) fn reuse_replica(&mut self, group: GroupId) -> Option<ReplicaId> {
        let mut members = self.view().group(group)?.clone();
        let gone = members.retired.pop()?;
        self.put_group(group, members);
        Some(gone.id)
    }

    /// A shard id that nobody ever had.
    pub(crate) fn allocate_shard(&mut self) -> ShardId {
        let header = self.header_mut();
        let id = header.next_shard;
        header.next_shard = id.next();
        id
    }
}
