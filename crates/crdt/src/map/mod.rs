//! The replicated store that anti-entropy ships.
//!
//! `store` holds it and answers local reads and writes, `delta` finds and
//! merges novelty, `reset` repairs what deltas cannot, `stability` forgets
//! what everybody knows.

mod delta;
mod entry;
mod reset;
mod stability;
mod store;
mod summary;

pub use delta::{Change, Delta, MergeOutcome, Run};
pub use entry::{Entry, Keyspace, Put};
pub use reset::{ResetBasis, ResetChunk, ResetCursor};
pub use stability::Collected;
pub use store::DeltaMap;
pub use summary::{Novelty, Summary};
