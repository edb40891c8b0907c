//! The shard state machine: a pure function of its log.
//!
//! [`ShardMachine`] is replicated: every replica applies the same entries and
//! holds the same rows. [`ShardLeader`] is the volatile role of the replica
//! that leads; losing it loses nothing.

mod early;
mod feeder;
mod gate;
mod leader;
mod machine;
mod read;
pub mod rows;
mod split;
mod tombstones;

pub use feeder::Feeder;
pub use leader::{LeaderOutput, ShardLeader};
pub use machine::{Event, FenceOutcome, Halt, Refusal, ShardMachine};
pub use read::ReadOutcome;
pub use rows::Verdict;
