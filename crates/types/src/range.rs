//! Half-open key ranges.

use std::fmt;

use zerompk::{FromMessagePack, ToMessagePack};

use crate::Blob;

/// The keys `start <= key < end`; no `end` means unbounded.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, ToMessagePack, FromMessagePack)]
pub struct KeyRange {
    /// The first key inside.
    pub start: Blob,
    /// The first key outside, if there is one.
    pub end: Option<Blob>,
}

impl KeyRange {
    /// Every key.
    #[must_use]
    pub const fn all() -> Self {
        Self { start: Blob::new(), end: None }
    }

    /// `start <= key < end`.
    pub fn new(start: impl Into<Blob>, end: impl Into<Blob>) -> Self {
        Self { start: start.into(), end: Some(end.into()) }
    }

    /// Whether no key can be inside.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// Whether `key` is inside.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        *self.start <= *key && self.end.as_ref().is_none_or(|end| *key < **end)
    }

    /// Whether every key of `other` is inside.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let end_fits = match (&self.end, &other.end) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(ours), Some(theirs)) => theirs <= ours,
        };
        other.is_empty() || (self.start <= other.start && end_fits)
    }

    /// Whether some key is inside both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let starts_before_end =
            |range: &Self, start: &Blob| range.end.as_ref().is_none_or(|end| start < end);
        !self.is_empty()
            && !other.is_empty()
            && starts_before_end(self, &other.start)
            && starts_before_end(other, &self.start)
    }

    /// Whether ranges, given in key order, hold every key exactly once.
    #[must_use]
    pub fn partition<'a>(ranges: impl IntoIterator<Item = &'a Self>) -> bool {
        // Where the next range has to begin; nowhere after an unbounded one.
        let mut next = Some(Blob::new());
        for range in ranges {
            if next.as_ref() != Some(&range.start) || range.is_empty() {
                return false;
            }
            next.clone_from(&range.end);
        }
        next.is_none()
    }

    /// Cuts the range at `key` into what lies before and what begins with it;
    /// `None` unless both halves can hold a key.
    #[must_use]
    pub fn split_at(&self, key: &Blob) -> Option<(Self, Self)> {
        if *key <= self.start || !self.contains(key) {
            return None;
        }
        let left = Self { start: self.start.clone(), end: Some(key.clone()) };
        let right = Self { start: key.clone(), end: self.end.clone() };
        Some((left, right))
    }
}

impl fmt::Debug for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.end {
            Some(end) => write!(f, "[{:?}, {:?})", self.start, end),
            None => write!(f, "[{:?}, ∞)", self.start),
        }
    }
}

#[cfg(test)]
mod tests;
