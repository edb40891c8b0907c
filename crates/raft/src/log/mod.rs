//! The port to the durable log that all groups of a node share.

mod all_of;
mod durable;
mod error;
#[cfg(test)]
mod fuzz;
mod medium;
mod memory;
mod redb;
mod rewriting;
mod rows;
mod runs;
mod segments;
mod writer;

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;

use bytes::Bytes;
use quorate_types::{GroupId, ReplicaId};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::spread::Spread;

use all_of::AllOf;

pub use durable::{DurableLog, LogConfig, LogMedium};
pub use error::{LogError, Place};

/// A boxed future of a log operation.
pub type LogFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, LogError>> + Send + 'a>>;

/// Called once, when what was appended is durable or never will be.
pub type Completion = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// A place in a group's log: the term in which the entry was proposed and its
/// index. Terms never fall along a log, so positions of one log order like
/// their indexes.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, ToMessagePack, FromMessagePack,
)]
pub struct LogPosition {
    /// The term of the leader that proposed the entry.
    pub term: u64,
    /// The entry's index.
    pub index: u64,
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@t{}", self.index, self.term)
    }
}

/// For whom a replica voted in a term.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct Vote {
    /// The term of the vote.
    pub term: u64,
    /// The candidate that has this replica's vote in that term.
    pub candidate: ReplicaId,
    /// Whether a quorum is known to have elected the candidate.
    pub committed: bool,
}

/// One entry of a group's log. The log stores the payload and never looks
/// inside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogEntry {
    /// Where the entry stands.
    pub position: LogPosition,
    /// What it says.
    pub payload: Bytes,
}

/// What a group's log holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogState {
    /// The vote that was saved last.
    pub vote: Option<Vote>,
    /// Everything up to here was purged; its effects are in the state machine.
    pub purged: Option<LogPosition>,
    /// The last entry, or `purged` when there is none after it.
    pub last: Option<LogPosition>,
}

/// Counters of a log since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogStats {
    /// Durable commits, each one sync of the disk.
    pub commits: u64,
    /// Entries those commits made durable.
    pub entries: u64,
    /// Payload bytes of those entries.
    pub payload_bytes: u64,
    /// Payload bytes that were written once more so that files could be used
    /// again.
    pub rewritten_bytes: u64,
    /// Operations that wait for a commit now.
    pub queued: u64,
    /// How long commits took, in microseconds: the write and the sync.
    pub commit_micros: Spread,
    /// Entries of a commit.
    pub commit_entries: Spread,
}

/// One durable log for all groups of a node.
///
/// # Contract
/// * Operations of one group take effect in the order in which they were
///   started, and are completed in that order.
/// * A vote, an appended entry or a truncation is on disk *before* its
///   completion or its future reports success (law 5).
/// * Appended entries can be read as soon as the future of
///   [`append`](Self::append) is ready, which is before they are durable.
/// * An error of the disk is permanent: it fails every pending and every later
///   operation of every group, and only reopening the log clears it.
/// * Damaged rows are reported with the file and the row, never skipped.
/// * A [forgotten](Self::forget) replica is refused for ever.
pub trait LogEngine: Send + Sync + 'static {
    /// Binds `group` to `replica`, durably, and returns what the log holds for
    /// it. Every other operation requires this one first, once per process.
    ///
    /// # Errors
    /// [`LogError::Tombstoned`] when the replica was forgotten,
    /// [`LogError::Occupied`] while the group's rows belong to another one,
    /// [`LogError::Crowded`] when the log has no room for one group more.
    fn admit(&self, group: GroupId, replica: ReplicaId) -> LogFuture<'_, LogState>;

    /// Refuses a group that [`admit`](Self::admit) would have no room for now.
    ///
    /// # Errors
    /// [`LogError::Crowded`].
    fn room_for(&self, group: GroupId) -> Result<(), LogError> {
        let _ = group;
        Ok(())
    }

    /// The groups that have rows, and the replica that owns them.
    fn groups(&self) -> Vec<(GroupId, ReplicaId)>;

    /// Whether `replica` of `group` was forgotten here.
    fn is_tombstoned(&self, group: GroupId, replica: ReplicaId) -> bool;

    /// What the log holds for `group`, including what is not yet durable.
    ///
    /// # Errors
    /// [`LogError::UnknownGroup`] before [`admit`](Self::admit).
    fn state(&self, group: GroupId) -> Result<LogState, LogError>;

    /// Saves a vote; ready once it is durable.
    fn save_vote(&self, group: GroupId, vote: Vote) -> LogFuture<'_, ()>;

    /// Appends entries that continue the log without a gap; a log that holds
    /// nothing and was never purged may begin anywhere. The future waits
    /// for room in the queue and is ready when the entries can be read;
    /// `completion` is called when they are durable.
    ///
    /// # Errors
    /// [`LogError::Gap`] when the first entry does not follow the last one.
    /// The completion is then called with the same error.
    fn append(
        &self,
        group: GroupId,
        entries: Vec<LogEntry>,
        completion: Completion,
    ) -> LogFuture<'_, ()>;

    /// Appends to several groups, in their order and each as by
    /// [`append`](Self::append); `completion` is called when all of it is durable.
    /// A log that can goes to disk once for it; by default one after the other is
    /// appended. Behind one that is refused nothing is, and what was before it stays.
    ///
    /// # Errors
    /// Those of [`append`](Self::append), with which `completion` is called, too.
    fn append_all(
        &self,
        appends: Vec<(GroupId, Vec<LogEntry>)>,
        completion: Completion,
    ) -> LogFuture<'_, ()> {
        Box::pin(async move {
            let all = AllOf::new(completion);
            for (group, entries) in appends {
                self.append(group, entries, all.part()).await?;
            }
            all.complete();
            Ok(())
        })
    }

    /// Removes the entry at `from` and everything behind it; ready once that is
    /// durable, so that a snapshot installed afterwards never meets the removed
    /// tail again.
    fn truncate(&self, group: GroupId, from: u64) -> LogFuture<'_, ()>;

    /// Removes the entries up to and including `upto`, which may lie beyond
    /// the last one. Takes effect at once and becomes durable with a later
    /// commit. The caller guarantees that their effects are durable elsewhere.
    fn purge(&self, group: GroupId, upto: LogPosition) -> LogFuture<'_, ()>;

    /// Reads entries of `range` from its start: all that exist, or as many as
    /// fit into `payload_bytes_max`, but at least one if the first exists.
    ///
    /// # Errors
    /// [`LogError::Damaged`] when a row does not pass its checksum.
    fn read(
        &self,
        group: GroupId,
        range: Range<u64>,
        payload_bytes_max: usize,
    ) -> Result<Vec<LogEntry>, LogError>;

    /// The term of the entry at `index`, if it is in the log.
    ///
    /// # Errors
    /// [`LogError::UnknownGroup`] before [`admit`](Self::admit).
    fn term_at(&self, group: GroupId, index: u64) -> Result<Option<u64>, LogError>;

    /// The payload bytes of the entries that a group's log holds, if the engine counts
    /// them: the host then bounds logs by their bytes, too.
    fn payload_bytes(&self, _group: GroupId) -> Option<u64> {
        None
    }

    /// Removes everything that belongs to `replica` of `group` and leaves a
    /// tombstone; ready once both are durable.
    fn forget(&self, group: GroupId, replica: ReplicaId) -> LogFuture<'_, ()>;

    /// The most payload bytes that an entry may have.
    fn entry_bytes_max(&self) -> usize;

    /// Counters since the log was opened.
    fn stats(&self) -> LogStats;

    /// Makes everything durable, refuses whatever comes later, and releases
    /// the file.
    fn close(&self) -> LogFuture<'_, ()>;
}
