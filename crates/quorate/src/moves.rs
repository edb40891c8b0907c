//! The migration executor's hands: the metadata journal and the Raft groups.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_meta::{Command, JournalRow, JournalWrite, MetadataClient, Operator, Task};
use quorate_migration::{
    ControlError, Fence, JournalError, MigrationRow, Outcome, Place, Progress, Refusal, Removal,
    ReplicaControl, ReplicaProgress, SharedRow, SharedRows, VoterChange,
};
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, GroupId, Hlc, MigrationId, NodeId, ReplicaId};

use crate::control::{
    ControlReply, ControlRequest, GroupChange, GroupProgress, WireFence, shard_of,
};
use crate::error::AdminError;
use crate::node::NodeInner;

/// How long one call to a group's leader may take.
const CALL_DEADLINE: Duration = Duration::from_secs(15);

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
    fn change(
        &self,
        fence: Option<Fence>,
        group: GroupId,
        change: GroupChange,
    ) -> BoxFuture<Result<ControlReply, ControlError>> {
        let inner = self.0.upgrade();
        let fence = fence.map(|fence| WireFence {
            migration: fence.migration,
            term: fence.term,
            attempt: fence.attempt,
        });
        Box::pin(async move {
            let inner = inner.ok_or(ControlError::Unavailable)?;
            inner.change_group(group, change, fence).await
        })
    }
}

/// The newest attempt of each migration that has touched a group led here.
#[derive(Default)]
pub(crate) struct Fences(Mutex<BTreeMap<MigrationId, WireFence>>);

/// Migrations whose fences are kept; the executor runs far fewer at a time.
const FENCES_MAX: usize = 1_024;

impl Fences {
    /// Whether this attempt may act: no later one has.
    pub(crate) fn admits(&self, fence: WireFence) -> bool {
        let mut seen = self.0.lock();
        if seen.len() >= FENCES_MAX && !seen.contains_key(&fence.migration) {
            seen.pop_first();
        }
        let newest = seen.entry(fence.migration).or_insert(fence);
        if (fence.term, fence.attempt) < (newest.term, newest.attempt) {
            return false;
        }
        *newest = fence;
        true
    }
}

impl NodeInner {
    /// Asks the replicas of a group in turn until the leader has answered.
    pub(crate) async fn change_group(
        &self,
        group: GroupId,
        change: GroupChange,
        fence: Option<WireFence>,
    ) -> Result<ControlReply, ControlError> {
        let mut targets = self.directory.group_nodes(group);
        if let Some(leader) = shard_of(group).and_then(|shard| self.directory.shard_leader(shard)) {
            targets.retain(|target| *target != leader);
            targets.insert(0, leader);
        }
        let request = ControlRequest::Group { group, change: change.clone(), fence };
        for target in targets {
            let reply = if target == self.node {
                Ok(self.lead(group, change.clone(), fence).await)
            } else {
                self.peers.control(target, &request, CALL_DEADLINE).await
            };
            match reply {
                Ok(ControlReply::NotLeader(_)) | Err(_) => {}
                Ok(ControlReply::Unavailable(_)) => return Err(ControlError::Unavailable),
                Ok(ControlReply::Refused(reason)) => {
                    tracing::warn!(%group, ?reason, "a group refused a change");
                    return Err(ControlError::Refused(Refusal::Invalid));
                }
                Ok(reply) => return Ok(reply),
            }
        }
        Err(ControlError::Unavailable)
    }
}

fn progress(seen: &GroupProgress) -> Progress {
    let of = |is_voter| {
        let members = seen.members.iter();
        members
            .filter(move |member| member.is_voter == is_voter)
            .map(|member| member.replica)
            .collect::<BTreeSet<_>>()
    };
    Progress {
        leader: Some(seen.leader),
        last_log: seen.last_log,
        replicas: seen
            .members
            .iter()
            .map(|member| {
                let progress =
                    ReplicaProgress { matched: member.matched, is_fresh: member.is_fresh };
                (member.replica, progress)
            })
            .collect(),
        voters: of(true),
        outgoing: seen.outgoing.as_ref().map(|voters| voters.iter().copied().collect()),
        learners: of(false),
    }
}

impl ReplicaControl for GroupControl {
    fn progress(&self, group: GroupId) -> BoxFuture<Result<Progress, ControlError>> {
        let asked = self.change(None, group, GroupChange::Progress);
        Box::pin(async move {
            match asked.await? {
                ControlReply::Progress(seen) => Ok(progress(&seen)),
                _ => Err(ControlError::Unavailable),
            }
        })
    }

    fn add_learner(
        &self,
        fence: Fence,
        group: GroupId,
        replica: ReplicaId,
        node: NodeId,
    ) -> BoxFuture<Result<(), ControlError>> {
        let asked = self.change(Some(fence), group, GroupChange::AddLearner(replica, node));
        Box::pin(async move { asked.await.map(drop) })
    }

    fn change_voters(
        &self,
        fence: Fence,
        group: GroupId,
        change: VoterChange,
    ) -> BoxFuture<Result<(), ControlError>> {
        let asked = self.change(Some(fence), group, GroupChange::Voters(change.add, change.remove));
        Box::pin(async move { asked.await.map(drop) })
    }

    fn transfer_leader(
        &self,
        fence: Fence,
        group: GroupId,
        to: ReplicaId,
        pause_budget: Duration,
    ) -> BoxFuture<Result<Duration, ControlError>> {
        let asked = self.change(Some(fence), group, GroupChange::Transfer(to));
        Box::pin(async move {
            match asked.await? {
                ControlReply::Done(micros) => Ok(Duration::from_micros(micros)),
                _ => {
                    tracing::debug!(?pause_budget, "a transfer did not come about");
                    Err(ControlError::Unavailable)
                }
            }
        })
    }

    fn remove(
        &self,
        fence: Fence,
        group: GroupId,
        replica: ReplicaId,
    ) -> BoxFuture<Result<Removal, ControlError>> {
        let removed = self.change(Some(fence), group, GroupChange::RemoveLearner(replica));
        let inner = self.0.upgrade();
        Box::pin(async move {
            removed.await?;
            let inner = inner.ok_or(ControlError::Unavailable)?;
            let view = inner.directory.view();
            let home = view.group(group).and_then(|group| group.replica(replica));
            let Some(home) = home.map(|replica| replica.node) else {
                return Ok(Removal::NodeUnreachable);
            };
            let request = ControlRequest::Destroy { group, replica };
            let destroyed = if home == inner.node {
                Ok(inner.destroy(group, replica).await)
            } else {
                inner.peers.control(home, &request, CALL_DEADLINE).await
            };
            Ok(match destroyed {
                Ok(ControlReply::Done(_)) => Removal::Destroyed,
                _ => Removal::NodeUnreachable,
            })
        })
    }
}
