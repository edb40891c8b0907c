//! The engine in memory with a flaw of one's choice, and a storage that
//! outlives it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use quorate_engine::conformance::Reopen;
use quorate_engine::{
    Batch, CorruptRow, Engine, EngineError, EngineSnapshot, MemEngine, Mutation, Page, ScanLimit,
    ShardStatus, Space, Staging, StateHash,
};
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, KeyRange, ShardId};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flaw {
    None,
    DropsSystem,
    TakesStale,
    HidesMore,
    FlushLies,
    ClosesOnce,
    CloseBreaksFlush,
    CloseForgets,
}

pub(crate) struct FlawedEngine {
    flaw: Flaw,
    inner: Arc<MemEngine>,
    is_closed: Arc<AtomicBool>,
}

type Outcome<T> = Result<T, EngineError>;

fn done<T: Send + 'static>(outcome: Outcome<T>) -> BoxFuture<Outcome<T>> {
    Box::pin(std::future::ready(outcome))
}

impl FlawedEngine {
    pub(crate) fn new(flaw: Flaw) -> Self {
        Self::over(flaw, Arc::new(MemEngine::new()))
    }

    fn over(flaw: Flaw, inner: Arc<MemEngine>) -> Self {
        Self { flaw, inner, is_closed: Arc::default() }
    }

    /// Memory that outlives the engines over it.
    pub(crate) fn storage(flaw: Flaw) -> Reopen {
        let memory = Mutex::new(Arc::new(MemEngine::new()));
        let opened = AtomicBool::new(false);
        Box::new(move || {
            if flaw == Flaw::CloseForgets && opened.swap(true, Ordering::Relaxed) {
                let forgetful = Arc::new(MemEngine::new());
                for shard in [ShardId(1), ShardId(2)] {
                    forgetful.create(shard, KeyRange::all(), 1, Vec::new()).unwrap();
                }
                *memory.lock() = forgetful;
            }
            Arc::new(Self::over(flaw, Arc::clone(&memory.lock())))
        })
    }
}

impl Engine for FlawedEngine {
    fn create(
        &self,
        shard: ShardId,
        range: KeyRange,
        index: u64,
        system: Vec<Mutation>,
    ) -> Outcome<bool> {
        self.inner.create(shard, range, index, system)
    }

    fn apply(&self, shard: ShardId, mut batch: Batch) -> Outcome<()> {
        if self.flaw == Flaw::DropsSystem {
            batch.system.clear();
        }
        match self.inner.apply(shard, batch) {
            Err(EngineError::StaleIndex { .. }) if self.flaw == Flaw::TakesStale => Ok(()),
            outcome => outcome,
        }
    }

    fn ready(&self) -> BoxFuture<Outcome<()>> {
        self.inner.ready()
    }

    fn range(&self, shard: ShardId) -> Outcome<Option<KeyRange>> {
        self.inner.range(shard)
    }

    fn applied(&self, shard: ShardId) -> Outcome<Option<u64>> {
        self.inner.applied(shard)
    }

    fn durable(&self, shard: ShardId) -> Outcome<Option<u64>> {
        self.inner.durable(shard)
    }

    fn get(&self, shard: ShardId, space: Space, key: &[u8]) -> Outcome<Option<Blob>> {
        self.inner.get(shard, space, key)
    }

    fn scan(
        &self,
        shard: ShardId,
        space: Space,
        range: &KeyRange,
        limit: ScanLimit,
    ) -> Outcome<Page> {
        let page = self.inner.scan(shard, space, range, limit)?;
        Ok(Page { more: page.more && self.flaw != Flaw::HidesMore, ..page })
    }

    fn flush(&self, shard: ShardId) -> BoxFuture<Outcome<u64>> {
        let flushed = self.inner.flush(shard);
        let (flaw, is_closed) = (self.flaw, Arc::clone(&self.is_closed));
        Box::pin(async move {
            let index = flushed.await?;
            match flaw {
                Flaw::FlushLies => Ok(index.saturating_sub(1)),
                Flaw::CloseBreaksFlush if is_closed.load(Ordering::Relaxed) => Ok(0),
                _ => Ok(index),
            }
        })
    }

    fn close(&self) -> BoxFuture<Outcome<()>> {
        let was_closed = self.is_closed.swap(true, Ordering::Relaxed);
        let is_refused = was_closed && self.flaw == Flaw::ClosesOnce;
        done(if is_refused { Err(EngineError::Closed) } else { Ok(()) })
    }

    fn snapshot(&self, shard: ShardId) -> Outcome<Box<dyn EngineSnapshot>> {
        self.inner.snapshot(shard)
    }

    fn staging(&self, shard: ShardId) -> Outcome<Box<dyn Staging>> {
        self.inner.staging(shard)
    }

    fn install(
        &self,
        shard: ShardId,
        staged: Box<dyn Staging>,
        system: Vec<Mutation>,
    ) -> BoxFuture<Outcome<()>> {
        self.inner.install(shard, staged, system)
    }

    fn remove(&self, shard: ShardId) -> BoxFuture<Outcome<()>> {
        self.inner.remove(shard)
    }

    fn shards(&self) -> Outcome<Vec<ShardId>> {
        self.inner.shards()
    }

    fn hash(&self, shard: ShardId) -> Outcome<StateHash> {
        self.inner.hash(shard)
    }

    fn status(&self, shard: ShardId) -> Outcome<ShardStatus> {
        self.inner.status(shard)
    }

    fn middle_key(&self, shard: ShardId) -> Outcome<Option<Blob>> {
        self.inner.middle_key(shard)
    }

    fn corruptions(&self) -> Vec<CorruptRow> {
        self.inner.corruptions()
    }
}
