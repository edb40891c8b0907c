#![doc = include_str!("../README.md")]

#[cfg(feature = "conformance")]
pub mod conformance;
mod executor;
mod local;
mod machine;
mod ports;
mod row;
mod shared;
mod table;

pub use executor::{Config, Executor, Running, Status};
pub use local::LocalJournal;
pub use machine::{CAUGHT_UP_OBSERVATIONS, Delay, Done, Effect, Machine, Policy, Step};
pub use ports::{
    ControlError, Journal, JournalError, Progress, Removal, ReplicaControl, ReplicaProgress, admit,
};
pub use row::{
    AbortReason, Change, Checkpoint, MigrationRow, Outcome, Phase, Place, Position, Promotion,
    ROW_BYTES_MAX, ROW_VERSION, Refusal, RowDamage, RowError, WritePause,
};
pub use shared::{SharedJournal, SharedRow, SharedRows};
pub use table::{MigrationStateTable, Quarantined, TableConfig, TableError};

pub use quorate_types::membership::{Fence, GroupProgress, MemberProgress, VoterChange};
