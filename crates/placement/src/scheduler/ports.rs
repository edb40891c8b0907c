//! What the scheduler needs from its surroundings.

use quorate_types::runtime::BoxFuture;

use crate::error::{PlacementError, Refused};
use crate::history::{InFlight, OperatorId};
use crate::operator::{Operator, Proposal};
use crate::view::ClusterView;

/// The right to act: this node leads the metadata group in `term`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Authority {
    /// The term of the leadership; it fences every proposal.
    pub term: u64,
}

/// Shows the cluster. The facade adapts it over the metadata and gossip.
pub trait ClusterSource: Send + Sync + 'static {
    /// The cluster as known here. It may be stale: preconditions catch that.
    fn view(&self) -> BoxFuture<Result<ClusterView, PlacementError>>;

    /// Whether this node may act, as far as it knows. Asked before every
    /// action, so it must be cheap.
    fn authority(&self) -> Option<Authority>;
}

/// Takes proposals. [`CheckedProposer`](crate::CheckedProposer) is one over an
/// [`Executor`].
pub trait Proposer: Send + Sync + 'static {
    /// Asks for an operator, provided that the authority's term still leads
    /// and that the proposal's preconditions hold. Accepted means journaled.
    fn propose(
        &self,
        authority: Authority,
        proposal: Proposal,
    ) -> BoxFuture<Result<OperatorId, Refused>>;

    /// The operators that are in flight.
    fn operators(&self) -> BoxFuture<Result<Vec<InFlight>, PlacementError>>;

    /// Asks for an operator to be given up. An operator that is past its
    /// point of no return is refused, and completes. Repeating is harmless.
    fn cancel(&self, authority: Authority, id: OperatorId) -> BoxFuture<Result<(), Refused>>;
}

/// Journals operators and carries them out, without asking whether they still
/// make sense. The facade adapts it over the metadata group.
pub trait Executor: Send + Sync + 'static {
    /// The operators that are in flight.
    ///
    /// # Errors
    /// [`PlacementError::ViewUnavailable`]
    fn in_flight(&self) -> Result<Vec<InFlight>, PlacementError>;

    /// Begins an operator. Accepted means journaled.
    fn begin(&self, operator: Operator) -> BoxFuture<Result<OperatorId, Refused>>;

    /// Gives an operator up, unless it is past its point of no return; then
    /// it completes. Repeating is harmless.
    fn cancel(&self, id: OperatorId);
}
