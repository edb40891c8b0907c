//! The log of production with a flaw of one's choice.

use std::ops::Range;
use std::sync::Arc;

use quorate_raft::conformance::Open;
use quorate_raft::{
    Completion, DurableLog, LogConfig, LogEngine, LogEntry, LogError, LogFuture, LogPosition,
    LogState, LogStats, Vote,
};
use quorate_testkit::disk::CrashDisk;
use quorate_types::{GroupId, ReplicaId};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LogFlaw {
    None,
    VoteLost,
    TruncatesNothing,
    PurgesNothing,
    ReadsUnbounded,
    ForgetsNothing,
    GapUntold,
    OneOfAll,
    ClosedTakes,
}

struct FlawedLog {
    flaw: LogFlaw,
    inner: DurableLog,
}

pub(crate) fn storage(flaw: LogFlaw) -> Open {
    let disk = CrashDisk::new(7);
    Box::new(move || {
        let inner = DurableLog::open(Arc::new(disk.clone()), "raft", LogConfig::default());
        Arc::new(FlawedLog { flaw, inner: inner.unwrap() })
    })
}

fn nothing<'a>() -> LogFuture<'a, ()> {
    Box::pin(std::future::ready(Ok(())))
}

impl LogEngine for FlawedLog {
    fn admit(&self, group: GroupId, replica: ReplicaId) -> LogFuture<'_, LogState> {
        self.inner.admit(group, replica)
    }

    fn groups(&self) -> Vec<(GroupId, ReplicaId)> {
        self.inner.groups()
    }

    fn is_tombstoned(&self, group: GroupId, replica: ReplicaId) -> bool {
        self.inner.is_tombstoned(group, replica)
    }

    fn state(&self, group: GroupId) -> Result<LogState, LogError> {
        self.inner.state(group)
    }

    fn save_vote(&self, group: GroupId, vote: Vote) -> LogFuture<'_, ()> {
        match self.flaw {
            LogFlaw::VoteLost => nothing(),
            LogFlaw::ClosedTakes => Box::pin(async move {
                self.inner.save_vote(group, vote).await.or_else(|error| match error {
                    LogError::Closed => Ok(()),
                    error => Err(error),
                })
            }),
            _ => self.inner.save_vote(group, vote),
        }
    }

    fn append(
        &self,
        group: GroupId,
        entries: Vec<LogEntry>,
        completion: Completion,
    ) -> LogFuture<'_, ()> {
        let completion: Completion = match self.flaw {
            LogFlaw::GapUntold => Box::new(move |outcome| match outcome {
                Err(LogError::Gap { .. }) => completion(Ok(())),
                outcome => completion(outcome),
            }),
            _ => completion,
        };
        self.inner.append(group, entries, completion)
    }

    fn append_all(
        &self,
        mut appends: Vec<(GroupId, Vec<LogEntry>)>,
        completion: Completion,
    ) -> LogFuture<'_, ()> {
        if self.flaw == LogFlaw::OneOfAll {
            appends.truncate(1);
        }
        self.inner.append_all(appends, completion)
    }

    fn truncate(&self, group: GroupId, from: u64) -> LogFuture<'_, ()> {
        match self.flaw {
            LogFlaw::TruncatesNothing => nothing(),
            _ => self.inner.truncate(group, from),
        }
    }

    fn purge(&self, group: GroupId, upto: LogPosition) -> LogFuture<'_, ()> {
        match self.flaw {
            LogFlaw::PurgesNothing => nothing(),
            _ => self.inner.purge(group, upto),
        }
    }

    fn read(
        &self,
        group: GroupId,
        range: Range<u64>,
        payload_bytes_max: usize,
    ) -> Result<Vec<LogEntry>, LogError> {
        match self.flaw {
            LogFlaw::ReadsUnbounded => self.inner.read(group, range, usize::MAX),
            _ => self.inner.read(group, range, payload_bytes_max),
        }
    }

    fn term_at(&self, group: GroupId, index: u64) -> Result<Option<u64>, LogError> {
        self.inner.term_at(group, index)
    }

    fn forget(&self, group: GroupId, replica: ReplicaId) -> LogFuture<'_, ()> {
        match self.flaw {
            LogFlaw::ForgetsNothing => nothing(),
            _ => self.inner.forget(group, replica),
        }
    }

    fn entry_bytes_max(&self) -> usize {
        self.inner.entry_bytes_max()
    }

    fn stats(&self) -> LogStats {
        self.inner.stats()
    }

    fn close(&self) -> LogFuture<'_, ()> {
        self.inner.close()
    }
}
