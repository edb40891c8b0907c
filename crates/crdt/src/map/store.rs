use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use quorate_types::{Blob, Hlc};

use super::entry::{Entry, Floors, Keyspace, Put};
use super::reset::Resync;
use super::stability::{Faded, Members};
use crate::{CrdtError, Dot, Limits, Origin, Stamp, VersionVector, fingerprint};

/// A replicated map of byte strings in which the newest write wins, and which
/// can tell a peer exactly what the peer lacks.
///
/// Invariants:
/// - The vector covers the dot of every entry.
/// - The index holds the dots of entries and no others: what was overwritten
///   is never sent again.
/// - Nothing here depends on a clock. Merging the same writes in any order
///   gives the same entries.
/// - A local write exceeds every removal of its keyspace that this replica has
///   seen. That is what makes a removal forgettable: when all have seen it,
///   whatever lies below it is old news (see `stability`).
#[derive(Clone, Debug)]
pub struct DeltaMap {
    pub(super) origin: Origin,
    pub(super) limits: Limits,
    pub(super) entries: BTreeMap<Blob, Entry>,
    /// Where each origin's surviving writes are, by sequence.
    pub(super) index: BTreeMap<Origin, BTreeMap<u64, Blob>>,
    pub(super) tombstones: BTreeSet<Blob>,
    pub(super) vector: VersionVector,
    root: u128,
    /// The newest removal seen: a local write must exceed it.
    pub(super) removed: Floors,
    /// The newest removal collected: an unknown write below it was removed.
    pub(super) collected: Floors,
    /// Per origin the last tombstone collected: who has not seen it cannot be
    /// brought up to date by a delta.
    pub(super) cut: VersionVector,
    pub(super) members: Option<Members>,
    pub(super) faded: Faded,
    pub(super) resync: Option<Resync>,
}

impl DeltaMap {
    /// An empty replica that writes as `origin`. The incarnation must be one
    /// that this node has never used.
    #[must_use]
    pub fn new(origin: Origin, limits: Limits) -> Self {
        Self {
            origin,
            limits,
            entries: BTreeMap::new(),
            index: BTreeMap::new(),
            tombstones: BTreeSet::new(),
            vector: VersionVector::new(),
            root: 0,
            removed: Floors::default(),
            collected: Floors::default(),
            cut: VersionVector::new(),
            members: None,
            faded: Faded::default(),
            resync: None,
        }
    }

    /// Writes a value.
    ///
    /// The stamp must be newer than the entry and newer than every removal in
    /// the key's [`Keyspace`] that this replica knows of.
    ///
    /// # Errors
    /// When a limit is exceeded or the origin has no sequence numbers left.
    pub fn put(&mut self, key: Blob, value: Blob, fence: u64, hlc: Hlc) -> Result<Put, CrdtError> {
        self.write(key, Some(value), Stamp::new(fence, hlc))
    }

    /// Removes a key. Leaves a tombstone even where there is no value here,
    /// because there may be one elsewhere.
    ///
    /// # Errors
    /// As for [`Self::put`].
    pub fn remove(&mut self, key: Blob, fence: u64, hlc: Hlc) -> Result<Put, CrdtError> {
        self.write(key, None, Stamp::new(fence, hlc))
    }

    fn write(&mut self, key: Blob, value: Option<Blob>, stamp: Stamp) -> Result<Put, CrdtError> {
        self.limits.check_key(&key)?;
        self.limits.check_value(value.as_ref())?;
        if let Some(current) = self.newest_stamp(&key)
            && stamp <= current
        {
            return Ok(Put::Stale { current });
        }
        if !self.entries.contains_key(&key) {
            self.limits.check_written_entries(self.entries.len().saturating_add(1))?;
        }
        let sequence = self.vector.get(self.origin);
        let sequence = sequence.checked_add(1).ok_or(CrdtError::SequencesExhausted(self.origin))?;
        let dot = Dot::new(self.origin, sequence);
        self.advance(self.origin, sequence);
        self.store(key, Entry { stamp, value, dot });
        Ok(Put::Written(dot))
    }

    /// The stamp that a write to `key` has to exceed.
    #[must_use]
    pub fn newest_stamp(&self, key: &Blob) -> Option<Stamp> {
        let of_entry = self.entries.get(key).map(|entry| entry.stamp);
        of_entry.max(self.removed.of(key))
    }

    /// The value under a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Blob> {
        self.entries.get(key)?.value.as_ref()
    }

    /// The entry under a key, be it a tombstone.
    #[must_use]
    pub fn entry(&self, key: &[u8]) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// The live keys from `start` on, in order.
    pub fn scan_from(&self, start: Blob) -> impl Iterator<Item = (&Blob, &Blob)> {
        self.entries
            .range((Bound::Included(start), Bound::Unbounded))
            .filter_map(|(key, entry)| entry.value.as_ref().map(|value| (key, value)))
    }

    /// The live keys of a keyspace, in order.
    pub fn scan(&self, keyspace: Keyspace) -> impl Iterator<Item = (&Blob, &Blob)> {
        self.scan_from(Blob::from(vec![keyspace.0]))
            .take_while(move |(key, _)| Keyspace::of(key) == keyspace)
    }

    /// How many entries are stored, tombstones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many of the entries are tombstones.
    #[must_use]
    pub fn tombstones(&self) -> usize {
        self.tombstones.len()
    }

    /// Whom this replica writes as.
    #[must_use]
    pub const fn origin(&self) -> Origin {
        self.origin
    }

    /// The limits in force.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What has been seen.
    #[must_use]
    pub const fn vector(&self) -> &VersionVector {
        &self.vector
    }

    /// The fingerprint of live entries and vector. Replicas with equal roots
    /// have nothing to tell each other.
    #[must_use]
    pub const fn root(&self) -> u128 {
        self.root
    }

    /// Writes under a new incarnation from now on: the remedy for
    /// [`CrdtError::OwnOriginAhead`].
    ///
    /// # Errors
    /// [`CrdtError::IncarnationNotNew`] unless it is above the present one.
    pub fn renew(&mut self, incarnation: u64) -> Result<(), CrdtError> {
        let current = self.origin.incarnation;
        if incarnation <= current {
            return Err(CrdtError::IncarnationNotNew { current, found: incarnation });
        }
        self.origin.incarnation = incarnation;
        Ok(())
    }

    /// Puts an entry in place of whatever was there.
    pub(super) fn store(&mut self, key: Blob, entry: Entry) {
        self.forget(&key);
        self.root = self.root.wrapping_add(fingerprint::of_entry(&key, &entry));
        let of_origin = self.index.entry(entry.dot.origin).or_default();
        of_origin.insert(entry.dot.sequence, key.clone());
        if entry.is_tombstone() {
            self.removed.raise(Keyspace::of(&key), entry.stamp);
            self.tombstones.insert(key.clone());
        }
        self.entries.insert(key, entry);
    }

    /// Takes an entry away without a trace.
    pub(super) fn forget(&mut self, key: &Blob) {
        let Some(entry) = self.entries.remove(key) else { return };
        self.root = self.root.wrapping_sub(fingerprint::of_entry(key, &entry));
        self.tombstones.remove(key);
        let Dot { origin, sequence } = entry.dot;
        if let Some(of_origin) = self.index.get_mut(&origin) {
            // Were a dot used twice, the index would hold the later key.
            if of_origin.get(&sequence) == Some(key) {
                of_origin.remove(&sequence);
            }
            if of_origin.is_empty() {
                self.index.remove(&origin);
            }
        }
    }

    /// Notes that a prefix of an origin's writes has been seen.
    pub(super) fn advance(&mut self, origin: Origin, sequence: u64) {
        let before = self.vector.get(origin);
        if sequence > before {
            self.vector.advance(origin, sequence);
            self.faded.revive(origin);
            self.swap_slot(origin, before, sequence);
        }
    }

    /// Drops an origin from the vector.
    pub(super) fn drop_origin(&mut self, origin: Origin) {
        let before = self.vector.get(origin);
        self.vector.remove(origin);
        self.swap_slot(origin, before, 0);
    }

    fn swap_slot(&mut self, origin: Origin, before: u64, after: u64) {
        self.root = self
            .root
            .wrapping_sub(fingerprint::of_slot(origin, before))
            .wrapping_add(fingerprint::of_slot(origin, after));
    }

    /// How many writes of `origin` were seen, even if the vector has since
    /// forgotten the origin.
    pub(super) fn seen(&self, origin: Origin) -> u64 {
        self.vector.get(origin).max(self.faded.get(origin))
    }

    /// A peer cannot know more of our writes than we do.
    pub(super) fn check_own_origin(&self, claimed: u64) -> Result<(), CrdtError> {
        let known = self.vector.get(self.origin);
        if claimed > known {
            return Err(CrdtError::OwnOriginAhead { origin: self.origin, claimed, known });
        }
        Ok(())
    }
}
