use std::fmt;

use quorate_types::Hlc;
use zerompk::{FromMessagePack, Read, ToMessagePack, Write};

use crate::CrdtError;

/// The age of a write: first the fence, a consensus epoch (zero where none
/// governs), then the hybrid clock, which names its node. A write under a
/// higher fence is newer whatever the clocks say.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, ToMessagePack, FromMessagePack,
)]
pub struct Stamp {
    /// The epoch of the consensus decision behind the write.
    pub fence: u64,
    /// When and by which node.
    pub hlc: Hlc,
}

impl Stamp {
    /// A write at `hlc` under `fence`.
    #[must_use]
    pub const fn new(fence: u64, hlc: Hlc) -> Self {
        Self { fence, hlc }
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "f{}/{:?}", self.fence, self.hlc)
    }
}

/// A value of which the newest write wins.
///
/// The order is total: where two writes carry the same stamp (a clock that
/// lost its high-water mark), the greater value wins on every replica. Keeping
/// the local one, the obvious choice, would let two replicas differ for ever.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LwwRegister<T> {
    stamp: Stamp,
    value: T,
}

impl<T: Ord + Clone> LwwRegister<T> {
    /// A register that holds `value` since `stamp`.
    pub const fn new(stamp: Stamp, value: T) -> Self {
        Self { stamp, value }
    }

    /// The current value.
    pub const fn value(&self) -> &T {
        &self.value
    }

    /// When it was written.
    pub const fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Writes, and returns the delta that tells others.
    ///
    /// # Errors
    /// [`CrdtError::Stale`] when `stamp` is not newer than the current one.
    pub fn set(&mut self, stamp: Stamp, value: T) -> Result<Self, CrdtError> {
        if stamp <= self.stamp {
            return Err(CrdtError::Stale { current: self.stamp });
        }
        *self = Self { stamp, value };
        Ok(self.clone())
    }

    /// Takes in another replica's state or delta; says whether anything
    /// changed.
    pub fn merge(&mut self, other: &Self) -> bool {
        let newer = other > self;
        if newer {
            *self = other.clone();
        }
        newer
    }
}

impl<T: ToMessagePack> ToMessagePack for LwwRegister<T> {
    fn write<W: Write>(&self, writer: &mut W) -> zerompk::Result<()> {
        writer.write_array_len(2)?;
        self.stamp.write(writer)?;
        self.value.write(writer)
    }
}

impl<'a, T: FromMessagePack<'a>> FromMessagePack<'a> for LwwRegister<T> {
    fn read<R: Read<'a>>(reader: &mut R) -> zerompk::Result<Self> {
        reader.check_array_len(2)?;
        Ok(Self { stamp: Stamp::read(reader)?, value: T::read(reader)? })
    }
}
