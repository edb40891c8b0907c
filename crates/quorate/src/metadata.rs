//! meta's view of the metadata group.

use std::time::Duration;

use bytes::Bytes;
use quorate_meta::{BoxError, LocalReplica};
use quorate_raft::Group;
use quorate_types::runtime::BoxFuture;
use quorate_types::{NodeId, ReplicaId};

/// The metadata group as meta's client uses it.
pub(crate) struct MetadataGroup(pub(crate) Group);

impl LocalReplica for MetadataGroup {
    fn authority(&self) -> Option<u64> {
        let now = *self.0.leadership().borrow();
        // Only then does the registry reflect every earlier term.
        (now.leading && now.noop_applied).then_some(now.term)
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
