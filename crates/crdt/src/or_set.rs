use std::collections::{BTreeMap, BTreeSet};

use quorate_types::Seq;
use zerompk::{FromMessagePack, Read, ToMessagePack, Write};

use crate::{Dot, DotContext, Origin};

/// A set in which an addition wins over a concurrent removal.
///
/// Every addition carries a [`Dot`], and so the name of its origin: additions
/// on two nodes can never be taken for one. A removal removes the dots that it
/// has seen and no others. Removed elements leave nothing behind but the
/// causal context (Almeida et al., "Delta State Replicated Data Types", 2018).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrSet<T: Ord> {
    elements: BTreeMap<T, BTreeSet<Dot>>,
    context: DotContext,
}

impl<T: Ord + Clone> OrSet<T> {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { elements: BTreeMap::new(), context: DotContext::new() }
    }

    /// Whether the element is in the set.
    pub fn contains(&self, element: &T) -> bool {
        self.elements.contains_key(element)
    }

    /// The elements in their order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.elements.keys()
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// Adds an element, and returns the delta that tells others. `origin` must
    /// be the caller's own.
    pub fn add(&mut self, origin: Origin, element: T) -> Self {
        let dot = self.context.next(origin);
        let replaced = self.elements.get(&element).into_iter().flatten().copied();
        let delta = Self {
            context: replaced.chain([dot]).collect(),
            elements: BTreeMap::from([(element, BTreeSet::from([dot]))]),
        };
        self.merge(&delta);
        delta
    }

    /// Removes an element, and returns the delta that tells others.
    pub fn remove(&mut self, element: &T) -> Self {
        let seen = self.elements.get(element).into_iter().flatten().copied();
        let delta = Self { elements: BTreeMap::new(), context: seen.collect() };
        self.merge(&delta);
        delta
    }

    /// Takes in another replica's state or delta; says whether the set of
    /// elements changed.
    pub fn merge(&mut self, other: &Self) -> bool {
        let before = self.elements.len();
        self.elements.retain(|element, dots| {
            let theirs = other.elements.get(element);
            dots.retain(|dot| {
                theirs.is_some_and(|theirs| theirs.contains(dot)) || !other.context.contains(*dot)
            });
            !dots.is_empty() || theirs.is_some()
        });
        let mut changed = self.elements.len() != before;
        for (element, theirs) in &other.elements {
            changed |= self.adopt(element, theirs);
        }
        self.context.merge(&other.context);
        changed
    }

    /// Takes in their dots of one element that we never saw. (What we saw and
    /// no longer hold was removed here.)
    fn adopt(&mut self, element: &T, theirs: &BTreeSet<Dot>) -> bool {
        let unseen = theirs.iter().copied().filter(|dot| !self.context.contains(*dot));
        match self.elements.get_mut(element) {
            Some(dots) => {
                dots.extend(unseen);
                let vanished = dots.is_empty();
                if vanished {
                    self.elements.remove(element);
                }
                vanished
            }
            None => {
                let dots: BTreeSet<Dot> = unseen.collect();
                let added = !dots.is_empty();
                if added {
                    self.elements.insert(element.clone(), dots);
                }
                added
            }
        }
    }
}

impl<T: Ord + Clone> Default for OrSet<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Ord + ToMessagePack> ToMessagePack for OrSet<T> {
    fn write<W: Write>(&self, writer: &mut W) -> zerompk::Result<()> {
        writer.write_array_len(2)?;
        writer.write_array_len(self.elements.len())?;
        for (element, dots) in &self.elements {
            writer.write_array_len(2)?;
            element.write(writer)?;
            dots.iter().copied().collect::<Seq<Dot>>().write(writer)?;
        }
        self.context.write(writer)
    }
}

/// Adds the dots of the elements to the context, which holds them in anything
/// that a correct peer sends. Passes over dots that no write can have: writes
/// are counted from one, every context covers zero, and so such an element
/// would stay here and be taken for removed elsewhere.
impl<'a, T: Ord + FromMessagePack<'a>> FromMessagePack<'a> for OrSet<T> {
    fn read<R: Read<'a>>(reader: &mut R) -> zerompk::Result<Self> {
        reader.check_array_len(2)?;
        let mut elements = BTreeMap::new();
        for _ in 0..reader.read_array_len()? {
            reader.check_array_len(2)?;
            let element = T::read(reader)?;
            let dots = Seq::<Dot>::read(reader)?.into_iter();
            let dots: BTreeSet<Dot> = dots.filter(|dot| dot.sequence > 0).collect();
            if !dots.is_empty() {
                elements.insert(element, dots);
            }
        }
        let mut context = DotContext::read(reader)?;
        elements.values().flatten().for_each(|&dot| context.insert(dot));
        Ok(Self { elements, context })
    }
}
