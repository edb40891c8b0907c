//! Room for a log that one slow group would not let go of: entries that are
//! still needed of a shelf are written once more, behind the newest, and the
//! shelf is free.
//!
//! An entry that stands twice is one entry: of two at one index of a group the
//! later row's counts. What hides an entry hides both: a purge and a removal do
//! by the index and the replica, and a truncation by the row as well, but the
//! rewriting of an entry that is still needed goes into the queue before the
//! truncation of it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use quorate_types::{GroupId, ReplicaId, buggify, sometimes};

use super::durable::Shared;
use super::medium::{Shelf, Stored};
use super::memory::Memory;
use super::writer::entry_bytes;
use super::{LogEntry, LogError};

/// So many shelves are never too many.
const SHELVES_MIN: usize = 4;
/// A log takes at most so many times the bytes that are needed of it, save the
/// shelves that are never too many.
const BYTES_PER_NEEDED_BYTE: u64 = 2;
/// What is rewritten at a time: little, since it waits for none.
const STEP_BYTES: u64 = 1 << 20;
/// What is read for that at most, save a row that is larger.
const READ_BYTES_MAX: usize = 16 << 20;

/// The entries of one replica with their tickets.
type Rewritten = BTreeMap<(GroupId, ReplicaId), Vec<(u64, LogEntry)>>;

/// The shelf that is being emptied.
pub(super) struct Rewriting {
    /// What is still to be rewritten of it.
    rows: VecDeque<u64>,
    /// The operations that the last step waits for.
    until: u64,
    /// Whether there may be too many shelves.
    is_due: bool,
}

impl Default for Rewriting {
    /// There may be, in a log that was just opened.
    fn default() -> Self {
        Self { rows: VecDeque::new(), until: 0, is_due: true }
    }
}

impl Rewriting {
    /// Rewrites some more, if the log takes too much room.
    pub(super) fn step(&mut self, shared: &Shared, has_filled_shelf: bool) -> Result<(), LogError> {
        self.is_due |= has_filled_shelf;
        let is_early = buggify!("raft log rewrites early");
        if shared.taken() < self.until {
            return Ok(()); // Little of it waits at a time.
        }
        if self.rows.is_empty() && (self.is_due || is_early) {
            let shelves = shared.medium.shelves();
            let found = shared.with_memory(|memory| {
                let emptied = emptied(&shelves, is_early, |rows| memory.needed_bytes(rows))?;
                Some(memory.needed_rows(emptied))
            });
            self.is_due &= found.is_some();
            self.rows = found.unwrap_or_default().into();
        }
        let needed_max = STEP_BYTES.min(shared.medium.commit_bytes_max() as u64 / 2);
        let (mut needed_bytes, mut read_bytes) = (0, 0);
        let mut read = Vec::new();
        while needed_bytes < needed_max
            && read_bytes < READ_BYTES_MAX
            && let Some(row) = self.rows.pop_front()
        {
            // Nobody but the caller can free it now.
            let of_row = shared.with_memory(|memory| memory.needed_bytes(row..row + 1));
            if of_row == 0 {
                continue;
            }
            needed_bytes += of_row;
            let entries = shared.medium.row(row).map_err(|error| shared.fail(error))?;
            let sizes = entries.iter().map(|(_, payload)| entry_bytes(payload.len()));
            read_bytes += sizes.sum::<usize>();
            read.extend(entries);
        }
        if !read.is_empty() {
            let entry_bytes_max = shared.medium.commit_bytes_max();
            let rewritten = shared.rewrite(|memory| needed(memory, entry_bytes_max, read));
            sometimes!("a segment of the log is rewritten", rewritten.is_some());
            self.until = rewritten.unwrap_or(self.until);
            // What could not be rewritten would be chosen again and again.
            self.is_due &= rewritten.is_some();
        }
        Ok(())
    }
}

/// The shelf of which the smallest share is needed, if there are too many or all
/// the same. One of which nothing is needed is free with the next commit.
fn emptied(
    shelves: &[Shelf],
    is_early: bool,
    needed_bytes: impl Fn(Range<u64>) -> u64,
) -> Option<Range<u64>> {
    let held = shelves.iter().map(|shelf| (shelf, needed_bytes(shelf.rows.clone())));
    let held: Vec<(&Shelf, u64)> = held.filter(|(_, needed)| *needed > 0).collect();
    let all: u64 = held.iter().map(|(shelf, _)| shelf.bytes).sum();
    let allowed = held.iter().map(|(_, needed)| needed * BYTES_PER_NEEDED_BYTE).sum();
    let is_crowded = held.len() > SHELVES_MIN && all > allowed;
    if !is_crowded && !is_early {
        return None;
    }
    // Of the emptiest, as of all together, at most half is needed. Shelves are of
    // several sizes while a log grows.
    let share = |needed: u64, of: &Shelf| u128::from(needed) * u128::from(of.bytes);
    let emptiest = held.iter().min_by(|(one, of_one), (other, of_other)| {
        share(*of_one, other).cmp(&share(*of_other, one))
    })?;
    Some(emptiest.0.rows.clone())
}

/// The entries that are still needed, save those that no commit takes: files
/// may have been larger once.
fn needed(memory: &Memory, entry_bytes_max: usize, read: Vec<Stored>) -> Rewritten {
    let mut rewritten = Rewritten::new();
    for (found, payload) in read {
        if entry_bytes(payload.len()) <= entry_bytes_max
            && let Some(ticket) = memory.needed(&found)
        {
            let entry = LogEntry { position: found.position, payload };
            rewritten.entry((found.group, found.replica)).or_default().push((ticket, entry));
        }
    }
    rewritten
}
