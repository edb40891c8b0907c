//! A **group row** holds what must be found without scanning: whose log it is,
//! its vote, its purge mark, its truncations and its tombstones.

use bytes::Bytes;
use quorate_types::codec::{CodecError, decode, encode, open_row, seal_row};
use quorate_types::{GroupId, ReplicaId, Seq};
use zerompk::{FromMessagePack, ToMessagePack};

use super::{LogError, LogPosition, Vote};

/// The newest group row format this build writes and reads.
const GROUP_ROW_VERSION: u8 = 1;

/// The most rows of entries that a log ever writes: one a nanosecond for a
/// century.
pub(super) const SEQUENCES_MAX: u64 = 1 << 62;

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
                && !self.tombstones.contains(&owner.replica)
                && owner.truncations.iter().all(|cut| cut.before_sequence <= SEQUENCES_MAX)
        })
    }

    /// What it takes beside others, with what tells it from them.
    pub(super) fn stored_bytes(&self) -> u64 {
        encode(self).len() as u64 + 12
    }

    pub(super) fn seal(&self, group: GroupId) -> Bytes {
        seal_row(&group.0.to_be_bytes(), GROUP_ROW_VERSION, &encode(self))
    }

    pub(super) fn open(group: GroupId, row: &[u8]) -> Result<Self, CodecError> {
        let (_, payload) = open_row(&group.0.to_be_bytes(), GROUP_ROW_VERSION, row)?;
        decode(payload)
    }
}

/// What the row of a group with an owner is counted as. It begins with a quarter of
/// that: votes and purges make it longer, and each truncation by 28 bytes at most
/// until it is purged.
const OWNER_BYTES: u64 = 256;
/// What a tombstone is counted as: the most that a row with nothing else takes.
const TOMBSTONE_BYTES: u64 = 32;

/// Counts what the rows of all groups may grow to.
#[derive(Default)]
pub(super) struct Census {
    pub(super) owners: u64,
    pub(super) tombstones: u64,
}

impl Census {
    pub(super) fn count(&mut self, row: &GroupRow) {
        self.owners += u64::from(row.owner.is_some());
        self.tombstones += row.tombstones.len() as u64;
    }

    /// Refuses one owner more if the rows would need more bytes than that.
    pub(super) const fn room(&self, bytes_max: u64) -> Result<(), LogError> {
        let bytes = (self.owners + 1) * OWNER_BYTES + self.tombstones * TOMBSTONE_BYTES;
        if bytes > bytes_max { Err(LogError::Crowded { bytes, bytes_max }) } else { Ok(()) }
    }
}

/// Where an entry's payload lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Location {
    pub(super) sequence: u64,
    /// Within the row.
    pub(super) offset: u32,
    pub(super) len: u32,
}
