#![doc = include_str!("../README.md")]

#[cfg(test)]
extern crate self as quorate_raft;

pub mod admin;
mod config;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod consensus;
mod deadlines;
mod error;
mod group;
mod group_log;
mod heartbeats;
mod host;
mod inbox;
mod log;
mod machine;
mod network;
mod nodes;
mod packing;
mod purging;
mod quiescence;
mod reads;
mod room;
mod runtime;
mod small;
mod snapshots;
mod spread;
pub mod tcp;
mod transport;

pub use config::{GroupClass, HostConfig, Timing};
pub use consensus::wire::{SEED_INDEX, host_row_index, seeded_host_row};
pub use error::{ProposeError, RaftError, ReadError, Refused};
pub use group::{Group, GroupStatus, Leadership, Proposed};
pub use group_log::RaftLog;
pub use host::{GroupSpec, Home, Host, HostMetrics, Reservation};
pub use log::{
    Completion, DurableLog, LogConfig, LogEngine, LogEntry, LogError, LogFuture, LogMedium,
    LogPosition, LogState, LogStats, Place, Vote,
};
pub use machine::{
    Batch, Entry, MachineError, MachineFuture, SnapshotReader, SnapshotWriter, StateMachine,
};
pub use network::{ChannelTransport, Network};
pub use small::{SmallMachine, SmallState, View};
pub use spread::Spread;
pub use transport::{Lane, Transport, TransportError};

pub use quorate_types::group_log::ReadIndex;
