//! What a node needs from its surroundings besides disk and tasks: time and
//! chance. Production adapters are here because every driver needs them; the
//! simulator brings its own.

use std::sync::Arc;
use std::time::Duration;

/// Reads time. Cores never hold one: they are handed `now`.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch, as this machine believes. May jump.
    fn wall_millis(&self) -> u64;

    /// Time since some fixed moment of this process's life. Never goes back.
    fn monotonic(&self) -> Duration;
}

/// The machine's clocks. Monotonic time is the runtime's, so that it stands
/// still with a paused runtime.
#[derive(Debug, Clone)]
pub struct SystemClock {
    started: tokio::time::Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts at zero now.
    #[must_use]
    pub fn new() -> Self {
        Self { started: tokio::time::Instant::now() }
    }

    /// The same, ready to be shared.
    #[must_use]
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self::new())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the adapter that may read the clock")]
    fn wall_millis(&self) -> u64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Chance for a core. Drivers seed it from [`crate::runtime::random`].
pub trait Rng: Send {
    /// The next 64 random bits.
    fn next_u64(&mut self) -> u64;

    /// A number below `bound`; zero for a bound of zero. The bias of the
    /// modulus is below 2^-32 for the bounds used here.
    fn below(&mut self, bound: u64) -> u64 {
        self.next_u64().checked_rem(bound).unwrap_or(0)
    }
}

/// SplitMix64 (Steele et al., 2014): small, seedable, the same on every
/// machine. Not for secrets.
#[derive(Debug, Clone)]
pub struct SplitMix(u64);

impl SplitMix {
    /// A generator whose whole sequence follows from `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }
}

impl Rng for SplitMix {
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
