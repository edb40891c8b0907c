//! Operators that are begun on what a view shows. Their commands name the
//! state they were planned on, and are refused where it has passed.

use quorate_types::{Blob, GroupId, MigrationId, NodeId, ReplicaId, ShardId};

use crate::client::{AdminError, MetadataClient};
use crate::command::Command;
use crate::moves::{BeginMove, ReplicaChange};
use crate::reply::Reply;
use crate::shards::Shard;
use crate::splits::BeginSplit;
use crate::view::ClusterView;

impl ClusterView {
    /// Plans a change of a group's replicas under a freshly drawn id; `None`
    /// when there is no such group.
    #[must_use]
    pub fn plan_move(
        &self,
        migration: MigrationId,
        group: GroupId,
        change: ReplicaChange,
    ) -> Option<Command> {
        let generation = self.group(group)?.generation;
        Some(Command::BeginMove(BeginMove { migration, group, change, generation }))
    }

    /// Plans to cut a shard at a key under a freshly drawn id; `None` when
    /// there is no such shard.
    #[must_use]
    pub fn plan_split(&self, operator: MigrationId, shard: ShardId, at: Blob) -> Option<Command> {
        let record = self.shard(shard)?;
        let (epoch, generation) = (record.epoch, self.group(record.group)?.generation);
        Some(Command::BeginSplit(BeginSplit { operator, shard, at, epoch, generation }))
    }

    /// A shard that somebody has named.
    ///
    /// # Errors
    /// [`AdminError::NotFound`]
    pub fn named_shard(&self, shard: ShardId) -> Result<&Shard, AdminError> {
        self.shard(shard).ok_or_else(|| no_shard(shard))
    }

    /// The replica on a node, to be handed its group's leadership. Whether it
    /// may have it is for the group to say: Raft's membership decides.
    ///
    /// # Errors
    /// [`AdminError`] when there is no such group, or no replica of it there.
    pub fn replica_to_lead(&self, group: GroupId, on: NodeId) -> Result<ReplicaId, AdminError> {
        let replica = self.group(group).ok_or_else(|| no_group(group))?.replica_on(on);
        let missing = || AdminError::Refused(format!("{on} has no replica of {group}"));
        replica.map(|replica| replica.id).ok_or_else(missing)
    }
}

impl MetadataClient {
    /// Begins to change a group's replicas, and says under which id.
    ///
    /// # Errors
    /// [`AdminError`]; after [`AdminError::Unavailable`] it may have begun, and
    /// the view will show it.
    pub async fn begin_move(
        &self,
        group: GroupId,
        change: ReplicaChange,
    ) -> Result<MigrationId, AdminError> {
        let planned = self.directory().view().plan_move(MigrationId::random(), group, change);
        self.begin(planned.ok_or_else(|| no_group(group))?).await
    }

    /// Begins to cut a shard at a key, and says under which id.
    ///
    /// # Errors
    /// As [`MetadataClient::begin_move`].
    pub async fn begin_split(&self, shard: ShardId, at: Blob) -> Result<MigrationId, AdminError> {
        let planned = self.directory().view().plan_split(MigrationId::random(), shard, at);
        self.begin(planned.ok_or_else(|| no_shard(shard))?).await
    }

    async fn begin(&self, command: Command) -> Result<MigrationId, AdminError> {
        match self.run(&command).await? {
            Reply::Operator(operator) => Ok(operator.id),
            other => Err(AdminError::Unavailable(format!("unexpected reply {other:?}"))),
        }
    }
}

fn no_shard(shard: ShardId) -> AdminError {
    AdminError::NotFound(format!("there is no shard {}", shard.0))
}

fn no_group(group: GroupId) -> AdminError {
    AdminError::NotFound(format!("there is no group {group}"))
}
