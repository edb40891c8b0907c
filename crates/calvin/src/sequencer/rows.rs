//! The sequencer's rows. Layouts are drawn in `docs/formats.md`.

use std::collections::BTreeMap;

use quorate_types::codec::CodecError;
use quorate_types::{Blob, ClientId, Epoch, Seq, ShardId, TxnId};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::command::{Floors, ShardMap, Slice, open};
use crate::dedup::{ClientMark, DEDUP_TAG, MARK_TAG, Remembered};
use crate::shard::rows::{client, client_sequence, exactly};

const HEADER_TAG: u8 = b's';
const MAP_TAG: u8 = b'm';
const SLICE_TAG: u8 = b'l';
const PREV_TAG: u8 = b'n';

/// The sequencer's scalars.
#[derive(Clone, PartialEq, Eq, Debug, Default, ToMessagePack, FromMessagePack)]
pub(super) struct Header {
    /// The floors in force.
    pub(super) floors: Floors,
    /// How long requests are remembered at least, by the log's clock.
    pub(super) retention_millis: u64,
    /// The highest time of any entry.
    pub(super) clock_millis: u64,
    /// What was done when, oldest first, at most one a second.
    pub(super) samples: Seq<Sample>,
}

/// What was done everywhere at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(super) struct Sample {
    pub(super) done: Epoch,
    pub(super) time_millis: u64,
}

/// The memory of an ordered request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(super) struct OrderedRow {
    /// Its place.
    pub(super) txn: TxnId,
    /// Its home when it was ordered.
    pub(super) home: ShardId,
    /// The request's birth.
    pub(super) birth: Epoch,
}

impl Remembered for OrderedRow {
    fn birth(&self) -> Epoch {
        self.birth
    }
}

pub(super) fn header_key() -> Blob {
    Blob::from_static(&[HEADER_TAG])
}

pub(super) fn map_key() -> Blob {
    Blob::from_static(&[MAP_TAG])
}

pub(super) fn slice_key(shard: ShardId, epoch: Epoch) -> Blob {
    let mut key = vec![SLICE_TAG];
    key.extend_from_slice(&shard.0.to_be_bytes());
    key.extend_from_slice(&epoch.0.to_be_bytes());
    key.into()
}

pub(super) fn prev_key(shard: ShardId) -> Blob {
    let mut key = vec![PREV_TAG];
    key.extend_from_slice(&shard.0.to_be_bytes());
    key.into()
}

/// The sequencer's rows as loaded.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) header: Header,
    pub(super) map: Option<ShardMap>,
    pub(super) slices: BTreeMap<(ShardId, Epoch), Slice>,
    pub(super) prev: BTreeMap<ShardId, Epoch>,
    pub(super) dedup: BTreeMap<(ClientId, u64), OrderedRow>,
    pub(super) marks: BTreeMap<ClientId, ClientMark>,
}

impl Loaded {
    /// Takes in one system row. Rows of other tags belong to the host.
    pub(super) fn take(&mut self, key: &Blob, row: &Blob) -> Result<(), CodecError> {
        let Some((tag, rest)) = key.split_first() else { return Ok(()) };
        match *tag {
            HEADER_TAG if rest.is_empty() => self.header = open(row)?,
            MAP_TAG if rest.is_empty() => self.map = Some(open(row)?),
            SLICE_TAG => {
                let (shard, epoch) =
                    rest.split_first_chunk().ok_or(CodecError::Truncated(rest.len()))?;
                let shard = ShardId(u64::from_be_bytes(*shard));
                let epoch = Epoch(u64::from_be_bytes(exactly(epoch)?));
                self.slices.insert((shard, epoch), open(row)?);
            }
            PREV_TAG => {
                let shard = ShardId(u64::from_be_bytes(exactly(rest)?));
                self.prev.insert(shard, open(row)?);
            }
            DEDUP_TAG => {
                self.dedup.insert(client_sequence(rest)?, open(row)?);
            }
            MARK_TAG => {
                self.marks.insert(client(rest)?, open(row)?);
            }
            _ => {}
        }
        Ok(())
    }
}
