//! [`LogEngine`] as openraft's log storage.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::stream::{self, Stream};
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::{LogState, OptionalSend};
use quorate_types::{GroupId, buggify, sometimes, watch};

use super::types::{
    LogId, RaftEntry, RaftVoteOf, TypeConfig, log_id, our_vote, position, raft_vote,
};
use super::wire::{from_log_entry, to_log_entry};
use crate::log::{LogEngine, LogEntry};

/// Payload bytes read at a time, for replication and for apply; fits a frame
/// together with its headers.
const READ_BYTES_MAX: usize = 2 << 20;

/// The log of one group.
#[derive(Clone)]
pub(crate) struct GroupLog {
    pub(crate) engine: Arc<dyn LogEngine>,
    pub(crate) group: GroupId,
    /// The index up to which the machine's state is known to be durable.
    pub(crate) durable_index: Arc<AtomicU64>,
    /// The index behind the log's last entry, once something was appended or cut off.
    pub(crate) end: watch::Sender<u64>,
}

impl GroupLog {
    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<RaftEntry>> {
        let stored = self.engine.read(self.group, range, bytes_max)?;
        let mut entries = Vec::with_capacity(stored.len());
        for entry in stored {
            entries.push(from_log_entry(entry).map_err(io::Error::other)?);
        }
        Ok(entries)
    }
}

/// Entries of a range, read a part at a time.
struct Entries {
    log: GroupLog,
    rest: Range<u64>,
    part: std::vec::IntoIter<LogEntry>,
}

impl Iterator for Entries {
    type Item = io::Result<RaftEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.part.as_slice().is_empty() && !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            match self.log.engine.read(self.log.group, rest.clone(), part_bytes_max()) {
                Ok(part) => {
                    if let Some(last) = part.last() {
                        self.rest = last.position.index.saturating_add(1)..rest.end;
                    }
                    self.part = part.into_iter();
                }
                Err(error) => return Some(Err(error.into())),
            }
        }
        let entry = self.part.next()?;
        let entry = from_log_entry(entry).map_err(io::Error::other);
        if entry.is_err() {
            // Nothing is applied behind what cannot be read.
            (self.rest, self.part) = (0..0, Vec::new().into_iter());
        }
        Some(entry)
    }
}

/// How much to read at a time; the first entry comes in any case.
fn part_bytes_max() -> usize {
    if buggify!("raft reads one entry of its log") { 1 } else { READ_BYTES_MAX }
}

fn bounds(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&end) => end.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<TypeConfig> for GroupLog {
    async fn try_get_log_entries<R>(&mut self, range: R) -> Result<Vec<RaftEntry>, io::Error>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.read(bounds(&range), usize::MAX)
    }

    /// Entries to apply, a bounded part at a time: after a restart the range
    /// can be the whole log.
    async fn entries_stream<R>(
        &mut self,
        range: R,
    ) -> impl Stream<Item = Result<RaftEntry, io::Error>> + OptionalSend
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        stream::iter(Entries {
            log: self.clone(),
            rest: bounds(&range),
            part: Vec::new().into_iter(),
        })
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVoteOf>, io::Error> {
        Ok(self.engine.state(self.group)?.vote.map(raft_vote))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        self.read(start..end, part_bytes_max())
    }
}

impl RaftLogStorage<TypeConfig> for GroupLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.engine.state(self.group)?;
        Ok(LogState {
            last_purged_log_id: state.purged.map(log_id),
            last_log_id: state.last.map(log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVoteOf) -> Result<(), io::Error> {
        Ok(self.engine.save_vote(self.group, our_vote(vote)).await?)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries.into_iter().map(to_log_entry).collect();
        let completion = Box::new(move |result: Result<(), crate::log::LogError>| {
            callback.io_completed(result.map_err(io::Error::from));
        });
        let end = entries.last().map(|last| last.position.index + 1);
        self.engine.append(self.group, entries, completion).await?;
        if let Some(end) = end {
            self.end.send(end);
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        sometimes!("a follower truncates its log");
        let from = last.map_or(0, |last| last.index + 1);
        self.engine.truncate(self.group, from).await?;
        self.end.send(from);
        Ok(())
    }

    /// Purges what the machine has made durable, and asserts that it is no
    /// more than that: what is neither in the log nor in the state is lost.
    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let durable = self.durable_index.load(Ordering::Acquire);
        if upto.index > durable {
            return Err(io::Error::other(format!(
                "refused to purge {} up to {}: its state is durable only up to {durable}",
                self.group, upto.index
            )));
        }
        Ok(self.engine.purge(self.group, position(&upto)).await?)
    }
}
