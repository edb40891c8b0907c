//! The asking side.

use std::sync::Arc;
use std::time::Duration;

use quorate_types::membership::{Fence, GroupProgress};
use quorate_types::{GroupId, NodeId, ReplicaId};

use super::wire::{AdminReply, AdminRequest, MemberChange, Task};
use crate::error::RaftError;
use crate::host::Host;
use crate::transport::{Lane, Transport};

/// How long one call to a candidate may take: a change of membership commits
/// twice, and a transfer waits for an election.
const CALL_DEADLINE: Duration = Duration::from_secs(15);

/// Which nodes may lead a group, the likeliest first.
type Candidates = dyn Fn(GroupId) -> Vec<NodeId> + Send + Sync;

/// Changes groups wherever their leaders are, by asking candidates in turn
/// until the leader has answered, and destroys replicas wherever they live.
///
/// Every task may be asked again: of a change that was made already a
/// repetition changes nothing.
#[derive(Clone)]
pub struct AdminClient {
    node: NodeId,
    host: Host,
    transport: Arc<dyn Transport>,
    candidates: Arc<Candidates>,
}

impl std::fmt::Debug for AdminClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminClient").field("node", &self.node).finish_non_exhaustive()
    }
}

impl AdminClient {
    /// A client on `node`, whose own groups are those of `host`. The transport
    /// brings requests to [`Host::administer`] of other nodes.
    pub fn new(
        node: NodeId,
        host: Host,
        transport: Arc<dyn Transport>,
        candidates: impl Fn(GroupId) -> Vec<NodeId> + Send + Sync + 'static,
    ) -> Self {
        Self { node, host, transport, candidates: Arc::new(candidates) }
    }

    /// How far the members of a group are, by a leader that has just confirmed
    /// that it leads.
    ///
    /// # Errors
    /// [`RaftError::Unknown`] when nobody could tell.
    pub async fn progress(&self, group: GroupId) -> Result<GroupProgress, RaftError> {
        match self.run(AdminRequest { group, task: Task::Progress, fence: None }).await? {
            AdminReply::Progress(progress) => Ok(progress),
            _ => Err(RaftError::Unknown),
        }
    }

    /// Changes a group's members.
    ///
    /// # Errors
    /// [`RaftError::Refused`] when it did not happen and would not now, for
    /// instance because a later fence has acted; [`RaftError::Unknown`] when
    /// it may have happened.
    pub async fn change(
        &self,
        group: GroupId,
        change: MemberChange,
        fence: Fence,
    ) -> Result<(), RaftError> {
        let (task, fence) = (Task::Change(change), Some(fence));
        self.run(AdminRequest { group, task, fence }).await.map(drop)
    }

    /// Hands a group's leadership to a voter and tells how long nobody led.
    ///
    /// # Errors
    /// As for [`Self::change`].
    pub async fn transfer(
        &self,
        group: GroupId,
        to: ReplicaId,
        fence: Option<Fence>,
    ) -> Result<Duration, RaftError> {
        match self.run(AdminRequest { group, task: Task::Transfer(to), fence }).await? {
            AdminReply::Transferred(micros) => Ok(Duration::from_micros(micros)),
            _ => Err(RaftError::Unknown),
        }
    }

    /// Destroys a replica on the node where it lives, its `home`; see
    /// [`Host::destroy`].
    ///
    /// # Errors
    /// [`RaftError::Refused`] when it did not happen; [`RaftError::Unknown`]
    /// when it may have happened.
    pub async fn destroy(
        &self,
        home: NodeId,
        group: GroupId,
        replica: ReplicaId,
    ) -> Result<(), RaftError> {
        let request = AdminRequest { group, task: Task::Destroy(replica), fence: None };
        match self.ask(home, &request).await {
            Some(AdminReply::Destroyed) => Ok(()),
            Some(AdminReply::Refused(reason)) => Err(RaftError::Refused(text(&reason))),
            other => {
                tracing::debug!(%group, %replica, ?other, "a replica may not be destroyed");
                Err(RaftError::Unknown)
            }
        }
    }

    async fn run(&self, request: AdminRequest) -> Result<AdminReply, RaftError> {
        let group = request.group;
        for candidate in (self.candidates)(group) {
            match self.ask(candidate, &request).await {
                // Whoever did not answer may not be the leader either.
                None | Some(AdminReply::NotLeader(_)) => {}
                Some(AdminReply::Unknown(reason)) => {
                    tracing::debug!(%group, ?reason, "a group's leader does not know");
                    return Err(RaftError::Unknown);
                }
                Some(AdminReply::Fenced) => return Err(RaftError::Fenced),
                Some(AdminReply::NotReady(reason)) => {
                    return Err(RaftError::NotReady(text(&reason)));
                }
                Some(AdminReply::Refused(reason)) => return Err(RaftError::Refused(text(&reason))),
                Some(reply) => return Ok(reply),
            }
        }
        Err(RaftError::Unknown)
    }

    async fn ask(&self, candidate: NodeId, request: &AdminRequest) -> Option<AdminReply> {
        if candidate == self.node {
            // Boxed, or the work of every task would be part of each caller's future.
            return Some(Box::pin(self.host.perform(request.clone())).await);
        }
        let payload = request.to_bytes();
        let reply = self.transport.call(candidate, Lane::Request, payload, CALL_DEADLINE).await;
        let reply = reply.inspect_err(|error| tracing::debug!(%error, "a candidate is silent"));
        AdminReply::from_bytes(&reply.ok()?)
            .inspect_err(|error| tracing::warn!(%candidate, %error, "a reply cannot be read"))
            .ok()
    }
}

fn text(reason: &[u8]) -> String {
    String::from_utf8_lossy(reason).into_owned()
}
