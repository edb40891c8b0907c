//! The one writer of the log: drains everything that waits into one commit,
//! and answers in order.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use quorate_types::{GroupId, ReplicaId, buggify, planted, runtime};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::durable::{Shared, Written};
use super::medium::{Commit, NewEntry};
use super::rewriting::Rewriting;
use super::rows::{GroupRow, OwnerRow};
use super::{Completion, LogEntry, LogError, LogPosition, Vote};

/// What the writer is asked to make durable.
pub(super) enum Change {
    Admit {
        replica: ReplicaId,
    },
    Vote(Vote),
    Append {
        replica: ReplicaId,
        first_ticket: u64,
        entries: Vec<LogEntry>,
    },
    /// Entries that stand on disk already are written once more.
    Rewrite {
        replica: ReplicaId,
        entries: Vec<(u64, LogEntry)>,
    },
    Truncate {
        from: u64,
        removed_upto: u64,
    },
    Purge {
        upto: LogPosition,
    },
    Forget {
        replica: ReplicaId,
    },
}

pub(super) struct Operation {
    pub(super) group: GroupId,
    pub(super) change: Change,
    pub(super) completion: Option<Completion>,
    /// Given back when the last of it goes to disk.
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// What an entry costs on disk besides its payload, at most.
pub(super) const ENTRY_BYTES_MAX: usize = 48;
/// What another change costs: a group's row. One with many tombstones is
/// larger; they are few.
const ROW_BYTES: usize = 256;

/// The bytes that an entry with such a payload takes of a commit.
pub(super) const fn entry_bytes(payload_bytes: usize) -> usize {
    payload_bytes.saturating_add(ENTRY_BYTES_MAX)
}

impl Operation {
    /// A purge loses nothing by waiting for the next commit.
    pub(super) fn is_urgent(&self) -> bool {
        if planted!(VoteNotSynced) && matches!(self.change, Change::Vote(_)) {
            return false;
        }
        !matches!(self.change, Change::Purge { .. })
    }

    /// The bytes that it takes of a commit.
    pub(super) fn bytes(&self) -> usize {
        match &self.change {
            Change::Append { entries, .. } => {
                entries.iter().map(|entry| entry_bytes(entry.payload.len())).sum()
            }
            Change::Rewrite { entries, .. } => {
                entries.iter().map(|(_, entry)| entry_bytes(entry.payload.len())).sum()
            }
            _ => ROW_BYTES,
        }
    }

    /// Cuts entries in two, the first part of at most so many bytes; `None` if
    /// they cannot be cut.
    fn cut(&mut self, bytes_max: usize) -> Option<Self> {
        let change = match &mut self.change {
            Change::Append { replica, first_ticket, entries } => {
                let count = fitting(entries.iter(), bytes_max)?;
                let (first_ticket, entries) =
                    (*first_ticket + count as u64, entries.split_off(count));
                Change::Append { replica: *replica, first_ticket, entries }
            }
            Change::Rewrite { replica, entries } => {
                let count = fitting(entries.iter().map(|(_, entry)| entry), bytes_max)?;
                Change::Rewrite { replica: *replica, entries: entries.split_off(count) }
            }
            _ => return None,
        };
        let (completion, room) = (self.completion.take(), self.room.take());
        Some(Self { group: self.group, change, completion, room })
    }
}

/// How many of some entries fit, at least one; `None` if all do.
fn fitting<'a>(
    entries: impl ExactSizeIterator<Item = &'a LogEntry>,
    bytes_max: usize,
) -> Option<usize> {
    let (all, mut bytes) = (entries.len(), 0_usize);
    let fitting = entries.take_while(|entry| {
        bytes = bytes.saturating_add(entry_bytes(entry.payload.len()));
        bytes <= bytes_max
    });
    let count = fitting.count().max(1);
    (count < all).then_some(count)
}

/// Splits off what does not fit into one commit.
pub(super) fn split_beyond(operations: &mut Vec<Operation>, bytes_max: usize) -> Vec<Operation> {
    let mut bytes = 0_usize;
    let fitting = operations.iter().take_while(|operation| {
        bytes = bytes.saturating_add(operation.bytes());
        bytes <= bytes_max
    });
    let count = fitting.count();
    let mut rest = operations.split_off(count.max(1).min(operations.len()));
    if count == 0
        && let Some(cut) = operations.first_mut().and_then(|first| first.cut(bytes_max))
    {
        rest.insert(0, cut);
    }
    rest
}

/// The entries of a commit.
#[derive(Default)]
struct Pending {
    /// In the order in which they came.
    entries: Vec<NewEntry>,
    /// What later operations of the same batch removed again: of a group, among
    /// so many that came before.
    removed: BTreeMap<GroupId, Vec<(usize, RangeInclusive<u64>)>>,
}

impl Pending {
    /// Adds entries with their tickets.
    fn add(
        &mut self,
        group: GroupId,
        replica: ReplicaId,
        entries: impl IntoIterator<Item = (u64, LogEntry)>,
        is_rewritten: bool,
    ) {
        let entries = entries.into_iter().map(|(ticket, LogEntry { position, payload })| {
            NewEntry { group, replica, position, ticket, payload, is_rewritten }
        });
        self.entries.extend(entries);
    }

    fn remove(&mut self, group: GroupId, indexes: RangeInclusive<u64>) {
        if !self.entries.is_empty() {
            self.removed.entry(group).or_default().push((self.entries.len(), indexes));
        }
    }

    /// By place, so that a group's entries lie together; of two at one place,
    /// the one that came later.
    fn into_sorted(self) -> Vec<NewEntry> {
        let Self { mut entries, removed } = self;
        if !removed.is_empty() {
            let mut before = 0_usize;
            entries.retain(|it| {
                before += 1;
                let is_removed = |(upto, indexes): &(usize, RangeInclusive<u64>)| {
                    before <= *upto && indexes.contains(&it.position.index)
                };
                !removed.get(&it.group).is_some_and(|all| all.iter().any(is_removed))
            });
        }
        if !entries.is_sorted_by(|one, next| place(one) < place(next)) {
            entries.reverse();
            // Keys are sorted, and each entry is moved once.
            entries.sort_by_cached_key(place);
            entries.dedup_by_key(|it| place(it));
        }
        entries
    }
}

const fn place(entry: &NewEntry) -> (GroupId, u64) {
    (entry.group, entry.position.index)
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    /// The group rows as they are on disk after the last commit.
    rows: BTreeMap<GroupId, GroupRow>,
    rewriting: Rewriting,
}

/// Who is to hear of the commit under way.
struct Answers<'a> {
    shared: &'a Shared,
    completions: VecDeque<Completion>,
}

impl Answers<'_> {
    fn give(&mut self, result: &Result<(), LogError>) {
        while let Some(completion) = self.completions.pop_front() {
            completion(result.clone());
        }
    }
}

impl Drop for Answers<'_> {
    /// A writer that panics, over a disk or a completion that is not ours, leaves a
    /// log that failed, and nobody waiting.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let panicked = io::Error::other("the log's writer panicked");
            let error = self.shared.fail(LogError::disk(&"log".into(), panicked));
            self.give(&Err(error));
            self.shared.finish();
        }
    }
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, rows: BTreeMap<GroupId, GroupRow>) -> Self {
        Self { shared, rows, rewriting: Rewriting::default() }
    }

    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut operations = Vec::new();
        let mut answers = Answers { shared: &shared, completions: VecDeque::new() };
        while let Some(dead) = shared.next_batch(&mut operations).await {
            if planted!(AcknowledgedBeforeSync) {
                acknowledge_appends(&mut operations);
            }
            let commit = self.prepare(&mut operations, &mut answers.completions, dead);
            runtime::sync_delay().await;
            if buggify!("raft log sync is slow") {
                runtime::sync_delay().await;
            }
            let (share, began) = (Written::of(&commit.entries), Instant::now());
            let result = shared.medium.commit(&commit);
            let result = shared.committed(share, began.elapsed(), result);
            answers.give(&result.as_ref().map(|_| ()).map_err(LogError::clone));
            let Ok(laid) = result else { break };
            if buggify!("raft log notes places late") {
                runtime::sync_delay().await;
            }
            // Whoever waited for the disk goes on meanwhile.
            shared.place(&laid);
            if self.rewriting.step(&shared, laid.has_filled_shelf).is_err() {
                break;
            }
        }
        shared.finish();
    }

    /// Turns operations into what is stored, in the order in which they came.
    fn prepare(
        &mut self,
        operations: &mut Vec<Operation>,
        completions: &mut VecDeque<Completion>,
        dead: Vec<u64>,
    ) -> Commit<'_> {
        let sequence = self.shared.medium.next_sequence();
        let mut pending = Pending::default();
        pending.entries.reserve(operations.len());
        let mut changed = BTreeSet::new();
        let mut given_back: Option<OwnedSemaphorePermit> = None;
        for Operation { group, change, completion, room } in operations.drain(..) {
            completions.extend(completion);
            if let Some(room) = room {
                match &mut given_back {
                    Some(all) => all.merge(room),
                    None => given_back = Some(room),
                }
            }
            if self.note(sequence, group, change, &mut pending) {
                changed.insert(group);
            }
        }
        let entries = pending.into_sorted();
        Commit { groups: &self.rows, changed, entries, dead }
    }

    fn row(&mut self, group: GroupId) -> &mut GroupRow {
        self.rows.entry(group).or_default()
    }

    /// Applies one change to the group's row and to the entries of this batch;
    /// says whether the row changed.
    fn note(
        &mut self,
        sequence: u64,
        group: GroupId,
        change: Change,
        pending: &mut Pending,
    ) -> bool {
        match change {
            Change::Admit { replica } => {
                self.row(group).owner = Some(OwnerRow::new(replica));
                true
            }
            Change::Vote(vote) => {
                if let Some(owner) = &mut self.row(group).owner {
                    owner.vote = Some(vote);
                }
                true
            }
            Change::Append { replica, first_ticket, entries } => {
                pending.add(group, replica, (first_ticket..).zip(entries), false);
                false
            }
            Change::Rewrite { replica, entries } => {
                pending.add(group, replica, entries, true);
                false
            }
            Change::Truncate { from, removed_upto } => {
                pending.remove(group, from..=u64::MAX);
                if let Some(owner) = &mut self.row(group).owner {
                    owner.truncate(sequence, from, removed_upto);
                }
                true
            }
            Change::Purge { upto } => {
                pending.remove(group, 0..=upto.index);
                if let Some(owner) = &mut self.row(group).owner {
                    owner.purge(upto);
                }
                true
            }
            Change::Forget { replica } => {
                let row = self.row(group);
                if row.owner.take_if(|owner| owner.replica == replica).is_some() {
                    pending.remove(group, 0..=u64::MAX);
                }
                if !row.tombstones.contains(&replica) {
                    row.tombstones.push(replica);
                }
                true
            }
        }
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
