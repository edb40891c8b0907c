//! The two kinds of rows on disk.
//!
//! A **batch row** holds entries that arrived together, of any groups. Its key
//! is a sequence number, its payload (inside [`seal_row`]'s header) a series of
//! runs, integers big endian:
//!
//! ```text
//! run   = [group u64][replica u64][first index u64][count u32] entry*count
//! entry = [term u64][len u32][payload len bytes]
//! ```
//!
//! A **group row** holds what must be found without scanning: whose log it is,
//! its vote, its purge mark, its truncations and its tombstones.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_types::codec::{CodecError, ROW_HEADER_BYTES, decode, encode, open_row, seal_row};
use quorate_types::{GroupId, ReplicaId, Seq};
use zerompk::{FromMessagePack, ToMessagePack};

use super::{LogPosition, Vote};

/// The newest batch row format this build writes and reads.
const BATCH_ROW_VERSION: u8 = 1;
/// The newest group row format this build writes and reads.
const GROUP_ROW_VERSION: u8 = 1;

/// The most batch rows that a log ever writes: one a nanosecond for a century.
pub(super) const SEQUENCES_MAX: u64 = 1 << 62;

const RUN_HEADER_BYTES: usize = 28;
const ENTRY_HEADER_BYTES: usize = 12;

/// A truncation that batch rows written earlier do not know of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(super) struct Truncation {
    /// Entries in rows below this sequence are affected.
    pub(super) before_sequence: u64,
    /// Entries from this index on are gone.
    pub(super) from_index: u64,
    /// The last entry that was removed. Once it is purged the truncation has
    /// nothing left to hide.
    pub(super) removed_upto: u64,
}

/// The owner of a group's log and its state.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(super) struct OwnerRow {
    pub(super) replica: ReplicaId,
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogPosition>,
    pub(super) truncations: Seq<Truncation>,
}

impl OwnerRow {
    pub(super) fn new(replica: ReplicaId) -> Self {
        Self { replica, vote: None, purged: None, truncations: Seq::new() }
    }

    /// Whether an entry found in the row `sequence` is still part of the log.
    pub(super) fn holds(&self, replica: ReplicaId, sequence: u64, index: u64) -> bool {
        self.replica == replica
            && self.purged.is_none_or(|purged| index > purged.index)
            && !self
                .truncations
                .iter()
                .any(|cut| sequence < cut.before_sequence && index >= cut.from_index)
    }

    pub(super) fn truncate(&mut self, before_sequence: u64, from_index: u64, removed_upto: u64) {
        // A later cut at or below an earlier one hides all that the earlier hid.
        let removed_upto = self
            .truncations
            .iter()
            .filter(|cut| cut.from_index >= from_index)
            .map(|cut| cut.removed_upto)
            .fold(removed_upto, u64::max);
        self.truncations.retain(|cut| cut.from_index < from_index);
        self.truncations.push(Truncation { before_sequence, from_index, removed_upto });
    }

    pub(super) fn purge(&mut self, upto: LogPosition) {
        if self.purged.is_none_or(|purged| purged.index < upto.index) {
            self.purged = Some(upto);
        }
        self.truncations.retain(|cut| cut.removed_upto > upto.index);
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default, ToMessagePack, FromMessagePack)]
pub(super) struct GroupRow {
    pub(super) owner: Option<OwnerRow>,
    pub(super) tombstones: Seq<ReplicaId>,
}

impl GroupRow {
    /// Whether a log could have written it: what follows an index and a
    /// sequence is counted on everywhere.
    pub(super) fn is_sound(&self) -> bool {
        self.owner.as_ref().is_none_or(|owner| {
            owner.purged.is_none_or(|purged| purged.index < u64::MAX)
                && owner.truncations.iter().all(|cut| cut.before_sequence <= SEQUENCES_MAX)
        })
    }

    pub(super) fn seal(&self, group: GroupId) -> Bytes {
        seal_row(&group.0.to_be_bytes(), GROUP_ROW_VERSION, &encode(self))
    }

    pub(super) fn open(group: GroupId, row: &[u8]) -> Result<Self, CodecError> {
        let (_, payload) = open_row(&group.0.to_be_bytes(), GROUP_ROW_VERSION, row)?;
        decode(payload)
    }
}

/// Where an entry's payload lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Location {
    pub(super) sequence: u64,
    /// From the start of the opened row's payload.
    pub(super) offset: u32,
    pub(super) len: u32,
}

/// Collects entries into one batch row.
#[derive(Default)]
pub(super) struct BatchBuilder {
    bytes: BytesMut,
    run: Option<Run>,
}

struct Run {
    group: GroupId,
    replica: ReplicaId,
    next_index: u64,
    count: u32,
    count_at: usize,
}

impl BatchBuilder {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds an entry and returns the offset and length of its payload.
    pub(super) fn push(
        &mut self,
        group: GroupId,
        replica: ReplicaId,
        position: LogPosition,
        payload: &[u8],
    ) -> (u32, u32) {
        let continues = self.run.as_ref().is_some_and(|run| {
            run.group == group && run.replica == replica && run.next_index == position.index
        });
        if !continues {
            self.end_run();
            self.begin_run(group, replica, position.index);
        }
        if let Some(run) = &mut self.run {
            run.count += 1;
            run.next_index += 1;
        }
        // Rows are cut far below 4 GiB and a payload is bounded by the queue.
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        self.bytes.put_u64(position.term);
        self.bytes.put_u32(len);
        let offset = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes.put_slice(payload);
        (offset, len)
    }

    fn begin_run(&mut self, group: GroupId, replica: ReplicaId, first_index: u64) {
        self.bytes.put_u64(group.0);
        self.bytes.put_u64(replica.0);
        self.bytes.put_u64(first_index);
        let count_at = self.bytes.len();
        self.bytes.put_u32(0);
        self.run = Some(Run { group, replica, next_index: first_index, count: 0, count_at });
    }

    fn end_run(&mut self) {
        if let Some(run) = self.run.take()
            && let Some(count) = self.bytes.get_mut(run.count_at..run.count_at + 4)
        {
            count.copy_from_slice(&run.count.to_be_bytes());
        }
    }

    pub(super) fn seal(mut self, sequence: u64) -> Bytes {
        self.end_run();
        seal_row(&sequence.to_be_bytes(), BATCH_ROW_VERSION, &self.bytes)
    }
}

/// Verifies a batch row and returns its payload.
pub(super) fn open_batch(sequence: u64, row: &[u8]) -> Result<Bytes, CodecError> {
    let (_, payload) = open_row(&sequence.to_be_bytes(), BATCH_ROW_VERSION, row)?;
    debug_assert_eq!(row.len() - payload.len(), ROW_HEADER_BYTES);
    Ok(Bytes::copy_from_slice(payload))
}

/// An entry found while scanning a batch row.
pub(super) struct Found {
    pub(super) group: GroupId,
    pub(super) replica: ReplicaId,
    pub(super) position: LogPosition,
    pub(super) location: Location,
}

/// Lists the entries of an opened batch row; `None` when its structure is
/// broken, which a row that passed its checksum never is.
pub(super) fn scan_batch(sequence: u64, payload: &[u8]) -> Option<Vec<Found>> {
    let mut found = Vec::new();
    let mut rest = payload;
    while !rest.is_empty() {
        if rest.len() < RUN_HEADER_BYTES {
            return None;
        }
        let group = GroupId(rest.get_u64());
        let replica = ReplicaId(rest.get_u64());
        let first_index = rest.get_u64();
        let count = rest.get_u32();
        for nth in 0..count {
            if rest.len() < ENTRY_HEADER_BYTES {
                return None;
            }
            let term = rest.get_u64();
            let len = rest.get_u32();
            let offset = u32::try_from(payload.len() - rest.len()).ok()?;
            rest = rest.get(len as usize..)?;
            // What follows an index is counted on everywhere.
            let index = first_index.checked_add(u64::from(nth)).filter(|it| *it < u64::MAX)?;
            found.push(Found {
                group,
                replica,
                position: LogPosition { term, index },
                location: Location { sequence, offset, len },
            });
        }
    }
    Some(found)
}
