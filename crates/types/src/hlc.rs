//! Hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014).
//!
//! Drift is bounded where a timestamp enters from outside (at session
//! admission, with [`HlcClock::admissible`]) and at the writer; never inside a
//! CRDT merge, which would make convergence depend on the clock.

use std::fmt;

use zerompk::{FromMessagePack, ToMessagePack};

use crate::NodeId;

/// A timestamp that orders like time and ties never: physical milliseconds
/// since the Unix epoch, a counter within the millisecond, the writer.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, ToMessagePack, FromMessagePack,
)]
pub struct Hlc {
    /// Milliseconds since the Unix epoch.
    pub millis: u64,
    /// Orders events of the same millisecond.
    pub counter: u32,
    /// The node that drew the timestamp.
    pub node: NodeId,
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}@{}", self.millis, self.counter, self.node)
    }
}

/// How far ahead of our clock a peer's timestamp may be before a session that
/// carries it is refused.
pub const DRIFT_MILLIS_MAX: u64 = 500;

/// How far ahead of the last persisted mark timestamps may be drawn, so that
/// the mark needs a disk write once per window and not once per timestamp.
pub const HIGH_WATER_WINDOW_MILLIS: u64 = 5_000;

/// Draws timestamps that never go back, not even over a restart with a clock
/// set back: the owner persists [`HlcClock::high_water`] whenever it changed
/// and hands it to the next [`HlcClock::new`].
#[derive(Debug)]
pub struct HlcClock {
    node: NodeId,
    last: Hlc,
    high_water_millis: u64,
}

impl HlcClock {
    /// A clock for `node` whose timestamps all lie above `high_water_millis`,
    /// the mark that an earlier life persisted (zero for the first).
    #[must_use]
    pub const fn new(node: NodeId, high_water_millis: u64) -> Self {
        let last = Hlc { millis: high_water_millis, counter: 0, node };
        Self { node, last, high_water_millis }
    }

    /// Draws a timestamp above every earlier one and every observed one.
    pub fn tick(&mut self, now_millis: u64) -> Hlc {
        let last = self.last;
        let (millis, counter) = if now_millis > last.millis {
            (now_millis, 0)
        } else if let Some(counter) = last.counter.checked_add(1) {
            (last.millis, counter)
        } else {
            (last.millis.saturating_add(1), 0)
        };
        self.advance(Hlc { millis, counter, node: self.node });
        self.last
    }

    /// Takes note of a timestamp seen in a merge: later ticks lie above it.
    pub fn observe(&mut self, seen: Hlc) {
        if (seen.millis, seen.counter) > (self.last.millis, self.last.counter) {
            self.advance(Hlc { node: self.node, ..seen });
        }
    }

    /// Whether a peer whose clock shows `peer_millis` may open a session now.
    #[must_use]
    pub const fn admissible(peer_millis: u64, now_millis: u64) -> bool {
        peer_millis.saturating_sub(now_millis) <= DRIFT_MILLIS_MAX
    }

    /// The mark to persist *before* the timestamps below it are used. It moves
    /// in steps of [`HIGH_WATER_WINDOW_MILLIS`].
    #[must_use]
    pub const fn high_water(&self) -> u64 {
        self.high_water_millis
    }

    fn advance(&mut self, to: Hlc) {
        self.last = to;
        if to.millis >= self.high_water_millis {
            self.high_water_millis = to.millis.saturating_add(HIGH_WATER_WINDOW_MILLIS);
        }
    }
}
