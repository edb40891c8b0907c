use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_types::disk::Disk;
use quorate_types::owner::Owner;
use quorate_types::{GroupId, ReplicaId, buggify, planted, watch};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use super::medium::{Laid, Medium, NewEntry, Opened, Whose};
use super::memory::{Memory, Piece};
use super::writer::{Change, ENTRY_BYTES_MAX, Operation, Writer, split_beyond};
use super::{
    Completion, LogEngine, LogEntry, LogError, LogFuture, LogPosition, LogState, LogStats, Vote,
    redb, segments,
};

/// Limits of a [`DurableLog`], and what it is kept on.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// What the log is kept on.
    pub medium: LogMedium,
    /// Operations that may wait for the writer before callers have to wait
    /// for room, which they get in the order in which they came. Enough for every
    /// group of a busy node to have a few.
    pub queued_operations_max: usize,
    /// Payload bytes that may wait likewise. A single larger append passes
    /// when nothing else waits. Each operation counts for its payload and for
    /// its share of these, so that both limits hold.
    pub queued_bytes_max: usize,
    /// Payload bytes of the newest entries kept in memory for all groups
    /// together, so that replication and apply do not read the disk.
    pub tail_bytes_max: usize,
    /// The directory whose log this must be; `None` to take any file.
    pub owner: Option<Owner>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            medium: LogMedium::default(),
            queued_operations_max: 16 << 10,
            queued_bytes_max: 64 << 20,
            tail_bytes_max: 64 << 20,
            owner: None,
        }
    }
}

impl LogConfig {
    /// All the room that there is.
    fn room(&self) -> usize {
        self.queued_bytes_max.clamp(1, u32::MAX as usize)
    }
}

/// What a [`DurableLog`] is kept on. A directory keeps to the one that its log
/// was begun with, and refuses the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogMedium {
    /// One redb file, `STEM.redb`. Entries of all groups that arrive while the
    /// disk syncs go into the next commit together, as one row keyed by a global
    /// sequence number: only the end of one B-tree is touched however many
    /// groups write, which is what keeps the write amplification of a busy node
    /// low.
    Redb {
        /// redb's page cache. The log is written at its end and rarely read, so
        /// little is enough.
        cache_bytes: usize,
    },
    /// Files `STEM.NNNNNN`, filled with zeroes beforehand and used again: entries
    /// of all groups go behind each other, and a commit is one write and one sync.
    /// The default.
    Segments {
        /// The size of a file, to which the first few grow: 64 KiB to 1 GiB. A
        /// commit takes a quarter of one at most, and so does an entry.
        segment_bytes: u64,
    },
}

impl LogMedium {
    /// Segments of a size that suits a node under load.
    pub const SEGMENTS: Self = Self::Segments { segment_bytes: 64 << 20 };
    /// A redb file with a small cache.
    pub const REDB: Self = Self::Redb { cache_bytes: 32 << 20 };
}

impl Default for LogMedium {
    fn default() -> Self {
        Self::SEGMENTS
    }
}

/// The [`LogEngine`] of production: one writer for all groups, whose batches are
/// what arrived during the last sync, over a [`LogMedium`].
///
/// Dropping the log lets the writer finish what was accepted, in the
/// background; [`LogEngine::close`] waits for it.
#[derive(Debug)]
pub struct DurableLog {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) medium: Box<dyn Medium>,
    config: LogConfig,
    state: Mutex<State>,
    /// Wakes the writer.
    work: Notify,
    /// The bytes that may still be queued. Closed with the log.
    room: Arc<Semaphore>,
    finished: watch::Sender<bool>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("medium", &self.medium).finish_non_exhaustive()
    }
}

/// What a commit writes.
#[derive(Clone, Copy)]
pub(super) struct Written {
    entries: u64,
    payload_bytes: u64,
    rewritten_bytes: u64,
}

impl Written {
    pub(super) fn of(entries: &[NewEntry]) -> Self {
        let bytes = |is_rewritten| {
            let written = entries.iter().filter(|entry| entry.is_rewritten == is_rewritten);
            written.map(|entry| entry.payload.len() as u64).sum()
        };
        let new = entries.iter().filter(|entry| !entry.is_rewritten);
        Self {
            entries: new.count() as u64,
            payload_bytes: bytes(false),
            rewritten_bytes: bytes(true),
        }
    }
}

struct State {
    memory: Memory,
    queue: Vec<Operation>,
    /// What they take of a commit.
    queued_bytes: usize,
    /// How many operations there ever were.
    pushed: u64,
    /// Who waits for room.
    waiting: usize,
    urgent: bool,
    closing: bool,
    failed: Option<LogError>,
    stats: LogStats,
}

impl State {
    fn usable(&self) -> Result<(), LogError> {
        match (&self.failed, self.closing) {
            (Some(error), _) => Err(error.clone()),
            (None, true) => Err(LogError::Closed),
            (None, false) => Ok(()),
        }
    }

    fn push(&mut self, operation: Operation) {
        self.urgent |= operation.is_urgent();
        self.queued_bytes = self.queued_bytes.saturating_add(operation.bytes());
        self.pushed += 1;
        self.queue.push(operation);
    }

    /// Takes what waits into `operations`, which are none, as far as it fits into
    /// a commit.
    fn take(&mut self, operations: &mut Vec<Operation>, bytes_max: usize) {
        std::mem::swap(&mut self.queue, operations);
        if self.queued_bytes > bytes_max {
            self.queue = split_beyond(operations, bytes_max);
        }
        if buggify!("raft log writer takes one operation") {
            self.queue.splice(..0, operations.split_off(1));
        }
        self.urgent = self.queue.iter().any(Operation::is_urgent);
        self.queued_bytes = self.queue.iter().map(Operation::bytes).sum();
    }

    /// Whether what waits is to be committed now. Not for purges alone, unless
    /// somebody waits for the room that they take.
    fn is_ripe(&self) -> bool {
        let is_due = self.urgent || self.closing || self.waiting > 0;
        !self.queue.is_empty() && (is_due || self.queue.len() >= LAZY_OPERATIONS_MAX)
    }
}

/// How many purges may wait for company before they are committed alone.
const LAZY_OPERATIONS_MAX: usize = 256;

/// How often a read is planned anew because its rows were purged meanwhile.
/// Each time the log has moved on, so more than two are unheard of.
const READ_ATTEMPTS_MAX: usize = 8;

impl DurableLog {
    /// A file of the log whose files begin with `stem`, if one was begun: of what
    /// medium it may be.
    ///
    /// # Errors
    /// [`LogError::Disk`] when the disk cannot tell.
    pub fn find(disk: &dyn Disk, stem: &str) -> Result<Option<Arc<str>>, LogError> {
        Ok(redb::any(disk, stem)?.or(segments::any(disk, stem)?))
    }

    /// Opens the log whose files begin with `stem`, creating it when missing,
    /// verifies what is stored, and starts the writer. Must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// [`LogError::Disk`] when a file cannot be opened or repaired,
    /// [`LogError::Owner`] when it is not the configured directory's,
    /// [`LogError::Medium`] when the directory's log is kept otherwise,
    /// [`LogError::Damaged`] when something is not what was written.
    pub fn open(disk: Arc<dyn Disk>, stem: &str, config: LogConfig) -> Result<Self, LogError> {
        let Opened { memory, groups, medium } = match config.medium {
            LogMedium::Redb { cache_bytes } => {
                let file = redb::file_of(stem);
                if let Some(other) = segments::any(&*disk, stem)? {
                    return Err(LogError::Medium { file: other, wanted: "redb file" });
                }
                redb::open(&*disk, &file, cache_bytes, config.owner, config.tail_bytes_max)?
            }
            LogMedium::Segments { segment_bytes } => {
                segments::open(&disk, stem, segment_bytes, config.owner, config.tail_bytes_max)?
            }
        };
        let room = Arc::new(Semaphore::new(config.room()));
        let shared = Arc::new(Shared {
            medium,
            config,
            state: Mutex::new(State {
                memory,
                queue: Vec::new(),
                queued_bytes: 0,
                pushed: 0,
                waiting: 0,
                urgent: false,
                closing: false,
                failed: None,
                stats: LogStats::default(),
            }),
            work: Notify::new(),
            room,
            finished: watch::channel(false).0,
        });
        let writer = Writer::new(Arc::clone(&shared), groups);
        quorate_types::runtime::thread("raft-log", writer.run())
            .map_err(|error| LogError::disk(&stem.into(), error))?;
        Ok(Self { shared })
    }
}

impl DurableLog {
    fn fits(&self, group: GroupId, entries: &[LogEntry]) -> Result<(), LogError> {
        let bytes = entries.iter().map(|entry| entry.payload.len()).max().unwrap_or(0);
        let bytes_max = self.entry_bytes_max();
        if bytes > bytes_max {
            return Err(LogError::TooLarge { group, bytes, bytes_max });
        }
        Ok(())
    }
}

impl Drop for DurableLog {
    fn drop(&mut self) {
        self.shared.begin_closing();
    }
}

/// Somebody waits for room.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn of(shared: &'a Shared) -> Self {
        shared.state.lock().waiting += 1;
        shared.work.notify_one();
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state.lock().waiting -= 1;
    }
}

impl Shared {
    fn begin_closing(&self) {
        self.state.lock().closing = true;
        self.work.notify_one();
        self.room.close();
    }

    /// Everything that waits, once something urgent does, and the rows that nothing
    /// needs once it is durable; `None` at the end.
    pub(super) async fn next_batch(&self, operations: &mut Vec<Operation>) -> Option<Vec<u64>> {
        loop {
            {
                let mut state = self.state.lock();
                if state.is_ripe() {
                    state.take(operations, self.medium.commit_bytes_max());
                    // Rows that died through what was left have to wait for it, and
                    // so for the rest of an append that was cut.
                    let taken = state.pushed - state.queue.len() as u64;
                    return Some(state.memory.take_dead(taken));
                }
                if state.closing || state.failed.is_some() {
                    return None;
                }
            }
            self.work.notified().await;
        }
    }

    /// Counts a commit, or notes that the log failed, before anyone is told of it.
    pub(super) fn committed(
        &self,
        written: Written,
        took: Duration,
        result: Result<Laid, LogError>,
    ) -> Result<Laid, LogError> {
        let laid = result.map_err(|error| self.fail(error))?;
        let stats = &mut self.state.lock().stats;
        stats.commits += 1;
        stats.entries += written.entries;
        stats.payload_bytes += written.payload_bytes;
        stats.rewritten_bytes += written.rewritten_bytes;
        stats.commit_entries.note(written.entries);
        stats.commit_micros.note(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        Ok(laid)
    }

    /// Notes where the entries of a commit lie. Until then they are read from
    /// memory, which keeps the payload of whatever has no place.
    pub(super) fn place(&self, laid: &Laid) {
        let memory = &mut self.state.lock().memory;
        memory.place(&laid.placed);
        for sequence in &laid.rows {
            memory.note_row(*sequence);
        }
    }

    /// Notes that the log can no longer be used; says what was the first reason.
    pub(super) fn fail(&self, error: LogError) -> LogError {
        let mut state = self.state.lock();
        if let Some(first) = &state.failed {
            return first.clone();
        }
        state.failed = Some(error.clone());
        drop(state);
        tracing::error!(%error, "the log failed; every group of this node stops");
        self.work.notify_one();
        error
    }

    pub(super) fn with_memory<T>(&self, look: impl FnOnce(&Memory) -> T) -> T {
        look(&self.state.lock().memory)
    }

    /// How many operations the writer has taken so far.
    pub(super) fn taken(&self) -> u64 {
        let state = self.state.lock();
        state.pushed - state.queue.len() as u64
    }

    /// Has entries that are still needed written once more, behind everything
    /// that waits. Says how many operations there ever were when that is done;
    /// `None` if there was nothing to do.
    pub(super) fn rewrite<T>(&self, needed: impl FnOnce(&Memory) -> T) -> Option<u64>
    where
        T: IntoIterator<Item = ((GroupId, ReplicaId), Vec<(u64, LogEntry)>)>,
    {
        let mut state = self.state.lock();
        if state.closing {
            return None;
        }
        let before = state.pushed;
        for ((group, replica), entries) in needed(&state.memory) {
            let number = state.pushed + 1;
            state.memory.begin_operation(number);
            let change = Change::Rewrite { replica, entries };
            state.push(Operation { group, change, completion: None, room: None });
        }
        self.work.notify_one();
        (state.pushed > before).then_some(state.pushed)
    }

    /// The writer's last act: fails what still waits and releases the file.
    pub(super) fn finish(&self) {
        let (abandoned, error) = {
            let mut state = self.state.lock();
            state.closing = true;
            let error = state.failed.clone().unwrap_or(LogError::Closed);
            (std::mem::take(&mut state.queue), error)
        };
        self.room.close();
        for completion in abandoned.into_iter().filter_map(|operation| operation.completion) {
            completion(Err(error.clone()));
        }
        if let Err(error) = self.medium.close() {
            tracing::warn!(%error, "closing the log");
        }
        self.finished.send(true);
    }

    /// Waits for room behind those that came before; none is left in a log that
    /// is closed.
    async fn room(&self, operations: usize, payload_bytes: usize) -> Option<OwnedSemaphorePermit> {
        let share = self.config.room() / self.config.queued_operations_max.max(1);
        let shares = share.saturating_mul(operations);
        let bytes = payload_bytes.saturating_add(shares).clamp(1, self.config.room());
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(bytes) {
            return Some(room);
        }
        let _waiting = Waiting::of(self);
        Arc::clone(&self.room).acquire_many_owned(bytes).await.ok()
    }

    /// Waits for room, then starts an operation: `start` changes the memory
    /// and says what the disk has to follow with, if anything.
    async fn submit<T>(
        &self,
        group: GroupId,
        payload_bytes: usize,
        start: impl FnOnce(&mut Memory) -> Result<(Option<Change>, T), LogError> + Send,
        completion: Option<Completion>,
    ) -> Result<T, LogError> {
        let room = self.room(1, payload_bytes).await;
        let mut state = self.state.lock();
        if let Err(error) = state.usable() {
            if let Some(completion) = completion {
                completion(Err(error.clone()));
            }
            return Err(error);
        }
        let number = state.pushed + 1;
        state.memory.begin_operation(number);
        match start(&mut state.memory) {
            Ok((Some(change), value)) => {
                state.push(Operation { group, change, completion, room });
                drop(state);
                self.work.notify_one();
                Ok(value)
            }
            Ok((None, value)) => {
                if let Some(completion) = completion {
                    completion(Ok(()));
                }
                Ok(value)
            }
            Err(error) => {
                if let Some(completion) = completion {
                    completion(Err(error.clone()));
                }
                Err(error)
            }
        }
    }

    /// Appends to several groups under one lock, so that one commit takes them all
    /// if they fit.
    async fn append_all(
        &self,
        appends: Vec<(GroupId, Vec<LogEntry>)>,
        completion: Completion,
    ) -> Result<(), LogError> {
        let entries = appends.iter().flat_map(|(_, entries)| entries);
        let bytes = entries.map(|entry| entry.payload.len()).sum();
        let room = self.room(appends.len(), bytes).await;
        let mut state = self.state.lock();
        let mut appended = state.usable();
        let before = state.pushed;
        for (group, entries) in appends {
            if appended.is_err() {
                break;
            }
            let number = state.pushed + 1;
            state.memory.begin_operation(number);
            appended = state.memory.append(group, &entries).map(|(replica, first_ticket)| {
                let change = Change::Append { replica, first_ticket, entries };
                state.push(Operation { group, change, completion: None, room: None });
            });
        }
        let is_any = state.pushed > before;
        let mut completion = Some(completion);
        if let Some(last) = state.queue.last_mut().filter(|_| is_any) {
            last.room = room;
            last.completion = completion.take_if(|_| appended.is_ok());
        }
        drop(state);
        self.work.notify_one();
        if let Some(completion) = completion {
            completion(appended.clone());
        }
        appended
    }

    /// Like [`Shared::submit`], ready once the change is durable.
    async fn submit_durably<T>(
        &self,
        group: GroupId,
        start: impl FnOnce(&mut Memory) -> Result<(Option<Change>, T), LogError> + Send,
    ) -> Result<T, LogError> {
        let (done, durable) = oneshot::channel();
        let completion: Completion = Box::new(move |result| drop(done.send(result)));
        let value = self.submit(group, 0, start, Some(completion)).await?;
        durable.await.unwrap_or(Err(LogError::Closed))?;
        Ok(value)
    }

    /// Fetches what a plan names. `None` when something is gone, which is in
    /// order if the entries were purged since the plan was made.
    fn execute(
        &self,
        group: GroupId,
        plan: Vec<(LogPosition, Piece)>,
    ) -> Result<Option<Vec<LogEntry>>, LogError> {
        let stored = plan.iter().filter_map(|(position, piece)| match piece {
            Piece::Stored(location) => Some((Whose { group, position: *position }, *location)),
            Piece::Cached(_) => None,
        });
        let wanted: Vec<_> = stored.collect();
        let fetched = self.medium.fetch(&wanted);
        if let Err(error @ LogError::Disk { .. }) = &fetched {
            self.fail(error.clone());
        }
        let Some(fetched) = fetched? else { return Ok(None) };
        let mut fetched = fetched.into_iter();
        let payloads = plan.into_iter().map_while(|(position, piece)| {
            let payload = match piece {
                Piece::Cached(payload) => payload,
                Piece::Stored(_) => fetched.next()?,
            };
            Some(LogEntry { position, payload })
        });
        Ok(Some(payloads.collect()))
    }
}

impl LogEngine for DurableLog {
    fn admit(&self, group: GroupId, replica: ReplicaId) -> LogFuture<'_, LogState> {
        let rows_bytes_max = self.shared.medium.rows_bytes_max();
        Box::pin(self.shared.submit_durably(group, move |memory| {
            let is_new = memory.admit(group, replica, rows_bytes_max)?;
            let state = memory.owner(group)?.state();
            Ok((is_new.then_some(Change::Admit { replica }), state))
        }))
    }

    fn room_for(&self, group: GroupId) -> Result<(), LogError> {
        let rows_bytes_max = self.shared.medium.rows_bytes_max();
        self.shared.state.lock().memory.room_for(group, rows_bytes_max)
    }

    fn groups(&self) -> Vec<(GroupId, ReplicaId)> {
        self.shared.state.lock().memory.owners()
    }

    fn is_tombstoned(&self, group: GroupId, replica: ReplicaId) -> bool {
        let state = self.shared.state.lock();
        state.memory.group(group).is_some_and(|memory| memory.tombstones.contains(&replica))
    }

    fn state(&self, group: GroupId) -> Result<LogState, LogError> {
        let state = self.shared.state.lock();
        state.memory.owner(group).map(super::memory::Owner::state)
    }

    fn save_vote(&self, group: GroupId, vote: Vote) -> LogFuture<'_, ()> {
        let start = move |memory: &mut Memory| {
            memory.owner_mut(group)?.vote = Some(vote);
            Ok((Some(Change::Vote(vote)), ()))
        };
        if planted!(VoteNotSynced) {
            return Box::pin(self.shared.submit(group, 0, start, None));
        }
        Box::pin(self.shared.submit_durably(group, start))
    }

    fn append(
        &self,
        group: GroupId,
        entries: Vec<LogEntry>,
        completion: Completion,
    ) -> LogFuture<'_, ()> {
        let payload_bytes = entries.iter().map(|entry| entry.payload.len()).sum();
        if let Err(refused) = self.fits(group, &entries) {
            completion(Err(refused.clone()));
            return Box::pin(std::future::ready(Err(refused)));
        }
        let start = move |memory: &mut Memory| {
            let (replica, first_ticket) = memory.append(group, &entries)?;
            Ok((Some(Change::Append { replica, first_ticket, entries }), ()))
        };
        Box::pin(self.shared.submit(group, payload_bytes, start, Some(completion)))
    }

    fn append_all(
        &self,
        appends: Vec<(GroupId, Vec<LogEntry>)>,
        completion: Completion,
    ) -> LogFuture<'_, ()> {
        let fit = appends.iter().try_for_each(|(group, entries)| self.fits(*group, entries));
        if let Err(refused) = fit {
            completion(Err(refused.clone()));
            return Box::pin(std::future::ready(Err(refused)));
        }
        Box::pin(self.shared.append_all(appends, completion))
    }

    fn truncate(&self, group: GroupId, from: u64) -> LogFuture<'_, ()> {
        Box::pin(self.shared.submit_durably(group, move |memory| {
            let removed = memory.truncate(group, from)?;
            Ok((removed.map(|upto| Change::Truncate { from, removed_upto: upto }), ()))
        }))
    }

    fn purge(&self, group: GroupId, upto: LogPosition) -> LogFuture<'_, ()> {
        let start = move |memory: &mut Memory| {
            Ok((memory.purge(group, upto)?.then_some(Change::Purge { upto }), ()))
        };
        Box::pin(self.shared.submit(group, 0, start, None))
    }

    fn read(
        &self,
        group: GroupId,
        range: Range<u64>,
        payload_bytes_max: usize,
    ) -> Result<Vec<LogEntry>, LogError> {
        for _ in 0..READ_ATTEMPTS_MAX {
            let plan = {
                let state = self.shared.state.lock();
                if let Some(error) = &state.failed {
                    return Err(error.clone());
                }
                state.memory.plan(group, range.clone(), payload_bytes_max)?
            };
            if let Some(entries) = self.shared.execute(group, plan)? {
                return Ok(entries);
            }
        }
        Err(LogError::Missing { group, index: range.start })
    }

    fn term_at(&self, group: GroupId, index: u64) -> Result<Option<u64>, LogError> {
        self.shared.state.lock().memory.term_at(group, index)
    }

    fn payload_bytes(&self, group: GroupId) -> Option<u64> {
        let state = self.shared.state.lock();
        state.memory.owner(group).ok().map(|owner| owner.payload_bytes)
    }

    fn forget(&self, group: GroupId, replica: ReplicaId) -> LogFuture<'_, ()> {
        Box::pin(self.shared.submit_durably(group, move |memory| {
            memory.forget(group, replica);
            Ok((Some(Change::Forget { replica }), ()))
        }))
    }

    fn entry_bytes_max(&self) -> usize {
        self.shared.medium.commit_bytes_max().saturating_sub(ENTRY_BYTES_MAX)
    }

    fn stats(&self) -> LogStats {
        let state = self.shared.state.lock();
        LogStats { queued: state.queue.len() as u64, ..state.stats }
    }

    fn close(&self) -> LogFuture<'_, ()> {
        self.shared.begin_closing();
        let mut finished = self.shared.finished.subscribe();
        Box::pin(async move {
            if finished.wait_for(|done| *done).await.is_err() {
                return Err(LogError::Closed);
            }
            match &self.shared.state.lock().failed {
                Some(error) => Err(error.clone()),
                None => Ok(()),
            }
        })
    }
}
