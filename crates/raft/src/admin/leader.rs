//! The side that is asked: a group's leader, or a replica's home.

use std::time::Duration;

use bytes::Bytes;
use quorate_types::membership::{Fence, GroupProgress, MemberProgress};
use quorate_types::runtime::{BoxFuture, spawn};
use quorate_types::{GroupId, NodeId, ReplicaId};
use tokio::time::Instant;

use super::wire::{AdminReply, AdminRequest, MemberChange, Task};
use crate::error::RaftError;
use crate::group::Group;
use crate::host::Host;

/// How long a transfer waits for the successor to be elected. Several election
/// timeouts: should the chosen one fail, another one is elected.
const ELECTION_DEADLINE: Duration = Duration::from_secs(5);

impl Host {
    /// Answers a request of an [`AdminClient`](super::AdminClient) that a
    /// transport carried here. Only the group's leader changes the group; a
    /// replica that does not lead says who does.
    ///
    /// What was begun is carried through when the future is dropped: a replica
    /// whose removal ended half way would be neither here nor gone.
    ///
    /// # Errors
    /// [`RaftError::Malformed`] when `payload` is no request.
    pub fn administer(&self, payload: Bytes) -> BoxFuture<Result<Bytes, RaftError>> {
        let host = self.clone();
        Box::pin(async move {
            match AdminRequest::from_bytes(&payload) {
                Ok(request) => Ok(host.perform(request).await.to_bytes()),
                Err(error) => Err(RaftError::Malformed(error.to_string())),
            }
        })
    }

    /// See [`Self::administer`]; for callers on this node.
    pub(super) async fn perform(&self, request: AdminRequest) -> AdminReply {
        let host = self.clone();
        let work = spawn(async move { host.act(request).await });
        work.await.unwrap_or(Err(RaftError::Unknown)).unwrap_or_else(|error| match error {
            RaftError::NotLeader { leader } => AdminReply::NotLeader(leader),
            RaftError::Fenced => AdminReply::Fenced,
            RaftError::NotReady(reason) => AdminReply::NotReady(reason.as_str().into()),
            RaftError::Refused(reason) => AdminReply::Refused(reason.as_str().into()),
            error => AdminReply::Unknown(error.to_string().as_str().into()),
        })
    }

    async fn act(&self, request: AdminRequest) -> Result<AdminReply, RaftError> {
        let AdminRequest { group, task, fence } = request;
        Ok(match task {
            Task::Progress => AdminReply::Progress(progress(&self.led(group, fence)?).await?),
            Task::Change(change) => {
                self::change(&self.led(group, fence)?, change).await?;
                AdminReply::Changed
            }
            Task::Transfer(to) => {
                AdminReply::Transferred(transfer(&self.led(group, fence)?, to).await?)
            }
            Task::Destroy(replica) => {
                self.destroy(group, replica).await?;
                AdminReply::Destroyed
            }
        })
    }

    /// A group that is led here and that no later attempt has changed.
    fn led(&self, group: GroupId, fence: Option<Fence>) -> Result<Group, RaftError> {
        let group = self.group(group).ok_or(RaftError::NotLeader { leader: None })?;
        let leadership = *group.leadership().borrow();
        if !leadership.leading {
            return Err(RaftError::NotLeader { leader: leadership.leader });
        }
        if fence.is_some_and(|fence| !self.fences().admits(fence)) {
            return Err(RaftError::Fenced);
        }
        Ok(group)
    }
}

async fn change(group: &Group, change: MemberChange) -> Result<(), RaftError> {
    match change {
        MemberChange::AddLearner(replica, node) => group.add_learner(replica, node).await,
        MemberChange::RemoveLearner(replica) => group.remove_learner(replica).await,
        MemberChange::Voters(change) => {
            let now = group.status().voters.into_iter().map(|(replica, _)| replica);
            group.set_voters(change.applied_to(now)).await
        }
    }
}

/// The members, after a round that confirmed the leadership.
async fn progress(group: &Group) -> Result<GroupProgress, RaftError> {
    group.read_index().await.map_err(|_| RaftError::Unknown)?;
    let status = group.status();
    let last_log = status.last_log.unwrap_or_default();
    let member = |(replica, _): &(ReplicaId, NodeId), is_voter| {
        let is_self = *replica == status.replica;
        MemberProgress {
            replica: *replica,
            is_voter,
            matched: match status.matched.get(replica) {
                _ if is_self => last_log,
                matched => matched.copied().unwrap_or_default(),
            },
            is_fresh: is_self || status.fresh.contains(replica),
        }
    };
    let voters = status.voters.iter().map(|voter| member(voter, true));
    let learners = status.learners.iter().map(|learner| member(learner, false));
    Ok(GroupProgress {
        leader: status.replica,
        last_log,
        members: voters.chain(learners).collect(),
        outgoing: status.outgoing.map(|voters| voters.into_iter().collect()),
    })
}

/// Transfers the leadership and measures for how many microseconds nobody led.
async fn transfer(group: &Group, to: ReplicaId) -> Result<u64, RaftError> {
    if to == group.replica() {
        return Ok(0); // It leads already, perhaps by an earlier call of this.
    }
    let started = Instant::now();
    let mut leadership = group.leadership();
    let term = leadership.borrow().term;
    group.transfer_leader(to).await?;
    let elected = leadership.wait_for(|now| now.term > term && now.leader.is_some());
    match tokio::time::timeout(ELECTION_DEADLINE, elected).await {
        Ok(Ok(_)) => Ok(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)),
        Ok(Err(_)) | Err(_) => Err(RaftError::Unknown),
    }
}
