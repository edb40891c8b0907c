//! What a transaction is: a named procedure, its arguments and the keys it may
//! touch, all known before it is ordered.
//!
//! A procedure runs on every replica of every participant that writes, so its
//! outcome must be a function of what it is handed: the inputs, the time and
//! the seed that the log carries. It never sees a clock, an address or a hash
//! order.

use std::collections::BTreeMap;

use quorate_types::{Blob, KeyRange, Seq};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::limits::KEY_OVERHEAD_BYTES;

/// How a range is touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, ToMessagePack, FromMessagePack)]
#[msgpack(c_enum)]
#[repr(u8)]
pub enum Access {
    /// Its rows are handed to [`Procedures::scan`].
    Read = 0,
    /// Its rows may be cleared or written, blindly: they are not handed to
    /// [`Procedures::scan`] unless the range is also named for reading.
    Write = 1,
}

/// A range of keys and how it is touched.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct RangeAccess {
    /// The keys.
    pub range: KeyRange,
    /// How they are touched.
    pub access: Access,
}

/// Every key and range that a call may read or write. A key that is read and
/// written stands in both lists.
#[derive(Clone, PartialEq, Eq, Debug, Default, ToMessagePack, FromMessagePack)]
pub struct Footprint {
    /// Keys whose values are handed to [`Procedures::run`].
    pub reads: Seq<Blob>,
    /// Keys that may be written. A key that is only here is written blindly.
    pub writes: Seq<Blob>,
    /// Ranges; each shard condenses its part with [`Procedures::scan`].
    pub ranges: Seq<RangeAccess>,
}

impl Footprint {
    /// Whether nothing may be written.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.writes.is_empty() && self.ranges.iter().all(|range| range.access == Access::Read)
    }

    /// The key that decides where the call's result is kept: the first that is
    /// written, else the first that is read. A call that writes has its home
    /// at a shard that it writes to.
    #[must_use]
    pub fn home_key(&self) -> Option<&Blob> {
        let range_start = |access: Option<Access>| {
            self.ranges
                .iter()
                .filter(|range| !range.range.is_empty()) // Nobody takes part in it.
                .find(|range| access.is_none_or(|access| range.access == access))
                .map(|range| &range.range.start)
        };
        self.writes
            .first()
            .or_else(|| range_start(Some(Access::Write)))
            .or_else(|| self.reads.first())
            .or_else(|| range_start(None))
    }
}

/// A procedure invocation: what is replicated, ordered and executed.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct Call {
    /// Which procedure; numbered by the embedding service.
    pub procedure: u32,
    /// Its arguments, opaque here.
    pub args: Blob,
    /// What it may touch.
    pub footprint: Footprint,
}

impl Call {
    /// The bytes of its arguments and keys, and what encoding the keys adds:
    /// what limits count. Its encoding is no longer, but for a constant.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        let footprint = &self.footprint;
        let cost = |key: &Blob| key.len() + KEY_OVERHEAD_BYTES;
        let keys = footprint.reads.iter().chain(&footprint.writes).map(cost);
        let ranges = footprint.ranges.iter().map(|access| {
            let end = access.range.end.as_ref().map_or(0, |end| end.len());
            cost(&access.range.start) + end + KEY_OVERHEAD_BYTES
        });
        self.args.len() + keys.chain(ranges).sum::<usize>()
    }
}

/// A key as it stood when the transaction read it.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct Read {
    /// The key.
    pub key: Blob,
    /// Rises with every write to the key, deletes included; survives delete,
    /// recreate and split. Zero only for a key of a shard that never deleted.
    pub version: u64,
    /// The value; `None` when missing or expired.
    pub value: Option<Blob>,
    /// When the value expires, in milliseconds of the shard's clock.
    pub expires_millis: Option<u64>,
}

impl Read {
    /// What it counts for in limits.
    pub(crate) fn payload_bytes(&self) -> usize {
        const OVERHEAD_BYTES: usize = 32;
        self.key.len() + self.value.as_ref().map_or(0, |value| value.len()) + OVERHEAD_BYTES
    }
}

/// Everything a procedure may look at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Inputs {
    /// The footprint's reads, by key.
    pub reads: BTreeMap<Blob, Read>,
    /// What [`Procedures::scan`] made of the ranges, in key order of the
    /// shards that hold them.
    pub scans: Vec<Blob>,
}

impl Inputs {
    /// The value of a key in the footprint's reads.
    #[must_use]
    pub fn value(&self, key: &[u8]) -> Option<&Blob> {
        self.reads.get(key).and_then(|read| read.value.as_ref())
    }
}

/// A write that a procedure asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// The key; must be in the footprint's writes or write ranges.
    pub key: Blob,
    /// The new value; `None` deletes.
    pub value: Option<Blob>,
    /// When the value expires, in milliseconds of the shard's clock.
    pub expires_millis: Option<u64>,
}

/// What a procedure decided. An abort is an outcome without writes whose
/// result says so.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Writes in order; a later write to the same key wins.
    pub writes: Vec<Write>,
    /// Ranges to clear before the writes; must be within the footprint's
    /// write ranges.
    pub clears: Vec<KeyRange>,
    /// The answer to the client.
    pub result: Blob,
}

/// Live rows of one range on one shard, in key order.
pub type Rows<'a> = dyn Iterator<Item = (Blob, Blob)> + 'a;

/// The service's transaction logic (port). Must be deterministic and total;
/// a panic is contained and becomes the same abort on every replica.
pub trait Procedures: Send + Sync + 'static {
    /// Condenses the rows of one range on one shard into what
    /// [`Inputs::scans`] carries, for instance a count.
    fn scan(&self, call: &Call, range: &KeyRange, rows: &mut Rows<'_>) -> Blob {
        let _ = (call, range, rows);
        Blob::new()
    }

    /// Decides. `time_millis` is the transaction's time in the log and `seed`
    /// its chance.
    fn run(&self, call: &Call, inputs: &Inputs, time_millis: u64, seed: u64) -> Outcome;
}
