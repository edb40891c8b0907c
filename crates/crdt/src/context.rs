use std::collections::BTreeSet;

use quorate_types::Seq;
use zerompk::{FromMessagePack, Read, ToMessagePack, Write};

use crate::{Dot, Origin, VersionVector};

/// The writes that a replica or a delta knows of: a gap-free prefix per origin
/// and single dots beyond it. A delta knows of a few dots only, which is what
/// lets it be delivered in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DotContext {
    prefixes: VersionVector,
    /// Dots beyond the prefix of their origin and not adjacent to it.
    beyond: BTreeSet<Dot>,
}

impl DotContext {
    /// Knows nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { prefixes: VersionVector::new(), beyond: BTreeSet::new() }
    }

    /// Whether the write is known.
    #[must_use]
    pub fn contains(&self, dot: Dot) -> bool {
        self.prefixes.covers(dot) || self.beyond.contains(&dot)
    }

    /// The dot of `origin`'s next write. The caller is that origin: nobody
    /// else may draw its numbers.
    #[must_use]
    pub fn next(&self, origin: Origin) -> Dot {
        let last = self.beyond.range(Dot::new(origin, 0)..=Dot::new(origin, u64::MAX)).next_back();
        let highest = last.map_or(0, |dot| dot.sequence).max(self.prefixes.get(origin));
        Dot::new(origin, highest.saturating_add(1))
    }

    /// Notes a write.
    pub fn insert(&mut self, dot: Dot) {
        if !self.contains(dot) {
            self.beyond.insert(dot);
            self.compact(dot.origin);
        }
    }

    /// Notes every write that `other` knows of.
    pub fn merge(&mut self, other: &Self) {
        self.prefixes.merge(&other.prefixes);
        self.beyond.extend(other.beyond.iter().copied());
        let origins: BTreeSet<Origin> = self.beyond.iter().map(|dot| dot.origin).collect();
        for origin in origins {
            self.compact(origin);
        }
    }

    /// The gap-free part.
    #[must_use]
    pub const fn prefixes(&self) -> &VersionVector {
        &self.prefixes
    }

    /// Moves dots that have become adjacent to the prefix into it.
    fn compact(&mut self, origin: Origin) {
        let of_origin = Dot::new(origin, 0)..=Dot::new(origin, u64::MAX);
        while let Some(&dot) = self.beyond.range(of_origin.clone()).next() {
            let prefix = self.prefixes.get(origin);
            if dot.sequence > prefix.saturating_add(1) {
                return;
            }
            self.prefixes.advance(origin, dot.sequence);
            self.beyond.remove(&dot);
        }
    }
}

impl FromIterator<Dot> for DotContext {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut context = Self::new();
        for dot in dots {
            context.insert(dot);
        }
        context
    }
}

impl ToMessagePack for DotContext {
    fn write<W: Write>(&self, writer: &mut W) -> zerompk::Result<()> {
        writer.write_array_len(2)?;
        self.prefixes.write(writer)?;
        self.beyond.iter().copied().collect::<Seq<Dot>>().write(writer)
    }
}

/// Brings any input into canonical form.
impl<'a> FromMessagePack<'a> for DotContext {
    fn read<R: Read<'a>>(reader: &mut R) -> zerompk::Result<Self> {
        reader.check_array_len(2)?;
        let mut context = Self { prefixes: VersionVector::read(reader)?, beyond: BTreeSet::new() };
        for dot in Seq::<Dot>::read(reader)? {
            context.insert(dot);
        }
        Ok(context)
    }
}
