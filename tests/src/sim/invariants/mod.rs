//! What must hold after every step, whatever happens. Each check is made when
//! a tap reports the step after which it could first fail.

mod homes;
mod locks;
mod order;
mod raft;
mod rows;

#[cfg(test)]
mod tests;

pub(crate) use homes::HomesBook;
pub(crate) use locks::check_locks;
pub(crate) use order::{OrderBook, ShardStep};
pub(crate) use raft::{FoundGroup, RaftBook};
pub(crate) use rows::{Change, Digest, Print, RowsBook, Touched, row_hash};
