//! What every implementation of this crate's ports must do, as suites to run
//! against one's own. A suite panics where the implementation is wrong, with
//! the sentence of the port that it breaks.
//!
//! | port | the one line |
//! |---|---|
//! | [`Store`](crate::Store) | `store_suite(\|\| my_shard())` |
//! | [`Procedures`](crate::Procedures) | `procedures_suite(\|\| Arc::new(MyProcedures), &calls, &rows)` |
//!
//! The port to a group's log, the sequencer's and the shards', is that of
//! `types`, and so is its suite: `quorate_types::conformance::group_log_suite`.
//! [`Router`](crate::Router) and [`Allocations`](crate::Allocations) are hints,
//! which may say anything; [`Peers`](crate::Peers) and [`Wire`](crate::Wire)
//! may lose, repeat and reorder anything.

mod procedures;
mod store;

pub use procedures::procedures_suite;
pub use store::{Shard, store_suite};
