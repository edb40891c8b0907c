//! The shard machine's rows. Layouts are drawn in `docs/formats.md`.
//!
//! System rows are keyed by one tag byte and big-endian numbers, so that a
//! scan yields them in the order in which the machine needs them.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::codec::CodecError;
use quorate_types::{Blob, ClientId, Epoch, KeyRange, RequestId, ShardEpoch, TxnId};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::command::{Contribution, Floors, TxnInputs};
use crate::dedup::{ClientMark, DEDUP_TAG, MARK_TAG, Remembered};
use crate::lock::Place;
use crate::procedure::Call;

/// Tag of the [`Header`] row.
const HEADER_TAG: u8 = b's';
/// Tag of [`PendingRow`]s.
const PENDING_TAG: u8 = b'p';
/// Tag of [`OutboxRow`]s.
const OUTBOX_TAG: u8 = b'o';
/// Tag of tombstone rows, keyed by version.
const TOMBSTONE_TAG: u8 = b't';

/// The machine's scalars.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct Header {
    /// The keys this shard owns, accepted splits already taken off.
    pub range: KeyRange,
    /// Rises with every accepted change of the range.
    pub epoch: ShardEpoch,
    /// The last accepted sequencer epoch.
    pub cursor: Epoch,
    /// The shard clock: the highest time of any applied entry.
    pub clock_millis: u64,
    /// The version that the last writing transaction gave its keys.
    pub version: u64,
    /// No tombstone at or below this version is kept; it is the version of
    /// every missing key without one.
    pub tombstone_floor: u64,
    /// The floors in force.
    pub floors: Floors,
}

/// A transaction that waits for locks or inputs.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct PendingRow {
    /// What it is.
    pub work: Work,
    /// What it read, once its locks were granted.
    pub granted: Option<Contribution>,
    /// Its inputs, if they arrived before the grant.
    pub inputs: Option<TxnInputs>,
}

/// A unit of work in the gate.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub enum Work {
    /// A transaction of this shard alone.
    Direct(DirectWork),
    /// This shard's part of a sequenced transaction.
    Sequenced(SequencedWork),
    /// A split that waits for everything before it.
    Split(SplitWork),
}

/// See [`Work::Direct`].
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct DirectWork {
    /// Who asked.
    pub request: RequestId,
    /// The entry's time.
    pub time_millis: u64,
    /// The entry's chance.
    pub seed: u64,
    /// What for.
    pub call: Call,
}

/// See [`Work::Sequenced`].
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct SequencedWork {
    /// Its epoch.
    pub epoch: Epoch,
    /// The batch's time.
    pub time_millis: u64,
    /// The transaction's chance.
    pub seed: u64,
    /// The shard's range at the transaction's position: what "local" means.
    pub range: KeyRange,
    /// The transaction.
    pub txn: crate::command::SequencedTxn,
}

impl SequencedWork {
    /// The transaction's place in the global order.
    #[must_use]
    pub const fn id(&self) -> TxnId {
        TxnId { epoch: self.epoch, position: self.txn.position }
    }
}

/// What a shard keeps of a granted transaction for others.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct OutboxRow {
    /// What it read.
    pub contribution: Contribution,
    /// The transaction, where this shard is the home of one without writes and
    /// answers it from everyone's contributions.
    pub answers: Option<SequencedWork>,
}

/// See [`Work::Split`].
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct SplitWork {
    /// The change's epoch: the child's first cursor.
    pub epoch: Epoch,
    /// The child's range.
    pub child_range: KeyRange,
    /// The change.
    pub change: crate::command::MapChange,
}

/// What became of a request.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub enum Verdict {
    /// It ran; this is the result.
    Done(Blob),
    /// It was ordered and ended without effect, the same way on every replica.
    Aborted(Blob),
    /// A fence came first: it never ran here as a direct command and never will.
    Poisoned,
}

/// The memory of a request at its home.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct DedupRow {
    /// The key whose owner keeps this row.
    pub home: Blob,
    /// The request's birth, which decides when the row may go.
    pub birth: Epoch,
    /// The cursor (direct) or epoch (sequenced) at execution.
    pub position: Epoch,
    /// What became of it.
    pub verdict: Verdict,
}

impl Remembered for DedupRow {
    fn birth(&self) -> Epoch {
        self.birth
    }
}

/// A data row: `[version u64 BE][expires_millis u64 BE][value]`, zero for "never".
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataRow {
    /// The version the last write gave it.
    pub version: u64,
    /// When it expires.
    pub expires_millis: Option<u64>,
    /// The value.
    pub value: Blob,
}

const DATA_HEADER_BYTES: usize = 16;

impl DataRow {
    /// The row as stored.
    #[must_use]
    pub fn to_blob(&self) -> Blob {
        let mut row = Vec::with_capacity(DATA_HEADER_BYTES + self.value.len());
        row.extend_from_slice(&self.version.to_be_bytes());
        row.extend_from_slice(&self.expires_millis.unwrap_or(0).to_be_bytes());
        row.extend_from_slice(&self.value);
        row.into()
    }

    /// Reads a stored row.
    ///
    /// # Errors
    /// When it is shorter than its header.
    pub fn from_blob(row: &Blob) -> Result<Self, CodecError> {
        let truncated = || CodecError::Truncated(row.len());
        let (version, rest) = row.split_first_chunk::<8>().ok_or_else(truncated)?;
        let (expires, _) = rest.split_first_chunk::<8>().ok_or_else(truncated)?;
        let expires = u64::from_be_bytes(*expires);
        Ok(Self {
            version: u64::from_be_bytes(*version),
            expires_millis: (expires != 0).then_some(expires),
            value: Blob(row.0.slice(DATA_HEADER_BYTES..)),
        })
    }

    /// Whether the value is gone at this time of the shard clock.
    #[must_use]
    pub fn is_expired(&self, clock_millis: u64) -> bool {
        self.expires_millis.is_some_and(|expires| expires <= clock_millis)
    }
}

fn key(tag: u8, parts: &[&[u8]]) -> Blob {
    let mut key = vec![tag];
    for part in parts {
        key.extend_from_slice(part);
    }
    key.into()
}

/// The key of the [`Header`].
#[must_use]
pub fn header_key() -> Blob {
    key(HEADER_TAG, &[])
}

/// The key of a [`PendingRow`].
#[must_use]
pub fn pending_key(place: Place) -> Blob {
    key(PENDING_TAG, &[&place.index.to_be_bytes(), &place.position.to_be_bytes()])
}

/// The key of an [`OutboxRow`].
#[must_use]
pub fn outbox_key(txn: TxnId) -> Blob {
    key(OUTBOX_TAG, &[&txn.epoch.0.to_be_bytes(), &txn.position.to_be_bytes()])
}

/// The key of a tombstone; the row's value is the deleted key.
#[must_use]
pub fn tombstone_key(version: u64, deleted: &[u8]) -> Blob {
    key(TOMBSTONE_TAG, &[&version.to_be_bytes(), deleted])
}

/// What the machine holds of its system rows in memory.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The header, if the shard exists.
    pub header: Option<Header>,
    /// Pending work in log order.
    pub pending: BTreeMap<Place, PendingRow>,
    /// What is kept for others.
    pub outbox: BTreeMap<TxnId, OutboxRow>,
    /// Request memory.
    pub dedup: BTreeMap<(ClientId, u64), DedupRow>,
    /// Client acknowledgements.
    pub marks: BTreeMap<ClientId, ClientMark>,
    /// Deleted keys by version.
    pub tombstones: BTreeSet<(u64, Blob)>,
}

impl Loaded {
    /// Takes in one system row. Rows of other tags belong to the host.
    ///
    /// # Errors
    /// When the row is not what its key says.
    pub fn take(&mut self, key: &Blob, row: &Blob) -> Result<(), CodecError> {
        let Some((tag, rest)) = key.split_first() else { return Ok(()) };
        match *tag {
            HEADER_TAG if rest.is_empty() => self.header = Some(crate::command::open(row)?),
            PENDING_TAG => {
                let (index, position) = u64_u32(rest)?;
                self.pending.insert(Place { index, position }, crate::command::open(row)?);
            }
            OUTBOX_TAG => {
                let (epoch, position) = u64_u32(rest)?;
                let txn = TxnId { epoch: Epoch(epoch), position };
                self.outbox.insert(txn, crate::command::open(row)?);
            }
            DEDUP_TAG => {
                self.dedup.insert(client_sequence(rest)?, crate::command::open(row)?);
            }
            MARK_TAG => {
                self.marks.insert(client(rest)?, crate::command::open(row)?);
            }
            TOMBSTONE_TAG => {
                let (version, deleted) =
                    rest.split_first_chunk().ok_or(CodecError::Truncated(rest.len()))?;
                self.tombstones.insert((u64::from_be_bytes(*version), deleted.into()));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Reads exactly `N` bytes.
pub(crate) fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], CodecError> {
    bytes.try_into().map_err(|_| CodecError::Truncated(bytes.len()))
}

fn u64_u32(bytes: &[u8]) -> Result<(u64, u32), CodecError> {
    let (first, rest) = bytes.split_first_chunk().ok_or(CodecError::Truncated(bytes.len()))?;
    Ok((u64::from_be_bytes(*first), u32::from_be_bytes(exactly(rest)?)))
}

/// The client of a mark's key, behind its tag.
pub(crate) fn client(bytes: &[u8]) -> Result<ClientId, CodecError> {
    Ok(ClientId(u128::from_be_bytes(exactly(bytes)?)))
}

/// The request of a deduplication row's key, behind its tag.
pub(crate) fn client_sequence(bytes: &[u8]) -> Result<(ClientId, u64), CodecError> {
    let (client, sequence) = bytes.split_first_chunk().ok_or(CodecError::Truncated(bytes.len()))?;
    let sequence = u64::from_be_bytes(exactly(sequence)?);
    Ok((ClientId(u128::from_be_bytes(*client)), sequence))
}
