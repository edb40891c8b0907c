//! The one writer of the log: drains everything that waits into one
//! transaction, syncs once, and answers in order.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ::redb::{Database, Durability, TableDefinition};
use bytes::Bytes;
use quorate_types::contain::contain;
use quorate_types::{GroupId, ReplicaId, buggify, planted, runtime};

use super::memory::Placed;
use super::redb::Shared;
use super::rows::{BatchBuilder, GroupRow, Location, OwnerRow};
use super::{Completion, LogEntry, LogError, LogPosition, Vote};

pub(super) const BATCHES: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("batches");
pub(super) const GROUPS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("groups");
/// The mark of the directory that the log belongs to.
pub(super) const OWNER: TableDefinition<'static, (), &[u8]> = TableDefinition::new("owner");

/// A batch row is closed at this size and another begun. A read has to verify
/// a whole row, so rows stay small; far fewer, larger rows would not make the
/// commit cheaper.
const BATCH_ROW_BYTES: usize = 512 << 10;

/// What the writer is asked to make durable.
pub(super) enum Change {
    Admit { replica: ReplicaId },
    Vote(Vote),
    Append { replica: ReplicaId, first_ticket: u64, entries: Vec<LogEntry> },
    Truncate { from: u64, removed_upto: u64 },
    Purge { upto: LogPosition },
    Forget { replica: ReplicaId },
}

pub(super) struct Operation {
    pub(super) group: GroupId,
    pub(super) change: Change,
    pub(super) completion: Option<Completion>,
}

impl Operation {
    pub(super) fn payload_bytes(&self) -> usize {
        match &self.change {
            Change::Append { entries, .. } => entries.iter().map(|e| e.payload.len()).sum(),
            _ => 0,
        }
    }

    /// A purge loses nothing by waiting for the next commit.
    pub(super) fn is_urgent(&self) -> bool {
        if planted!(VoteNotSynced) && matches!(self.change, Change::Vote(_)) {
            return false;
        }
        !matches!(self.change, Change::Purge { .. })
    }
}

/// Everything that goes into one transaction.
#[derive(Default)]
struct Commit {
    batch_rows: Vec<(u64, Bytes)>,
    group_rows: BTreeMap<GroupId, Bytes>,
    dead_rows: Vec<u64>,
    placed: Vec<Placed>,
    payload_bytes: u64,
}

/// The entries of a batch by place, so that a run's entries lie together.
type Pending = BTreeMap<(GroupId, u64), PendingEntry>;

struct PendingEntry {
    replica: ReplicaId,
    term: u64,
    ticket: u64,
    payload: Bytes,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    /// The group rows as they are on disk after the last commit.
    rows: BTreeMap<GroupId, GroupRow>,
    next_sequence: u64,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        rows: BTreeMap<GroupId, GroupRow>,
        next_sequence: u64,
    ) -> Self {
        Self { shared, rows, next_sequence }
    }

    pub(super) async fn run(mut self) {
        while let Some((mut operations, dead_rows)) = self.shared.next_batch().await {
            if planted!(AcknowledgedBeforeSync) {
                acknowledge_appends(&mut operations);
            }
            let (commit, completions) = self.prepare(operations, dead_rows);
            runtime::sync_delay().await;
            if buggify!("raft log sync is slow") {
                runtime::sync_delay().await;
            }
            let result = self.shared.with_database(|database| write(database, &commit));
            self.shared.committed(&commit.placed, commit.payload_bytes, &commit.rows(), &result);
            for completion in completions {
                completion(result.clone());
            }
            if result.is_err() {
                break;
            }
        }
        self.shared.finish();
    }

    /// Turns operations into rows, in the order in which they came.
    fn prepare(
        &mut self,
        operations: Vec<Operation>,
        dead_rows: Vec<u64>,
    ) -> (Commit, Vec<Completion>) {
        let mut commit = Commit { dead_rows, ..Commit::default() };
        let mut completions = Vec::with_capacity(operations.len());
        let mut pending = Pending::new();
        let mut changed = Vec::new();
        for operation in operations {
            completions.extend(operation.completion);
            if self.note(operation.group, operation.change, &mut pending) {
                changed.push(operation.group);
            }
        }
        for group in changed {
            if let Some(row) = self.rows.get(&group) {
                commit.group_rows.entry(group).or_insert_with(|| row.seal(group));
            }
        }
        self.lay_out(pending, &mut commit);
        (commit, completions)
    }

    /// Applies one change to the group's row and to the entries of this batch;
    /// says whether the row changed.
    fn note(&mut self, group: GroupId, change: Change, pending: &mut Pending) -> bool {
        let sequence = self.next_sequence;
        let row = self.rows.entry(group).or_default();
        match change {
            Change::Admit { replica } => {
                row.owner = Some(OwnerRow::new(replica));
                true
            }
            Change::Vote(vote) => {
                if let Some(owner) = &mut row.owner {
                    owner.vote = Some(vote);
                }
                true
            }
            Change::Append { replica, first_ticket, entries } => {
                for (ticket, entry) in (first_ticket..).zip(entries) {
                    let LogPosition { term, index } = entry.position;
                    let payload = entry.payload;
                    pending.insert((group, index), PendingEntry { replica, term, ticket, payload });
                }
                false
            }
            Change::Truncate { from, removed_upto } => {
                discard(pending, group, from..=u64::MAX);
                if let Some(owner) = &mut row.owner {
                    owner.truncate(sequence, from, removed_upto);
                }
                true
            }
            Change::Purge { upto } => {
                discard(pending, group, 0..=upto.index);
                if let Some(owner) = &mut row.owner {
                    owner.purge(upto);
                }
                true
            }
            Change::Forget { replica } => {
                discard(pending, group, 0..=u64::MAX);
                row.owner.take_if(|owner| owner.replica == replica);
                if !row.tombstones.contains(&replica) {
                    row.tombstones.push(replica);
                }
                true
            }
        }
    }

    fn lay_out(&mut self, pending: Pending, commit: &mut Commit) {
        let mut builder = BatchBuilder::default();
        for ((group, index), entry) in pending {
            if builder.len() >= BATCH_ROW_BYTES {
                self.close_row(std::mem::take(&mut builder), commit);
            }
            let position = LogPosition { term: entry.term, index };
            let (offset, len) = builder.push(group, entry.replica, position, &entry.payload);
            let location = Location { sequence: self.next_sequence, offset, len };
            commit.placed.push(Placed { group, index, ticket: entry.ticket, location });
            commit.payload_bytes += u64::from(len);
        }
        if builder.len() > 0 {
            self.close_row(builder, commit);
        }
    }

    fn close_row(&mut self, builder: BatchBuilder, commit: &mut Commit) {
        commit.batch_rows.push((self.next_sequence, builder.seal(self.next_sequence)));
        self.next_sequence += 1;
    }
}

/// Tells callers that their entries are durable, which they are not yet.
fn acknowledge_appends(operations: &mut [Operation]) {
    let is_append = |operation: &&mut Operation| matches!(operation.change, Change::Append { .. });
    for operation in operations.iter_mut().filter(is_append) {
        if let Some(completion) = operation.completion.take() {
            completion(Ok(()));
        }
    }
}

/// Drops entries that an operation of the same batch removes again.
fn discard(pending: &mut Pending, group: GroupId, indexes: RangeInclusive<u64>) {
    let range = (group, *indexes.start())..=(group, *indexes.end());
    let gone: Vec<_> = pending.range(range).map(|(&place, _)| place).collect();
    for place in gone {
        pending.remove(&place);
    }
}

impl Commit {
    fn rows(&self) -> Vec<u64> {
        self.batch_rows.iter().map(|&(sequence, _)| sequence).collect()
    }
}

/// One transaction, one sync.
fn write(database: &Database, commit: &Commit) -> Result<(), ::redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut batches = transaction.open_table(BATCHES)?;
        for (sequence, row) in &commit.batch_rows {
            batches.insert(sequence, row.as_ref())?;
        }
        for sequence in &commit.dead_rows {
            batches.remove(sequence)?;
        }
        let mut groups = transaction.open_table(GROUPS)?;
        for (group, row) in &commit.group_rows {
            groups.insert(group.0, row.as_ref())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Runs a use of redb. redb panics on many kinds of damage; the panic becomes
/// an error here and never reaches the node (law 8).
pub(super) fn contained<T>(
    file: &Arc<str>,
    work: impl FnOnce() -> Result<T, ::redb::Error>,
) -> Result<T, LogError> {
    match contain(work) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(::redb::Error::Io(error))) => Err(LogError::disk(file, error)),
        Ok(Err(error)) => Err(LogError::disk(file, std::io::Error::other(error))),
        Err(panicked) => Err(LogError::disk(file, std::io::Error::other(panicked))),
    }
}
