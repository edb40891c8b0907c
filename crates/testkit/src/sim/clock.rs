//! Clocks that may be wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use quorate_types::env::Clock;
use tokio::time::Instant;

/// When simulations begin, by true time: some moment of 2023.
const BEGIN_UNIX_MILLIS: i64 = 1_700_000_000_000;

/// A node's clock over the runtime's virtual time. Its monotonic time is right
/// and starts at zero; its time of day may be off, and jump.
#[derive(Debug, Clone)]
pub struct SimClock {
    begun: Instant,
    started: Instant,
    offset_millis: Arc<AtomicI64>,
}

impl SimClock {
    /// A clock whose time of day is off by `offset_millis`. `begun` is when
    /// the simulation began ([`super::Sim::begun`]).
    #[must_use]
    pub fn new(begun: Instant, offset_millis: i64) -> Self {
        let offset_millis = Arc::new(AtomicI64::new(offset_millis));
        Self { begun, started: Instant::now(), offset_millis }
    }

    /// The same machine's clock for a process that starts now: its monotonic
    /// time starts again, its time of day goes on.
    #[must_use]
    pub fn restarted(&self) -> Self {
        Self { started: Instant::now(), ..self.clone() }
    }

    /// Moves the time of day by `millis`, forward or back.
    pub fn jump(&self, millis: i64) {
        self.offset_millis.fetch_add(millis, Ordering::Relaxed);
    }

    /// How far the time of day is off.
    #[must_use]
    pub fn offset_millis(&self) -> i64 {
        self.offset_millis.load(Ordering::Relaxed)
    }
}

impl Clock for SimClock {
    fn wall_millis(&self) -> u64 {
        let passed = i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(i64::MAX);
        let wall = BEGIN_UNIX_MILLIS.saturating_add(passed).saturating_add(self.offset_millis());
        u64::try_from(wall).unwrap_or(0)
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}
