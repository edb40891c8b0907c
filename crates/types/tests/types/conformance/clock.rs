use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quorate_types::conformance::clock_suite;
use quorate_types::env::{Clock, SystemClock};

#[tokio::test(start_paused = true)]
async fn the_system_clock_conforms() {
    clock_suite(&SystemClock::new(), || {}).await;
}

/// A clock that takes the time of day for the time that passes.
struct WallOnly(AtomicU64);

impl Clock for WallOnly {
    fn wall_millis(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.wall_millis())
    }
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "`Clock::monotonic` never goes back")]
async fn a_clock_that_follows_the_time_of_day_is_refused() {
    let clock = WallOnly(AtomicU64::new(1_000));
    let set_back = || {
        clock.0.fetch_sub(1, Ordering::Relaxed);
    };
    clock_suite(&clock, set_back).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "`Clock::monotonic` is the time that passes")]
async fn a_clock_that_stands_still_is_refused() {
    clock_suite(&WallOnly(AtomicU64::new(1_000)), || {}).await;
}
