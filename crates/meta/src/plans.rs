//! Commands that begin an operator on what a view shows. They name the state
//! they were planned on, and are refused where it has passed.

use quorate_types::{Blob, GroupId, MigrationId, ShardId};

use crate::command::Command;
use crate::moves::{BeginMove, ReplicaChange};
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
}
