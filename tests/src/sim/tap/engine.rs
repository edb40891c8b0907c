//! An engine that tells what it does.

use std::sync::Arc;

use quorate::types::runtime::BoxFuture;
use quorate::types::{Blob, KeyRange, ShardId};
use quorate_engine::{
    Batch, CorruptRow, Engine, EngineError, EngineSnapshot, Mutation, Page, ScanLimit, ShardStatus,
    Space, Staging, StateHash,
};

use super::payload::host_row_in;
use crate::sim::invariants::Change;
use crate::sim::ledger::{FoundSpace, Tap};

/// Rows that are read at a time.
const PAGE: ScanLimit = ScanLimit { rows: 4_096, bytes: 4 << 20 };

/// An engine with a tap.
pub struct TappedEngine {
    inner: Arc<dyn Engine>,
    tap: Tap,
}

impl TappedEngine {
    /// Tells the tap what the engine was found to hold, and from then on
    /// everything.
    ///
    /// # Errors
    /// When the engine cannot be read.
    pub fn over(inner: Arc<dyn Engine>, tap: Tap) -> Result<Self, EngineError> {
        let mut found = Vec::new();
        for space in inner.shards()? {
            found.extend(look(&*inner, space)?);
        }
        tap.engine_opened(&found);
        Ok(Self { inner, tap })
    }
}

/// Everything in a space; `None` if there is no such space.
fn look(engine: &dyn Engine, space: ShardId) -> Result<Option<FoundSpace>, EngineError> {
    let Some(applied) = engine.applied(space)? else { return Ok(None) };
    let mut rows = Vec::new();
    for of in [Space::System, Space::Data] {
        let mut range = KeyRange::all();
        loop {
            let page = engine.scan(space, of, &range, PAGE)?;
            if let Some((last, _)) = page.rows.last() {
                range.start = Blob::from([last, &b"\0"[..]].concat());
            }
            rows.extend(page.rows.into_iter().map(|(key, value)| (of, key, value)));
            if !page.more {
                break;
            }
        }
    }
    Ok(Some(FoundSpace { space, applied, rows }))
}

impl Engine for TappedEngine {
    fn create(
        &self,
        shard: ShardId,
        range: KeyRange,
        index: u64,
        system: Vec<Mutation>,
    ) -> Result<bool, EngineError> {
        let is_new = self.inner.create(shard, range.clone(), index, system.clone())?;
        if is_new {
            self.tap.created(shard, &range, index, &system);
        }
        Ok(is_new)
    }

    fn apply(&self, shard: ShardId, batch: Batch) -> Result<(), EngineError> {
        let (change, row) = (Change::of(&batch), host_row_in(&batch.system));
        if !self.tap.knows(shard)
            && let Some(found) = look(&*self.inner, shard)?
        {
            // It was installed, and nobody waited to hear of it.
            self.tap.found(&found);
        }
        self.inner.apply(shard, batch)?;
        self.tap.took(shard, change, row.as_ref());
        Ok(())
    }

    fn ready(&self) -> BoxFuture<Result<(), EngineError>> {
        self.inner.ready()
    }

    fn range(&self, shard: ShardId) -> Result<Option<KeyRange>, EngineError> {
        self.inner.range(shard)
    }

    fn applied(&self, shard: ShardId) -> Result<Option<u64>, EngineError> {
        self.inner.applied(shard)
    }

    fn durable(&self, shard: ShardId) -> Result<Option<u64>, EngineError> {
        self.inner.durable(shard)
    }

    fn get(&self, shard: ShardId, space: Space, key: &[u8]) -> Result<Option<Blob>, EngineError> {
        self.inner.get(shard, space, key)
    }

    fn scan(
        &self,
        shard: ShardId,
        space: Space,
        range: &KeyRange,
        limit: ScanLimit,
    ) -> Result<Page, EngineError> {
        self.inner.scan(shard, space, range, limit)
    }

    fn flush(&self, shard: ShardId) -> BoxFuture<Result<u64, EngineError>> {
        let (tap, flushing) = (self.tap.clone(), self.inner.flush(shard));
        Box::pin(async move {
            let durable = flushing.await?;
            tap.flushed(shard, durable);
            Ok(durable)
        })
    }

    fn close(&self) -> BoxFuture<Result<(), EngineError>> {
        self.inner.close()
    }

    fn snapshot(&self, shard: ShardId) -> Result<Box<dyn EngineSnapshot>, EngineError> {
        self.inner.snapshot(shard)
    }

    fn staging(&self, shard: ShardId) -> Result<Box<dyn Staging>, EngineError> {
        self.inner.staging(shard)
    }

    fn install(
        &self,
        shard: ShardId,
        staged: Box<dyn Staging>,
        system: Vec<Mutation>,
    ) -> BoxFuture<Result<(), EngineError>> {
        self.tap.leaving(shard);
        let (tap, inner) = (self.tap.clone(), Arc::clone(&self.inner));
        let installing = self.inner.install(shard, staged, system);
        Box::pin(async move {
            installing.await?;
            if let Some(found) = look(&*inner, shard)? {
                tap.installed(&found);
            }
            Ok(())
        })
    }

    fn remove(&self, shard: ShardId) -> BoxFuture<Result<(), EngineError>> {
        self.tap.leaving(shard);
        self.inner.remove(shard)
    }

    fn shards(&self) -> Result<Vec<ShardId>, EngineError> {
        self.inner.shards()
    }

    fn hash(&self, shard: ShardId) -> Result<StateHash, EngineError> {
        self.inner.hash(shard)
    }

    fn status(&self, shard: ShardId) -> Result<ShardStatus, EngineError> {
        self.inner.status(shard)
    }

    fn middle_key(&self, shard: ShardId) -> Result<Option<Blob>, EngineError> {
        self.inner.middle_key(shard)
    }

    fn corruptions(&self) -> Vec<CorruptRow> {
        self.inner.corruptions()
    }
}
