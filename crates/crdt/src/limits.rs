use quorate_types::Blob;

use crate::{CrdtError, VersionVector};

/// How much a [`crate::DeltaMap`] holds. Give all nodes of a cluster the same
/// limits: a node with tighter ones refuses what others send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries, tombstones included: bounds memory and the length of a reset.
    pub entries_max: usize,
    /// Bytes of a key: bounds the smallest workable delta.
    pub key_bytes_max: usize,
    /// Bytes of a value: bounds the smallest workable delta.
    pub value_bytes_max: usize,
    /// Origins of a version vector: bounds what two peers exchange to find
    /// out that they differ.
    pub origins_max: usize,
}

/// A merge takes this many times the entries and origins that a local write
/// may reach. Writers on several nodes can pass the limit together; refusing
/// their merge would stop replication, and with it the removals that help.
const MERGE_HEADROOM: usize = 2;

impl Default for Limits {
    /// Room for a thousand nodes that report a thousand shards each.
    fn default() -> Self {
        Self {
            entries_max: 1 << 17,
            key_bytes_max: 1 << 10,
            value_bytes_max: 32 << 10,
            origins_max: 1 << 11,
        }
    }
}

impl Limits {
    pub(crate) fn check_key(&self, key: &Blob) -> Result<(), CrdtError> {
        if key.is_empty() {
            return Err(CrdtError::Malformed("an empty key has no keyspace"));
        }
        within("key bytes", key.len(), self.key_bytes_max)
    }

    pub(crate) fn check_value(&self, value: Option<&Blob>) -> Result<(), CrdtError> {
        within("value bytes", value.map_or(0, |value| value.len()), self.value_bytes_max)
    }

    pub(crate) fn check_written_entries(&self, entries: usize) -> Result<(), CrdtError> {
        within("entries", entries, self.entries_max)
    }

    pub(crate) fn check_merged_entries(&self, entries: usize) -> Result<(), CrdtError> {
        within("entries", entries, self.entries_max.saturating_mul(MERGE_HEADROOM))
    }

    pub(crate) fn check_merged_origins(&self, origins: usize) -> Result<(), CrdtError> {
        within("origins", origins, self.origins_max.saturating_mul(MERGE_HEADROOM))
    }

    pub(crate) fn check_vector(&self, vector: &VersionVector) -> Result<(), CrdtError> {
        self.check_merged_origins(vector.len())
    }
}

fn within(what: &'static str, found: usize, limit: usize) -> Result<(), CrdtError> {
    if found > limit { Err(CrdtError::TooLarge { what, found, limit }) } else { Ok(()) }
}
