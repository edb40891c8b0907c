//! A store in memory that remembers what it held after each commit, so that a
//! restart may fall back to an older commit as a lazily synced engine would.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use parking_lot::Mutex;
use quorate_calvin::{Fork, Space, Store, StoreError, WriteSet};
use quorate_types::{Blob, KeyRange};

/// All rows of one replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rows {
    pub data: BTreeMap<Blob, Blob>,
    pub system: BTreeMap<Blob, Blob>,
}

impl Rows {
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// System rows whose key starts with `tag`.
    pub fn tagged(&self, tag: u8) -> usize {
        self.system.keys().filter(|key| key.first() == Some(&tag)).count()
    }
}

/// A child that a commit split off, with the rows it starts with.
#[derive(Clone, Debug)]
pub struct Forked {
    pub fork: Fork,
    pub rows: Rows,
}

#[derive(Clone, Debug, Default)]
struct Inner {
    rows: Rows,
    index: u64,
    history: BTreeMap<u64, Rows>,
    history_max: usize,
    forked: Vec<Forked>,
}

#[derive(Debug, Default)]
pub struct MemStore {
    inner: Mutex<Inner>,
}

impl Clone for MemStore {
    fn clone(&self) -> Self {
        Self { inner: Mutex::new(self.inner.lock().clone()) }
    }
}

impl MemStore {
    /// A store that holds `rows` as of `index` and remembers `history_max`
    /// earlier commits.
    pub fn new(rows: Rows, index: u64, history_max: usize) -> Self {
        let inner = Inner { rows, index, history_max, ..Inner::default() };
        Self { inner: Mutex::new(inner) }
    }

    /// A store that holds these system rows only.
    pub fn seeded(system: Vec<(Blob, Blob)>) -> Self {
        let rows = Rows { data: BTreeMap::new(), system: system.into_iter().collect() };
        Self::new(rows, 0, 0)
    }

    pub fn rows(&self) -> Rows {
        self.inner.lock().rows.clone()
    }

    pub fn digest(&self) -> u64 {
        self.inner.lock().rows.digest()
    }

    pub fn index(&self) -> u64 {
        self.inner.lock().index
    }

    pub fn take_forked(&self) -> Vec<Forked> {
        std::mem::take(&mut self.inner.lock().forked)
    }

    /// Commits at an index without a host's row.
    pub fn commit_at(&self, index: u64, writes: WriteSet) {
        self.commit(index, Blob::new(), writes).unwrap();
    }

    /// Falls back by up to `commits` commits, as far as remembered.
    pub fn roll_back(&self, commits: usize) {
        let mut inner = self.inner.lock();
        for _ in 0..commits {
            let Some((index, rows)) = inner.history.pop_last() else { return };
            (inner.index, inner.rows) = (index, rows);
        }
    }
}

fn page(
    rows: &BTreeMap<Blob, Blob>,
    range: &KeyRange,
    rows_max: usize,
) -> (Vec<(Blob, Blob)>, bool) {
    let mut found = rows
        .range(range.start.clone()..)
        .take_while(|(key, _)| range.contains(key))
        .map(|(key, value)| (key.clone(), value.clone()));
    let page = found.by_ref().take(rows_max).collect();
    let more = found.next().is_some();
    (page, more)
}

impl Store for MemStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Blob>, StoreError> {
        let inner = self.inner.lock();
        let rows = match space {
            Space::Data => &inner.rows.data,
            Space::System => &inner.rows.system,
        };
        Ok(rows.get(key).cloned())
    }

    fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        rows_max: usize,
    ) -> Result<(Vec<(Blob, Blob)>, bool), StoreError> {
        let inner = self.inner.lock();
        Ok(match space {
            Space::Data => page(&inner.rows.data, range, rows_max),
            Space::System => page(&inner.rows.system, range, rows_max),
        })
    }

    fn middle_key(&self) -> Result<Option<Blob>, StoreError> {
        let inner = self.inner.lock();
        let mut keys = inner.rows.data.keys();
        let Some(above) = (inner.rows.data.len() / 2).checked_sub(1) else { return Ok(None) };
        let (Some(below), Some(middle)) = (keys.nth(above), keys.next()) else { return Ok(None) };
        let common = below.iter().zip(middle.iter()).take_while(|(one, other)| one == other);
        Ok(Some(Blob::from(&middle[..=common.count()])))
    }

    fn commit(&self, index: u64, _host_row: Blob, writes: WriteSet) -> Result<(), StoreError> {
        let mut inner = self.inner.lock();
        if inner.history_max > 0 {
            let before = (inner.index, inner.rows.clone());
            inner.history.insert(before.0, before.1);
            while inner.history.len() > inner.history_max {
                inner.history.pop_first();
            }
        }
        inner.index = index;
        let rows = &mut inner.rows;
        for range in &writes.clears {
            rows.data.retain(|key, _| !range.contains(key));
        }
        set_all(&mut rows.data, writes.data);
        set_all(&mut rows.system, writes.system);
        for fork in writes.forks {
            let data = inner.rows.data.split_off(&fork.at);
            let system = fork.system.iter().cloned().collect();
            inner.forked.push(Forked { fork, rows: Rows { data, system } });
        }
        Ok(())
    }
}

fn set_all(rows: &mut BTreeMap<Blob, Blob>, writes: BTreeMap<Blob, Option<Blob>>) {
    for (key, value) in writes {
        match value {
            Some(value) => rows.insert(key, value),
            None => rows.remove(&key),
        };
    }
}
