//! What was written, and what of it has to be there in the end: written
//! against the meaning of writes, and not against the map that merges them.
//!
//! The greatest write of a key decides. A registry lives in memory, so some
//! writes cannot be counted upon:
//!
//! - What nobody else had seen when its node lost power is in *doubt*.
//! - A write below a removal of its keyspace that was there before it is
//!   *late*: by a slow clock, or under the fence of a leader that was replaced.
//!   Where the removal is forgotten already, it is taken for removed as well.
//! - The same holds for an *orphan*: what only some had seen when a node lost
//!   power or started, and what a node wrote that is a stranger to another. A
//!   node that starts does not wait for those that were taken for dead before,
//!   so removals may be forgotten while somebody is away who has written below
//!   them.

use std::collections::BTreeMap;

use quorate::types::Blob;
use quorate_crdt::{Dot, Entry, Keyspace, Stamp, VersionVector};

/// One acknowledged write.
#[derive(Debug)]
struct Write {
    entry: Entry,
    is_in_doubt: bool,
    is_orphan: bool,
    is_late: bool,
    /// Whether a greater write of its key was there before it. Once nobody
    /// remembers that one, nobody can tell.
    is_backdated: bool,
}

/// All acknowledged writes.
#[derive(Debug, Default)]
pub(super) struct Memory {
    keys: BTreeMap<Blob, Vec<Write>>,
    /// The newest removal of each keyspace.
    removals: BTreeMap<Keyspace, Stamp>,
}

/// A rule that is broken, and how.
pub(super) type Broken = (&'static str, String);

impl Memory {
    /// Notes a write that was acknowledged, of a stranger or of a node that all
    /// others know.
    pub(super) fn wrote(&mut self, key: &Blob, entry: Entry, is_orphan: bool) {
        let keyspace = keyspace(key);
        let writes = self.keys.entry(key.clone()).or_default();
        let removed = self.removals.get(&keyspace).copied();
        let stamp = entry.stamp;
        let is_removal = entry.is_tombstone();
        writes.push(Write {
            is_in_doubt: false,
            is_orphan,
            is_late: removed >= Some(stamp),
            is_backdated: writes.iter().any(|write| write.entry > entry),
            entry,
        });
        if is_removal {
            let newest = self.removals.entry(keyspace).or_insert(stamp);
            *newest = stamp.max(*newest);
        }
    }

    /// Whether another write of the key has this one's stamp, and not its
    /// value.
    pub(super) fn is_tie(&self, key: &Blob, entry: &Entry) -> bool {
        let writes = self.keys.get(key).map(Vec::as_slice).unwrap_or_default();
        writes
            .iter()
            .any(|write| write.entry.stamp == entry.stamp && write.entry.value != entry.value)
    }

    /// A node lost all it knew; the others have seen this much.
    pub(super) fn lost(&mut self, others: &[VersionVector]) {
        for write in self.keys.values_mut().flatten() {
            write.is_in_doubt |= !others.iter().any(|seen| seen.covers(write.entry.dot));
        }
        self.begun(others);
    }

    /// A node begins that knows nothing; the others have seen this much.
    pub(super) fn begun(&mut self, others: &[VersionVector]) {
        for write in self.keys.values_mut().flatten() {
            write.is_orphan |= !others.iter().all(|seen| seen.covers(write.entry.dot));
        }
    }

    /// The keys that were ever written.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Blob> {
        self.keys.keys()
    }

    /// Whether the key may have this value in the end.
    pub(super) fn judge(&self, key: &Blob, found: Option<&Blob>) -> Result<(), Broken> {
        let writes = self.keys.get(key).map(Vec::as_slice).unwrap_or_default();
        let removed = self.removals.get(&keyspace(key)).copied();
        let is_certain = |write: &&Write| {
            let may_be_below = write.is_orphan && removed >= Some(write.entry.stamp);
            !write.is_in_doubt && !write.is_late && !may_be_below
        };
        let expected = writes.iter().filter(is_certain).max_by(|a, b| a.entry.cmp(&b.entry));
        let may_be_last = |write: &&Write| match expected {
            None => true,
            Some(expected) if write.entry >= expected.entry => true,
            Some(expected) => write.is_backdated && expected.entry.is_tombstone(),
        };
        let may_be = |found: Option<&Blob>| {
            writes.iter().filter(may_be_last).any(|write| write.entry.value.as_ref() == found)
        };
        if may_be(found) || (found.is_none() && expected.is_none()) {
            return Ok(());
        }
        let Some(Write { entry: expected, .. }) = expected else {
            return Err(("nobody makes values up", format!("{key:?} has {found:?}")));
        };
        let Entry { stamp, dot, .. } = expected;
        let is_of = |write: &&Write| write.entry.value.as_ref() == found;
        let source: Option<(Stamp, Dot)> =
            writes.iter().rfind(is_of).map(|write| (write.entry.stamp, write.entry.dot));
        let what = format!("{key:?} has the value of {source:?}, after {stamp:?} of {dot:?}");
        Err(match (&expected.value, found) {
            (None, Some(_)) => ("what was removed stays removed", what),
            _ => ("what was acknowledged last is there", what),
        })
    }
}

pub(super) fn keyspace(key: &Blob) -> Keyspace {
    Keyspace(key[0])
}

#[cfg(test)]
mod tests;
