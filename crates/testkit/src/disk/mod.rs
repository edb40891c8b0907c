//! A disk in memory that fails the way disks fail: power is cut between or in
//! the middle of writes, syncs fail, space ends, bits flip. All from a seed.

mod crash;
mod durable;
mod fault;
mod image;
mod sweep;

pub use crash::{CrashDisk, DiskCounters};
pub use durable::DiskImage;
pub use fault::{Faults, SyncFault};
pub use image::SECTOR_BYTES;
pub use sweep::{SweepOptions, SweepReport, SweepShare, sweep, sweep_from};
