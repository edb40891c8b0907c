//! Who wrote what, and who has seen it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use bytes::Bytes;
use quorate_types::{NodeId, Seq};
use zerompk::{FromMessagePack, Read, ToMessagePack, Write};

use crate::wire::{self, Kind};
use crate::{CrdtError, Limits};

/// One life of one writer. A node draws a new incarnation at every boot, so
/// that a counter lost with its memory is never counted again: two writes
/// cannot share a [`Dot`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ToMessagePack, FromMessagePack)]
pub struct Origin {
    /// The node.
    pub node: NodeId,
    /// Which of its lives; later lives have higher numbers.
    pub incarnation: u64,
}

impl Origin {
    /// The life `incarnation` of `node`.
    #[must_use]
    pub const fn new(node: NodeId, incarnation: u64) -> Self {
        Self { node, incarnation }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node, self.incarnation)
    }
}

/// The name of a single write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ToMessagePack, FromMessagePack)]
pub struct Dot {
    /// Who wrote.
    pub origin: Origin,
    /// Which of its writes, counted from one.
    pub sequence: u64,
}

impl Dot {
    /// The write `sequence` of `origin`.
    #[must_use]
    pub const fn new(origin: Origin, sequence: u64) -> Self {
        Self { origin, sequence }
    }
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}", self.origin, self.sequence)
    }
}

/// For every origin the length of the prefix of its writes that has been seen.
/// An absent origin and one with sequence zero are the same, and only the
/// former is stored: equal knowledge is equal bytes.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct VersionVector(BTreeMap<Origin, u64>);

impl VersionVector {
    /// Nothing seen.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// How many writes of `origin` were seen.
    #[must_use]
    pub fn get(&self, origin: Origin) -> u64 {
        self.0.get(&origin).copied().unwrap_or(0)
    }

    /// Whether this write was seen.
    #[must_use]
    pub fn covers(&self, dot: Dot) -> bool {
        dot.sequence <= self.get(dot.origin)
    }

    /// Notes that the first `sequence` writes of `origin` were seen. Never
    /// takes knowledge away.
    pub fn advance(&mut self, origin: Origin, sequence: u64) {
        if sequence > self.get(origin) {
            self.0.insert(origin, sequence);
        }
    }

    /// Adds all that `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        for (origin, sequence) in other.iter() {
            self.advance(origin, sequence);
        }
    }

    /// Whether everything that `other` has seen was seen here.
    #[must_use]
    pub fn dominates(&self, other: &Self) -> bool {
        other.iter().all(|(origin, sequence)| self.get(origin) >= sequence)
    }

    /// Whether each has seen something that the other has not.
    #[must_use]
    pub fn concurrent(&self, other: &Self) -> bool {
        !self.dominates(other) && !other.dominates(self)
    }

    /// Every origin with its sequence, in the order of origins.
    pub fn iter(&self) -> impl Iterator<Item = (Origin, u64)> + '_ {
        self.0.iter().map(|(&origin, &sequence)| (origin, sequence))
    }

    /// How many origins were heard of.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an origin within the bounds was heard of.
    pub(crate) fn has_any(&self, origins: RangeInclusive<Origin>) -> bool {
        !origins.is_empty() && self.0.range(origins).next().is_some()
    }

    pub(crate) fn remove(&mut self, origin: Origin) {
        self.0.remove(&origin);
    }

    /// The vector as versioned bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        wire::seal(Kind::Vector, self)
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are not a vector, or one of more origins than `limits`
    /// allow.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, CrdtError> {
        let vector: Self = wire::open_as(Kind::Vector, bytes)?;
        limits.check_vector(&vector)?;
        Ok(vector)
    }
}

impl FromIterator<(Origin, u64)> for VersionVector {
    fn from_iter<I: IntoIterator<Item = (Origin, u64)>>(slots: I) -> Self {
        let mut vector = Self::new();
        for (origin, sequence) in slots {
            vector.advance(origin, sequence);
        }
        vector
    }
}

impl fmt::Debug for VersionVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl ToMessagePack for VersionVector {
    fn write<W: Write>(&self, writer: &mut W) -> zerompk::Result<()> {
        writer.write_array_len(self.0.len())?;
        self.iter().try_for_each(|(origin, sequence)| Dot::new(origin, sequence).write(writer))
    }
}

/// Accepts the canonical form only: ascending origins, no zeros.
impl<'a> FromMessagePack<'a> for VersionVector {
    fn read<R: Read<'a>>(reader: &mut R) -> zerompk::Result<Self> {
        let slots: Seq<Dot> = Seq::read(reader)?;
        let ascending = slots.iter().zip(slots.iter().skip(1)).all(|(a, b)| a.origin < b.origin);
        if !ascending || slots.iter().any(|slot| slot.sequence == 0) {
            return Err(zerompk::Error::KeyDuplicated("origin out of order".into()));
        }
        Ok(Self(slots.iter().map(|slot| (slot.origin, slot.sequence)).collect()))
    }
}
