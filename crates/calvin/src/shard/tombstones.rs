//! Versions of deleted keys, so that change-and-change-back is noticed.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::{Blob, KeyRange};

use super::rows::tombstone_key;
use crate::store::WriteSet;

/// Deleted keys whose version is remembered exactly. Beyond it the oldest is
/// forgotten and its version becomes the floor that all forgotten keys share;
/// a watcher of such a key may then be told "changed" when it was not, never
/// the reverse.
pub(super) const TOMBSTONES_MAX: usize = 65_536;

/// Tombstones by key and by version, mirrored in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Tombstones {
    by_key: BTreeMap<Blob, u64>,
    by_version: BTreeSet<(u64, Blob)>,
}

impl Tombstones {
    pub(super) fn load(by_version: BTreeSet<(u64, Blob)>) -> Self {
        let by_key = by_version.iter().map(|(version, key)| (key.clone(), *version)).collect();
        Self { by_key, by_version }
    }

    /// The version of a key that has no row.
    pub(super) fn version(&self, key: &[u8], floor: u64) -> u64 {
        self.by_key.get(key).copied().unwrap_or(floor)
    }

    /// Remembers a deleted key; returns the new floor if an older one had to go.
    pub(super) fn bury(&mut self, writes: &mut WriteSet, key: Blob, version: u64) -> Option<u64> {
        self.unbury(writes, &key);
        writes.put_system(tombstone_key(version, &key), Blob::new());
        self.by_key.insert(key.clone(), version);
        self.by_version.insert((version, key));
        let mut floor = None;
        while self.by_version.len() > TOMBSTONES_MAX {
            let (version, key) = self.by_version.pop_first()?;
            self.by_key.remove(&key);
            writes.delete_system(tombstone_key(version, &key));
            floor = Some(version);
        }
        floor
    }

    /// The key lives again.
    pub(super) fn unbury(&mut self, writes: &mut WriteSet, key: &Blob) {
        if let Some(version) = self.by_key.remove(key) {
            writes.delete_system(tombstone_key(version, key));
            self.by_version.remove(&(version, key.clone()));
        }
    }

    /// Takes out the tombstones of a range.
    pub(super) fn split_off(
        &mut self,
        writes: &mut WriteSet,
        range: &KeyRange,
    ) -> Vec<(Blob, Blob)> {
        let taken: Vec<(Blob, u64)> = self
            .by_key
            .range(range.start.clone()..)
            .take_while(|(key, _)| range.contains(key))
            .map(|(key, version)| (key.clone(), *version))
            .collect();
        let mut rows = Vec::with_capacity(taken.len());
        for (key, version) in taken {
            self.unbury(writes, &key);
            rows.push((tombstone_key(version, &key), Blob::new()));
        }
        rows
    }
}
