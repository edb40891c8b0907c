//! A log that tells what it does.

use std::ops::Range;
use std::sync::Arc;

use quorate::types::{GroupId, ReplicaId};
use quorate_engine::Engine;
use quorate_raft::{
    Completion, LogEngine, LogEntry, LogError, LogFuture, LogPosition, LogState, LogStats, Vote,
};

use super::payload::space_of;
use crate::sim::ledger::Tap;

/// A log with a tap.
pub struct TappedLog {
    inner: Arc<dyn LogEngine>,
    /// Asked how far states are durable.
    engine: Arc<dyn Engine>,
    tap: Tap,
}

impl TappedLog {
    /// Tells the tap what the log was found to hold, and from then on
    /// everything.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn over(
        inner: Arc<dyn LogEngine>,
        engine: Arc<dyn Engine>,
        tap: Tap,
    ) -> Result<Self, LogError> {
        let mut found = Vec::new();
        for (group, replica) in inner.groups() {
            let entries = inner.read(group, 0..u64::MAX, usize::MAX)?;
            found.push((group, replica, inner.state(group)?, entries));
        }
        let is_tombstoned = |group, replica| inner.is_tombstoned(group, replica);
        tap.log_opened(found, &is_tombstoned);
        Ok(Self { inner, engine, tap })
    }
}

impl LogEngine for TappedLog {
    fn admit(&self, group: GroupId, replica: ReplicaId) -> LogFuture<'_, LogState> {
        Box::pin(async move {
            let state = self.inner.admit(group, replica).await?;
            self.tap.admitted(group, replica, state);
            Ok(state)
        })
    }

    fn room_for(&self, group: GroupId) -> Result<(), LogError> {
        self.inner.room_for(group)
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
        Box::pin(async move {
            self.tap.voting(group, vote);
            self.inner.save_vote(group, vote).await?;
            self.tap.voted(group, vote);
            Ok(())
        })
    }

    fn append(
        &self,
        group: GroupId,
        entries: Vec<LogEntry>,
        completion: Completion,
    ) -> LogFuture<'_, ()> {
        Box::pin(async move {
            let ticket = self.tap.appending(group, &entries);
            let tap = self.tap.clone();
            let told: Completion = Box::new(move |result| {
                if result.is_ok() {
                    tap.appended(group, ticket);
                }
                completion(result);
            });
            let taken = self.inner.append(group, entries, told).await;
            if taken.is_err() {
                self.tap.refused(group, ticket);
            }
            taken
        })
    }

    fn truncate(&self, group: GroupId, from: u64) -> LogFuture<'_, ()> {
        Box::pin(async move {
            self.tap.truncating(group, from);
            self.inner.truncate(group, from).await?;
            self.tap.truncated(group);
            Ok(())
        })
    }

    fn purge(&self, group: GroupId, upto: LogPosition) -> LogFuture<'_, ()> {
        Box::pin(async move {
            let space = space_of(group);
            let durable = self.engine.durable(space);
            // The log counts on it from now on, so it must be there for good,
            // whether anybody has asked for it with a flush or not.
            if let Ok(Some(durable)) = durable {
                self.tap.flushed(space, durable);
            }
            self.tap.purging(group, upto, durable);
            self.inner.purge(group, upto).await
        })
    }

    fn read(
        &self,
        group: GroupId,
        range: Range<u64>,
        payload_bytes_max: usize,
    ) -> Result<Vec<LogEntry>, LogError> {
        self.inner.read(group, range, payload_bytes_max)
    }

    fn term_at(&self, group: GroupId, index: u64) -> Result<Option<u64>, LogError> {
        self.inner.term_at(group, index)
    }

    fn payload_bytes(&self, group: GroupId) -> Option<u64> {
        self.inner.payload_bytes(group)
    }

    fn forget(&self, group: GroupId, replica: ReplicaId) -> LogFuture<'_, ()> {
        Box::pin(async move {
            self.tap.forgetting(group, replica);
            self.inner.forget(group, replica).await?;
            self.tap.forgot(group, replica);
            Ok(())
        })
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
