//! What the callers of the engine and its committer share.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, ShardId, sometimes, watch};
use tokio::sync::{Notify, oneshot};

use super::RedbConfig;
use super::backend::Cause;
use super::format::SpaceId;
use super::state::{Directory, ShardState};
use super::view::Fault;
use crate::chunk::Header;
use crate::error::{CorruptRow, EngineError};
use crate::port::{Mutation, Space};

/// The most damaged rows remembered one by one. A disk with more than that is
/// replaced, not studied.
const CORRUPTIONS_MAX: usize = 1024;

/// Where the outcome of a request goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, EngineError>>;

/// The two fresh spaces of a staging.
#[derive(Debug, Clone, Copy)]
pub(super) struct StagedSpaces {
    pub(super) data: SpaceId,
    pub(super) system: SpaceId,
}

/// What the committer is asked to do.
pub(super) enum Command {
    /// Commit everything applied; answer with the shard's durable index.
    Flush { shard: ShardId, reply: Reply<u64> },
    /// Store the rows of a chunk in one of a staging's spaces.
    Stage { staging: StagedSpaces, space: Space, rows: Vec<(Blob, Blob)>, reply: Reply<()> },
    /// A staging was dropped: its spaces are garbage like any other.
    Abandon { staging: StagedSpaces },
    /// Point a shard at what was staged.
    Install(Install),
    /// Forget a shard.
    Remove { shard: ShardId, reply: Reply<()> },
}

pub(super) struct Install {
    pub(super) shard: ShardId,
    pub(super) staging: StagedSpaces,
    pub(super) header: Header,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) system: Vec<Mutation>,
    pub(super) reply: Reply<()>,
}

#[derive(Default)]
struct Queue {
    commands: Vec<Command>,
    is_closing: bool,
    is_closed: bool,
    /// Dropped once the file is closed.
    closed: Vec<oneshot::Sender<()>>,
}

pub(super) struct Shared {
    pub(super) file: Arc<str>,
    pub(super) config: RedbConfig,
    pub(super) directory: RwLock<Directory>,
    /// Shards that the next commit visits.
    dirty: Mutex<Vec<ShardId>>,
    next_space: AtomicU64,
    pending_bytes: AtomicU64,
    queue: Mutex<Queue>,
    /// Something for the committer to look at.
    work: Notify,
    failure: OnceLock<EngineError>,
    /// Counts commits; changes once more at failure.
    progress: watch::Sender<u64>,
    corruptions: Mutex<BTreeSet<CorruptRow>>,
}

impl Shared {
    pub(super) fn new(
        file: Arc<str>,
        config: RedbConfig,
        directory: Directory,
        next_space: SpaceId,
    ) -> Self {
        Self {
            file,
            config,
            directory: RwLock::new(directory),
            dirty: Mutex::default(),
            next_space: AtomicU64::new(next_space.0),
            pending_bytes: AtomicU64::new(0),
            queue: Mutex::default(),
            work: Notify::new(),
            failure: OnceLock::new(),
            progress: watch::channel(0).0,
            corruptions: Mutex::default(),
        }
    }

    /// Fails once the engine has.
    pub(super) fn check(&self) -> Result<(), EngineError> {
        match self.failure.get() {
            None => Ok(()),
            Some(failure) => Err(failure.clone()),
        }
    }

    /// Ends the engine. The first reason stays and is returned; everyone who
    /// waits hears it.
    pub(super) fn fail(&self, failure: EngineError) -> EngineError {
        let failure = self.failure.get_or_init(|| failure).clone();
        let commands = std::mem::take(&mut self.queue.lock().commands);
        commands.into_iter().for_each(|command| command.refuse(&failure));
        self.progress.modify(|commits| {
            *commits += 1;
            true
        });
        self.work.notify_one();
        failure
    }

    /// A storage failure, for good and for everyone.
    pub(super) fn fail_storage(&self, source: Cause) -> EngineError {
        tracing::error!(file = %self.file, error = %source, "storage failed");
        self.fail(EngineError::Failed { file: Arc::clone(&self.file), source })
    }

    /// The error of a read that met `fault`.
    pub(super) fn fault(&self, shard: ShardId, space: Space, fault: Fault) -> EngineError {
        let key = match fault {
            Fault::Failed(cause) => return self.fail_storage(cause),
            Fault::Damaged(key) => key,
        };
        sometimes!("a stored row is found damaged");
        let row = CorruptRow { shard, space, key };
        let mut known = self.corruptions.lock();
        if known.len() < CORRUPTIONS_MAX && known.insert(row.clone()) {
            tracing::error!(file = %self.file, ?row, "stored row is corrupt");
        }
        EngineError::Corrupt { file: Arc::clone(&self.file), row }
    }

    pub(super) fn corruptions(&self) -> Vec<CorruptRow> {
        self.corruptions.lock().iter().cloned().collect()
    }

    /// A space number that was never used. It is durable as used no later than
    /// the first row in it.
    pub(super) fn allocate_space(&self) -> SpaceId {
        SpaceId(self.next_space.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn next_space(&self) -> SpaceId {
        SpaceId(self.next_space.load(Ordering::Relaxed))
    }

    /// Has the next commit visit the shard, and begin in time.
    pub(super) fn touch(&self, shard: ShardId, state: &mut ShardState) {
        if std::mem::replace(&mut state.is_dirty, true) {
            return;
        }
        let mut dirty = self.dirty.lock();
        dirty.push(shard);
        if dirty.len() == 1 {
            self.work.notify_one();
        }
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.lock().is_empty()
    }

    pub(super) fn dirty(&self) -> Vec<ShardId> {
        self.dirty.lock().clone()
    }

    pub(super) fn take_dirty(&self) -> Vec<ShardId> {
        std::mem::take(&mut *self.dirty.lock())
    }

    /// Accounts for bytes in memory that were `before` and are `after`.
    pub(super) fn resize_pending(&self, before: u64, after: u64) {
        let change = after.wrapping_sub(before);
        let was = self.pending_bytes.fetch_add(change, Ordering::Relaxed);
        let is = was.wrapping_add(change);
        let limit = self.config.commit_bytes();
        if was < limit && is >= limit {
            self.work.notify_one();
        }
    }

    pub(super) fn wants_commit(&self) -> bool {
        self.pending_bytes.load(Ordering::Relaxed) >= self.config.commit_bytes()
    }

    pub(super) fn committed(&self, bytes: u64) {
        self.pending_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.progress.modify(|commits| {
            *commits += 1;
            true
        });
    }

    /// Waits for room.
    pub(super) async fn ready(&self) -> Result<(), EngineError> {
        let mut progress = self.progress.subscribe();
        loop {
            self.check()?;
            if self.has_room() {
                return Ok(());
            }
            progress.changed().await.map_err(|_| EngineError::Closed)?;
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.pending_bytes.load(Ordering::Relaxed) < self.config.pending_bytes_max
    }

    /// Hands a command to the committer, at the call, and resolves to the
    /// outcome.
    pub(super) fn request<T: Send + 'static>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> BoxFuture<Result<T, EngineError>> {
        let (reply, outcome) = oneshot::channel();
        self.submit(command(reply));
        Box::pin(async move { outcome.await.unwrap_or(Err(EngineError::Closed)) })
    }

    pub(super) fn submit(&self, command: Command) {
        let mut queue = self.queue.lock();
        match self.check() {
            Ok(()) => queue.commands.push(command),
            Err(failure) => return command.refuse(&failure),
        }
        drop(queue);
        self.work.notify_one();
    }

    pub(super) fn take_commands(&self) -> Vec<Command> {
        std::mem::take(&mut self.queue.lock().commands)
    }

    /// Whether someone waits for a commit.
    pub(super) fn is_asked(&self) -> bool {
        let queue = self.queue.lock();
        !queue.commands.is_empty() || queue.is_closing
    }

    pub(super) fn is_closing(&self) -> bool {
        self.queue.lock().is_closing
    }

    /// Has the committer write what is left and close the file; the receiver
    /// ends, without a value, when that is done.
    pub(super) fn close(&self) -> oneshot::Receiver<()> {
        let (closed, is_closed) = oneshot::channel();
        let mut queue = self.queue.lock();
        queue.is_closing = true;
        if !queue.is_closed {
            queue.closed.push(closed);
        }
        drop(queue);
        self.work.notify_one();
        is_closed
    }

    /// The file is closed: the last thing the committer says.
    pub(super) fn closed(&self) {
        self.directory.write().view = None;
        let mut queue = self.queue.lock();
        queue.is_closed = true;
        queue.closed.clear();
    }

    /// Resolves when the committer should look around.
    pub(super) async fn work(&self) {
        self.work.notified().await;
    }
}

impl Command {
    pub(super) fn refuse(self, failure: &EngineError) {
        match self {
            Self::Flush { reply, .. } => drop(reply.send(Err(failure.clone()))),
            Self::Stage { reply, .. }
            | Self::Install(Install { reply, .. })
            | Self::Remove { reply, .. } => drop(reply.send(Err(failure.clone()))),
            Self::Abandon { .. } => {}
        }
    }
}
