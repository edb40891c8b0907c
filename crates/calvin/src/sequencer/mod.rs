//! The sequencer (rules 2, 3, 10, 13): one log that gives every multi-shard
//! transaction its place.
//!
//! [`SequencerMachine`] is the replicated state, a pure function of the log;
//! [`SequencerLeader`] is the volatile role of the leading replica: inbox,
//! batches, watermarks.

mod leader;
mod machine;
mod rows;
mod share;

pub use leader::{NotAdmitted, SequencerLeader, SequencerLimits, Watermarks};
pub use machine::{NotOrdered, SequencerEvent, SequencerHalt, SequencerMachine, shards_of};
