#![doc = include_str!("../README.md")]

mod allocation;
mod anti_entropy;
mod context;
mod counter;
mod error;
mod fingerprint;
mod limits;
mod load;
mod map;
mod or_set;
mod register;
mod registry;
mod version;
mod wire;

pub use allocation::{Allocation, AllocationTable};
pub use context::DotContext;
pub use counter::PnCounter;
pub use error::CrdtError;
pub use limits::Limits;
pub use load::{LoadTable, NodeLoad, ShardLoad};
pub use map::{
    Change, Collected, Delta, DeltaMap, Entry, Keyspace, MergeOutcome, Novelty, Put, ResetBasis,
    ResetChunk, ResetCursor, Run, Summary,
};
pub use or_set::OrSet;
pub use register::{LwwRegister, Stamp};
pub use registry::{Registry, RegistryConfig};
pub use version::{Dot, Origin, VersionVector};
