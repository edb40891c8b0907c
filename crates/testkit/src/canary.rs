//! Running code where a bug is planted, without a simulation.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quorate_types::fault::Canary;
use quorate_types::runtime::{self, Runtime};
use tokio::task::AbortHandle;

/// A runtime without chance and delay, in which a bug is planted.
struct Planted(Canary);

impl Runtime for Planted {
    fn spawned(&self, _task: AbortHandle) {}

    fn random(&self) -> u64 {
        0
    }

    fn sync_delay(&self) -> Duration {
        Duration::ZERO
    }

    fn canary(&self) -> Option<Canary> {
        Some(self.0)
    }
}

/// Runs `work` where a bug is planted, if the build can plant any (feature
/// `canary` of `quorate-types`).
///
/// # Panics
/// If `work` panics.
pub fn with<T>(canary: Canary, work: impl FnOnce() -> T) -> T {
    let planted: Arc<dyn Runtime> = Arc::new(Planted(canary));
    let mut context = Context::from_waker(Waker::noop());
    match pin!(runtime::scope(planted, async { work() })).poll(&mut context) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => unreachable!("nothing is waited for"),
    }
}
