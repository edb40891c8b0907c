//! The port: what a replicated shard asks of its storage.

use std::any::Any;
use std::fmt;

use bytes::Bytes;
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, KeyRange, ShardId, planted};

use crate::error::{CorruptRow, EngineError};

/// The longest key. Keys are copied into every branch of a tree; long ones
/// make all others slow.
pub const KEY_BYTES_MAX: usize = 64 << 10;

/// The longest value. A row must fit one snapshot chunk, and a chunk one frame
/// of [`quorate_types::frame`].
pub const VALUE_BYTES_MAX: usize = 4 << 20;

/// One of the two key spaces of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// The users' rows, within the shard's range.
    Data,
    /// The rows of the shard's own machine: cursor, queues, deduplication.
    System,
}

/// A row to write, or to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    /// The row's key.
    pub key: Blob,
    /// The new value; `None` deletes the row.
    pub value: Option<Blob>,
}

impl Mutation {
    /// Writes a row.
    pub fn put(key: impl Into<Blob>, value: impl Into<Blob>) -> Self {
        Self { key: key.into(), value: Some(value.into()) }
    }

    /// Deletes a row.
    pub fn delete(key: impl Into<Blob>) -> Self {
        Self { key: key.into(), value: None }
    }
}

/// Everything one log entry changes in a shard. It is applied and becomes
/// durable as a whole, in this order: clears, data, system, forks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// The log index of the entry.
    pub index: u64,
    /// Data ranges to empty before `data` is written; what of them lies
    /// outside of the shard's range is none of this shard's business and is
    /// ignored. Emptying a shard's whole range costs the same at any size.
    pub clears: Vec<KeyRange>,
    /// User rows, all within the shard's range.
    pub data: Vec<Mutation>,
    /// Rows of the shard's machine.
    pub system: Vec<Mutation>,
    /// Splits of the shard after everything above, each of what the one
    /// before left over.
    pub forks: Vec<Fork>,
}

/// Hands the upper part of a shard's range to a new shard. No row is copied.
///
/// If the child exists already (it came by a snapshot) it is left alone and
/// the parent only forgets the upper part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// The new shard.
    pub child: ShardId,
    /// The first key of the child. Both sides must be able to hold a key.
    pub at: Blob,
    /// The index the child counts as applied.
    pub child_index: u64,
    /// The child's first system rows.
    pub child_system: Vec<Mutation>,
}

/// Where a page of a scan ends. The first row is returned whatever its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanLimit {
    /// The most rows.
    pub rows: usize,
    /// The most bytes of keys and values together.
    pub bytes: usize,
}

/// Rows in key order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The rows.
    pub rows: Vec<(Blob, Blob)>,
    /// Whether the limit hid at least one further row of the range.
    pub more: bool,
}

/// A fingerprint of a shard's state.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StateHash {
    /// The applied index of the view that was hashed.
    pub index: u64,
    /// FNV-1a, 128 bits, over all system and data rows. Finds divergence and
    /// damage; no defence against someone who constructs collisions.
    pub hash: u128,
}

impl fmt::Debug for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}@{}", self.hash, self.index)
    }
}

/// What a planner wants to know of a shard; cheap to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardStatus {
    /// The shard's data range.
    pub range: KeyRange,
    /// The applied index.
    pub applied: u64,
    /// The durable index; `None` while nothing of the shard is durable.
    pub durable: Option<u64>,
    /// About how many rows the shard has. A fork credits each side with half.
    pub rows_estimate: u64,
    /// About how many bytes of keys and values the shard has.
    pub bytes_estimate: u64,
    /// Bytes of this shard that are not durable yet.
    pub pending_bytes: u64,
}

/// Storage of many shards' states.
///
/// Invariants of every implementation: a batch is visible as a whole when
/// `apply` returns and becomes durable as a whole, in index order, later; what
/// is durable of a shard is always its state at some batch boundary; a data
/// row is visible in exactly one shard; a damaged row is an error, never an
/// absence. The methods that are not futures do not wait for a commit.
pub trait Engine: Send + Sync + 'static {
    /// Seeds a new shard without data. `false`, and no change, if it exists.
    ///
    /// # Errors
    /// [`EngineError::Busy`] while a shard of this id is being removed,
    /// [`EngineError::RowTooLarge`].
    fn create(
        &self,
        shard: ShardId,
        range: KeyRange,
        index: u64,
        system: Vec<Mutation>,
    ) -> Result<bool, EngineError>;

    /// Applies a batch. Reads see all of it at return; it is durable after a
    /// later [`Engine::flush`] or some time after.
    ///
    /// # Errors
    /// Whatever the error, nothing of the batch is applied. After
    /// [`EngineError::Failed`] it is unknown what is durable beyond the last
    /// completed flush.
    fn apply(&self, shard: ShardId, batch: Batch) -> Result<(), EngineError>;

    /// Back pressure: resolves once the bytes that are not durable are below
    /// the limit. `apply` itself never refuses for lack of room; whoever
    /// applies awaits this in between.
    fn ready(&self) -> BoxFuture<Result<(), EngineError>>;

    /// The shard's data range; `None` if there is no such shard.
    ///
    /// # Errors
    /// Only when the engine has failed.
    fn range(&self, shard: ShardId) -> Result<Option<KeyRange>, EngineError>;

    /// The index of the last applied batch; `None` if there is no such shard.
    ///
    /// # Errors
    /// Only when the engine has failed.
    fn applied(&self, shard: ShardId) -> Result<Option<u64>, EngineError>;

    /// The index up to which batches are durable; `None` if nothing of the
    /// shard is.
    ///
    /// # Errors
    /// Only when the engine has failed.
    fn durable(&self, shard: ShardId) -> Result<Option<u64>, EngineError>;

    /// One row. A data key outside of the shard's range has none.
    ///
    /// # Errors
    /// [`EngineError::UnknownShard`], [`EngineError::Corrupt`].
    fn get(&self, shard: ShardId, space: Space, key: &[u8]) -> Result<Option<Blob>, EngineError>;

    /// The rows of `range` in key order, up to `limit`, at one applied index.
    ///
    /// # Errors
    /// [`EngineError::UnknownShard`], [`EngineError::Corrupt`].
    fn scan(
        &self,
        shard: ShardId,
        space: Space,
        range: &KeyRange,
        limit: ScanLimit,
    ) -> Result<Page, EngineError>;

    /// Makes everything applied before the call durable and resolves to the
    /// shard's durable index.
    ///
    /// # Errors
    /// [`EngineError::UnknownShard`]. The call takes effect even if the future
    /// is dropped.
    fn flush(&self, shard: ShardId) -> BoxFuture<Result<u64, EngineError>>;

    /// Makes everything applied durable and releases the storage; the end of
    /// the engine's use, after which it may refuse calls with
    /// [`EngineError::Closed`]. A flush that was asked for before keeps its
    /// promise, and closing again is no error.
    ///
    /// # Errors
    /// When storage had failed before or failed now. The call takes effect
    /// even if the future is dropped.
    fn close(&self) -> BoxFuture<Result<(), EngineError>>;

    /// A view of the shard at its applied index, unmoved by later batches.
    ///
    /// # Errors
    /// [`EngineError::UnknownShard`].
    fn snapshot(&self, shard: ShardId) -> Result<Box<dyn EngineSnapshot>, EngineError>;

    /// A place to write the chunks of another machine's snapshot of `shard`
    /// to. Nothing is visible before [`Engine::install`]; a staging that is
    /// dropped, or cut short by a crash, leaves nothing behind for good.
    ///
    /// # Errors
    /// Only when the engine has failed.
    fn staging(&self, shard: ShardId) -> Result<Box<dyn Staging>, EngineError>;

    /// Replaces everything of the shard by what was staged, and writes
    /// `system` in the same commit. Durable and visible at completion; reads
    /// see the old state until then, batches are refused as
    /// [`EngineError::Busy`].
    ///
    /// # Errors
    /// [`EngineError::BadStaging`], [`EngineError::Busy`] when the shard is
    /// being removed or installed already.
    fn install(
        &self,
        shard: ShardId,
        staged: Box<dyn Staging>,
        system: Vec<Mutation>,
    ) -> BoxFuture<Result<(), EngineError>>;

    /// Removes the shard; durable at completion. Succeeds if there is none.
    ///
    /// # Errors
    /// [`EngineError::Busy`] when the shard is being removed or installed.
    fn remove(&self, shard: ShardId) -> BoxFuture<Result<(), EngineError>>;

    /// All shards, in order of their ids.
    ///
    /// # Errors
    /// Only when the engine has failed.
    fn shards(&self) -> Result<Vec<ShardId>, EngineError>;

    /// Hashes all rows of the shard at its applied index, reading them from
    /// storage and verifying each. Equal states have equal hashes on every
    /// machine and in every implementation. Takes time proportional to the
    /// shard.
    ///
    /// # Errors
    /// [`EngineError::UnknownShard`], [`EngineError::Corrupt`].
    fn hash(&self, shard: ShardId) -> Result<StateHash, EngineError>;

    /// The shard's size and progress.
    ///
    /// # Errors
    /// [`EngineError::UnknownShard`].
    fn status(&self, shard: ShardId) -> Result<ShardStatus, EngineError>;

    /// A key that halves the shard's data by bytes, closely; `None` if there
    /// are fewer than two rows. It need not be a row's: of the first row above
    /// it, it is the shortest prefix that still sorts after the row before, so
    /// that it is short even where keys are long. Reads the whole shard: ask
    /// before a split, not to decide upon one.
    ///
    /// # Errors
    /// [`EngineError::UnknownShard`], [`EngineError::Corrupt`].
    fn middle_key(&self, shard: ShardId) -> Result<Option<Blob>, EngineError>;

    /// The damaged rows found since the engine was opened, each once, up to a
    /// limit of the implementation.
    fn corruptions(&self) -> Vec<CorruptRow>;
}

/// A consistent view of a shard.
pub trait EngineSnapshot: Send {
    /// The applied index of the view.
    fn index(&self) -> u64;

    /// The shard's data range.
    fn range(&self) -> &KeyRange;

    /// One system row of the view.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`].
    fn system_row(&self, key: &[u8]) -> Result<Option<Blob>, EngineError>;

    /// The next chunk, sealed with a checksum, of about `bytes_max` bytes or
    /// one row, whichever is more, and never above
    /// [`crate::CHUNK_BYTES_MAX`]; `None` after the last. After an error the
    /// same chunk is tried again.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`].
    fn next_chunk(&mut self, bytes_max: usize) -> Result<Option<Bytes>, EngineError>;
}

/// A snapshot being received.
pub trait Staging: Send {
    /// Verifies a chunk and takes it in; resolves when there is room for the
    /// next. It takes effect at the call, even if the future is dropped.
    ///
    /// # Errors
    /// [`EngineError::Chunk`] when the chunk is damaged or not the next one of
    /// the snapshot that was begun.
    fn write(&mut self, chunk: Bytes) -> BoxFuture<Result<(), EngineError>>;

    /// The applied index of the snapshot; `None` before the first chunk.
    fn index(&self) -> Option<u64>;

    /// Whether the last chunk has been written.
    fn is_complete(&self) -> bool;

    /// For [`Engine::install`], which knows its own kind of staging.
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
}

/// The preconditions of [`Engine::apply`] that every implementation shares.
pub(crate) fn check_batch(
    shard: ShardId,
    applied: u64,
    range: &KeyRange,
    batch: &Batch,
) -> Result<(), EngineError> {
    if batch.index <= applied && !(planted!(AppliedTwice) && batch.index == applied) {
        return Err(EngineError::StaleIndex { shard, index: batch.index, applied });
    }
    if let Some(outside) = batch.data.iter().find(|mutation| !range.contains(&mutation.key)) {
        return Err(EngineError::OutOfRange { shard, key: outside.key.clone() });
    }
    check_rows(shard, &batch.data)?;
    check_rows(shard, &batch.system)?;
    let mut left = range.clone();
    for fork in &batch.forks {
        let cut = left.split_at(&fork.at).filter(|_| fork.at.len() <= KEY_BYTES_MAX);
        let Some((lower, _)) = cut.filter(|_| fork.child != shard) else {
            return Err(EngineError::BadFork { shard, child: fork.child, at: fork.at.clone() });
        };
        left = lower;
        check_rows(fork.child, &fork.child_system)?;
    }
    Ok(())
}

/// Refuses a range whose ends could not be keys.
pub(crate) fn check_range(shard: ShardId, range: &KeyRange) -> Result<(), EngineError> {
    let key_bytes = range.start.len().max(range.end.as_ref().map_or(0, |end| end.len()));
    if key_bytes > KEY_BYTES_MAX {
        return Err(EngineError::RowTooLarge { shard, key_bytes, value_bytes: 0 });
    }
    Ok(())
}

/// Refuses rows that are too large.
pub(crate) fn check_rows(shard: ShardId, rows: &[Mutation]) -> Result<(), EngineError> {
    for Mutation { key, value } in rows {
        let (key_bytes, value_bytes) = (key.len(), value.as_ref().map_or(0, |value| value.len()));
        if key_bytes > KEY_BYTES_MAX || value_bytes > VALUE_BYTES_MAX {
            return Err(EngineError::RowTooLarge { shard, key_bytes, value_bytes });
        }
    }
    Ok(())
}
