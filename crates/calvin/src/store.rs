//! The rows under a machine: a read-only port, and the write set that one log
//! batch builds up above it.

use std::collections::BTreeMap;

use quorate_types::{Blob, KeyRange, Seq, ShardId};

use crate::command::Member;

/// The store failed or holds what it must not; the replica halts.
#[derive(Debug, Clone, thiserror::Error)]
#[error("store: {0}")]
pub struct StoreError(pub String);

/// Which rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// What users wrote.
    Data,
    /// What the machine itself remembers.
    System,
}

/// A machine's committed rows (port). The adapter verifies every row's
/// checksum on read.
pub trait Store: Send + Sync {
    /// One row.
    ///
    /// # Errors
    /// [`StoreError`] when the row cannot be read or is damaged.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Blob>, StoreError>;

    /// Up to `rows_max` rows of `range` in key order, and whether more follow.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        rows_max: usize,
    ) -> Result<(Vec<(Blob, Blob)>, bool), StoreError>;

    /// A key that halves the data, closely, and is no longer than it has to
    /// be; `None` if there are fewer than two rows.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn middle_key(&self) -> Result<Option<Blob>, StoreError>;

    /// Commits what the log up to `index` changed, with the raft host's own
    /// row, at once: visible on return, durable later (the log is the
    /// durability until then).
    ///
    /// # Errors
    /// As [`Store::get`].
    fn commit(&self, index: u64, host_row: Blob, writes: WriteSet) -> Result<(), StoreError>;
}

/// A child shard that one commit splits off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The child.
    pub child: ShardId,
    /// Its first key; data rows from here on become the child's.
    pub at: Blob,
    /// The child's machine's rows.
    pub system: Vec<(Blob, Blob)>,
    /// The child's replicas as `(replica, node)`, from which the host derives
    /// the synthetic log position they all start at.
    pub members: Seq<Member>,
}

/// What a log batch changes, to be committed with its last index at once.
#[derive(Debug, Default)]
pub struct WriteSet {
    /// Data rows; `None` deletes.
    pub data: BTreeMap<Blob, Option<Blob>>,
    /// System rows; `None` deletes.
    pub system: BTreeMap<Blob, Option<Blob>>,
    /// Data ranges emptied before `data` is written.
    pub clears: Vec<KeyRange>,
    /// Children to split off in the same commit.
    pub forks: Vec<Fork>,
}

impl WriteSet {
    /// Nothing to commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
            && self.system.is_empty()
            && self.clears.is_empty()
            && self.forks.is_empty()
    }

    /// Sets a system row.
    pub fn put_system(&mut self, key: Blob, value: Blob) {
        self.system.insert(key, Some(value));
    }

    /// Deletes a system row.
    pub fn delete_system(&mut self, key: Blob) {
        self.system.insert(key, None);
    }

    /// Sets or deletes a data row.
    pub fn write_data(&mut self, key: Blob, value: Option<Blob>) {
        self.data.insert(key, value);
    }

    /// Empties a data range, earlier writes of this set included.
    pub fn clear_data(&mut self, range: KeyRange) {
        self.data.retain(|key, _| !range.contains(key));
        self.clears.push(range);
    }
}

/// The rows as they will be once the write set is committed.
pub struct View<'a> {
    store: &'a dyn Store,
    writes: &'a WriteSet,
}

/// Rows a [`View`] fetches from the store at a time.
const PAGE_ROWS: usize = 1_024;

impl<'a> View<'a> {
    /// The store's rows with `writes` above them.
    #[must_use]
    pub fn new(store: &'a dyn Store, writes: &'a WriteSet) -> Self {
        Self { store, writes }
    }

    /// A data row.
    ///
    /// # Errors
    /// The store's.
    pub fn data(&self, key: &[u8]) -> Result<Option<Blob>, StoreError> {
        if let Some(written) = self.writes.data.get(key) {
            return Ok(written.clone());
        }
        if self.writes.clears.iter().any(|range| range.contains(key)) {
            return Ok(None);
        }
        self.store.get(Space::Data, key)
    }

    /// Calls `visit` with every data row of `range` in key order.
    ///
    /// # Errors
    /// The store's.
    pub fn visit_data(
        &self,
        range: &KeyRange,
        mut visit: impl FnMut(Blob, Blob),
    ) -> Result<(), StoreError> {
        let written = |from: &Blob| {
            let from = from.clone();
            self.writes.data.range(from..).take_while(|(key, _)| range.contains(key))
        };
        let cleared = |key: &Blob| self.writes.clears.iter().any(|range| range.contains(key));
        let mut from = range.start.clone();
        loop {
            let rest = KeyRange { start: from.clone(), end: range.end.clone() };
            let (rows, more) = self.store.scan(Space::Data, &rest, PAGE_ROWS)?;
            let page_end = if more { rows.last().map(|(key, _)| successor(key)) } else { None };
            let mut overlay = written(&from)
                .take_while(|(key, _)| page_end.as_ref().is_none_or(|end| *key < end))
                .peekable();
            for (key, value) in rows {
                while let Some((new_key, new)) = overlay.next_if(|(new_key, _)| **new_key < key) {
                    if let Some(new) = new {
                        visit(new_key.clone(), new.clone());
                    }
                }
                match overlay.next_if(|(new_key, _)| **new_key == key) {
                    Some((_, Some(new))) => visit(key, new.clone()),
                    Some((_, None)) => {}
                    None if cleared(&key) => {}
                    None => visit(key, value),
                }
            }
            for (new_key, new) in overlay {
                if let Some(new) = new {
                    visit(new_key.clone(), new.clone());
                }
            }
            match page_end {
                Some(end) => from = end,
                None => return Ok(()),
            }
        }
    }
}

/// The smallest key above `key`.
pub(crate) fn successor(key: &[u8]) -> Blob {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}
