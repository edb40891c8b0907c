use std::collections::BTreeMap;

use quorate_types::{Blob, Seq};
use zerompk::{FromMessagePack, Read, ToMessagePack, Write};

use crate::{Dot, Stamp};

/// What is stored under a key.
///
/// The derived order is the merge: the newest stamp wins, then (never, unless
/// a clock lost its high-water mark) the greater value, then the greater dot.
/// No two different entries are equal, so every replica picks the same one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, ToMessagePack, FromMessagePack)]
pub struct Entry {
    /// The age of the write.
    pub stamp: Stamp,
    /// The value; `None` is a tombstone.
    pub value: Option<Blob>,
    /// The name of the write.
    pub dot: Dot,
}

impl Entry {
    /// Whether the entry says that there is no value.
    #[must_use]
    pub const fn is_tombstone(&self) -> bool {
        self.value.is_none()
    }
}

/// What became of a local write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is stored under this name and will reach every replica, unless a
    /// newer write does first.
    Written(Dot),
    /// It was refused: something at least as new is known.
    Stale {
        /// The stamp to exceed.
        current: Stamp,
    },
}

/// The first byte of a key. Keys of one keyspace share the floor below which
/// writes are refused after a removal.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ToMessagePack, FromMessagePack,
)]
pub struct Keyspace(pub u8);

impl Keyspace {
    /// The keyspace of a key. Keys are never empty; should one be, it counts
    /// to the first.
    #[must_use]
    pub fn of(key: &Blob) -> Self {
        Self(key.first().copied().unwrap_or(0))
    }
}

/// For each keyspace the newest removal of some set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Floors(BTreeMap<Keyspace, Stamp>);

#[derive(ToMessagePack, FromMessagePack)]
struct Floor {
    keyspace: Keyspace,
    stamp: Stamp,
}

impl Floors {
    pub(crate) fn of(&self, key: &Blob) -> Option<Stamp> {
        self.0.get(&Keyspace::of(key)).copied()
    }

    /// Whether a write of this age lies at or below the floor.
    pub(crate) fn reaches(&self, key: &Blob, stamp: Stamp) -> bool {
        self.of(key).is_some_and(|floor| stamp <= floor)
    }

    pub(crate) fn raise(&mut self, keyspace: Keyspace, stamp: Stamp) {
        let floor = self.0.entry(keyspace).or_insert(stamp);
        *floor = stamp.max(*floor);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (&keyspace, &stamp) in &other.0 {
            self.raise(keyspace, stamp);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn stamps(&self) -> impl Iterator<Item = Stamp> + '_ {
        self.0.values().copied()
    }
}

impl ToMessagePack for Floors {
    fn write<W: Write>(&self, writer: &mut W) -> zerompk::Result<()> {
        writer.write_array_len(self.0.len())?;
        self.0.iter().try_for_each(|(&keyspace, &stamp)| Floor { keyspace, stamp }.write(writer))
    }
}

impl<'a> FromMessagePack<'a> for Floors {
    fn read<R: Read<'a>>(reader: &mut R) -> zerompk::Result<Self> {
        let mut floors = Self::default();
        for Floor { keyspace, stamp } in Seq::<Floor>::read(reader)? {
            floors.raise(keyspace, stamp);
        }
        Ok(floors)
    }
}
