//! A group as the port [`GroupLog`].

use std::time::Duration;

use bytes::Bytes;
use quorate_types::group_log::{GroupLog, Leadership, ProposeError, ReadIndex};
use quorate_types::runtime::{self, BoxFuture};
use quorate_types::{NodeId, watch};

use crate::error::ReadError;
use crate::group::Group;

/// A [`Group`] whose proposals have a deadline, for those that know only the
/// port [`GroupLog`].
#[derive(Clone, Debug)]
pub struct RaftLog {
    group: Group,
    deadline: Duration,
    leadership: watch::Receiver<Leadership>,
}

impl RaftLog {
    /// Follows the group's leadership until the group ends. A proposal that
    /// has no outcome after `deadline` is unknown.
    #[must_use]
    pub fn new(group: Group, deadline: Duration) -> Self {
        let mut source = group.leadership();
        let (sender, leadership) = watch::channel(serving(*source.borrow_and_update()));
        drop(runtime::spawn(async move {
            while source.changed().await.is_ok() {
                sender.send(serving(*source.borrow_and_update()));
            }
        }));
        Self { group, deadline, leadership }
    }
}

/// A leader serves once its own no-op is applied: only then does its machine
/// reflect everything that was committed before its term.
fn serving(now: crate::group::Leadership) -> Leadership {
    Leadership { term: now.term, leader: now.leader, leads: now.leading && now.noop_applied }
}

impl GroupLog for RaftLog {
    fn propose(&self, command: Bytes) -> BoxFuture<Result<(), ProposeError>> {
        let (group, deadline) = (self.group.clone(), self.deadline);
        Box::pin(async move {
            group.propose(command, deadline).await.map(drop).map_err(|error| match error {
                crate::error::ProposeError::NotLeader { leader } => ProposeError::NotLeader(leader),
                crate::error::ProposeError::Refused(reason) => {
                    ProposeError::Refused(reason.to_string())
                }
                crate::error::ProposeError::Unknown => ProposeError::Unknown,
            })
        })
    }

    fn read_index(&self) -> BoxFuture<Result<ReadIndex, Option<NodeId>>> {
        let group = self.group.clone();
        Box::pin(async move {
            group.read_index().await.map_err(|error| match error {
                ReadError::NotLeader { leader } => leader,
                ReadError::Unavailable => None,
            })
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
