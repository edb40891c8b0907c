//! Rows in memory that lie over rows below them, and reading through both.

use std::borrow::Borrow;
use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;
use std::ops::Bound;

use quorate_types::{Blob, KeyRange};

use crate::port::{Mutation, Page, ScanLimit};

/// What a row in memory costs besides its key and value.
const ROW_OVERHEAD_BYTES: u64 = 96;

/// The ends of a range as a map of byte strings wants them. The range must not
/// be empty: maps panic on ends in reverse.
pub(crate) fn bounds(range: &KeyRange) -> (Bound<&[u8]>, Bound<&[u8]>) {
    let end = range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    (Bound::Included(&range.start), end)
}

/// The keys inside both ranges; `None` if there can be none.
pub(crate) fn intersection(a: &KeyRange, b: &KeyRange) -> Option<KeyRange> {
    if !a.overlaps(b) {
        return None;
    }
    let end = match (&a.end, &b.end) {
        (Some(a), Some(b)) => Some(a.min(b).clone()),
        (end, None) | (None, end) => end.clone(),
    };
    Some(KeyRange { start: (&a.start).max(&b.start).clone(), end })
}

/// The smallest key above `key`.
pub(crate) fn successor(key: &[u8]) -> Blob {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// A set of keys made of ranges: disjoint, not touching, by their starts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clears(BTreeMap<Blob, Option<Blob>>);

impl Clears {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.at_or_before(key).is_some_and(|range| range.contains(key))
    }

    pub(crate) fn covers(&self, range: &KeyRange) -> bool {
        self.at_or_before(&range.start).is_some_and(|clear| clear.covers(range))
    }

    pub(crate) fn ranges(&self) -> impl Iterator<Item = KeyRange> + '_ {
        self.0.iter().map(|(start, end)| KeyRange { start: start.clone(), end: end.clone() })
    }

    /// Adds a range that is not empty.
    fn insert(&mut self, mut range: KeyRange) {
        if let Some(before) = self.at_or_before(&range.start) {
            let touches = before.end.as_ref().is_none_or(|end| *end >= range.start);
            if touches {
                range.start = before.start.clone();
                range.end = later_end(range.end, before.end);
            }
        }
        loop {
            let next = self.0.range(range.start.clone()..).next();
            let Some((start, end)) = next.map(|(start, end)| (start.clone(), end.clone())) else {
                break;
            };
            if range.end.as_ref().is_some_and(|limit| start > *limit) {
                break;
            }
            self.0.remove(&start);
            range.end = later_end(range.end, end);
        }
        self.0.insert(range.start, range.end);
    }

    fn split_off(&mut self, at: &Blob) -> Self {
        let mut upper = Self(self.0.split_off(at));
        if let Some((start, end)) = self.0.pop_last() {
            if end.as_ref().is_none_or(|end| end > at) {
                upper.insert(KeyRange { start: at.clone(), end });
                self.0.insert(start, Some(at.clone()));
            } else {
                self.0.insert(start, end);
            }
        }
        upper
    }

    fn at_or_before(&self, key: &[u8]) -> Option<KeyRange> {
        let (start, end) =
            self.0.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        Some(KeyRange { start: start.clone(), end: end.clone() })
    }
}

fn later_end(a: Option<Blob>, b: Option<Blob>) -> Option<Blob> {
    a.zip(b).map(|(a, b)| a.max(b))
}

/// Changes to a key space: ranges that were emptied, and over them rows that
/// were written (`Some`) or deleted (`None`).
#[derive(Debug, Clone, Default)]
pub(crate) struct Layer {
    clears: Clears,
    rows: BTreeMap<Blob, Option<Blob>>,
    /// What the rows take, summed up as they come and go.
    row_bytes: u64,
}

impl Layer {
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.clears.is_empty()
    }

    /// About the memory it takes.
    pub(crate) fn bytes(&self) -> u64 {
        self.row_bytes + self.clears.0.len() as u64 * ROW_OVERHEAD_BYTES
    }

    pub(crate) fn clears(&self) -> &Clears {
        &self.clears
    }

    pub(crate) fn rows(&self) -> &BTreeMap<Blob, Option<Blob>> {
        &self.rows
    }

    /// Empties a range, which must hold a key.
    pub(crate) fn clear(&mut self, range: &KeyRange) {
        let gone: Vec<Blob> =
            self.rows.range::<[u8], _>(bounds(range)).map(|(key, _)| key.clone()).collect();
        for key in gone {
            if let Some(value) = self.rows.remove(&key) {
                self.row_bytes -= row_bytes(&key, value.as_ref());
            }
        }
        self.clears.insert(range.clone());
    }

    pub(crate) fn put(&mut self, Mutation { key, value }: Mutation) {
        self.row_bytes += row_bytes(&key, value.as_ref());
        let key_bytes = key.len() as u64;
        if let Some(old) = self.rows.insert(key, value) {
            let old_bytes = old.map_or(0, |old| old.len() as u64);
            self.row_bytes -= key_bytes + old_bytes + ROW_OVERHEAD_BYTES;
        }
    }

    /// What this layer says of `key`: nothing, that it has no row, or its row.
    pub(crate) fn lookup(&self, key: &[u8]) -> Option<Option<&Blob>> {
        match self.rows.get(key) {
            Some(row) => Some(row.as_ref()),
            None => self.clears.contains(key).then_some(None),
        }
    }

    /// Keeps what concerns keys below `at` and returns the rest.
    pub(crate) fn split_off(&mut self, at: &Blob) -> Self {
        let clears = self.clears.split_off(at);
        let rows = self.rows.split_off(at);
        let row_bytes = rows.iter().map(|(key, value)| row_bytes(key, value.as_ref())).sum();
        self.row_bytes -= row_bytes;
        Self { clears, rows, row_bytes }
    }

    /// A copy of as much of the layer's beginning in `range` as a page of
    /// `limit` can possibly show: the page is full before the copy ends.
    pub(crate) fn head(&self, range: &KeyRange, limit: ScanLimit) -> Self {
        let mut head = Self { clears: self.clears.clone(), ..Self::default() };
        let (mut rows, mut bytes) = (0_usize, 0_usize);
        for (key, value) in self.rows.range::<[u8], _>(bounds(range)) {
            head.rows.insert(key.clone(), value.clone());
            let Some(value) = value else { continue };
            // One row more than fills the page, so that `Page::more` is exact.
            if rows > limit.rows || bytes > limit.bytes {
                break;
            }
            rows += 1;
            bytes += key.len() + value.len();
        }
        head
    }
}

fn row_bytes(key: &Blob, value: Option<&Blob>) -> u64 {
    key.len() as u64 + value.map_or(0, |value| value.len() as u64) + ROW_OVERHEAD_BYTES
}

/// A row, or why there is none.
pub(crate) type RowResult<E> = Result<(Blob, Blob), E>;

/// The first rows of `range`, seen through `layers` (newest first) down to
/// `floor` (in key order and within `range`). The range must not be empty.
pub(crate) fn read_page<E>(
    layers: &[impl Borrow<Layer>],
    floor: impl Iterator<Item = RowResult<E>>,
    range: &KeyRange,
    limit: ScanLimit,
) -> Result<Page, E> {
    let layers = layers
        .iter()
        .map(Borrow::borrow)
        .filter(|layer| !layer.is_empty())
        .map(|layer| (layer, layer.rows.range::<[u8], _>(bounds(range)).peekable()))
        .collect();
    let mut page = Page::default();
    let mut bytes = 0;
    for row in (Merge { layers, floor: floor.peekable() }) {
        let (key, value) = row?;
        bytes += key.len() + value.len();
        let is_full =
            page.rows.len() >= limit.rows || (bytes > limit.bytes && !page.rows.is_empty());
        if is_full {
            page.more = true;
            break;
        }
        page.rows.push((key, value));
    }
    Ok(page)
}

type LayerRows<'a> = Peekable<btree_map::Range<'a, Blob, Option<Blob>>>;

/// The visible rows of layers over a floor.
struct Merge<'a, F: Iterator> {
    layers: Vec<(&'a Layer, LayerRows<'a>)>,
    floor: Peekable<F>,
}

impl<E, F: Iterator<Item = RowResult<E>>> Merge<'_, F> {
    /// The smallest key that any source has next.
    fn next_key(&mut self) -> Option<Result<Blob, E>> {
        if let Some(Err(error)) = self.floor.next_if(Result::is_err) {
            return Some(Err(error));
        }
        let floor = self.floor.peek().and_then(|row| row.as_ref().ok()).map(|(key, _)| key);
        let layers = self.layers.iter_mut().filter_map(|(_, rows)| rows.peek());
        layers.map(|(key, _)| *key).chain(floor).min().map(|key| Ok(key.clone()))
    }

    /// The row of `key` as the newest source that knows of it says, and a step
    /// past `key` in all of them.
    fn take(&mut self, key: &Blob) -> Option<Blob> {
        let mut verdict: Option<Option<Blob>> = None;
        for (layer, rows) in &mut self.layers {
            let row = rows.next_if(|(found, _)| *found == key);
            if verdict.is_some() {
                continue;
            }
            verdict = match row {
                Some((_, row)) => Some(row.clone()),
                None => layer.clears.contains(key).then_some(None),
            };
        }
        let floor = self.floor.next_if(|row| row.as_ref().is_ok_and(|(found, _)| found == key));
        match verdict {
            Some(row) => row,
            None => floor.and_then(Result::ok).map(|(_, value)| value),
        }
    }
}

impl<E, F: Iterator<Item = RowResult<E>>> Iterator for Merge<'_, F> {
    type Item = RowResult<E>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.layers.is_empty() {
            return self.floor.next();
        }
        loop {
            let key = match self.next_key()? {
                Ok(key) => key,
                Err(error) => return Some(Err(error)),
            };
            if let Some(value) = self.take(&key) {
                return Some(Ok((key, value)));
            }
        }
    }
}

#[cfg(test)]
mod tests;
