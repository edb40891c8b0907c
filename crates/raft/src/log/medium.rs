//! What a log is kept on: one writer hands it commits, readers fetch payloads.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use quorate_types::{GroupId, ReplicaId};

use super::memory::{Found, Memory, Placed};
use super::rows::{GroupRow, Location};
use super::{LogError, LogPosition};

/// Where commits go.
///
/// # Contract
/// * A commit is on disk as a whole when [`commit`](Self::commit) returns `Ok`.
///   A crash before that leaves all of it or nothing.
/// * A sequence stands for one row of entries and is never used twice. Rows of
///   later commits have higher ones.
pub(super) trait Medium: fmt::Debug + Send + Sync + 'static {
    /// The most bytes that one commit may take, by the count of
    /// [`entry_bytes`](super::writer::entry_bytes).
    fn commit_bytes_max(&self) -> usize;

    /// The most bytes that the rows of all groups may need.
    fn rows_bytes_max(&self) -> u64 {
        u64::MAX
    }

    /// No row of the next commit has a lower sequence, and every row so far has.
    fn next_sequence(&self) -> u64;

    /// Makes a commit durable. After an error nothing more may be asked.
    fn commit(&self, commit: &Commit<'_>) -> Result<Laid, LogError>;

    /// The payloads at some places; `None` when one of them is gone, which is in
    /// order if its row was dead by now.
    fn fetch(&self, wanted: &[(Whose, Location)]) -> Result<Option<Vec<Bytes>>, LogError>;

    /// The parts of the disk that could be used again if the entries that are
    /// needed of them stood elsewhere. None where each row is freed by itself.
    fn shelves(&self) -> Vec<Shelf> {
        Vec::new()
    }

    /// The entries of a row that is on a shelf. To be called by the one who
    /// commits, while something in it is needed.
    fn row(&self, sequence: u64) -> Result<Vec<Stored>, LogError> {
        let _ = sequence;
        Ok(Vec::new())
    }

    /// Releases the files.
    fn close(&self) -> Result<(), LogError>;
}

/// An entry that was read, with its payload.
pub(super) type Stored = (Found, Bytes);

/// A part of the disk that is used again as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Shelf {
    /// The sequences that its rows may have.
    pub(super) rows: Range<u64>,
    pub(super) bytes: u64,
}

/// What goes to disk together.
pub(super) struct Commit<'a> {
    /// The rows of all groups, as they are with this commit.
    pub(super) groups: &'a BTreeMap<GroupId, GroupRow>,
    /// Those that it changes.
    pub(super) changed: BTreeSet<GroupId>,
    /// In the order of groups and indexes, each once.
    pub(super) entries: Vec<NewEntry>,
    /// Rows that nothing needs once this commit is durable.
    pub(super) dead: Vec<u64>,
}

impl<'a> Commit<'a> {
    /// One that changes nothing.
    pub(super) fn of(groups: &'a BTreeMap<GroupId, GroupRow>) -> Self {
        Self { groups, changed: BTreeSet::new(), entries: Vec::new(), dead: Vec::new() }
    }

    /// The rows that it changes.
    pub(super) fn rows(&self) -> impl Iterator<Item = (GroupId, &GroupRow)> {
        self.changed.iter().filter_map(|group| Some((*group, self.groups.get(group)?)))
    }
}

/// An entry on its way to disk.
pub(super) struct NewEntry {
    pub(super) group: GroupId,
    pub(super) replica: ReplicaId,
    pub(super) position: LogPosition,
    pub(super) ticket: u64,
    pub(super) payload: Bytes,
    /// Whether it stands on disk already, where it is not to stay.
    pub(super) is_rewritten: bool,
}

impl NewEntry {
    pub(super) fn placed(&self, location: Location) -> Placed {
        Placed { group: self.group, index: self.position.index, ticket: self.ticket, location }
    }
}

/// Which entry a payload belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Whose {
    pub(super) group: GroupId,
    pub(super) position: LogPosition,
}

/// Where the entries of a commit lie.
#[derive(Default)]
pub(super) struct Laid {
    pub(super) placed: Vec<Placed>,
    /// The rows that it added.
    pub(super) rows: Vec<u64>,
    /// Whether one shelf more is full.
    pub(super) has_filled_shelf: bool,
}

/// A log as it was found on disk.
pub(super) struct Opened {
    pub(super) memory: Memory,
    pub(super) groups: BTreeMap<GroupId, GroupRow>,
    pub(super) medium: Box<dyn Medium>,
}
