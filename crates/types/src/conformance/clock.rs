//! What every [`Clock`] must do.

use std::time::Duration;

use crate::env::Clock;

/// How often the clock is read.
const READINGS: u32 = 200;
/// What passes between two readings.
const STEP: Duration = Duration::from_millis(1);

/// Runs the suite. `disturb` is called between readings: whatever moves the
/// time of day, where a test can (nothing, where it cannot).
///
/// ```
/// use quorate_types::conformance::clock_suite;
/// use quorate_types::env::SystemClock;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// clock_suite(&SystemClock::new(), || {}).await;
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Panics
/// When the clock does not conform.
pub async fn clock_suite(clock: &dyn Clock, mut disturb: impl FnMut()) {
    let begin = clock.monotonic();
    let mut last = begin;
    for _ in 0..READINGS {
        disturb();
        let now = clock.monotonic();
        assert!(
            now >= last,
            "`Clock::monotonic` never goes back, and went from {last:?} to {now:?}"
        );
        last = now;
        tokio::time::sleep(STEP).await;
    }
    assert!(clock.monotonic() > begin, "`Clock::monotonic` is the time that passes");
}
