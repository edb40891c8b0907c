#![doc = include_str!("../README.md")]

mod chunk;
#[cfg(feature = "conformance")]
pub mod conformance;
mod embedded;
mod error;
mod layer;
mod mem;
mod port;
mod source;

pub use chunk::{CHUNK_BYTES_MAX, ChunkError};
pub use embedded::{RedbConfig, RedbEngine};
pub use error::{CorruptRow, EngineError};
pub use mem::MemEngine;
pub use port::{
    Batch, Engine, EngineSnapshot, Fork, KEY_BYTES_MAX, Mutation, Page, ScanLimit, ShardStatus,
    Space, Staging, StateHash, VALUE_BYTES_MAX,
};
