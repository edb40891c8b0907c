//! Reads that are not logged (rule 12).

use quorate_types::fault::scratch;
use quorate_types::{Blob, Epoch, KeyRange, ShardEpoch, planted};

use super::gate::{aborted, decide_on};
use super::machine::{Halt, ShardMachine};
use super::rows::Verdict;
use crate::limits::{DIRECT_READ_BYTES_MAX, READ_RESULT_BYTES_MAX};
use crate::procedure::{Call, Footprint};
use crate::store::{Space, Store, View, WriteSet, successor};

/// What became of an unlogged read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadOutcome {
    /// The answer, which may leave once the watermark covers the position.
    Answer {
        /// The procedure's result, or why it has none.
        verdict: Verdict,
        /// The cursor at the instant of the read.
        position: Epoch,
    },
    /// Exclusive work is queued on its keys, or it would be the first to see a
    /// value expire: log it as a direct command.
    MustBeLogged,
    /// The shard does not own all its keys at this epoch.
    Moved,
}

impl ShardMachine {
    /// Up to `limit` live keys from `from` on, and where to go on: in this
    /// shard, or where it ends by its own word, because the caller's map may
    /// be older than a split. `None` at the end of all keys. Weak: no order
    /// against anything.
    ///
    /// # Errors
    /// [`Halt`] when a row cannot be read.
    pub fn keys(
        &self,
        store: &dyn Store,
        from: Blob,
        limit: usize,
    ) -> Result<(Vec<Blob>, Option<Blob>), Halt> {
        let range = KeyRange { start: from, end: self.header.range.end.clone() };
        let (rows, more) = store.scan(Space::Data, &range, limit)?;
        let next = match rows.last() {
            Some((key, _)) if more => Some(successor(key)),
            _ => range.end,
        };
        let mut keys = Vec::with_capacity(rows.len());
        for (key, stored) in rows {
            if !self.data_row(&stored)?.is_expired(self.header.clock_millis) {
                keys.push(key);
            }
        }
        Ok((keys, next))
    }

    /// Reads at this instant. Only for the leader that confirmed a read index
    /// at or below the applied index in the term it still leads; `now_millis`
    /// is its clock.
    ///
    /// # Errors
    /// [`Halt`] when a row cannot be read.
    pub fn read(
        &self,
        store: &dyn Store,
        call: &Call,
        epoch: ShardEpoch,
        now_millis: u64,
    ) -> Result<ReadOutcome, Halt> {
        debug_assert!(call.footprint.is_read_only(), "invariant: a read writes nothing");
        if epoch != self.header.epoch || !self.owns(&call.footprint) {
            return Ok(ReadOutcome::Moved);
        }
        let scans = !call.footprint.ranges.is_empty();
        if self.gate.locks().blocks_read(&call.footprint.reads, scans) {
            return Ok(ReadOutcome::MustBeLogged);
        }
        let nothing_pending = WriteSet::default();
        let view = View::new(store, &nothing_pending);
        let (contribution, _) =
            self.collect(&view, call, &self.header.range, DIRECT_READ_BYTES_MAX)?;
        let due = |read: &crate::procedure::Read| {
            read.expires_millis.is_some_and(|expires| expires <= now_millis)
        };
        if contribution.reads.iter().any(due) {
            return Ok(ReadOutcome::MustBeLogged);
        }
        let now_millis = self.header.clock_millis;
        let own = std::iter::once(&contribution);
        let verdict = match decide_on(&*self.procedures, call, own, now_millis, 0) {
            Ok(outcome) if outcome.result.len() > READ_RESULT_BYTES_MAX => {
                aborted("the result is too large")
            }
            Ok(outcome) => Verdict::Done(outcome.result),
            Err(reason) => aborted(reason),
        };
        let position = if planted!(EarlyReplyChain) {
            self.last_writer(&call.footprint)
        } else {
            self.header.cursor
        };
        Ok(ReadOutcome::Answer { verdict, position })
    }

    /// Notes who wrote these keys.
    pub(super) fn note_writer(&self, footprint: &Footprint, writer: Epoch) {
        scratch(|notes| {
            notes.extend(footprint.writes.iter().map(|key| (self.note_key(key), writer.0)));
        });
    }

    /// The last epoch noted for any of these keys.
    pub(crate) fn last_writer(&self, footprint: &Footprint) -> Epoch {
        let keys = footprint.reads.iter().chain(&footprint.writes);
        Epoch(scratch(|notes| {
            keys.filter_map(|key| notes.get(&self.note_key(key)).copied()).max().unwrap_or(0)
        }))
    }

    fn note_key(&self, key: &[u8]) -> Vec<u8> {
        [&self.shard.0.to_be_bytes(), key].concat()
    }
}
