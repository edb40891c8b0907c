//! calvin's and meta's views of a Raft group.

use std::time::Duration;

use bytes::Bytes;
use quorate_calvin::{GroupLog, Leadership, ProposeError, ReadIndex};
use quorate_meta::{BoxError, LocalReplica};
use quorate_raft::Group;
use quorate_types::runtime::{self, BoxFuture};
use quorate_types::{NodeId, ReplicaId, watch};

/// A group as calvin's services use it.
pub(crate) struct RaftLog {
    group: Group,
    deadline: Duration,
    leadership: watch::Receiver<Leadership>,
}

impl RaftLog {
    /// Follows the group's leadership until the group ends.
    pub(crate) fn new(group: Group, deadline: Duration) -> Self {
        let mut source = group.leadership();
        let (sender, leadership) = watch::channel(translate(*source.borrow_and_update()));
        drop(runtime::spawn(async move {
            while source.changed().await.is_ok() {
                sender.send(translate(*source.borrow_and_update()));
            }
        }));
        Self { group, deadline, leadership }
    }
}

/// A leader serves once its own no-op is applied: only then does its machine
/// reflect everything that was committed before its term.
fn translate(now: quorate_raft::Leadership) -> Leadership {
    Leadership { term: now.term, leader: now.leader, leads: now.leading && now.noop_applied }
}

impl GroupLog for RaftLog {
    fn propose(&self, command: Bytes) -> BoxFuture<Result<(), ProposeError>> {
        let (group, deadline) = (self.group.clone(), self.deadline);
        Box::pin(async move {
            match group.propose(command, deadline).await {
                Ok(_) => Ok(()),
                Err(quorate_raft::ProposeError::NotLeader { leader }) => {
                    Err(ProposeError::NotLeader(leader))
                }
                Err(quorate_raft::ProposeError::Refused(reason)) => {
                    Err(ProposeError::Refused(reason.to_string()))
                }
                Err(quorate_raft::ProposeError::Unknown) => Err(ProposeError::Unknown),
            }
        })
    }

    fn read_index(&self) -> BoxFuture<Result<ReadIndex, Option<NodeId>>> {
        let group = self.group.clone();
        Box::pin(async move {
            match group.read_index().await {
                Ok(confirmed) => Ok(ReadIndex { term: confirmed.term, index: confirmed.index }),
                Err(quorate_raft::ReadError::NotLeader { leader }) => Err(leader),
                Err(_) => Err(None),
            }
        })
    }

    fn applied(&self, index: u64) -> BoxFuture<bool> {
        let group = self.group.clone();
        Box::pin(async move { group.wait_applied(index).await.is_ok() })
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }
}

/// The metadata group as meta's client uses it.
pub(crate) struct MetadataGroup(pub(crate) Group);

impl LocalReplica for MetadataGroup {
    fn authority(&self) -> Option<u64> {
        let now = translate(*self.0.leadership().borrow());
        now.leads.then_some(now.term)
    }

    fn propose(
        &self,
        entry: Bytes,
        deadline: Duration,
    ) -> BoxFuture<Result<Bytes, quorate_meta::ProposeError>> {
        let group = self.0.clone();
        Box::pin(async move {
            let proposed = group.propose(entry, deadline).await;
            proposed.map(|proposed| proposed.outcome).map_err(|error| match error {
                quorate_raft::ProposeError::NotLeader { leader } => {
                    quorate_meta::ProposeError::NotLeader(leader)
                }
                other => quorate_meta::ProposeError::Unavailable(other.to_string()),
            })
        })
    }

    fn initialize(&self, members: Vec<(ReplicaId, NodeId)>) -> BoxFuture<Result<(), BoxError>> {
        let group = self.0.clone();
        Box::pin(async move { Ok(group.initialize(&members).await?) })
    }
}
