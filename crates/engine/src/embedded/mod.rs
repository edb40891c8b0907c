//! The engine on disk.
//!
//! A batch is applied to memory: an ordered overlay per shard and space. One
//! committer merges the overlays of all shards into one redb transaction at a
//! time. Reads look through the overlays down to the last commit.

mod backend;
mod capture;
mod committer;
mod format;
#[cfg(test)]
mod fuzz;
mod opening;
mod shared;
mod staging;
mod state;
mod view;

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use quorate_types::disk::Disk;
use quorate_types::owner::Owner;
use quorate_types::runtime::{self, BoxFuture};
use quorate_types::{Blob, KeyRange, ShardId, sometimes};

use self::capture::Capture;
use self::format::Record;
use self::shared::{Command, Shared};
use self::staging::RedbStaging;
use self::state::{Directory, Phase, ShardState};
use crate::error::{CorruptRow, EngineError};
use crate::layer::{Layer, intersection, read_page};
use crate::port::{
    Batch, Engine, EngineSnapshot, Fork, Mutation, Page, ScanLimit, ShardStatus, Space, Staging,
    StateHash, check_batch, check_range, check_rows,
};
use crate::source::{self, Stream};

/// How a [`RedbEngine`] uses memory and when it commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedbConfig {
    /// Bytes of pages that redb keeps in memory.
    pub cache_bytes: usize,
    /// Bytes applied but not durable at which a commit begins. Larger commits
    /// write less per row and take longer.
    pub commit_bytes: u64,
    /// The longest that an applied batch waits for a commit to begin. What a
    /// crash loses comes back from the log; this bounds the replay.
    pub commit_age_max: Duration,
    /// Bytes applied but not durable beyond which [`Engine::ready`] waits: the
    /// memory that a slow disk can cost.
    pub pending_bytes_max: u64,
    /// The most rows that nobody owns any more deleted in one commit: what a
    /// flush may have to wait for besides its own rows. Also the estimated
    /// size above which an emptied shard's rows are left to be collected
    /// instead of being deleted at once.
    pub collected_rows_max: usize,
    /// The directory whose engine this must be; `None` to take any file.
    pub owner: Option<Owner>,
}

impl Default for RedbConfig {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            commit_bytes: 8 << 20,
            commit_age_max: Duration::from_secs(2),
            pending_bytes_max: 64 << 20,
            collected_rows_max: 2048,
            owner: None,
        }
    }
}

impl RedbConfig {
    /// Where a commit begins: never so late that `ready` waits for a timer.
    fn commit_bytes(&self) -> u64 {
        self.commit_bytes.min(self.pending_bytes_max).max(1)
    }
}

/// An [`Engine`] in one redb file.
///
/// Dropping it has the committer write what is pending and close the file in
/// the background; [`Engine::close`] waits for that.
pub struct RedbEngine {
    shared: Arc<Shared>,
}

impl RedbEngine {
    /// Opens `file` of `disk`, creating it when it is missing.
    ///
    /// # Errors
    /// [`EngineError::Open`] when the file is damaged, in use or unreadable,
    /// [`EngineError::NewerFormat`], [`EngineError::NotAnEngine`],
    /// [`EngineError::Owner`] when it is not the configured directory's.
    ///
    /// # Panics
    /// Outside of a tokio runtime, which the committer needs for its timer.
    pub fn open(disk: &dyn Disk, file: &str, config: RedbConfig) -> Result<Self, EngineError> {
        let (shared, committer) = opening::open(disk, file, config)?;
        runtime::thread("engine-committer", committer.run())
            .map_err(|error| opening::refusal(&shared.file, error))?;
        Ok(Self { shared })
    }

    /// Looks at a shard under its lock.
    fn look<T>(
        &self,
        shard: ShardId,
        look: impl FnOnce(&Directory, &ShardState) -> T,
    ) -> Result<Option<T>, EngineError> {
        self.shared.check()?;
        let directory = self.shared.directory.read();
        let state = directory.shards.get(&shard);
        Ok(state.map(|state| look(&directory, &state.read())))
    }

    /// A view of the shard that later batches do not change.
    fn capture(&self, shard: ShardId) -> Result<Capture, EngineError> {
        self.shared.check()?;
        let directory = self.shared.directory.read();
        let state = directory.shards.get(&shard).ok_or(EngineError::UnknownShard(shard))?;
        let view = directory.view.clone().ok_or(EngineError::Closed)?;
        let mut state = state.write();
        let generation = directory.generation + 1;
        state.data.seal(generation);
        state.system.seal(generation);
        Ok(Capture::new(Arc::clone(&self.shared), shard, &state, view))
    }

    /// A batch that concerns one shard only.
    fn apply_alone(&self, shard: ShardId, batch: Batch) -> Result<(), EngineError> {
        let directory = self.shared.directory.read();
        let state = directory.shards.get(&shard).ok_or(EngineError::UnknownShard(shard))?;
        let mut state = state.write();
        check_live(shard, &state)?;
        check_batch(shard, state.record.applied, &state.record.range, &batch)?;
        let before = state.active_bytes();
        state.apply(batch);
        self.shared.resize_pending(before, state.active_bytes());
        self.shared.touch(shard, &mut state);
        Ok(())
    }

    /// A batch that ends in forks: all shards stand still for it, so that no
    /// commit sees parent without child.
    fn apply_forks(&self, shard: ShardId, mut batch: Batch) -> Result<(), EngineError> {
        let directory = &mut *self.shared.directory.write();
        let in_flight = directory.generation;
        let have_children = batch
            .forks
            .iter()
            .map(|fork| directory.has_child(fork.child))
            .collect::<Result<Vec<bool>, _>>()?;
        let state = directory.shards.get_mut(&shard).ok_or(EngineError::UnknownShard(shard))?;
        let state = state.get_mut();
        check_live(shard, state)?;
        check_batch(shard, state.record.applied, &state.record.range, &batch)?;

        let before = state.unwritten_bytes(in_flight);
        let forks = std::mem::take(&mut batch.forks);
        state.apply(batch);
        self.shared.touch(shard, state);
        self.shared.resize_pending(before, state.unwritten_bytes(in_flight));
        for (fork, has_child) in forks.into_iter().zip(have_children) {
            self.cut(directory, shard, fork, has_child);
        }
        Ok(())
    }

    /// Hands a shard's rows from the fork's key on to its child, or makes them
    /// garbage where the child came by other means.
    fn cut(&self, directory: &mut Directory, shard: ShardId, fork: Fork, has_child: bool) {
        let in_flight = directory.generation;
        let Some(state) = directory.shards.get_mut(&shard) else { return };
        let state = state.get_mut();
        let before = state.unwritten_bytes(in_flight);
        let Some((upper, rows)) = state.cut(&fork.at, in_flight) else { return };
        let after = state.unwritten_bytes(in_flight);
        sometimes!("a fork finds its child there", has_child);
        if has_child {
            self.shared.resize_pending(before, after);
            let space = state.record.data;
            let garbage = directory.unowned(space, upper, shard);
            if let Some(state) = directory.shards.get_mut(&shard) {
                state.get_mut().garbage.extend(garbage);
            }
            return;
        }
        let Fork { child, child_index, child_system, .. } = fork;
        let system = self.shared.allocate_space();
        let record = Record { system, range: upper, applied: child_index, ..state.record.clone() };
        let mut newborn = ShardState::uncommitted(record);
        newborn.data = rows;
        newborn.system.put_all(child_system);
        self.shared.resize_pending(before, after + newborn.unwritten_bytes(in_flight));
        self.shared.touch(child, &mut newborn);
        directory.shards.insert(child, newborn.into());
    }

    /// Marks a shard that is about to be replaced or removed; whether it
    /// exists.
    fn begin(&self, shard: ShardId, phase: Phase) -> Result<bool, EngineError> {
        self.shared.check()?;
        let mut directory = self.shared.directory.write();
        if directory.arriving.contains(&shard) {
            return Err(EngineError::Busy(shard));
        }
        let Some(state) = directory.shards.get_mut(&shard) else {
            if phase == Phase::Replacing {
                directory.arriving.insert(shard);
            }
            return Ok(false);
        };
        check_live(shard, state.get_mut())?;
        state.get_mut().phase = phase;
        Ok(true)
    }

    fn try_install(
        &self,
        shard: ShardId,
        staged: Box<dyn Staging>,
        system: Vec<Mutation>,
    ) -> Result<BoxFuture<Result<(), EngineError>>, EngineError> {
        check_rows(shard, &system)?;
        let staged = RedbStaging::downcast(staged, &self.shared, shard)?;
        self.begin(shard, Phase::Replacing)?;
        let (reply, outcome) = tokio::sync::oneshot::channel();
        if let Some(command) = staged.install(system, reply) {
            self.shared.submit(command);
        }
        Ok(Box::pin(async move { outcome.await.unwrap_or(Err(EngineError::Closed)) }))
    }
}

fn check_live(shard: ShardId, state: &ShardState) -> Result<(), EngineError> {
    match state.phase {
        Phase::Live => Ok(()),
        Phase::Replacing | Phase::Removing => Err(EngineError::Busy(shard)),
    }
}

impl Engine for RedbEngine {
    fn create(
        &self,
        shard: ShardId,
        range: KeyRange,
        index: u64,
        system: Vec<Mutation>,
    ) -> Result<bool, EngineError> {
        self.shared.check()?;
        check_range(shard, &range)?;
        check_rows(shard, &system)?;
        let mut directory = self.shared.directory.write();
        if directory.has_child(shard)? {
            return Ok(false);
        }
        let (data, system_space) = (self.shared.allocate_space(), self.shared.allocate_space());
        let record = Record {
            data,
            system: system_space,
            range,
            applied: index,
            rows_estimate: 0,
            bytes_estimate: 0,
        };
        let mut state = ShardState::uncommitted(record);
        state.system.put_all(system);
        self.shared.resize_pending(0, state.active_bytes());
        self.shared.touch(shard, &mut state);
        directory.shards.insert(shard, state.into());
        Ok(true)
    }

    fn apply(&self, shard: ShardId, batch: Batch) -> Result<(), EngineError> {
        self.shared.check()?;
        if batch.forks.is_empty() {
            self.apply_alone(shard, batch)
        } else {
            self.apply_forks(shard, batch)
        }
    }

    fn ready(&self) -> BoxFuture<Result<(), EngineError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.ready().await })
    }

    fn range(&self, shard: ShardId) -> Result<Option<KeyRange>, EngineError> {
        self.look(shard, |_, state| state.record.range.clone())
    }

    fn applied(&self, shard: ShardId) -> Result<Option<u64>, EngineError> {
        self.look(shard, |_, state| state.record.applied)
    }

    fn durable(&self, shard: ShardId) -> Result<Option<u64>, EngineError> {
        Ok(self.look(shard, |_, state| state.durable)?.flatten())
    }

    fn get(&self, shard: ShardId, space: Space, key: &[u8]) -> Result<Option<Blob>, EngineError> {
        let found = self.look(shard, |directory, state| {
            if space == Space::Data && !state.record.range.contains(key) {
                return Ok(None);
            }
            match state.overlay(space).lookup(key) {
                Some(row) => Ok(row.cloned()),
                None => Err((state.space(space), directory.view.clone())),
            }
        })?;
        match found.ok_or(EngineError::UnknownShard(shard))? {
            Ok(row) => Ok(row),
            Err((_, None)) => Err(EngineError::Closed),
            Err((stored_in, Some(view))) => {
                view.get(stored_in, key).map_err(|fault| self.shared.fault(shard, space, fault))
            }
        }
    }

    fn scan(
        &self,
        shard: ShardId,
        space: Space,
        range: &KeyRange,
        limit: ScanLimit,
    ) -> Result<Page, EngineError> {
        let found = self.look(shard, |directory, state| {
            let range = match space {
                Space::Data => intersection(range, &state.record.range)?,
                Space::System if range.is_empty() => return None,
                Space::System => range.clone(),
            };
            // What the page can show of the layer that still changes is
            // copied; everything else is shared and read without the lock.
            let overlay = state.overlay(space);
            let head: Arc<Layer> = Arc::new(overlay.active().head(&range, limit));
            let layers: Vec<_> = std::iter::once(head).chain(overlay.sealed()).collect();
            Some((range, layers, state.space(space), directory.view.clone()))
        })?;
        match found.ok_or(EngineError::UnknownShard(shard))? {
            None => Ok(Page::default()),
            Some((_, _, _, None)) => Err(EngineError::Closed),
            Some((range, layers, stored_in, Some(view))) => view
                .rows(stored_in, &range)
                .and_then(|floor| read_page(&layers, floor, &range, limit))
                .map_err(|fault| self.shared.fault(shard, space, fault)),
        }
    }

    fn flush(&self, shard: ShardId) -> BoxFuture<Result<u64, EngineError>> {
        let progress = self.look(shard, |_, state| (state.record.applied, state.durable));
        match progress {
            Err(failure) => Box::pin(ready(Err(failure))),
            Ok(None) => Box::pin(ready(Err(EngineError::UnknownShard(shard)))),
            Ok(Some((applied, Some(durable)))) if applied == durable => {
                Box::pin(ready(Ok(durable)))
            }
            Ok(Some(_)) => self.shared.request(|reply| Command::Flush { shard, reply }),
        }
    }

    fn close(&self) -> BoxFuture<Result<(), EngineError>> {
        let closed = self.shared.close();
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            // The sender is dropped without a value: the end is the message.
            let _ = closed.await;
            match shared.check() {
                Ok(()) | Err(EngineError::Closed) => Ok(()),
                Err(failure) => Err(failure),
            }
        })
    }

    fn snapshot(&self, shard: ShardId) -> Result<Box<dyn EngineSnapshot>, EngineError> {
        Ok(Box::new(Stream::new(self.capture(shard)?)))
    }

    fn staging(&self, shard: ShardId) -> Result<Box<dyn Staging>, EngineError> {
        self.shared.check()?;
        Ok(Box::new(RedbStaging::new(Arc::clone(&self.shared), shard)))
    }

    fn install(
        &self,
        shard: ShardId,
        staged: Box<dyn Staging>,
        system: Vec<Mutation>,
    ) -> BoxFuture<Result<(), EngineError>> {
        match self.try_install(shard, staged, system) {
            Ok(outcome) => outcome,
            Err(error) => Box::pin(ready(Err(error))),
        }
    }

    fn remove(&self, shard: ShardId) -> BoxFuture<Result<(), EngineError>> {
        match self.begin(shard, Phase::Removing) {
            Ok(true) => self.shared.request(|reply| Command::Remove { shard, reply }),
            Ok(false) => Box::pin(ready(Ok(()))),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }

    fn shards(&self) -> Result<Vec<ShardId>, EngineError> {
        self.shared.check()?;
        Ok(self.shared.directory.read().shards.keys().copied().collect())
    }

    fn hash(&self, shard: ShardId) -> Result<StateHash, EngineError> {
        source::hash(&self.capture(shard)?)
    }

    fn status(&self, shard: ShardId) -> Result<ShardStatus, EngineError> {
        let status = self.look(shard, |_, state| ShardStatus {
            range: state.record.range.clone(),
            applied: state.record.applied,
            durable: state.durable,
            rows_estimate: state.record.rows_estimate,
            bytes_estimate: state.record.bytes_estimate,
            pending_bytes: state.pending_bytes(),
        })?;
        status.ok_or(EngineError::UnknownShard(shard))
    }

    fn middle_key(&self, shard: ShardId) -> Result<Option<Blob>, EngineError> {
        source::middle_key(&self.capture(shard)?)
    }

    fn corruptions(&self) -> Vec<CorruptRow> {
        self.shared.corruptions()
    }
}

impl Drop for RedbEngine {
    fn drop(&mut self) {
        drop(self.shared.close());
    }
}

impl std::fmt::Debug for RedbEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbEngine").field("file", &self.shared.file).finish_non_exhaustive()
    }
}
