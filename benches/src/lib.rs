//! What the benches share: the machine's limit on the same disk in the same
//! run, and rates beside each other.
#![allow(
    clippy::disallowed_methods,
    reason = "benches live outside the cores: they measure real time"
)]

mod disk;
mod scoreboard;

pub use disk::{RawLog, SyncRate, sync_rate};
pub use scoreboard::{Scoreboard, criterion};
