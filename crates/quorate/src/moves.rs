//! The migration executor's hands: the metadata journal and the Raft groups.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use quorate_meta::{
    Command, JournalRow, JournalWrite, MetadataClient, Operator, Replica, shard_of,
};
use quorate_migration::{
    ControlError, Executor, Fence, JournalError, MigrationRow, Outcome, Place, Progress, Refusal,
    Removal, ReplicaControl, SharedRow, SharedRows, VoterChange,
};
use quorate_raft::RaftError;
use quorate_raft::admin::{AdminClient, MemberChange};
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
        let (view, authority) = (self.directory.view(), self.metadata.authority());
        let is_begun = view.journal_row(operator.id).is_some();
        let Some(term) = authority.filter(|_| !is_begun) else { return Ok(()) };
        let Some((from, to)) = view.replacement(operator) else {
            let reason = "the executor moves replicas; it does not add or remove alone";
            self.metadata.run(&Command::AbandonMove { migration: operator.id }).await?;
            return Err(AdminError::Refused(reason.into()));
        };
        let place = |replica: &Replica| Place { node: replica.node, replica: replica.id };
        let hlc = Hlc { millis: self.clock.wall_millis(), counter: 0, node: self.node };
        let group = (shard_of(operator.group).unwrap_or_default(), operator.group);
        let row = MigrationRow::planned(operator.id, group, place(from), place(to), term, hlc);
        let (id, row) = (operator.id, Blob(row.seal()));
        self.metadata.journal(JournalWrite { id, expected: None, row, finished: false }).await?;
        self.tell_executor(Executor::wake);
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
                RaftError::Fenced => ControlError::Refused(Refusal::Fenced),
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
        self.ask(move |groups| async move { groups.change(group, change, fence).await })
    }
}

impl ReplicaControl for GroupControl {
    fn progress(&self, group: GroupId) -> BoxFuture<Result<Progress, ControlError>> {
        self.ask(move |groups| async move { groups.progress(group).await.map(Progress::from) })
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
        self.change(fence, group, MemberChange::Voters(change))
    }

    fn transfer_leader(
        &self,
        fence: Fence,
        group: GroupId,
        to: ReplicaId,
    ) -> BoxFuture<Result<Duration, ControlError>> {
        self.ask(move |groups| async move { groups.transfer(group, to, Some(fence)).await })
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
