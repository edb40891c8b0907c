//! What the benches share: the machine's limit on the same disk in the same run,
//! peers that are processes, and rates beside each other.
#![allow(
    clippy::disallowed_methods,
    reason = "benches live outside the cores: they measure real time"
)]

mod bar;
mod disk;
mod etcd;
mod machine;
mod measured;
mod process;
mod scoreboard;
mod spread;

pub use bar::Bar;
pub use disk::{RawLog, SyncRate, sync_rate};
pub use etcd::{Etcd, EtcdClients};
pub use machine::{
    Machine, cpu_seconds, flushes, machine_cpu_seconds, resident_bytes, written_bytes,
};
pub use measured::{Measured, Outcome, WARM_UP, Window};
pub use process::Process;
pub use scoreboard::{Scoreboard, criterion};
pub use spread::Spread;

/// The value that so many of a hundred do not exceed; 0 of nothing.
#[must_use]
pub fn percentile(ascending: &[u64], percent: usize) -> u64 {
    let rank = (ascending.len() * percent).div_ceil(100);
    ascending.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}
