//! Reading what is committed, and believing none of it unverified.

use std::sync::Arc;

use quorate_types::{Blob, KeyRange};
use redb::{Database, ReadOnlyTable, ReadableDatabase};

use super::backend::{Cause, contain};
use super::format::{ROWS, SpaceId, logical_key, open_row, row_key, row_keys};
use crate::layer::RowResult;

/// Why a row could not be read.
pub(super) enum Fault {
    /// The row found at this key is damaged.
    Damaged(Blob),
    /// Storage failed.
    Failed(Cause),
}

/// The committed rows as of one commit. Later commits do not change it.
pub(super) struct View {
    rows: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl View {
    pub(super) fn open(db: &Database) -> Result<Arc<Self>, redb::Error> {
        let rows = db.begin_read()?.open_table(ROWS)?;
        Ok(Arc::new(Self { rows }))
    }

    /// One row.
    ///
    /// The checksum tells a damaged value, but damage to a stored key would
    /// make its row look absent. So an absence is believed only if both
    /// neighbours are sound: a row whose key is damaged still stands where it
    /// stood, next to the key that is looked for.
    pub(super) fn get(&self, space: SpaceId, key: &[u8]) -> Result<Option<Blob>, Fault> {
        let stored = row_key(space, key);
        let found = contain(|| {
            let row = self.rows.get(stored.as_slice())?;
            Ok(row.and_then(|row| open_row(&stored, row.value()).ok().map(Blob::from)))
        });
        match found.map_err(Fault::Failed)? {
            Some(value) => Ok(Some(value)),
            None => self.absent(&stored),
        }
    }

    /// For a key without a sound row: none if there is none, or the damage.
    fn absent(&self, stored: &[u8]) -> Result<Option<Blob>, Fault> {
        self.verify_around(stored)?;
        Ok(None)
    }

    /// Verifies the rows on both sides of a place between rows, where the tree
    /// says it is.
    fn verify_around(&self, stored: &[u8]) -> Result<(), Fault> {
        self.verify_from(stored)?;
        self.verify_before(stored)
    }

    /// Verifies the first row at or after `stored`.
    fn verify_from(&self, stored: &[u8]) -> Result<(), Fault> {
        self.verify(|rows| rows.range(stored..)?.next().transpose())
    }

    /// Verifies the last row before `stored`.
    fn verify_before(&self, stored: &[u8]) -> Result<(), Fault> {
        self.verify(|rows| rows.range(..stored)?.next_back().transpose())
    }

    fn verify(&self, find: impl FnOnce(&Rows) -> Found) -> Result<(), Fault> {
        let damaged = contain(|| {
            let Some((stored, row)) = find(&self.rows)? else { return Ok(None) };
            let is_sound = open_row(stored.value(), row.value()).is_ok();
            Ok((!is_sound).then(|| logical_key(stored.value())))
        });
        match damaged.map_err(Fault::Failed)? {
            Some(key) => Err(Fault::Damaged(key)),
            None => Ok(()),
        }
    }

    /// The rows of a range in order, after the last of which nothing more is
    /// to be asked of the iterator. The rows on either side of the range are
    /// verified too, for the reason given at [`View::get`].
    pub(super) fn rows(&self, space: SpaceId, range: &KeyRange) -> Result<Scan<'_>, Fault> {
        let (start, end) = row_keys(space, range);
        self.verify_before(&start)?;
        let inner = contain(|| Ok(self.rows.range::<&[u8]>(start.as_slice()..end.as_slice())?));
        let inner = Some(inner.map_err(Fault::Failed)?);
        Ok(Scan { view: self, inner, end, last: None })
    }
}

type Rows = ReadOnlyTable<&'static [u8], &'static [u8]>;
type Guard = redb::AccessGuard<'static, &'static [u8]>;
type Found = Result<Option<(Guard, Guard)>, redb::StorageError>;

/// See [`View::rows`].
pub(super) struct Scan<'a> {
    view: &'a View,
    /// Gone after the end or a failure: redb need not be sane after that.
    inner: Option<redb::Range<'static, &'static [u8], &'static [u8]>>,
    end: Vec<u8>,
    last: Option<Blob>,
}

impl Iterator for Scan<'_> {
    type Item = RowResult<Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let inner = self.inner.as_mut()?;
        let row = contain(|| {
            let Some((stored, row)) = inner.next().transpose()? else { return Ok(None) };
            let key = logical_key(stored.value());
            Ok(Some(match open_row(stored.value(), row.value()) {
                Ok(value) => Ok((key, Blob::from(value))),
                Err(_) => Err(key),
            }))
        });
        let row = match row {
            Ok(Some(Ok(row))) => row,
            Ok(None) => {
                self.inner = None;
                return self.view.verify_around(&self.end).err().map(Err);
            }
            Ok(Some(Err(key))) => return self.end_with(Fault::Damaged(key)),
            Err(cause) => return self.end_with(Fault::Failed(cause)),
        };
        if self.last.as_ref().is_some_and(|last| *last >= row.0) {
            return self.end_with(Fault::Damaged(row.0));
        }
        self.last = Some(row.0.clone());
        Some(Ok(row))
    }
}

impl Scan<'_> {
    fn end_with(&mut self, fault: Fault) -> Option<RowResult<Fault>> {
        self.inner = None;
        Some(Err(fault))
    }
}
