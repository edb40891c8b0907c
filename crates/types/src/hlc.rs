//! Hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014).
//!
//! Drift is bounded in two places: at session admission, where
//! [`crate::hello`] turns away a peer whose clock is ahead
//! ([`HlcClock::admissible`]), and at the writer, which follows what it has
//! seen only so far ([`AHEAD_MILLIS_MAX`]). Never inside a CRDT merge, which
//! would make convergence depend on the clock.

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

/// How far ahead of our clock a peer's may be when a session opens.
pub const DRIFT_MILLIS_MAX: u64 = 500;

/// How far ahead of the clock the mark is persisted, so that it needs a disk
/// write once per window and not once per timestamp.
pub const HIGH_WATER_WINDOW_MILLIS: u64 = 5_000;

/// How far ahead of the writer's clock a timestamp may be drawn because one
/// was seen there. An honest peer does not come further: it is admitted at
/// most [`DRIFT_MILLIS_MAX`] ahead, and just after a restart it draws at its
/// persisted mark, at most [`HIGH_WATER_WINDOW_MILLIS`] above its own clock.
pub const AHEAD_MILLIS_MAX: u64 = DRIFT_MILLIS_MAX + HIGH_WATER_WINDOW_MILLIS;

/// Draws timestamps that never go back, not even over a restart with a clock
/// set back: the owner persists the mark of [`HlcClock::reserve`] before it
/// uses what it draws, and hands it to the next [`HlcClock::new`].
///
/// A timestamp lies at most [`AHEAD_MILLIS_MAX`] above the time it is drawn
/// at, unless an earlier one, or the mark of an earlier life, lies higher:
/// then it stays there until the time has caught up.
#[derive(Debug)]
pub struct HlcClock {
    node: NodeId,
    drawn: Hlc,
    seen: Hlc,
    high_water_millis: u64,
}

impl HlcClock {
    /// A clock for `node` whose timestamps all lie above `high_water_millis`,
    /// the mark that an earlier life persisted (zero for the first).
    #[must_use]
    pub const fn new(node: NodeId, high_water_millis: u64) -> Self {
        Self::after(node, Hlc { millis: high_water_millis, counter: 0, node })
    }

    /// A clock for `node` whose timestamps all lie above one that was
    /// persisted, whoever drew it.
    #[must_use]
    pub const fn after(node: NodeId, persisted: Hlc) -> Self {
        let drawn = Hlc { node, ..persisted };
        Self { node, drawn, seen: drawn, high_water_millis: persisted.millis }
    }

    /// Draws a timestamp above every earlier one, and above every observed one
    /// that is less than [`AHEAD_MILLIS_MAX`] ahead of `now_millis`. A write
    /// that meets one further ahead is refused as stale where it is stored,
    /// until this node's clock comes near: either that clock is behind, or the
    /// writer's was ahead, and following it would spread the error.
    pub fn tick(&mut self, now_millis: u64) -> Hlc {
        self.drawn = self.next(now_millis);
        self.raise_mark(self.drawn.millis, now_millis);
        self.drawn
    }

    /// The mark to persist before drawing at `now_millis`: everything that is
    /// drawn then, and before another timestamp is observed, lies below it.
    pub fn reserve(&mut self, now_millis: u64) -> u64 {
        // Where the counter runs over, timestamps go on in the next millisecond.
        let last_millis = self.next(now_millis).millis.saturating_add(1);
        self.raise_mark(last_millis, now_millis);
        self.high_water_millis
    }

    fn next(&self, now_millis: u64) -> Hlc {
        let ahead_max = now_millis.saturating_add(AHEAD_MILLIS_MAX);
        let last =
            if self.seen.millis < ahead_max { self.drawn.max(self.seen) } else { self.drawn };
        let (millis, counter) = if now_millis > last.millis {
            (now_millis, 0)
        } else if let Some(counter) = last.counter.checked_add(1) {
            (last.millis, counter)
        } else {
            (last.millis.saturating_add(1), 0)
        };
        Hlc { millis, counter, node: self.node }
    }

    /// Takes note of a timestamp seen in a merge: later ticks lie above it, as
    /// far as they may.
    pub fn observe(&mut self, seen: Hlc) {
        self.seen = self.seen.max(Hlc { node: self.node, ..seen });
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

    /// Keeps the mark above what is drawn. The window counts from the clock,
    /// not from the timestamp: a node that restarts over and over would
    /// otherwise move a window ahead with each life.
    fn raise_mark(&mut self, drawn_millis: u64, now_millis: u64) {
        if drawn_millis >= self.high_water_millis {
            let window_end = now_millis.saturating_add(HIGH_WATER_WINDOW_MILLIS);
            self.high_water_millis = window_end.max(drawn_millis.saturating_add(1));
        }
    }
}
