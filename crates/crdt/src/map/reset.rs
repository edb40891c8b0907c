//! The exchange of whole states, for what deltas cannot repair: a peer that
//! missed removals which are forgotten by now, and replicas whose vectors
//! agree while their entries do not.
//!
//! The state travels in chunks of the key space. A chunk is a join of its own:
//! where both sides have a key, the greater entry wins; where one side has
//! none, it has either never seen the key or has collected its removal, and
//! the floor of its collected removals tells which. Both sides apply the same
//! rule, so it does not matter who resets from whom, and a side that was cut
//! off keeps whatever it wrote after the removals that it missed.
//!
//! Only with the last chunk does any of it take effect, and the receiver's
//! vector take in what the sender had seen *before the first*: its whole causal
//! context at once. What the sender has seen since is left to a delta. Were
//! entries taken over which the vector does not cover, and the reset given up
//! or their writer gone before its delta, no vector would ever cover them:
//! nobody would be sent them by a delta, and no such tombstone be collected.

use std::ops::Bound;

use bytes::Bytes;
use quorate_types::{Blob, Seq, sometimes};
use zerompk::{FromMessagePack, ToMessagePack};

use super::delta::{CHANGE_BYTES_MAX, MergeOutcome, change_bytes_max};
use super::entry::{Entry, Floors};
use super::store::DeltaMap;
use crate::wire::{self, HEADER_BYTES, Kind};
use crate::{CrdtError, Dot, Origin, VersionVector};

/// The causal context that the receiver of a whole reset takes over.
#[derive(Clone, Debug, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub struct ResetBasis {
    pub(super) vector: VersionVector,
    pub(super) cut: VersionVector,
    pub(super) collected: Floors,
}

/// All entries of the sender with `start <= key < next`.
#[derive(Clone, Debug, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub struct ResetChunk {
    /// Whose state it is.
    pub(super) sender: Origin,
    /// Only with the first chunk.
    pub(super) basis: Option<ResetBasis>,
    pub(super) start: Blob,
    /// Where the next chunk starts; `None` after the last.
    pub(super) next: Option<Blob>,
    pub(super) collected: Floors,
    /// In ascending order of keys.
    pub(super) entries: Seq<ResetEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub(super) struct ResetEntry {
    key: Blob,
    entry: Entry,
}

/// How far a reset has come.
#[derive(Clone, Debug, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub struct ResetCursor {
    /// Whose state is being taken over.
    pub sender: Origin,
    /// The key at which the next chunk starts.
    pub next: Blob,
}

/// A reset under way at its receiver.
#[derive(Clone, Debug)]
pub(super) struct Resync {
    pub(super) cursor: ResetCursor,
    basis: ResetBasis,
    /// What came so far, and how many of its keys were new when it came.
    chunks: Vec<ResetChunk>,
    new_keys: usize,
    /// Whether a chunk came since the last collection round.
    pub(super) moved: bool,
}

/// The most bytes of an [`Origin`] or of the slot of a vector.
const SLOT_BYTES_MAX: usize = 29;

/// The most bytes of one floor.
const FLOOR_BYTES_MAX: usize = 38;

/// The most bytes of markers and lengths around the parts of a chunk.
const CHUNK_BYTES_MAX: usize = HEADER_BYTES + 48;

impl DeltaMap {
    /// The least budget with which [`Self::reset_chunk`] always makes progress.
    /// Grows with the origins that the vector holds.
    #[must_use]
    pub fn reset_bytes_needed(&self) -> usize {
        let entry_bytes = self.limits.key_bytes_max.saturating_add(self.limits.value_bytes_max);
        self.chunk_bytes_max(&Blob::new())
            .saturating_add(entry_bytes)
            .saturating_add(CHANGE_BYTES_MAX + SLOT_BYTES_MAX)
    }

    /// The part of the state that starts at `start`; an empty key starts at
    /// the beginning.
    ///
    /// # Errors
    /// [`CrdtError::BudgetTooSmall`].
    pub fn reset_chunk(&self, start: &Blob, bytes_max: usize) -> Result<ResetChunk, CrdtError> {
        let needed = self.reset_bytes_needed();
        if bytes_max < needed {
            return Err(CrdtError::BudgetTooSmall { budget: bytes_max, needed });
        }
        let mut chunk = ResetChunk {
            sender: self.origin,
            basis: start.is_empty().then(|| self.basis()),
            start: start.clone(),
            next: None,
            collected: self.collected.clone(),
            entries: Seq::new(),
        };
        let mut left = bytes_max.saturating_sub(self.chunk_bytes_max(start));
        for (key, entry) in self.entries.range((Bound::Included(start.clone()), Bound::Unbounded)) {
            match left.checked_sub(change_bytes_max(key, entry) + SLOT_BYTES_MAX) {
                Some(rest) => left = rest,
                None => {
                    chunk.next = Some(key.clone());
                    break;
                }
            }
            chunk.entries.push(ResetEntry { key: key.clone(), entry: entry.clone() });
        }
        Ok(chunk)
    }

    fn basis(&self) -> ResetBasis {
        ResetBasis {
            vector: self.vector.clone(),
            cut: self.cut.clone(),
            collected: self.collected.clone(),
        }
    }

    /// The most bytes of a chunk without its entries.
    fn chunk_bytes_max(&self, start: &Blob) -> usize {
        let slots = 1 + if start.is_empty() { self.vector.len() + self.cut.len() } else { 0 };
        let keys_bytes = start.len().saturating_add(self.limits.key_bytes_max);
        CHUNK_BYTES_MAX
            .saturating_add(keys_bytes)
            .saturating_add(slots.saturating_mul(SLOT_BYTES_MAX))
            .saturating_add(self.collected.len().saturating_mul(2 * FLOOR_BYTES_MAX))
    }

    /// Takes in a chunk of another replica's state. Chunks of a reset that was
    /// started anew, or of two resets at once, do no harm: only an unbroken
    /// sequence from one sender has an effect, and that is a join.
    ///
    /// # Errors
    /// As for [`DeltaMap::merge`].
    pub fn merge_reset(&mut self, chunk: &ResetChunk) -> Result<MergeOutcome, CrdtError> {
        let new_keys = self.check_chunk(chunk)?;
        let mut outcome = MergeOutcome::default();
        if let Some((basis, chunks)) = self.follow(chunk, new_keys) {
            sometimes!("a reset is completed");
            for chunk in &chunks {
                self.take_over(chunk, &basis, &mut outcome);
            }
            self.complete(&basis);
        }
        outcome.more = self.resync.is_some();
        Ok(outcome)
    }

    fn take_over(&mut self, chunk: &ResetChunk, basis: &ResetBasis, outcome: &mut MergeOutcome) {
        self.drop_removed(chunk, outcome);
        for ResetEntry { key, entry } in &chunk.entries {
            outcome.latest = outcome.latest.max(entry.stamp.hlc);
            let Dot { origin, sequence } = entry.dot;
            let is_covered = sequence <= basis.vector.get(origin).max(self.seen(origin));
            if is_covered && self.accept_entry(key, entry.clone()) {
                outcome.changed.push(key.clone());
            } else {
                outcome.stale += 1;
            }
        }
        for stamp in chunk.collected.stamps() {
            outcome.latest = outcome.latest.max(stamp.hlc);
        }
    }

    /// Drops the keys that the sender has seen removed: those which it does
    /// not hold although they lie at or below its collected removals.
    fn drop_removed(&mut self, chunk: &ResetChunk, outcome: &mut MergeOutcome) {
        let end = chunk.next.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let mut theirs = chunk.entries.iter().map(|theirs| &theirs.key).peekable();
        let mut removed = Vec::new();
        for (key, entry) in self.entries.range((Bound::Included(chunk.start.clone()), end)) {
            while theirs.next_if(|their_key| *their_key < key).is_some() {}
            let held = theirs.peek() == Some(&key);
            if !held && chunk.collected.reaches(key, entry.stamp) {
                removed.push(key.clone());
            }
        }
        for key in &removed {
            self.forget(key);
        }
        outcome.changed.append(&mut removed);
    }

    /// Keeps track of the reset; hands all of it out with its last chunk.
    fn follow(
        &mut self,
        chunk: &ResetChunk,
        new_keys: usize,
    ) -> Option<(ResetBasis, Vec<ResetChunk>)> {
        let (basis, mut chunks) = match (&chunk.basis, self.resync.take()) {
            (Some(basis), _) => (basis.clone(), Vec::new()),
            (None, Some(resync)) if resync.cursor.continues_with(chunk) => {
                (resync.basis, resync.chunks)
            }
            (None, other) => {
                self.resync = other;
                return None;
            }
        };
        chunks.push(chunk.clone());
        let Some(next) = chunk.next.clone() else { return Some((basis, chunks)) };
        let cursor = ResetCursor { sender: chunk.sender, next };
        self.resync = Some(Resync { cursor, basis, chunks, new_keys, moved: true });
        None
    }

    fn complete(&mut self, basis: &ResetBasis) {
        for (origin, sequence) in basis.vector.iter() {
            if sequence > self.seen(origin) {
                self.advance(origin, sequence);
            }
        }
        for (origin, sequence) in basis.cut.iter() {
            // An origin that has left the vector here would stay in the cut:
            // whoever let go of it as well would be behind for good.
            if self.vector.get(origin) > 0 {
                self.cut.advance(origin, sequence);
            }
        }
        self.collected.merge(&basis.collected);
        self.removed.merge(&basis.collected);
    }

    /// Returns how many keys of the reset so far are new.
    fn check_chunk(&self, chunk: &ResetChunk) -> Result<usize, CrdtError> {
        if chunk.sender == self.origin {
            return Err(CrdtError::Malformed("a reset from ourselves"));
        }
        if chunk.basis.is_some() != chunk.start.is_empty() {
            return Err(CrdtError::Malformed("the first chunk has the basis, and no other"));
        }
        if chunk.next.as_ref().is_some_and(|next| *next <= chunk.start) {
            return Err(CrdtError::Malformed("a chunk must lead forward"));
        }
        if let Some(basis) = &chunk.basis {
            self.check_own_origin(basis.vector.get(self.origin))?;
        }
        if let Some(basis) = self.basis_after(chunk) {
            self.check_basis(basis)?;
        }
        self.check_chunk_entries(chunk)
    }

    /// The reset under way, if it goes on with this chunk.
    fn resync_before(&self, chunk: &ResetChunk) -> Option<&Resync> {
        let is_first = chunk.basis.is_some();
        self.resync.as_ref().filter(|resync| !is_first && resync.cursor.continues_with(chunk))
    }

    /// The basis of the reset that goes on with this chunk.
    fn basis_after<'a>(&'a self, chunk: &'a ResetChunk) -> Option<&'a ResetBasis> {
        chunk.basis.as_ref().or_else(|| self.resync_before(chunk).map(|resync| &resync.basis))
    }

    /// A completed reset leaves the origins of both sides. Checked with every
    /// chunk, because deltas may bring more of them in between.
    fn check_basis(&self, basis: &ResetBasis) -> Result<(), CrdtError> {
        let joined = |ours: &VersionVector, theirs: &VersionVector| {
            let new = theirs.iter().filter(|&(origin, _)| ours.get(origin) == 0).count();
            self.limits.check_merged_origins(ours.len().saturating_add(new))
        };
        joined(&self.vector, &basis.vector)?;
        joined(&self.cut, &basis.cut)
    }

    fn check_chunk_entries(&self, chunk: &ResetChunk) -> Result<usize, CrdtError> {
        let mut new_keys = self.resync_before(chunk).map_or(0, |resync| match chunk.next {
            Some(_) => resync.new_keys,
            // Now it counts, and keys may have come and gone meanwhile.
            None => self.new_keys_of(&resync.chunks),
        });
        let mut before: Option<&Blob> = None;
        for ResetEntry { key, entry } in &chunk.entries {
            let inside = *key >= chunk.start && chunk.next.as_ref().is_none_or(|next| key < next);
            if !inside || before >= Some(key) {
                return Err(CrdtError::Malformed("keys of a chunk must ascend within it"));
            }
            before = Some(key);
            self.limits.check_key(key)?;
            self.limits.check_value(entry.value.as_ref())?;
            if entry.dot.origin == self.origin {
                self.check_own_origin(entry.dot.sequence)?;
            }
            new_keys += usize::from(!self.entries.contains_key(key));
        }
        self.limits.check_merged_entries(self.entries.len().saturating_add(new_keys))?;
        Ok(new_keys)
    }

    fn new_keys_of(&self, chunks: &[ResetChunk]) -> usize {
        let entries = chunks.iter().flat_map(|chunk| chunk.entries.iter());
        entries.filter(|theirs| !self.entries.contains_key(&theirs.key)).count()
    }
}

impl ResetCursor {
    fn continues_with(&self, chunk: &ResetChunk) -> bool {
        self.sender == chunk.sender && self.next == chunk.start
    }
}

impl ResetChunk {
    /// Whose state it is a part of.
    #[must_use]
    pub const fn sender(&self) -> Origin {
        self.sender
    }

    /// Where the next chunk starts; `None` after the last.
    #[must_use]
    pub const fn next(&self) -> Option<&Blob> {
        self.next.as_ref()
    }

    /// The chunk as versioned bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        wire::seal(Kind::Reset, self)
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are not a chunk.
    pub fn decode(bytes: &[u8]) -> Result<Self, CrdtError> {
        wire::open_as(Kind::Reset, bytes)
    }
}
