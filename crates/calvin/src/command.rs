//! What the logs hold. Every encoding starts with a format version; a newer
//! one halts the replica (law 7).

use bytes::Bytes;
use quorate_types::codec::{CodecError, decode, encode};
use quorate_types::{
    Blob, Epoch, KeyRange, NodeId, ReplicaId, RequestId, Seq, ShardEpoch, ShardId, TxnId,
};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::limits::{
    KEY_BYTES_MAX, MEMBERS_MAX, PARTICIPANT_BYTES, SLICES_BYTES_MAX, TXN_OVERHEAD_BYTES,
};
use crate::procedure::{Call, Read};

/// The newest format of log commands and rows this build reads and writes.
pub const FORMAT: u8 = 1;

/// Encodes a versioned value: `[format u8][zerompk]`.
pub(crate) fn seal<T: ToMessagePack>(value: &T) -> Blob {
    let body = encode(value);
    let mut sealed = Vec::with_capacity(1 + body.len());
    sealed.push(FORMAT);
    sealed.extend_from_slice(&body);
    sealed.into()
}

/// Decodes what [`seal`] made.
pub(crate) fn open<T: for<'a> FromMessagePack<'a>>(bytes: &[u8]) -> Result<T, CodecError> {
    let (format, body) = bytes.split_first().ok_or(CodecError::Truncated(0))?;
    if *format > FORMAT {
        return Err(CodecError::Newer { found: *format, known: FORMAT });
    }
    decode(body)
}

/// A replica and where it lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct Member {
    /// The replica.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
}

/// What one participant read for a transaction: its share of the inputs.
#[derive(Clone, PartialEq, Eq, Debug, Default, ToMessagePack, FromMessagePack)]
pub struct Contribution {
    /// The keys it holds.
    pub reads: Seq<Read>,
    /// Its parts of the ranges, with the start of the part, which orders them.
    pub scans: Seq<ScanPart>,
    /// It was more than the transaction may read: nothing is here, and the
    /// transaction aborts on every participant.
    pub is_too_large: bool,
}

impl Contribution {
    /// Its bytes, as limits count them.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        let reads = self.reads.iter().map(Read::payload_bytes);
        let scans = self.scans.iter().map(|part| part.start.len() + part.condensed.len() + 32);
        reads.chain(scans).sum()
    }

    /// The same, or only the note that it was larger than `bytes_max`.
    #[must_use]
    pub fn bounded(self, bytes_max: usize) -> Self {
        if self.payload_bytes() <= bytes_max { self } else { Self::too_large() }
    }

    /// The note that a participant reads too much.
    #[must_use]
    pub fn too_large() -> Self {
        Self { is_too_large: true, ..Self::default() }
    }
}

/// One shard's condensed part of one range of the footprint.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct ScanPart {
    /// Which range of the footprint.
    pub range: u32,
    /// Where the shard's part begins.
    pub start: Blob,
    /// What [`crate::Procedures::scan`] made of it.
    pub condensed: Blob,
}

/// A [`Contribution`] and whose it is.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct ShardContribution {
    /// The participant.
    pub shard: ShardId,
    /// What it read.
    pub contribution: Contribution,
}

/// A shard's part in a sequenced transaction, decided by the map at the
/// transaction's position.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct Participant {
    /// The shard.
    pub shard: ShardId,
    /// It contributes inputs.
    pub reads: bool,
    /// It executes and writes ("active").
    pub writes: bool,
}

/// A sequenced transaction as a participant gets it.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct SequencedTxn {
    /// Its place within the epoch.
    pub position: u32,
    /// Who asked.
    pub request: RequestId,
    /// What for.
    pub call: Call,
    /// The shard that keeps the result.
    pub home: ShardId,
    /// Who takes part, ascending by shard. Everyone, at the home and where one
    /// participant may need another's reads; else the receiver and the home.
    pub participants: Seq<Participant>,
}

/// A change of the map, sequenced as a barrier.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct MapChange {
    /// The map version it produces; the sequencer's must be one less.
    pub version: u64,
    /// The shard that is split.
    pub parent: ShardId,
    /// The first key of the child.
    pub at: Blob,
    /// The child.
    pub child: ShardId,
    /// The child's replicas, allocated by the metadata group: at least one, and
    /// at most [`MEMBERS_MAX`].
    pub members: Seq<Member>,
    /// The parent's and the child's epoch afterwards.
    pub epoch: ShardEpoch,
}

impl MapChange {
    /// Whether the child's members are as many as a group may have.
    pub(crate) fn has_fitting_members(&self) -> bool {
        (1..=MEMBERS_MAX).contains(&self.members.len())
    }
}

/// What an epoch asks of one shard.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub enum SliceBody {
    /// Transactions, ascending by position.
    Transactions(Seq<SequencedTxn>),
    /// A split of this shard; always alone in its epoch.
    Split(MapChange),
}

/// One epoch's work for one shard.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct Slice {
    /// The epoch.
    pub epoch: Epoch,
    /// The shard's previous epoch: what its cursor must be to accept this.
    pub prev: Epoch,
    /// The batch's time.
    pub time_millis: u64,
    /// The batch's chance.
    pub seed: u64,
    /// The shard's range in the map at this position.
    pub range: KeyRange,
    /// The floors in force.
    pub floors: Floors,
    /// The work.
    pub body: SliceBody,
}

impl Slice {
    /// How many bytes its encoding has at the most.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        let range = &self.range;
        let range_bytes = range.start.len() + range.end.as_ref().map_or(0, |end| end.len());
        range_bytes + self.work_bytes() + SLICE_OVERHEAD_BYTES
    }

    /// The same for its work alone.
    pub(crate) fn work_bytes(&self) -> usize {
        match &self.body {
            SliceBody::Split(change) => change.at.len() + 64 * change.members.len() + 256,
            SliceBody::Transactions(txns) => txns
                .iter()
                .map(|txn| {
                    let participants_bytes = PARTICIPANT_BYTES * txn.participants.len();
                    txn.call.payload_bytes() + participants_bytes + TXN_OVERHEAD_BYTES
                })
                .sum(),
        }
    }
}

/// What a slice holds besides its range and its work.
const SLICE_OVERHEAD_BYTES: usize = 256;

/// As many of the slices as fit the budget, at least one.
pub(crate) fn within_budget<'a>(
    slices: impl Iterator<Item = &'a Slice>,
) -> impl Iterator<Item = &'a Slice> {
    let mut bytes = 0;
    slices
        .enumerate()
        .take_while(move |(place, slice)| {
            bytes += slice.payload_bytes();
            *place == 0 || bytes <= SLICES_BYTES_MAX
        })
        .map(|(_, slice)| slice)
}

/// Stable facts about the past that let memory go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ToMessagePack, FromMessagePack)]
pub struct Floors {
    /// Every transaction at or below is done everywhere (watermark C): slices
    /// and outboxes may go.
    pub done: Epoch,
    /// Requests born at or below are expired: their deduplication rows may go.
    pub expired: Epoch,
}

impl Floors {
    /// The later of both, floor by floor.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { done: self.done.max(other.done), expired: self.expired.max(other.expired) }
    }
}

/// A command in a shard's log.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub enum ShardCommand {
    /// A transaction of this shard alone; this entry is its only commit.
    Direct(Direct),
    /// Slices in chain order.
    Slices(Seq<Slice>),
    /// The inputs of a granted transaction.
    Inputs(TxnInputs),
    /// Resolve a request at its old home: return its result or poison its id.
    Fence(Fence),
    /// Floors for a shard that gets no slices.
    Floor(Floors),
}

/// See [`ShardCommand::Fence`].
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct Fence {
    /// The request.
    pub request: RequestId,
    /// Its call's home key, whose owner keeps the row.
    pub home: Blob,
}

/// A single-shard transaction.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct Direct {
    /// Who asked.
    pub request: RequestId,
    /// The shard's epoch by which it was routed.
    pub epoch: ShardEpoch,
    /// The leader's clock at proposal.
    pub time_millis: u64,
    /// Its chance.
    pub seed: u64,
    /// What for.
    pub call: Call,
}

/// The complete inputs of a sequenced transaction.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct TxnInputs {
    /// Which.
    pub txn: TxnId,
    /// Every contribution, ascending by shard.
    pub contributions: Seq<ShardContribution>,
}

/// A command in the sequencer's log.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub enum SequencerCommand {
    /// The first map; later ones of these are ignored.
    Init {
        /// The map.
        map: ShardMap,
        /// How long requests are remembered at least, by the log's clock.
        retention_millis: u64,
    },
    /// Transactions in their order.
    Batch(SequencerBatch),
    /// A map change, alone in its epoch.
    Change {
        /// The change.
        change: MapChange,
        /// The leader's clock at proposal.
        time_millis: u64,
    },
}

/// A batch of transactions; its log index becomes their epoch.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct SequencerBatch {
    /// The leader's clock at proposal.
    pub time_millis: u64,
    /// Chance for the procedures.
    pub seed: u64,
    /// The leader's watermark C at proposal.
    pub done: Epoch,
    /// The transactions.
    pub txns: Seq<Submission>,
}

/// A transaction on its way to the sequencer.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct Submission {
    /// Who asks.
    pub request: RequestId,
    /// What for.
    pub call: Call,
}

/// Which shard holds which keys.
#[derive(Clone, PartialEq, Eq, Debug, Default, ToMessagePack, FromMessagePack)]
pub struct ShardMap {
    /// Rises by one with every change.
    pub version: u64,
    /// The shards ascending by the start of their range; together they cover
    /// every key once.
    pub shards: Seq<MapShard>,
}

/// A shard in the map.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct MapShard {
    /// The shard.
    pub shard: ShardId,
    /// Its keys.
    pub range: KeyRange,
    /// Its epoch.
    pub epoch: ShardEpoch,
}

impl ShardMap {
    /// The sequencer's first map, of shards in key order; none without shards.
    pub fn first(shards: impl Iterator<Item = MapShard>) -> Option<Self> {
        let shards: Seq<MapShard> = shards.collect();
        (!shards.is_empty()).then_some(Self { version: 1, shards })
    }

    /// The shard that holds `key`.
    #[must_use]
    pub fn locate(&self, key: &[u8]) -> Option<&MapShard> {
        let after = self.shards.partition_point(|shard| *shard.range.start <= *key);
        after
            .checked_sub(1)
            .and_then(|place| self.shards.get(place))
            .filter(|shard| shard.range.contains(key))
    }

    /// The shards that hold keys of `range`, in key order.
    pub fn overlapping<'a>(&'a self, range: &'a KeyRange) -> impl Iterator<Item = &'a MapShard> {
        self.shards.iter().filter(move |shard| shard.range.overlaps(range))
    }

    /// Applies a split.
    ///
    /// # Errors
    /// Why the change does not fit this map.
    pub fn change(&mut self, change: &MapChange) -> Result<(), Misfit> {
        if self.version.checked_add(1) != Some(change.version) {
            return Err(Misfit::OtherVersion);
        }
        let (low, high) = self.halves(change)?;
        let place = self.place(change.parent).ok_or(Misfit::NoParent)?;
        let parent = self.shards.get_mut(place).ok_or(Misfit::NoParent)?;
        parent.range = low;
        parent.epoch = change.epoch;
        let child = MapShard { shard: change.child, range: high, epoch: change.epoch };
        self.shards.insert(place + 1, child);
        self.version = change.version;
        Ok(())
    }

    /// What a split would make of its parent's range, whatever version it was
    /// made for.
    ///
    /// # Errors
    /// Why it does not fit this map.
    pub fn halves(&self, change: &MapChange) -> Result<(KeyRange, KeyRange), Misfit> {
        let entry = |shard| self.place(shard).and_then(|place| self.shards.get(place));
        let parent = entry(change.parent);
        // First of all: after the cut, its key is at the parent's end and its
        // epoch is the parent's, which must not pass for reasons against it.
        if let Some(child) = entry(change.child) {
            let is_this_cut = parent.is_some_and(|parent| shows_cut(parent, child, change));
            return Err(if is_this_cut { Misfit::InForce } else { NeverFits::ChildTaken.into() });
        }
        let parent = parent.ok_or(Misfit::NoParent)?;
        if change.epoch <= parent.epoch {
            return Err(NeverFits::EpochPassed.into());
        }
        // What is longer than any key is no key of the parent, and no engine
        // could cut there: the parent's replicas would halt at the fork.
        let halves = parent.range.split_at(&change.at);
        let halves = halves.filter(|_| change.at.len() <= KEY_BYTES_MAX);
        let halves = halves.ok_or(NeverFits::KeyOutside)?;
        if change.has_fitting_members() { Ok(halves) } else { Err(Misfit::Members) }
    }

    fn place(&self, shard: ShardId) -> Option<usize> {
        self.shards.iter().position(|entry| entry.shard == shard)
    }

    /// Whether the shards cover every key exactly once, in order.
    #[must_use]
    pub fn is_partition(&self) -> bool {
        let mut expected_start = Some(Blob::new());
        for shard in &self.shards {
            if expected_start.as_ref() != Some(&shard.range.start) || shard.range.is_empty() {
                return false;
            }
            expected_start = shard.range.end.clone();
        }
        !self.shards.is_empty() && expected_start.is_none()
    }
}

/// Whether the two shards are what a split made of the parent, even if they
/// were split again since: a shard keeps its first key, its end only comes
/// closer, and its epoch only rises. So a cut that was made is shown by every
/// later map.
fn shows_cut(parent: &MapShard, child: &MapShard, change: &MapChange) -> bool {
    child.range.start == change.at
        && child.epoch >= change.epoch
        && parent.epoch >= change.epoch
        && parent.range.start < change.at
        && parent.range.end.as_ref().is_some_and(|end| *end <= change.at)
}

/// Why a map change does not fit a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// There is nothing to change yet.
    #[error("there is no map yet")]
    NoMap,
    /// Another change came first; it may fit as the next version.
    #[error("the change was made for another map version")]
    OtherVersion,
    /// Not for ever: another change may put the parent there yet.
    #[error("the parent is not in the map")]
    NoParent,
    /// It names no member or more than any group has. No coordinator asks for
    /// that.
    #[error("the child has no member or more than {MEMBERS_MAX}")]
    Members,
    /// The map shows it.
    #[error("the change is in force already")]
    InForce,
    /// It neither is in force nor ever will be.
    #[error(transparent)]
    Never(#[from] NeverFits),
}

/// Why a map change will not come into force, ever.
///
/// Each holds in every map that can follow the one in which it was found,
/// whichever version the change is proposed for: a shard never leaves the map,
/// nobody's id is given again, a range only shrinks, its first key stays, and
/// an epoch only rises. So it does not matter how old that map is, nor which
/// copies of the change are still on their way to the sequencer's log or
/// waiting in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NeverFits {
    /// The child was made by another cut: had it been this one, the map would
    /// show it.
    #[error("the child was made by another cut")]
    ChildTaken,
    /// The key is not inside the parent's range, or is its first.
    #[error("the split key is not inside the parent")]
    KeyOutside,
    /// The parent has this epoch or a later one; an epoch that does not rise
    /// would not fence older routes.
    #[error("the parent's epoch has passed that of the change")]
    EpochPassed,
}

macro_rules! log_format {
    ($name:ty) => {
        impl $name {
            /// The command as the log holds it.
            #[must_use]
            pub fn to_bytes(&self) -> Bytes {
                seal(self).0
            }

            /// Reads a log entry.
            ///
            /// # Errors
            /// A damaged or newer entry; the replica must halt, not answer.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
                open(bytes)
            }
        }
    };
}

log_format!(ShardCommand);
log_format!(SequencerCommand);
