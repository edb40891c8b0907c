//! When a leader that lost its quorum keeps silent.

#[cfg(test)]
mod tests;

use std::sync::OnceLock;
use std::time::Duration;

use openraft::RaftMetrics;
use openraft::async_runtime::WatchReceiver as _;
use openraft::type_config::alias::WatchReceiverOf;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::types::TypeConfig;
use crate::config::Timing;

type Metrics = WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>;

/// Holds back the heartbeats of a leader that hears from no quorum.
///
/// Where messages reach the others and answers do not come back, an old leader's
/// heartbeats keep a connected quorum from electing another one. So, once its
/// lease is over, a leader is silent for twice the lease, in which the others
/// elect, then speaks for as long, in which a quorum that is back is found, and so
/// on. openraft can do that itself (issue 2080), counting from the last answer; a
/// leader that rested has its last answer long behind it, and would begin with
/// silence as often as not. This one counts from when it woke.
pub(crate) struct Probe {
    lease: Duration,
    metrics: OnceLock<Metrics>,
    /// The term in which a heartbeat was sent last, and since when it counts.
    since: Mutex<(u64, Instant)>,
}

impl Probe {
    pub(crate) fn new(timing: Timing) -> Self {
        Self {
            lease: timing.lease(),
            metrics: OnceLock::new(),
            since: Mutex::new((0, Instant::now())),
        }
    }

    /// Has it follow a replica; until then it holds nothing back.
    pub(crate) fn follow(&self, metrics: Metrics) {
        self.metrics.get_or_init(|| metrics);
    }

    /// The leader was silent because it rested.
    pub(crate) fn begin_anew(&self) {
        self.since.lock().1 = Instant::now();
    }

    /// Whether a heartbeat of the leader of `term` is not to be sent now.
    pub(crate) fn holds_back(&self, term: u64) -> bool {
        let speaks_for = {
            let mut since = self.since.lock();
            if since.0 != term {
                *since = (term, Instant::now());
            }
            since.1.elapsed()
        };
        let Some(metrics) = self.metrics.get() else { return false };
        let metrics = metrics.borrow_watched();
        let mut voters = metrics.membership_config.voter_ids();
        if voters.all(|voter| voter == metrics.id) {
            return false;
        }
        let answered = metrics.last_quorum_acked.as_ref();
        let unanswered_for = answered.map(|at| openraft::async_runtime::Instant::elapsed(&**at));
        is_silent(unanswered_for.map_or(speaks_for, |age| age.min(speaks_for)), self.lease)
    }
}

/// Whether a leader whose quorum answered so long ago is silent.
fn is_silent(unanswered_for: Duration, lease: Duration) -> bool {
    let Some(over) = unanswered_for.checked_sub(lease) else { return false };
    let phase = over.as_nanos() / (lease * 2).as_nanos().max(1);
    phase.is_multiple_of(2)
}
