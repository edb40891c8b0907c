//! The engine without a disk: the reference for what the port means, and the
//! store of tests. What is applied counts as durable.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::ready;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, KeyRange, ShardId};

use crate::chunk::{Header, Receiver};
use crate::error::{CorruptRow, EngineError};
use crate::layer::{Layer, bounds, intersection, read_page};
use crate::port::{
    Batch, Engine, EngineSnapshot, Fork, Mutation, Page, ScanLimit, ShardStatus, Space, Staging,
    StateHash, check_batch, check_range, check_rows,
};
use crate::source::{self, Source, Stream};

type Rows = BTreeMap<Blob, Blob>;

/// An [`Engine`] in memory.
#[derive(Debug, Default)]
pub struct MemEngine {
    shards: RwLock<BTreeMap<ShardId, Shard>>,
    id: u64,
}

#[derive(Debug, Clone)]
struct Shard {
    header: Header,
    data: Rows,
    system: Rows,
}

/// Tells the stagings of one engine from those of another.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl MemEngine {
    /// An empty engine.
    #[must_use]
    pub fn new() -> Self {
        Self { shards: RwLock::default(), id: NEXT_ID.fetch_add(1, Ordering::Relaxed) }
    }

    fn read<T>(
        &self,
        shard: ShardId,
        read: impl FnOnce(&Shard) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        read(self.shards.read().get(&shard).ok_or(EngineError::UnknownShard(shard))?)
    }
}

impl Shard {
    fn rows(&self, space: Space) -> &Rows {
        match space {
            Space::Data => &self.data,
            Space::System => &self.system,
        }
    }

    fn apply(&mut self, batch: Batch) -> Vec<(Fork, Shard)> {
        for clear in &batch.clears {
            if let Some(clear) = intersection(clear, &self.header.range) {
                self.data.retain(|key, _| !clear.contains(key));
            }
        }
        write(&mut self.data, batch.data);
        write(&mut self.system, batch.system);
        self.header.index = batch.index;
        batch.forks.into_iter().map(|fork| self.cut(fork)).collect()
    }

    /// Takes the upper part off, as the shard it becomes.
    fn cut(&mut self, mut fork: Fork) -> (Fork, Shard) {
        let end = self.header.range.end.replace(fork.at.clone());
        let range = KeyRange { start: fork.at.clone(), end };
        let mut system = Rows::new();
        write(&mut system, std::mem::take(&mut fork.child_system));
        let header = Header { index: fork.child_index, range };
        let data = self.data.split_off(&fork.at);
        (fork, Shard { header, data, system })
    }
}

fn write(rows: &mut Rows, mutations: Vec<Mutation>) {
    for Mutation { key, value } in mutations {
        match value {
            Some(value) => rows.insert(key, value),
            None => rows.remove(&key),
        };
    }
}

impl Source for Shard {
    fn header(&self) -> &Header {
        &self.header
    }

    fn row(&self, space: Space, key: &[u8]) -> Result<Option<Blob>, EngineError> {
        Ok(self.rows(space).get(key).cloned())
    }

    fn page(&self, space: Space, range: &KeyRange, limit: ScanLimit) -> Result<Page, EngineError> {
        let rows = self.rows(space).range::<[u8], _>(bounds(range));
        let rows = rows.map(|(key, value)| Ok((key.clone(), value.clone())));
        read_page::<EngineError>(&[] as &[Layer], rows, range, limit)
    }
}

impl Engine for MemEngine {
    fn create(
        &self,
        shard: ShardId,
        range: KeyRange,
        index: u64,
        system: Vec<Mutation>,
    ) -> Result<bool, EngineError> {
        check_range(shard, &range)?;
        check_rows(shard, &system)?;
        let mut shards = self.shards.write();
        if shards.contains_key(&shard) {
            return Ok(false);
        }
        let mut rows = Rows::new();
        write(&mut rows, system);
        let header = Header { index, range };
        shards.insert(shard, Shard { header, data: Rows::new(), system: rows });
        Ok(true)
    }

    fn apply(&self, shard: ShardId, batch: Batch) -> Result<(), EngineError> {
        let mut shards = self.shards.write();
        let state = shards.get_mut(&shard).ok_or(EngineError::UnknownShard(shard))?;
        check_batch(shard, state.header.index, &state.header.range, &batch)?;
        for (fork, child) in state.apply(batch) {
            shards.entry(fork.child).or_insert(child);
        }
        Ok(())
    }

    fn ready(&self) -> BoxFuture<Result<(), EngineError>> {
        Box::pin(ready(Ok(())))
    }

    fn range(&self, shard: ShardId) -> Result<Option<KeyRange>, EngineError> {
        Ok(self.shards.read().get(&shard).map(|state| state.header.range.clone()))
    }

    fn applied(&self, shard: ShardId) -> Result<Option<u64>, EngineError> {
        Ok(self.shards.read().get(&shard).map(|state| state.header.index))
    }

    fn durable(&self, shard: ShardId) -> Result<Option<u64>, EngineError> {
        self.applied(shard)
    }

    fn get(&self, shard: ShardId, space: Space, key: &[u8]) -> Result<Option<Blob>, EngineError> {
        self.read(shard, |state| state.row(space, key))
    }

    fn scan(
        &self,
        shard: ShardId,
        space: Space,
        range: &KeyRange,
        limit: ScanLimit,
    ) -> Result<Page, EngineError> {
        if range.is_empty() {
            return self.read(shard, |_| Ok(Page::default()));
        }
        self.read(shard, |state| state.page(space, range, limit))
    }

    fn flush(&self, shard: ShardId) -> BoxFuture<Result<u64, EngineError>> {
        Box::pin(ready(self.read(shard, |state| Ok(state.header.index))))
    }

    fn close(&self) -> BoxFuture<Result<(), EngineError>> {
        Box::pin(ready(Ok(())))
    }

    fn snapshot(&self, shard: ShardId) -> Result<Box<dyn EngineSnapshot>, EngineError> {
        let state = self.read(shard, |state| Ok(state.clone()))?;
        Ok(Box::new(Stream::new(state)))
    }

    fn staging(&self, shard: ShardId) -> Result<Box<dyn Staging>, EngineError> {
        let receiver = Receiver::default();
        let engine = self.id;
        Ok(Box::new(MemStaging { engine, shard, receiver, data: Rows::new(), system: Rows::new() }))
    }

    fn install(
        &self,
        shard: ShardId,
        staged: Box<dyn Staging>,
        system: Vec<Mutation>,
    ) -> BoxFuture<Result<(), EngineError>> {
        let installed = check_rows(shard, &system)
            .and_then(|()| MemStaging::redeem(staged, self.id, shard))
            .map(|mut state| {
                write(&mut state.system, system);
                self.shards.write().insert(shard, state);
            });
        Box::pin(ready(installed))
    }

    fn remove(&self, shard: ShardId) -> BoxFuture<Result<(), EngineError>> {
        self.shards.write().remove(&shard);
        Box::pin(ready(Ok(())))
    }

    fn shards(&self) -> Result<Vec<ShardId>, EngineError> {
        Ok(self.shards.read().keys().copied().collect())
    }

    fn hash(&self, shard: ShardId) -> Result<StateHash, EngineError> {
        self.read(shard, source::hash)
    }

    fn status(&self, shard: ShardId) -> Result<ShardStatus, EngineError> {
        self.read(shard, |state| {
            let rows = state.data.iter().chain(&state.system);
            Ok(ShardStatus {
                range: state.header.range.clone(),
                applied: state.header.index,
                durable: Some(state.header.index),
                rows_estimate: (state.data.len() + state.system.len()) as u64,
                bytes_estimate: rows.map(|(key, value)| (key.len() + value.len()) as u64).sum(),
                pending_bytes: 0,
            })
        })
    }

    fn middle_key(&self, shard: ShardId) -> Result<Option<Blob>, EngineError> {
        self.read(shard, source::middle_key)
    }

    fn corruptions(&self) -> Vec<CorruptRow> {
        Vec::new()
    }
}

struct MemStaging {
    engine: u64,
    shard: ShardId,
    receiver: Receiver,
    data: Rows,
    system: Rows,
}

impl MemStaging {
    fn redeem(staged: Box<dyn Staging>, engine: u64, shard: ShardId) -> Result<Shard, EngineError> {
        let bad = |problem| EngineError::BadStaging(shard, problem);
        let foreign = bad("it is of another engine");
        let staged = staged.into_any().downcast::<Self>().map_err(|_| foreign.clone())?;
        if staged.engine != engine {
            return Err(foreign);
        }
        if staged.shard != shard {
            return Err(bad("it is of another shard"));
        }
        match staged.receiver.header() {
            Some(header) if staged.receiver.is_complete() => {
                Ok(Shard { header: header.clone(), data: staged.data, system: staged.system })
            }
            _ => Err(bad("it is not complete")),
        }
    }
}

impl Staging for MemStaging {
    fn write(&mut self, chunk: Bytes) -> BoxFuture<Result<(), EngineError>> {
        let written = self.receiver.accept(&chunk).map(|(space, rows)| match space {
            Space::Data => self.data.extend(rows),
            Space::System => self.system.extend(rows),
        });
        Box::pin(ready(written.map_err(EngineError::from)))
    }

    fn index(&self) -> Option<u64> {
        self.receiver.header().map(|header| header.index)
    }

    fn is_complete(&self) -> bool {
        self.receiver.is_complete()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}
