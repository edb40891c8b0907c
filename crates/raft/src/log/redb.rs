use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use ::redb::{Builder, Database, ReadableDatabase, ReadableTable};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use quorate_types::disk::{Disk, restart_creation};
use quorate_types::owner::Owner;
use quorate_types::{GroupId, ReplicaId, buggify, planted, watch};
use tokio::sync::{Notify, oneshot};

use super::memory::{Memory, Piece, Placed};
use super::rows::{GroupRow, Location, SEQUENCES_MAX, open_batch, scan_batch};
use super::storage::FileStorage;
use super::writer::{BATCHES, Change, GROUPS, OWNER, Operation, Writer, contained};
use super::{
    Completion, LogEngine, LogEntry, LogError, LogFuture, LogPosition, LogState, LogStats, Vote,
};

/// Limits of a [`RedbLog`].
#[derive(Clone, Debug)]
pub struct RedbLogConfig {
    /// Operations that may wait for the writer before callers have to wait
    /// for room. Enough for every group of a busy node to have a few.
    pub queued_operations_max: usize,
    /// Payload bytes that may wait likewise. A single larger append passes
    /// when nothing else waits.
    pub queued_bytes_max: usize,
    /// Payload bytes of the newest entries kept in memory for all groups
    /// together, so that replication and apply do not read the disk.
    pub tail_bytes_max: usize,
    /// redb's page cache. The log is written at its end and rarely read, so
    /// little is enough.
    pub cache_bytes: usize,
    /// The directory whose log this must be; `None` to take any file.
    pub owner: Option<Owner>,
}

impl Default for RedbLogConfig {
    fn default() -> Self {
        Self {
            queued_operations_max: 16 << 10,
            queued_bytes_max: 64 << 20,
            tail_bytes_max: 64 << 20,
            cache_bytes: 32 << 20,
            owner: None,
        }
    }
}

/// A [`LogEngine`] in one redb file.
///
/// Entries of all groups that arrive while the disk syncs go into the next
/// commit together, as one row keyed by a global sequence number. Only the end
/// of one B-tree is touched however many groups write, which is what keeps the
/// write amplification of a busy node low.
///
/// Dropping the log lets the writer finish what was accepted, in the
/// background; [`LogEngine::close`] waits for it.
#[derive(Debug)]
pub struct RedbLog {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    file: Arc<str>,
    config: RedbLogConfig,
    state: Mutex<State>,
    /// Wakes the writer.
    work: Notify,
    /// Wakes those who wait for room in the queue.
    room: Notify,
    database: RwLock<Option<Database>>,
    finished: watch::Sender<bool>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("file", &self.file).finish_non_exhaustive()
    }
}

struct State {
    memory: Memory,
    queue: Vec<Operation>,
    queued_bytes: usize,
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

    fn push(&mut self, group: GroupId, change: Change, completion: Option<Completion>) {
        let operation = Operation { group, change, completion };
        self.queued_bytes += operation.payload_bytes();
        self.urgent |= operation.is_urgent();
        self.queue.push(operation);
    }
}

impl State {
    /// Lets operations wait on.
    fn put_back(&mut self, operations: Vec<Operation>) {
        self.queued_bytes = operations.iter().map(Operation::payload_bytes).sum();
        self.urgent = operations.iter().any(Operation::is_urgent);
        self.queue = operations;
    }
}

/// How many purges may wait for company before they are committed alone.
const LAZY_OPERATIONS_MAX: usize = 256;

/// How often a read is planned anew because its rows were purged meanwhile.
/// Each time the log has moved on, so more than two are unheard of.
const READ_ATTEMPTS_MAX: usize = 8;

impl RedbLog {
    /// Opens the log in the file `name`, creating it when missing, verifies
    /// every row, and starts the writer. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`LogError::Disk`] when the file cannot be opened or repaired,
    /// [`LogError::Owner`] when it is not the configured directory's,
    /// [`LogError::Damaged`] when a row is not what was written.
    pub fn open(disk: &dyn Disk, name: &str, config: RedbLogConfig) -> Result<Self, LogError> {
        let file: Arc<str> = name.into();
        let not_ours = |error| LogError::Owner { file: Arc::clone(&file), source: Arc::new(error) };
        let is_there = disk.exists(name).map_err(|error| LogError::disk(&file, error))?;
        if let Some(owner) = config.owner.filter(|_| !is_there) {
            // Before an empty file takes the place of the lost one.
            owner.judge(None).map_err(not_ours)?;
        }
        let handle = disk.open(name).map_err(|error| LogError::disk(&file, error))?;
        restart_creation(name, &*handle).map_err(|error| LogError::disk(&file, error))?;
        let storage = FileStorage(handle);
        let database = contained(&file, || {
            let database =
                Builder::new().set_cache_size(config.cache_bytes).create_with_backend(storage)?;
            let transaction = database.begin_write()?;
            transaction.open_table(BATCHES)?;
            transaction.open_table(GROUPS)?;
            transaction.open_table(OWNER)?;
            transaction.commit()?;
            Ok(database)
        })?;
        if let Some(owner) = config.owner {
            let mark = contained(&file, || {
                let table = database.begin_read()?.open_table(OWNER)?;
                Ok(table.get(())?.map(|mark| mark.value().to_vec()))
            })?;
            if !owner.judge(mark.as_deref()).map_err(not_ours)? {
                contained(&file, || {
                    let transaction = database.begin_write()?;
                    transaction.open_table(OWNER)?.insert((), &*owner.mark())?;
                    Ok(transaction.commit()?)
                })?;
            }
        }
        let Recovered { memory, rows, next_sequence } =
            Recovered::scan(&file, &database, config.tail_bytes_max)?;
        let shared = Arc::new(Shared {
            file: Arc::clone(&file),
            config,
            state: Mutex::new(State {
                memory,
                queue: Vec::new(),
                queued_bytes: 0,
                urgent: false,
                closing: false,
                failed: None,
                stats: LogStats::default(),
            }),
            work: Notify::new(),
            room: Notify::new(),
            database: RwLock::new(Some(database)),
            finished: watch::channel(false).0,
        });
        let writer = Writer::new(Arc::clone(&shared), rows, next_sequence);
        quorate_types::runtime::thread("raft-log", writer.run())
            .map_err(|error| LogError::disk(&file, error))?;
        Ok(Self { shared })
    }
}

#[cfg(test)]
impl RedbLog {
    /// How many batch rows are on disk.
    pub(super) fn stored_rows(&self) -> u64 {
        use ::redb::ReadableTableMetadata;
        let rows = |database: &Database| {
            let table = database.begin_read()?.open_table(BATCHES)?;
            Ok(table.len()?)
        };
        self.shared.with_database(rows).unwrap_or(u64::MAX)
    }
}

impl Drop for RedbLog {
    fn drop(&mut self) {
        self.shared.begin_closing();
    }
}

/// The log as found on disk.
struct Recovered {
    memory: Memory,
    rows: BTreeMap<GroupId, GroupRow>,
    next_sequence: u64,
}

type FoundEntries = BTreeMap<(GroupId, u64), (u64, Location)>;

impl Recovered {
    fn scan(file: &Arc<str>, database: &Database, tail_bytes_max: usize) -> Result<Self, LogError> {
        let rows = Self::group_rows(file, database)?;
        let mut memory = Memory::new(tail_bytes_max);
        for (&group, row) in &rows {
            memory.restore_group(group, row);
        }
        let (entries, sequences) = Self::entries(file, database, &rows)?;
        for (&(group, index), &(term, location)) in &entries {
            if !memory.restore(group, LogPosition { term, index }, location) {
                let what = format!("entries of {group} before index {index} are missing");
                return Err(LogError::damaged(file, location.sequence, what));
            }
        }
        let cuts = rows.values().filter_map(|row| row.owner.as_ref());
        let after_cuts = cuts
            .flat_map(|owner| owner.truncations.iter().map(|cut| cut.before_sequence))
            .max()
            .unwrap_or(0);
        let next_sequence = sequences.last().map_or(0, |last| last + 1).max(after_cuts);
        for sequence in sequences {
            memory.note_row(sequence);
        }
        Ok(Self { memory, rows, next_sequence })
    }

    fn group_rows(
        file: &Arc<str>,
        database: &Database,
    ) -> Result<BTreeMap<GroupId, GroupRow>, LogError> {
        let stored = contained(file, || {
            let mut stored = Vec::new();
            for row in database.begin_read()?.open_table(GROUPS)?.iter()? {
                let (key, value) = row?;
                stored.push((key.value(), Bytes::copy_from_slice(value.value())));
            }
            Ok(stored)
        })?;
        let mut rows = BTreeMap::new();
        for (key, value) in stored {
            let group = GroupId(key);
            let row = GroupRow::open(group, &value)
                .map_err(|error| LogError::codec(file, key, &error))?;
            if !row.is_sound() {
                return Err(LogError::damaged(file, key, "positions that no log has"));
            }
            rows.insert(group, row);
        }
        Ok(rows)
    }

    /// The entries that are still part of some log, and every row's sequence.
    fn entries(
        file: &Arc<str>,
        database: &Database,
        rows: &BTreeMap<GroupId, GroupRow>,
    ) -> Result<(FoundEntries, Vec<u64>), LogError> {
        let mut entries = BTreeMap::new();
        let mut sequences = Vec::new();
        let mut next = 0;
        while let Some((sequence, row)) = contained(file, || first_batch(database, next))? {
            if sequence > SEQUENCES_MAX {
                return Err(LogError::damaged(file, sequence, "a number that no row has"));
            }
            next = sequence + 1;
            sequences.push(sequence);
            let payload = open_batch(sequence, &row)
                .map_err(|error| LogError::codec(file, sequence, &error))?;
            let found = scan_batch(sequence, &payload)
                .ok_or_else(|| LogError::damaged(file, sequence, "broken structure"))?;
            for entry in found {
                let owner = rows.get(&entry.group).and_then(|row| row.owner.as_ref());
                let index = entry.position.index;
                if owner.is_some_and(|owner| owner.holds(entry.replica, sequence, index)) {
                    entries.insert((entry.group, index), (entry.position.term, entry.location));
                }
            }
        }
        Ok((entries, sequences))
    }
}

fn first_batch(database: &Database, from: u64) -> Result<Option<(u64, Bytes)>, ::redb::Error> {
    let table = database.begin_read()?.open_table(BATCHES)?;
    let first = table.range(from..)?.next().transpose()?;
    Ok(first.map(|(key, value)| (key.value(), Bytes::copy_from_slice(value.value()))))
}

fn batch(database: &Database, sequence: u64) -> Result<Option<Bytes>, ::redb::Error> {
    let table = database.begin_read()?.open_table(BATCHES)?;
    Ok(table.get(sequence)?.map(|value| Bytes::copy_from_slice(value.value())))
}

impl Shared {
    fn begin_closing(&self) {
        self.state.lock().closing = true;
        self.work.notify_one();
        self.room.notify_waiters();
    }

    /// Everything that waits, once something urgent does; `None` at the end.
    pub(super) async fn next_batch(&self) -> Option<(Vec<Operation>, Vec<u64>)> {
        loop {
            {
                let mut state = self.state.lock();
                let ripe =
                    state.urgent || state.closing || state.queue.len() >= LAZY_OPERATIONS_MAX;
                if ripe && !state.queue.is_empty() {
                    state.urgent = false;
                    state.queued_bytes = 0;
                    let mut operations = std::mem::take(&mut state.queue);
                    if buggify!("raft log writer takes one operation") {
                        state.put_back(operations.split_off(1));
                    }
                    // Rows that died through what was put back have to wait
                    // for it.
                    let is_all = state.queue.is_empty();
                    let dead_rows = if is_all { state.memory.take_dead() } else { Vec::new() };
                    drop(state);
                    self.room.notify_waiters();
                    return Some((operations, dead_rows));
                }
                if state.closing || state.failed.is_some() {
                    return None;
                }
            }
            self.work.notified().await;
        }
    }

    pub(super) fn with_database<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, ::redb::Error>,
    ) -> Result<T, LogError> {
        let guard = self.database.read();
        let database = guard.as_ref().ok_or(LogError::Closed)?;
        contained(&self.file, || work(database))
    }

    /// Notes the outcome of a commit, before anyone is told of it.
    pub(super) fn committed(
        &self,
        placed: &[Placed],
        payload_bytes: u64,
        rows: &[u64],
        result: &Result<(), LogError>,
    ) {
        let mut state = self.state.lock();
        match result {
            Ok(()) => {
                state.stats.commits += 1;
                state.stats.entries += placed.len() as u64;
                state.stats.payload_bytes += payload_bytes;
                state.memory.place(placed);
                for &sequence in rows {
                    state.memory.note_row(sequence);
                }
            }
            Err(error) => {
                tracing::error!(%error, "the log failed; every group of this node stops");
                state.failed.get_or_insert_with(|| error.clone());
            }
        }
    }

    /// The writer's last act: fails what still waits and releases the file.
    pub(super) fn finish(&self) {
        let (abandoned, error) = {
            let mut state = self.state.lock();
            state.closing = true;
            let error = state.failed.clone().unwrap_or(LogError::Closed);
            (std::mem::take(&mut state.queue), error)
        };
        self.room.notify_waiters();
        for completion in abandoned.into_iter().filter_map(|operation| operation.completion) {
            completion(Err(error.clone()));
        }
        let database = self.database.write().take();
        if let Err(error) = contained(&self.file, move || {
            drop(database);
            Ok(())
        }) {
            tracing::warn!(%error, "closing the log");
        }
        self.finished.send(true);
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
        let mut waiting = Some((start, completion));
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            {
                let mut state = self.state.lock();
                if let Err(error) = state.usable() {
                    if let Some((_, Some(completion))) = waiting {
                        completion(Err(error.clone()));
                    }
                    return Err(error);
                }
                let fits = state.queue.len() < self.config.queued_operations_max
                    && state.queued_bytes.saturating_add(payload_bytes)
                        <= self.config.queued_bytes_max;
                if (fits || state.queue.is_empty())
                    && let Some((start, completion)) = waiting.take()
                {
                    return self.start(&mut state, group, start, completion);
                }
                // What waits may be purges only; let them go.
                state.urgent = true;
            }
            self.work.notify_one();
            room.await;
        }
    }

    fn start<T>(
        &self,
        state: &mut State,
        group: GroupId,
        start: impl FnOnce(&mut Memory) -> Result<(Option<Change>, T), LogError>,
        completion: Option<Completion>,
    ) -> Result<T, LogError> {
        match start(&mut state.memory) {
            Ok((Some(change), value)) => {
                state.push(group, change, completion);
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

    fn fetch(&self, sequence: u64) -> Result<Option<Bytes>, LogError> {
        let row = self.with_database(|database| batch(database, sequence));
        if let Err(error @ LogError::Disk { .. }) = &row {
            self.state.lock().failed.get_or_insert_with(|| error.clone());
            self.work.notify_one();
        }
        let Some(row) = row? else { return Ok(None) };
        open_batch(sequence, &row)
            .map(Some)
            .map_err(|error| LogError::codec(&self.file, sequence, &error))
    }

    /// Fetches what a plan names. `None` when a row is gone, which is in order
    /// if the entries were purged since the plan was made.
    fn execute(&self, plan: Vec<Piece>) -> Result<Option<Vec<LogEntry>>, LogError> {
        let mut entries = Vec::with_capacity(plan.len());
        let mut opened: Option<(u64, Bytes)> = None;
        for piece in plan {
            let (position, location) = match piece {
                Piece::Cached(entry) => {
                    entries.push(entry);
                    continue;
                }
                Piece::Stored(position, location) => (position, location),
            };
            let row = match opened.take() {
                Some((sequence, row)) if sequence == location.sequence => row,
                _ => match self.fetch(location.sequence)? {
                    Some(row) => row,
                    None => return Ok(None),
                },
            };
            let start = location.offset as usize;
            let end = start + location.len as usize;
            if end > row.len() {
                return Err(LogError::damaged(&self.file, location.sequence, "row is too short"));
            }
            entries.push(LogEntry { position, payload: row.slice(start..end) });
            opened = Some((location.sequence, row));
        }
        Ok(Some(entries))
    }
}

impl LogEngine for RedbLog {
    fn admit(&self, group: GroupId, replica: ReplicaId) -> LogFuture<'_, LogState> {
        Box::pin(self.shared.submit_durably(group, move |memory| {
            let is_new = memory.admit(group, replica)?;
            let state = memory.owner(group)?.state();
            Ok((is_new.then_some(Change::Admit { replica }), state))
        }))
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
        let start = move |memory: &mut Memory| {
            let (replica, first_ticket) = memory.append(group, &entries)?;
            Ok((Some(Change::Append { replica, first_ticket, entries }), ()))
        };
        Box::pin(self.shared.submit(group, payload_bytes, start, Some(completion)))
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
        let mut missing = 0;
        for _ in 0..READ_ATTEMPTS_MAX {
            let plan = {
                let state = self.shared.state.lock();
                if let Some(error) = &state.failed {
                    return Err(error.clone());
                }
                state.memory.plan(group, range.clone(), payload_bytes_max)?
            };
            if let Some(Piece::Stored(_, location)) =
                plan.iter().find(|piece| matches!(piece, Piece::Stored(..)))
            {
                missing = location.sequence;
            }
            if let Some(entries) = self.shared.execute(plan)? {
                return Ok(entries);
            }
        }
        Err(LogError::damaged(&self.shared.file, missing, "the row is missing"))
    }

    fn term_at(&self, group: GroupId, index: u64) -> Result<Option<u64>, LogError> {
        self.shared.state.lock().memory.term_at(group, index)
    }

    fn forget(&self, group: GroupId, replica: ReplicaId) -> LogFuture<'_, ()> {
        Box::pin(self.shared.submit_durably(group, move |memory| {
            memory.forget(group, replica);
            Ok((Some(Change::Forget { replica }), ()))
        }))
    }

    fn stats(&self) -> LogStats {
        self.shared.state.lock().stats
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
