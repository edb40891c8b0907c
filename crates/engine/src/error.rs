//! What can go wrong, by what the caller can do about it.

use std::error::Error;
use std::sync::Arc;

use quorate_types::owner::OwnerError;
use quorate_types::{Blob, ShardId};

use crate::chunk::ChunkError;
use crate::port::Space;

/// A stored row whose checksum does not match. It is never served; the state
/// of its shard on this machine must be replaced by a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CorruptRow {
    /// The shard whose read found it.
    pub shard: ShardId,
    /// The shard's user rows or system rows.
    pub space: Space,
    /// The key under which the row was found. The damage may be in the key.
    pub key: Blob,
}

/// Why an engine refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// No such shard here; create, fork or install it first.
    #[error("shard {0} does not exist in this engine")]
    UnknownShard(ShardId),
    /// The shard is being installed or removed; ask again when that is done.
    #[error("shard {0} is being replaced")]
    Busy(ShardId),
    /// The batch is not newer than what the shard has applied. Nothing changed.
    #[error("batch {index} of shard {shard} is not above the applied index {applied}")]
    StaleIndex {
        /// The shard.
        shard: ShardId,
        /// The index of the refused batch.
        index: u64,
        /// The index the shard has applied.
        applied: u64,
    },
    /// A data row lies outside of the shard's range. Nothing changed.
    #[error("key {key:?} is outside of the range of shard {shard}")]
    OutOfRange {
        /// The shard.
        shard: ShardId,
        /// The key.
        key: Blob,
    },
    /// A row exceeds [`crate::KEY_BYTES_MAX`] or [`crate::VALUE_BYTES_MAX`].
    /// Nothing changed.
    #[error("shard {shard}: a key of {key_bytes} and a value of {value_bytes} bytes are too large")]
    RowTooLarge {
        /// The shard.
        shard: ShardId,
        /// Bytes of the key.
        key_bytes: usize,
        /// Bytes of the value.
        value_bytes: usize,
    },
    /// The fork's child is its parent, or its cut leaves one side without a
    /// key. Nothing changed.
    #[error("shard {shard} cannot be forked at {at:?} into shard {child}")]
    BadFork {
        /// The parent.
        shard: ShardId,
        /// The child.
        child: ShardId,
        /// The first key of the child.
        at: Blob,
    },
    /// A snapshot chunk was refused; the staging it was written to is spoilt.
    #[error("snapshot chunk refused")]
    Chunk(#[from] ChunkError),
    /// The staging is incomplete, or belongs to another shard or engine.
    #[error("the staging cannot be installed as shard {0}: {1}")]
    BadStaging(ShardId, &'static str),
    /// A stored row is damaged. It is counted and never served.
    #[error("{file}: corrupt row in shard {}, {:?} key {:?}", row.shard, row.space, row.key)]
    Corrupt {
        /// The damaged file.
        file: Arc<str>,
        /// The damaged row.
        row: CorruptRow,
    },
    /// The file was written by a newer release.
    #[error("{file}: format {found} is newer than {known}, the newest this build knows")]
    NewerFormat {
        /// The file.
        file: Arc<str>,
        /// The format of the file.
        found: u8,
        /// The newest format of this build.
        known: u8,
    },
    /// The file is a database, but not one of this engine.
    #[error("{file} is not a quorate engine")]
    NotAnEngine {
        /// The file.
        file: Arc<str>,
    },
    /// The file is not the one that this directory had.
    #[error("{file}: {source}")]
    Owner {
        /// The file.
        file: Arc<str>,
        /// Why not.
        #[source]
        source: Arc<OwnerError>,
    },
    /// The file could not be opened: it is damaged, in use or unreadable.
    #[error("cannot open {file}")]
    Open {
        /// The file.
        file: Arc<str>,
        /// What was found.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// Storage failed. Permanent: every later call fails as well, because
    /// after a failed write or sync nothing on disk may be assumed.
    #[error("{file}: storage failed for good: {source}")]
    Failed {
        /// The file.
        file: Arc<str>,
        /// The first failure.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The engine was closed.
    #[error("the engine is closed")]
    Closed,
}
