//! Novelty: what one replica has seen and another has not.

use std::collections::VecDeque;
use std::collections::btree_map::Range;
use std::iter::Peekable;

use bytes::Bytes;
use quorate_types::{Blob, Hlc, Seq, planted, sometimes};
use zerompk::{FromMessagePack, ToMessagePack};

use super::entry::{Entry, Keyspace};
use super::store::DeltaMap;
use crate::wire::{self, HEADER_BYTES, Kind};
use crate::{CrdtError, Dot, Limits, Origin, Stamp, VersionVector};

/// One surviving write.
#[derive(Clone, Debug, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub struct Change {
    /// Its number within the run's origin.
    pub sequence: u64,
    /// Its age.
    pub stamp: Stamp,
    /// Where.
    pub key: Blob,
    /// What; `None` removes.
    pub value: Option<Blob>,
}

/// All surviving writes `from < sequence <= to` of one origin. Numbers in
/// between that are missing were overwritten.
#[derive(Clone, Debug, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub struct Run {
    /// The writer.
    pub origin: Origin,
    /// The last write that the receiver is taken to have seen.
    pub from: u64,
    /// The last write that the receiver will have seen.
    pub to: u64,
    /// In ascending sequence.
    pub changes: Seq<Change>,
}

/// What a peer lacks, or a part of it. A part is gap-free for every origin, so
/// that the peer's vector stays true at every moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub struct Delta {
    /// One per origin, in ascending order of origins.
    pub runs: Seq<Run>,
    /// Whether the budget left something out.
    pub more: bool,
}

/// What a merge did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MergeOutcome {
    /// The keys whose entry changed, in no particular order.
    pub changed: Vec<Blob>,
    /// How many changes were known already or older than ours.
    pub stale: usize,
    /// Origins of which an earlier part is missing here. Ask again with the
    /// own vector.
    pub gaps: Vec<Origin>,
    /// Whether the sender has more: ask the same peer again.
    pub more: bool,
    /// The latest timestamp that was mentioned, for the local clock to observe.
    pub latest: Hlc,
}

/// The most bytes of a run without its changes.
const RUN_BYTES_MAX: usize = 48;

/// The most bytes of a change without its key and value.
pub(super) const CHANGE_BYTES_MAX: usize = 56;

/// The most bytes of a delta without its runs.
const DELTA_BYTES_MAX: usize = HEADER_BYTES + 8;

impl DeltaMap {
    /// The least budget with which [`Self::delta`] always makes progress.
    #[must_use]
    pub const fn delta_bytes_needed(limits: &Limits) -> usize {
        let entry_bytes = limits.key_bytes_max.saturating_add(limits.value_bytes_max);
        entry_bytes.saturating_add(DELTA_BYTES_MAX + RUN_BYTES_MAX + CHANGE_BYTES_MAX)
    }

    /// What a peer that has seen `since` lacks, in at most `bytes_max` encoded
    /// bytes; `None` when it lacks nothing.
    ///
    /// Origins take turns, and the first turn goes to another origin as the
    /// peer progresses, so a busy writer does not starve the rest.
    ///
    /// # Errors
    /// [`CrdtError::BudgetTooSmall`], or [`CrdtError::BehindCut`] when the
    /// peer has missed a removal that no delta can tell it any more.
    pub fn delta(
        &self,
        since: &VersionVector,
        bytes_max: usize,
    ) -> Result<Option<Delta>, CrdtError> {
        let needed = Self::delta_bytes_needed(&self.limits);
        if bytes_max < needed {
            return Err(CrdtError::BudgetTooSmall { budget: bytes_max, needed });
        }
        if !since.dominates(&self.cut) {
            return Err(CrdtError::BehindCut);
        }
        let mut waiting: VecDeque<Draft<'_>> = self.drafts(since).collect();
        let progress = since.iter().fold(0, |sum: u64, (_, sequence)| sum.wrapping_add(sequence));
        let turn = progress.checked_rem(waiting.len() as u64).unwrap_or(0);
        waiting.rotate_left(usize::try_from(turn).unwrap_or(0));
        let delta = fill(waiting, bytes_max.saturating_sub(DELTA_BYTES_MAX));
        Ok((!delta.runs.is_empty()).then_some(delta))
    }

    fn drafts<'a>(&'a self, since: &'a VersionVector) -> impl Iterator<Item = Draft<'a>> {
        self.vector.iter().filter_map(move |(origin, end)| {
            let from = since.get(origin);
            (from < end).then(|| Draft {
                map: self,
                run: Run { origin, from, to: from, changes: Seq::new() },
                end,
                left: self
                    .index
                    .get(&origin)
                    .map(|sequences| sequences.range(from.saturating_add(1)..=end).peekable()),
            })
        })
    }

    /// Takes in a delta. Nothing is judged by its timestamp: a merge that
    /// asked a clock would give each replica its own truth.
    ///
    /// # Errors
    /// When the delta is one that no correct peer sends, exceeds a limit, or
    /// claims writes of ours that we did not make. Nothing is changed then.
    pub fn merge(&mut self, delta: &Delta) -> Result<MergeOutcome, CrdtError> {
        self.check(delta)?;
        let mut outcome = MergeOutcome { more: delta.more, ..MergeOutcome::default() };
        for run in &delta.runs {
            if run.from > self.seen(run.origin) {
                outcome.gaps.push(run.origin);
            } else {
                self.merge_run(run, &mut outcome);
            }
        }
        Ok(outcome)
    }

    fn merge_run(&mut self, run: &Run, outcome: &mut MergeOutcome) {
        let seen = self.seen(run.origin);
        for change in &run.changes {
            outcome.latest = outcome.latest.max(change.stamp.hlc);
            if change.sequence <= seen || !self.accept(run.origin, change) {
                outcome.stale += 1;
            } else {
                outcome.changed.push(change.key.clone());
            }
        }
        if run.to > seen {
            self.advance(run.origin, run.to);
        }
    }

    /// Stores a change that was not seen before, if it is news.
    fn accept(&mut self, origin: Origin, change: &Change) -> bool {
        let Change { sequence, stamp, ref key, ref value } = *change;
        let entry = Entry { stamp, value: value.clone(), dot: Dot::new(origin, sequence) };
        self.accept_entry(key, entry)
    }

    /// The one rule of replication, for deltas and resets alike: the greater
    /// entry wins, and where there is none, one at or below the collected
    /// removals is taken for removed.
    pub(super) fn accept_entry(&mut self, key: &Blob, entry: Entry) -> bool {
        if entry.is_tombstone() {
            self.removed.raise(Keyspace::of(key), entry.stamp);
        }
        let news = match self.entries.get(key) {
            Some(current) if planted!(TieKeptLocal) => entry.stamp > current.stamp,
            Some(current) => {
                sometimes!("two writes have one stamp", is_tie(&entry, current));
                entry > *current
            }
            None => !self.collected.reaches(key, entry.stamp),
        };
        if news {
            self.store(key.clone(), entry);
        }
        news
    }

    fn check(&self, delta: &Delta) -> Result<(), CrdtError> {
        let mut before = None;
        let mut new_keys = 0_usize;
        let mut new_origins = 0_usize;
        for run in &delta.runs {
            if before >= Some(run.origin) {
                return Err(CrdtError::Malformed("origins of a delta must ascend"));
            }
            before = Some(run.origin);
            if run.origin == self.origin {
                self.check_own_origin(run.to)?;
            }
            new_origins += usize::from(self.vector.get(run.origin) == 0);
            new_keys += self.check_run(run)?;
        }
        self.limits.check_merged_origins(self.vector.len().saturating_add(new_origins))?;
        self.limits.check_merged_entries(self.entries.len().saturating_add(new_keys))
    }

    /// Returns how many keys of the run are unknown here.
    fn check_run(&self, run: &Run) -> Result<usize, CrdtError> {
        let mut new_keys = 0_usize;
        let mut before = run.from;
        for change in &run.changes {
            if change.sequence <= before || change.sequence > run.to {
                return Err(CrdtError::Malformed("sequences of a run must ascend within it"));
            }
            before = change.sequence;
            self.limits.check_key(&change.key)?;
            self.limits.check_value(change.value.as_ref())?;
            new_keys += usize::from(!self.entries.contains_key(&change.key));
        }
        if run.to <= run.from {
            return Err(CrdtError::Malformed("a run must lead forward"));
        }
        Ok(new_keys)
    }
}

fn is_tie(one: &Entry, other: &Entry) -> bool {
    one.stamp == other.stamp && one.dot != other.dot
}

impl Delta {
    /// The delta as versioned bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        wire::seal(Kind::Delta, self)
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are not a delta.
    pub fn decode(bytes: &[u8]) -> Result<Self, CrdtError> {
        wire::open_as(Kind::Delta, bytes)
    }
}

/// A run in the making.
struct Draft<'a> {
    map: &'a DeltaMap,
    run: Run,
    /// Where the run ends when the budget suffices.
    end: u64,
    left: Option<Peekable<Range<'a, u64, Blob>>>,
}

/// What a turn brought.
enum Turn {
    Added,
    Complete,
    OutOfBudget,
}

impl Draft<'_> {
    /// Adds the next change if it fits.
    fn step(&mut self, bytes_left: &mut usize) -> Turn {
        let next = self.left.as_mut().and_then(Peekable::peek).map(|&(&sequence, key)| {
            let entry = self.map.entries.get(key);
            (sequence, key, entry)
        });
        let opening = if self.run.to == self.run.from { RUN_BYTES_MAX } else { 0 };
        let content = match next {
            Some((_, key, Some(entry))) => change_bytes_max(key, entry),
            _ => 0,
        };
        let Some(left) = bytes_left.checked_sub(opening + content) else {
            return Turn::OutOfBudget;
        };
        *bytes_left = left;
        let Some((sequence, key, entry)) = next else {
            self.run.to = self.end;
            return Turn::Complete;
        };
        if let Some(Entry { stamp, value, .. }) = entry {
            let (key, value) = (key.clone(), value.clone());
            self.run.changes.push(Change { sequence, stamp: *stamp, key, value });
        }
        self.run.to = sequence;
        self.left.as_mut().and_then(Iterator::next);
        Turn::Added
    }
}

pub(super) fn change_bytes_max(key: &Blob, entry: &Entry) -> usize {
    CHANGE_BYTES_MAX + key.len() + entry.value.as_ref().map_or(0, |value| value.len())
}

fn fill(mut waiting: VecDeque<Draft<'_>>, mut bytes_left: usize) -> Delta {
    let mut delta = Delta::default();
    while let Some(mut draft) = waiting.pop_front() {
        match draft.step(&mut bytes_left) {
            Turn::Added => waiting.push_back(draft),
            Turn::Complete => delta.runs.push(draft.run),
            Turn::OutOfBudget => {
                delta.more = true;
                if draft.run.to > draft.run.from {
                    delta.runs.push(draft.run);
                }
            }
        }
    }
    delta.runs.sort_by_key(|run| run.origin);
    delta
}
