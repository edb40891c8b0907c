//! The log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::ready;
use std::ops::Range;

use parking_lot::Mutex;
use quorate_raft::{
    Completion, LogEngine, LogEntry, LogError, LogFuture, LogPosition, LogState, LogStats, Vote,
};
use quorate_types::{GroupId, ReplicaId};

#[derive(Default)]
struct Log {
    owner: ReplicaId,
    vote: Option<Vote>,
    purged: Option<LogPosition>,
    /// Consecutive, behind what was purged.
    entries: VecDeque<LogEntry>,
}

impl Log {
    /// Where an entry is, or would be.
    fn place(&self, index: u64) -> usize {
        let first = self.entries.front().map_or(index, |entry| entry.position.index);
        let place = usize::try_from(index.saturating_sub(first)).unwrap_or(usize::MAX);
        place.min(self.entries.len())
    }
}

/// The logs of all groups.
#[derive(Default)]
pub(crate) struct MemoryLog {
    logs: Mutex<BTreeMap<GroupId, Log>>,
    tombstones: Mutex<BTreeSet<(GroupId, ReplicaId)>>,
}

impl MemoryLog {
    fn with<T>(&self, group: GroupId, act: impl FnOnce(&mut Log) -> T) -> Result<T, LogError> {
        self.logs.lock().get_mut(&group).map(act).ok_or(LogError::UnknownGroup(group))
    }
}

impl LogEngine for MemoryLog {
    fn admit(&self, group: GroupId, replica: ReplicaId) -> LogFuture<'_, LogState> {
        if self.is_tombstoned(group, replica) {
            return Box::pin(ready(Err(LogError::Tombstoned { group, replica })));
        }
        let owner =
            self.logs.lock().entry(group).or_insert(Log { owner: replica, ..Log::default() }).owner;
        let state = if owner == replica {
            self.state(group)
        } else {
            Err(LogError::Occupied { group, owner })
        };
        Box::pin(ready(state))
    }

    fn groups(&self) -> Vec<(GroupId, ReplicaId)> {
        self.logs.lock().iter().map(|(&group, log)| (group, log.owner)).collect()
    }

    fn is_tombstoned(&self, group: GroupId, replica: ReplicaId) -> bool {
        self.tombstones.lock().contains(&(group, replica))
    }

    fn state(&self, group: GroupId) -> Result<LogState, LogError> {
        self.with(group, |log| {
            let last = log.entries.back().map(|entry| entry.position);
            LogState { vote: log.vote, purged: log.purged, last: last.or(log.purged) }
        })
    }

    fn save_vote(&self, group: GroupId, vote: Vote) -> LogFuture<'_, ()> {
        Box::pin(ready(self.with(group, |log| log.vote = Some(vote))))
    }

    fn append(
        &self,
        group: GroupId,
        entries: Vec<LogEntry>,
        done: Completion,
    ) -> LogFuture<'_, ()> {
        let appended = self.with(group, |log| log.entries.extend(entries));
        done(appended.clone()); // As durable as it will ever be.
        Box::pin(ready(appended))
    }

    fn truncate(&self, group: GroupId, from: u64) -> LogFuture<'_, ()> {
        Box::pin(ready(self.with(group, |log| log.entries.truncate(log.place(from)))))
    }

    fn purge(&self, group: GroupId, upto: LogPosition) -> LogFuture<'_, ()> {
        Box::pin(ready(self.with(group, |log| {
            drop(log.entries.drain(..log.place(upto.index + 1)));
            log.purged = log.purged.max(Some(upto));
        })))
    }

    fn read(
        &self,
        group: GroupId,
        range: Range<u64>,
        bytes_max: usize,
    ) -> Result<Vec<LogEntry>, LogError> {
        self.with(group, |log| {
            let range = log.entries.range(log.place(range.start)..log.place(range.end));
            let mut bytes: usize = 0;
            let fits = |entry: &&LogEntry| {
                bytes += entry.payload.len();
                bytes <= bytes_max || bytes == entry.payload.len()
            };
            let count = range.clone().take_while(fits).count();
            range.take(count).cloned().collect()
        })
    }

    fn term_at(&self, group: GroupId, index: u64) -> Result<Option<u64>, LogError> {
        self.with(group, |log| {
            let entry = log.entries.get(log.place(index))?;
            (entry.position.index == index).then_some(entry.position.term)
        })
    }

    fn forget(&self, group: GroupId, replica: ReplicaId) -> LogFuture<'_, ()> {
        self.tombstones.lock().insert((group, replica));
        self.logs.lock().remove(&group);
        Box::pin(ready(Ok(())))
    }

    fn entry_bytes_max(&self) -> usize {
        usize::MAX
    }

    fn stats(&self) -> LogStats {
        LogStats::default()
    }

    fn close(&self) -> LogFuture<'_, ()> {
        Box::pin(ready(Ok(())))
    }
}
