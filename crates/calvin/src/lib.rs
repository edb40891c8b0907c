//! Room under construction.

mod command;
mod dedup;
mod lock;
mod procedure;
pub mod sequencer;
pub mod shard;
mod store;

pub use command::*;
pub use lock::{LockSet, LockTable, Place};
pub use procedure::{
    Access, Call, Footprint, Inputs, Outcome, Procedures, RangeAccess, Read, Rows, Write,
};
pub use store::{Fork, Space, Store, StoreError, View, WriteSet};
