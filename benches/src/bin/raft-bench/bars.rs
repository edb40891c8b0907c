//! What the log has to reach.

use quorate_benches::Bar;

use crate::run::{RAFT_ENGINE, RAW, REDB, ROWS, SEGMENTS};

/// A bar of one log for one way of appending.
pub(crate) struct Appending {
    /// As it stands in the tables, like the name of the log.
    pub(crate) shape: &'static str,
    pub(crate) log: &'static str,
    pub(crate) figure: Figure,
    pub(crate) bar: Bar,
}

/// What of a log a bar is about.
#[derive(Clone, Copy)]
pub(crate) enum Figure {
    /// Entries per second beside those of this log.
    RateBeside(&'static str),
    /// Bytes that reach the device for each byte of payload.
    Amplification,
}

/// All of them.
pub(crate) static APPENDING: [Appending; 7] = [
    segments("g64", Figure::RateBeside(RAW), Bar::at_least(0.7, "of raw")),
    segments("g64", Figure::RateBeside(RAFT_ENGINE), Bar::at_least(1.3, "x raft-engine")),
    segments("g64", Figure::Amplification, Bar::at_most(1.6, "bytes")),
    segments("b256", Figure::RateBeside(RAFT_ENGINE), Bar::at_least(1.0, "x raft-engine")),
    segments("a64", Figure::RateBeside(RAFT_ENGINE), Bar::at_least(1.0, "x raft-engine")),
    segments("a256", Figure::RateBeside(RAFT_ENGINE), Bar::at_least(1.0, "x raft-engine")),
    Appending {
        shape: "g64",
        log: REDB,
        figure: Figure::RateBeside(ROWS),
        bar: Bar::at_least(4.0, "x a row per entry"),
    },
];

const fn segments(shape: &'static str, figure: Figure, bar: Bar) -> Appending {
    Appending { shape, log: SEGMENTS, figure, bar }
}

/// What is in the log that the bar of opening is about.
const OPENED_MIB: u64 = 2 << 10;

/// How long opening may take after a kill; only for a log of about that size.
pub(crate) fn opening(mib: u64) -> Option<Bar> {
    let is_about_as_large = mib.abs_diff(OPENED_MIB) <= OPENED_MIB / 10;
    is_about_as_large.then_some(Bar::at_most(2.0, "s"))
}
