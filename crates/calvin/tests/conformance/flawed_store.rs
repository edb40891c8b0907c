//! The store of these tests with a flaw of one's choice.

use std::sync::Arc;
use std::time::Duration;

use quorate_calvin::conformance::Shard;
use quorate_calvin::{Space, Store, StoreError, WriteSet};
use quorate_types::{Blob, KeyRange};

use crate::support::store::{MemStore, Rows};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreFlaw {
    None,
    ClearsLast,
    MixesSpaces,
    HidesMore,
    ScansBackwards,
    CountsEndIn,
    CommitsTwice,
    PanicsWhileRead,
    LongMiddle,
    FirstIsMiddle,
    ForkLeavesRows,
    ForkLosesRows,
}

struct FlawedStore {
    flaw: StoreFlaw,
    inner: MemStore,
}

/// An empty shard over such a store.
pub fn shard(flaw: StoreFlaw) -> Shard {
    let store = Arc::new(FlawedStore { flaw, inner: MemStore::default() });
    let parent = Arc::clone(&store);
    let child = move |child| -> Arc<dyn Store> {
        let forked = parent.inner.take_forked().into_iter().find(|it| it.fork.child == child);
        let mut rows = forked.map(|forked| forked.rows).unwrap_or_default();
        if flaw == StoreFlaw::ForkLosesRows {
            rows = Rows { system: rows.system, ..Rows::default() };
        }
        Arc::new(MemStore::new(rows, 10, 0))
    };
    Shard { store, child: Box::new(child) }
}

impl Store for FlawedStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Blob>, StoreError> {
        let found = self.inner.get(space, key)?;
        match self.flaw {
            StoreFlaw::MixesSpaces if found.is_none() => self.inner.get(Space::System, key),
            _ => Ok(found),
        }
    }

    fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        rows_max: usize,
    ) -> Result<(Vec<(Blob, Blob)>, bool), StoreError> {
        let (mut rows, more) = self.inner.scan(space, range, rows_max)?;
        match self.flaw {
            StoreFlaw::ScansBackwards => rows.reverse(),
            StoreFlaw::CountsEndIn if !more => {
                let end = range.end.as_ref().filter(|_| !range.is_empty());
                let value = end.map(|end| self.inner.get(space, end)).transpose()?.flatten();
                rows.extend(end.cloned().zip(value));
            }
            _ => {}
        }
        Ok((rows, more && self.flaw != StoreFlaw::HidesMore))
    }

    fn middle_key(&self) -> Result<Option<Blob>, StoreError> {
        let middle = self.inner.middle_key()?;
        let (rows, _) = self.inner.scan(Space::Data, &KeyRange::all(), usize::MAX)?;
        let row = |at: usize| rows.get(at).map(|(key, _)| key.clone());
        Ok(match self.flaw {
            StoreFlaw::LongMiddle => middle.and_then(|_| row(rows.len() / 2)),
            StoreFlaw::FirstIsMiddle => middle.and_then(|_| row(1)),
            _ => middle,
        })
    }

    fn commit(&self, index: u64, host_row: Blob, mut writes: WriteSet) -> Result<(), StoreError> {
        match self.flaw {
            StoreFlaw::ClearsLast => {
                let clears = std::mem::take(&mut writes.clears);
                self.inner.commit(index, host_row.clone(), writes)?;
                writes = WriteSet { clears, ..WriteSet::default() };
            }
            StoreFlaw::CommitsTwice if writes.clears.is_empty() => {
                let first = writes.data.pop_first();
                let first = WriteSet { data: first.into_iter().collect(), ..WriteSet::default() };
                self.inner.commit(index, host_row.clone(), first)?;
                std::thread::sleep(Duration::from_micros(200));
            }
            // Only the rows that the suite reads on another thread.
            StoreFlaw::PanicsWhileRead if writes.data.contains_key(&Blob::from("left")) => {
                panic!("the commit panics");
            }
            StoreFlaw::ForkLeavesRows => writes.forks.clear(),
            _ => {}
        }
        self.inner.commit(index, host_row, writes)
    }
}
