//! What is in the file.
//!
//! Four tables. `rows` holds the rows of all shards under
//! `[space u64 BE][key]`; a shard's record names one space for its data and
//! one for its system rows, so that a fork copies nothing: parent and child
//! share a space and have disjoint ranges of it. A space number is never used
//! twice. `garbage` names parts of spaces that no shard owns any more. Every
//! value of every table is sealed, see `quorate_types::codec::seal_row`.

use bytes::Bytes;
use quorate_types::codec::{self, CodecError};
use quorate_types::{Blob, KeyRange, ShardId};
use redb::TableDefinition;
use zerompk::{FromMessagePack, ToMessagePack};

/// The version of everything described here.
pub(super) const FORMAT_VERSION: u8 = 1;

/// The version sealed into a row or record.
const SEAL_VERSION: u8 = 1;

/// Rows of all shards.
pub(super) const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");
/// A [`Record`] per shard.
pub(super) const SHARDS: TableDefinition<u64, &[u8]> = TableDefinition::new("shards");
/// A [`Garbage`] per entry, numbered.
pub(super) const GARBAGE: TableDefinition<u64, &[u8]> = TableDefinition::new("garbage");
/// The format and the next free space.
pub(super) const ENGINE: TableDefinition<&str, &[u8]> = TableDefinition::new("engine");

/// The mark of the directory that the file belongs to.
pub(super) const OWNER_KEY: &str = "owner";
/// An empty value of version [`FORMAT_VERSION`].
pub(super) const FORMAT_KEY: &str = "format";
/// The smallest space number that was never used.
pub(super) const NEXT_SPACE_KEY: &str = "next_space";

/// A numbered part of the `rows` table.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ToMessagePack, FromMessagePack,
)]
pub(super) struct SpaceId(pub(super) u64);

/// A shard, as stored.
#[derive(Debug, Clone, ToMessagePack, FromMessagePack)]
pub(super) struct Record {
    pub(super) data: SpaceId,
    pub(super) system: SpaceId,
    pub(super) range: KeyRange,
    pub(super) applied: u64,
    pub(super) rows_estimate: u64,
    pub(super) bytes_estimate: u64,
}

/// Rows to delete some time: nobody reads them and nobody will.
#[derive(Debug, Clone, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub(super) struct Garbage {
    pub(super) space: SpaceId,
    pub(super) range: KeyRange,
}

/// What a stored key adds to a row's.
pub(super) const SPACE_BYTES: usize = size_of::<u64>();

/// The stored key of a row.
pub(super) fn row_key(space: SpaceId, key: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(SPACE_BYTES + key.len());
    stored.extend_from_slice(&space.0.to_be_bytes());
    stored.extend_from_slice(key);
    stored
}

/// A stored key without its space.
pub(super) fn logical_key(stored: &[u8]) -> Blob {
    stored.get(SPACE_BYTES..).unwrap_or_default().into()
}

/// The stored keys of a range: from the first inside to the first outside.
pub(super) fn row_keys(space: SpaceId, range: &KeyRange) -> (Vec<u8>, Vec<u8>) {
    let end = match &range.end {
        Some(end) => row_key(space, end),
        None => row_key(SpaceId(space.0.saturating_add(1)), &[]),
    };
    (row_key(space, &range.start), end)
}

/// Seals the row of a stored key.
pub(super) fn seal_row(stored: &[u8], value: &[u8]) -> Bytes {
    codec::seal_row(stored, SEAL_VERSION, value)
}

/// Verifies the row of a stored key.
pub(super) fn open_row<'a>(stored: &[u8], row: &'a [u8]) -> Result<&'a [u8], CodecError> {
    codec::open_row(stored, SEAL_VERSION, row).map(|(_, value)| value)
}

/// Tells the records of one table from those of another, whatever their keys.
fn record_key(table: &str, number: u64) -> Vec<u8> {
    [table.as_bytes(), &number.to_be_bytes()].concat()
}

fn seal_record<T: ToMessagePack>(table: &str, number: u64, record: &T) -> Bytes {
    codec::seal_row(&record_key(table, number), SEAL_VERSION, &codec::encode(record))
}

fn open_record<'a, T: FromMessagePack<'a>>(
    table: &str,
    number: u64,
    row: &'a [u8],
) -> Result<T, CodecError> {
    let (_, payload) = codec::open_row(&record_key(table, number), SEAL_VERSION, row)?;
    codec::decode(payload)
}

impl Record {
    pub(super) fn seal(&self, shard: ShardId) -> Bytes {
        seal_record("shards", shard.0, self)
    }

    pub(super) fn open(shard: ShardId, row: &[u8]) -> Result<Self, CodecError> {
        open_record("shards", shard.0, row)
    }
}

impl Garbage {
    pub(super) fn seal(&self, number: u64) -> Bytes {
        seal_record("garbage", number, self)
    }

    pub(super) fn open(number: u64, row: &[u8]) -> Result<Self, CodecError> {
        open_record("garbage", number, row)
    }
}

/// The value of [`NEXT_SPACE_KEY`].
pub(super) fn seal_next_space(next: SpaceId) -> Bytes {
    seal_record(NEXT_SPACE_KEY, 0, &next)
}

/// The inverse of [`seal_next_space`].
pub(super) fn open_next_space(row: &[u8]) -> Result<SpaceId, CodecError> {
    open_record(NEXT_SPACE_KEY, 0, row)
}

/// The value of [`FORMAT_KEY`].
pub(super) fn seal_format(version: u8) -> Bytes {
    codec::seal_row(FORMAT_KEY.as_bytes(), version, &[])
}

/// Verifies the value of [`FORMAT_KEY`]; [`CodecError::Newer`] when this build
/// is too old for the file.
pub(super) fn open_format(row: &[u8]) -> Result<(), CodecError> {
    codec::open_row(FORMAT_KEY.as_bytes(), FORMAT_VERSION, row).map(|_| ())
}
