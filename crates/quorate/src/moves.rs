//! The migration executor's hands: the metadata journal and the Raft groups.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use quorate_meta::{Command, JournalRow, JournalWrite, MetadataClient, Operator, Task, shard_of};
use quorate_migration::{
    ControlError, Fence, JournalError, MigrationRow, Outcome, Place, Progress, Refusal, Removal,
    ReplicaControl, ReplicaProgress, SharedRow, SharedRows, VoterChange,
};
use quorate_raft::RaftError;
use quorate_raft::admin::{AdminClient, GroupProgress, MemberChange, MemberProgress};
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, GroupId, Hlc, MigrationId, NodeId, ReplicaId};

use crate::error::AdminError;
use crate::node::NodeInner;

/// The rows of the executor's journal, in the metadata log.
pub(crate) struct MetadataRows(pub(crate) Arc<MetadataClient>);

/// A row of meta's journal as the executor's.
pub(crate) fn shared(id: MigrationId, stored: &JournalRow) -> SharedRow {
    SharedRow { id, revision: stored.revision, row: stored.row.0.clone() }
}

fn unavailable(error: AdminError) -> JournalError {
    tracing::warn!(%error, "a checkpoint was not recorded");
    JournalError::Unavailable
}

impl SharedRows for MetadataRows {
    fn is_authority(&self, term: u64) -> bool {
        self.0.authority() == Some(term)
    }

    fn rows(&self) -> Vec<SharedRow> {
        let view = self.0.directory().view();
        view.open_journal().map(|(id, stored)| shared(id, stored)).collect()
    }

    fn write(
        &self,
        id: MigrationId,
        expected: Option<u64>,
        row: Bytes,
    ) -> BoxFuture<Result<(), JournalError>> {
        let client = Arc::clone(&self.0);
        let write = JournalWrite { id, expected, row: Blob(row), finished: false };
        Box::pin(async move { client.journal(write).await.map_err(unavailable) })
    }

    fn finish(&self, last: SharedRow, outcome: Outcome) -> BoxFuture<Result<(), JournalError>> {
        let client = Arc::clone(&self.0);
        let SharedRow { id, revision, row } = last;
        let last = JournalWrite { id, expected: Some(revision), row: Blob(row), finished: true };
        let has_taken_effect = matches!(outcome, Outcome::Completed { .. });
        Box::pin(
            async move { client.finish_move(last, has_taken_effect).await.map_err(unavailable) },
        )
    }
}

impl NodeInner {
    /// A move that the metadata planned gets its migration row, once.
    pub(crate) async fn begin_migration(&self, operator: &Operator) -> Result<(), AdminError> {
        let view = self.directory.view();
        let Task::Move(planned) = &operator.task else { return Ok(()) };
        if view.journal_row(operator.id).is_some() {
            return Ok(());
        }
        let Some(term) = self.metadata.authority() else { return Ok(()) };
        let group = view.group(operator.group);
        let place = |replica: Option<ReplicaId>| {
            let replica = group?.replica(replica?)?;
            Some(Place { node: replica.node, replica: replica.id })
        };
        let (Some(from), Some(to)) = (place(planned.removed), place(planned.added)) else {
            let reason = "the executor moves replicas; it does not add or remove alone";
            self.metadata.run(&Command::AbandonMove { migration: operator.id }).await?;
            return Err(AdminError::Refused(reason.into()));
        };
        let hlc = Hlc { millis: self.clock.wall_millis(), counter: 0, node: self.node };
        let shard = shard_of(operator.group).unwrap_or_default();
        let row = MigrationRow::planned(operator.id, (shard, operator.group), from, to, term, hlc);
        let write = JournalWrite {
            id: operator.id,
            expected: None,
            row: Blob(row.seal()),
            finished: false,
        };
        self.metadata.journal(write).await?;
        self.wake_executor();
        Ok(())
    }
}

/// The executor's hand on the groups, wherever their leaders are.
pub(crate) struct GroupControl(pub(crate) Weak<NodeInner>);

impl GroupControl {
    /// Asks the group's leader in raft's words.
    fn ask<T, F>(
        &self,
        ask: impl FnOnce(AdminClient) -> F + Send + 'static,
    ) -> BoxFuture<Result<T, ControlError>>
    where
        F: Future<Output = Result<T, RaftError>> + Send,
    {
        let groups = self.0.upgrade().map(|inner| inner.groups.clone());
        Box::pin(async move {
            ask(groups.ok_or(ControlError::Unavailable)?).await.map_err(|error| match error {
                RaftError::Refused(reason) => {
                    tracing::warn!(reason, "a group refused a change");
                    ControlError::Refused(Refusal::Invalid)
                }
                _ => ControlError::Unavailable,
            })
        })
    }

    fn change(
        &self,
        fence: Fence,
        group: GroupId,
        change: MemberChange,
    ) -> BoxFuture<Result<(), ControlError>> {
        self.ask(move |groups| async move { groups.change(group, change, raft_fence(fence)).await })
    }
}

const fn raft_fence(fence: Fence) -> quorate_raft::admin::Fence {
    let Fence { migration, term, attempt } = fence;
    quorate_raft::admin::Fence { who: migration, term, attempt }
}

fn progress(seen: GroupProgress) -> Progress {
    let members = seen.members.iter();
    let progress = |member: &MemberProgress| {
        let MemberProgress { replica, matched, is_fresh, .. } = *member;
        (replica, ReplicaProgress { matched, is_fresh })
    };
    Progress {
        leader: Some(seen.leader),
        last_log: seen.last_log,
        replicas: members.map(progress).collect(),
        voters: seen.replicas(true).collect(),
        learners: seen.replicas(false).collect(),
        outgoing: seen.outgoing.map(|voters| voters.0.into_iter().collect()),
    }
}

impl ReplicaControl for GroupControl {
    fn progress(&self, group: GroupId) -> BoxFuture<Result<Progress, ControlError>> {
        self.ask(move |groups| async move { groups.progress(group).await.map(progress) })
    }

    fn add_learner(
        &self,
        fence: Fence,
        group: GroupId,
        replica: ReplicaId,
        node: NodeId,
    ) -> BoxFuture<Result<(), ControlError>> {
        self.change(fence, group, MemberChange::AddLearner(replica, node))
    }

    fn change_voters(
        &self,
        fence: Fence,
        group: GroupId,
        change: VoterChange,
    ) -> BoxFuture<Result<(), ControlError>> {
        self.change(fence, group, MemberChange::Voters(change.add, change.remove))
    }

    fn transfer_leader(
        &self,
        fence: Fence,
        group: GroupId,
        to: ReplicaId,
        _pause_budget: Duration,
    ) -> BoxFuture<Result<Duration, ControlError>> {
        let fence = Some(raft_fence(fence));
        self.ask(move |groups| async move { groups.transfer(group, to, fence).await })
    }

    fn remove(
        &self,
        fence: Fence,
        group: GroupId,
        replica: ReplicaId,
    ) -> BoxFuture<Result<Removal, ControlError>> {
        let removed = self.change(fence, group, MemberChange::RemoveLearner(replica));
        let inner = self.0.upgrade();
        Box::pin(async move {
            removed.await?;
            let inner = inner.ok_or(ControlError::Unavailable)?;
            let view = inner.directory.view();
            let home = view.group(group).and_then(|group| group.replica(replica));
            let Some(home) = home.map(|replica| replica.node) else {
                return Ok(Removal::NodeUnreachable);
            };
            Ok(match inner.groups.destroy(home, group, replica).await {
                Ok(()) => Removal::Destroyed,
                Err(_) => Removal::NodeUnreachable,
            })
        })
    }
}
