//! The planner: a pure function, one room per tier.
//!
//! A [`Ledger`] holds the cluster as it will be once everything in flight has
//! landed. The tiers run in order of importance; each adds operators to the
//! ledger, which counts them from then on, so that a later tier sees what an
//! earlier one decided and no two operators of a plan contradict each other.

mod balance;
mod capacity;
mod destination;
mod draining;
mod gate;
mod leaders;
mod ledger;
mod merge;
mod quorum;
mod split;
mod spread;

#[cfg(test)]
mod tests;

use crate::history::{History, InFlight};
use crate::operator::Plan;
use crate::policy::Policy;
use crate::view::ClusterView;
use ledger::Ledger;

/// Plans the next changes to the cluster.
///
/// The plan is a function of its arguments and of nothing else; the order of
/// the view's lists does not matter. Apply it, wait or not, look again, plan
/// again: repeated on a cluster that stands still, it comes to rest.
#[must_use]
pub fn plan(
    view: &ClusterView,
    policy: &Policy,
    in_flight: &[InFlight],
    history: &History,
) -> Plan {
    let mut ledger = Ledger::new(view, policy, history, in_flight);
    quorum::plan(&mut ledger, in_flight);
    spread::plan(&mut ledger);
    draining::plan(&mut ledger);
    capacity::plan(&mut ledger);
    split::plan(&mut ledger);
    balance::plan(&mut ledger);
    leaders::plan(&mut ledger);
    merge::plan(&mut ledger, view);
    ledger.into_plan()
}
