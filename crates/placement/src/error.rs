//! What can go wrong, said so that the caller knows what to do about it.

use std::error::Error;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum PlacementError {
    /// The policy contradicts itself; the text names the rule it breaks.
    #[error("the placement policy is invalid: {0}")]
    InvalidPolicy(&'static str),
    /// The scheduler's configuration contradicts itself.
    #[error("the scheduler's configuration is invalid: {0}")]
    InvalidConfig(&'static str),
    /// The cluster cannot be seen at the moment; look again later.
    #[error("the cluster cannot be seen at the moment")]
    ViewUnavailable(#[source] Box<dyn Error + Send + Sync>),
    /// A proposal was turned down.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Why a [`Proposer`](crate::Proposer) did not take a proposal. Every refusal
/// is benign: the scheduler counts it, lets the group rest and plans anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refused {
    /// This node does not lead the metadata group in the term it claims.
    #[error("this node no longer leads the metadata group in that term")]
    NotLeader,
    /// The group changed since the plan was made.
    #[error("the group is no longer as the plan expected it")]
    Precondition,
    /// The group already has an operator in flight.
    #[error("the group already has an operator in flight")]
    GroupBusy,
    /// A limit of the executor is reached.
    #[error("a limit of the executor is reached")]
    Limit,
    /// The executor does not carry out this kind of operator.
    #[error("this kind of operator is not carried out")]
    Unsupported,
    /// The answer did not come in time; the operator may be in flight.
    #[error("the outcome of the proposal is unknown")]
    Unknown,
}
