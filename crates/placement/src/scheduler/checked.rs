//! Proposals that are held against the present before anything begins.

use std::sync::Arc;

use quorate_types::runtime::BoxFuture;

use super::ports::{Authority, ClusterSource, Executor, Proposer};
use crate::error::{PlacementError, Refused};
use crate::history::{InFlight, OperatorId};
use crate::operator::Proposal;
use crate::safety;

/// A [`Proposer`] that has an operator begun only while its authority leads
/// and its preconditions hold, by the cluster as it is seen at that moment.
/// What changes after that look is for the [`Executor`] to notice.
#[derive(Debug)]
pub struct CheckedProposer<T>(Arc<T>);

impl<T: ClusterSource + Executor> CheckedProposer<T> {
    /// Proposals are held against what `cluster` shows, and begun there.
    #[must_use]
    pub const fn new(cluster: Arc<T>) -> Self {
        Self(cluster)
    }
}

/// Whether the right to act is still the one of `authority`.
fn leads(cluster: &impl ClusterSource, authority: Authority) -> Result<(), Refused> {
    if cluster.authority() == Some(authority) { Ok(()) } else { Err(Refused::NotLeader) }
}

/// What cannot be seen cannot be held to be as expected.
fn unseen(error: PlacementError) -> Refused {
    tracing::debug!(%error, "a proposal cannot be checked");
    Refused::Precondition
}

impl<T: ClusterSource + Executor> Proposer for CheckedProposer<T> {
    fn propose(
        &self,
        authority: Authority,
        proposal: Proposal,
    ) -> BoxFuture<Result<OperatorId, Refused>> {
        let cluster = Arc::clone(&self.0);
        Box::pin(async move {
            leads(&*cluster, authority)?;
            let view = cluster.view().await.map_err(unseen)?;
            let in_flight = cluster.in_flight().map_err(unseen)?;
            safety::expect(&view, &in_flight, &proposal.preconditions)?;
            cluster.begin(proposal.operator).await
        })
    }

    fn operators(&self) -> BoxFuture<Result<Vec<InFlight>, PlacementError>> {
        Box::pin(std::future::ready(self.0.in_flight()))
    }

    fn cancel(&self, authority: Authority, id: OperatorId) -> BoxFuture<Result<(), Refused>> {
        let answer = leads(&*self.0, authority).map(|()| self.0.cancel(id));
        Box::pin(std::future::ready(answer))
    }
}
