//! Clocks that may be wrong.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_types::env::Clock;
use tokio::time::Instant;

/// When simulations begin, by true time: some moment of 2023.
const BEGIN_UNIX_MILLIS: i64 = 1_700_000_000_000;

/// No clock is faster or slower by more than so many parts in a million, which
/// is half. Good machines stay below a hundred.
pub const DRIFT_PPM_MAX: i32 = 500_000;

/// A node's clock over the runtime's virtual time. Its monotonic time is right
/// and starts at zero; its time of day may be off, jump, and run too fast or
/// too slow. Clones are the same clock.
///
/// Only the time of day drifts. All timers of a simulation are tokio's, of
/// which there is one clock: a node whose clock runs fast does not time out
/// sooner. What drift reaches is what reads the time of day: hybrid clocks,
/// timestamps in logged entries, expiry.
#[derive(Debug, Clone)]
pub struct SimClock {
    begun: Instant,
    started: Instant,
    error: Arc<Mutex<Error>>,
}

/// How wrong the time of day is.
#[derive(Debug)]
struct Error {
    offset_millis: i64,
    drift_ppm: i32,
    /// Since when it drifts like this, and how far it had drifted by then.
    since: Instant,
    drifted_micros: i64,
}

impl Error {
    fn drifted_micros(&self) -> i64 {
        let passed = micros(self.since.elapsed());
        let drifted = i128::from(passed) * i128::from(self.drift_ppm) / 1_000_000;
        self.drifted_micros.saturating_add(i64::try_from(drifted).unwrap_or(i64::MAX))
    }
}

impl SimClock {
    /// A clock whose time of day is off by `offset_millis`. `begun` is when
    /// the simulation began ([`super::Sim::begun`]).
    #[must_use]
    pub fn new(begun: Instant, offset_millis: i64) -> Self {
        let started = Instant::now();
        let error = Error { offset_millis, drift_ppm: 0, since: started, drifted_micros: 0 };
        Self { begun, started, error: Arc::new(Mutex::new(error)) }
    }

    /// The same machine's clock for a process that starts now: its monotonic
    /// time starts again, its time of day goes on.
    #[must_use]
    pub fn restarted(&self) -> Self {
        Self { started: Instant::now(), ..self.clone() }
    }

    /// Moves the time of day by `millis`, forward or back.
    pub fn jump(&self, millis: i64) {
        let mut error = self.error.lock();
        error.offset_millis = error.offset_millis.saturating_add(millis);
    }

    /// From now on the time of day gains so many microseconds in a second, or
    /// loses them if negative; at most [`DRIFT_PPM_MAX`] either way. What it
    /// has gained so far stays.
    pub fn set_drift_ppm(&self, drift_ppm: i32) {
        let mut error = self.error.lock();
        error.drifted_micros = error.drifted_micros();
        error.since = Instant::now();
        error.drift_ppm = drift_ppm.clamp(-DRIFT_PPM_MAX, DRIFT_PPM_MAX);
    }

    /// What was set last with [`SimClock::set_drift_ppm`].
    #[must_use]
    pub fn drift_ppm(&self) -> i32 {
        self.error.lock().drift_ppm
    }

    /// How far the time of day is off now: what it was off at first, its jumps,
    /// and what it has drifted.
    #[must_use]
    pub fn offset_millis(&self) -> i64 {
        let error = self.error.lock();
        error.offset_millis.saturating_add(error.drifted_micros().div_euclid(1000))
    }
}

impl Clock for SimClock {
    fn wall_millis(&self) -> u64 {
        let error = self.error.lock();
        let passed = micros(self.begun.elapsed()).saturating_add(error.drifted_micros());
        let wall = BEGIN_UNIX_MILLIS
            .saturating_add(passed.div_euclid(1000))
            .saturating_add(error.offset_millis);
        u64::try_from(wall).unwrap_or(0)
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
