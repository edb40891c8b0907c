//! What a replica tells of itself, and the answer to it. Deltas, resets and
//! the choice between them are the business of these two values; whoever
//! carries the bytes need not know the difference.

use bytes::Bytes;
use quorate_types::Blob;
use zerompk::{FromMessagePack, ToMessagePack};

use super::delta::{Delta, MergeOutcome};
use super::reset::{ResetChunk, ResetCursor};
use super::store::DeltaMap;
use crate::wire::{self, Kind};
use crate::{CrdtError, Limits, VersionVector};

/// What a replica has seen, what came of it, and the reset it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// What has been seen.
    pub vector: VersionVector,
    /// What has been seen of origins that have left the vector lately.
    pub faded: VersionVector,
    /// [`DeltaMap::root`].
    pub root: u128,
    /// The reset under way.
    pub resync: Option<ResetCursor>,
}

#[derive(ToMessagePack, FromMessagePack)]
struct WireSummary {
    vector: VersionVector,
    faded: VersionVector,
    root_high: u64,
    root_low: u64,
    resync: Option<ResetCursor>,
}

/// An answer to a [`Summary`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Novelty {
    /// What the peer lacks.
    Delta(Delta),
    /// A part of the whole state.
    Reset(ResetChunk),
}

impl DeltaMap {
    /// What to tell a peer before asking for novelty.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            vector: self.vector().clone(),
            faded: self.faded.origins(),
            root: self.root(),
            resync: self.resync.as_ref().map(|resync| resync.cursor.clone()),
        }
    }

    /// What the peer should be told next, in at most `bytes_max` bytes; `None`
    /// when there is nothing, or when the peer is busy with a reset from
    /// someone else.
    ///
    /// # Errors
    /// [`CrdtError::BudgetTooSmall`].
    pub fn novelty(&self, peer: &Summary, bytes_max: usize) -> Result<Option<Novelty>, CrdtError> {
        let start = match &peer.resync {
            Some(cursor) if cursor.sender == self.origin => Some(cursor.next.clone()),
            Some(_) if self.needs_reset(peer) => return Ok(None),
            None if self.needs_reset(peer) => Some(Blob::new()),
            _ => None,
        };
        match start {
            Some(start) => Ok(Some(Novelty::Reset(self.reset_chunk(&start, bytes_max)?))),
            None => Ok(self.delta(&peer.vector, bytes_max)?.map(Novelty::Delta)),
        }
    }

    /// Whether no delta can make the peer equal.
    fn needs_reset(&self, peer: &Summary) -> bool {
        let behind_cut = !peer.vector.dominates(&self.cut);
        let diverged = peer.vector == self.vector && peer.root != self.root();
        behind_cut || diverged
    }

    /// Takes in an answer.
    ///
    /// # Errors
    /// As for [`DeltaMap::merge`].
    pub fn merge_novelty(&mut self, novelty: &Novelty) -> Result<MergeOutcome, CrdtError> {
        match novelty {
            Novelty::Delta(delta) => self.merge(delta),
            Novelty::Reset(chunk) => self.merge_reset(chunk),
        }
    }
}

impl Summary {
    /// All that the replica has seen, to be noted with
    /// [`DeltaMap::acknowledge`]. Without the faded origins, a replica that
    /// still holds the last tombstone of one would wait in vain for those that
    /// have let go of it.
    #[must_use]
    pub fn acknowledgement(&self) -> VersionVector {
        let mut seen = self.vector.clone();
        seen.merge(&self.faded);
        seen
    }

    /// The summary as versioned bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let wire = WireSummary {
            vector: self.vector.clone(),
            faded: self.faded.clone(),
            root_high: (self.root >> 64) as u64,
            root_low: self.root as u64,
            resync: self.resync.clone(),
        };
        wire::seal(Kind::Summary, &wire)
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are not a summary, or exceed `limits`.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, CrdtError> {
        let wire: WireSummary = wire::open_as(Kind::Summary, bytes)?;
        limits.check_vector(&wire.vector)?;
        limits.check_vector(&wire.faded)?;
        if let Some(cursor) = &wire.resync {
            limits.check_key(&cursor.next)?;
        }
        Ok(Self {
            vector: wire.vector,
            faded: wire.faded,
            root: (u128::from(wire.root_high) << 64) | u128::from(wire.root_low),
            resync: wire.resync,
        })
    }
}

impl Novelty {
    /// The answer as versioned bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Delta(delta) => delta.encode(),
            Self::Reset(chunk) => chunk.encode(),
        }
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are neither a delta nor a chunk.
    pub fn decode(bytes: &[u8]) -> Result<Self, CrdtError> {
        match wire::open(bytes)?.0 {
            Kind::Reset => ResetChunk::decode(bytes).map(Self::Reset),
            _ => Delta::decode(bytes).map(Self::Delta),
        }
    }
}
