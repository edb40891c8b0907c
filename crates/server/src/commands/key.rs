//! The partitioner: where a key lies among all keys.
//!
//! A key is stored as `[slot u16 BE][key]`, the slot being Redis Cluster's
//! (CRC16 of the key or of its `{hashtag}`, modulo 16,384). Shards are ranges
//! of such keys, so keys that share a hashtag stay neighbours.

use quorate_types::Blob;

/// How many slots there are.
pub const SLOTS: u16 = 16_384;

/// Bytes of the slot in front of a stored key.
pub(crate) const KEY_PREFIX_BYTES: usize = 2;

/// The slot of a key.
pub(crate) fn slot_of(key: &[u8]) -> u16 {
    redis_protocol::redis_keyslot(key)
}

/// The stored form of a user's key.
#[must_use]
pub fn partition_key(key: &[u8]) -> Blob {
    let mut stored = Vec::with_capacity(KEY_PREFIX_BYTES + key.len());
    stored.extend_from_slice(&slot_of(key).to_be_bytes());
    stored.extend_from_slice(key);
    stored.into()
}

/// Where a slot begins among stored keys: what a new cluster's shards are cut
/// at.
#[must_use]
pub fn slot_start(slot: u16) -> Blob {
    match slot {
        0 => Blob::new(),
        slot => Blob::from(&slot.to_be_bytes()),
    }
}

/// The user's key of a stored one.
#[must_use]
pub fn unpartition_key(stored: &Blob) -> Blob {
    match stored.len() >= KEY_PREFIX_BYTES {
        true => Blob(stored.0.slice(KEY_PREFIX_BYTES..)),
        false => Blob::new(),
    }
}

#[cfg(test)]
mod tests;
