//! The fingerprint that two replicas compare to learn whether they are equal.
//!
//! A sum of hashes, one per live entry and one per slot of the version vector,
//! so that a change costs one subtraction and one addition. The hash finds
//! accidents; against forgery stands the authenticated session.

use quorate_types::Blob;

use crate::{Entry, Origin};

/// FNV-1a with 128 bits (Fowler, Noll, Vo), finished by a mix, because sums of
/// plain FNV hashes of similar inputs are similar.
struct Hasher(u128);

const OFFSET_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

impl Hasher {
    /// `domain` keeps inputs of different meaning apart.
    const fn new(domain: u8) -> Self {
        Self((OFFSET_BASIS ^ domain as u128).wrapping_mul(PRIME))
    }

    fn number(&mut self, number: u64) {
        self.raw(&number.to_be_bytes());
    }

    /// Length first, so that neighbours cannot trade bytes.
    fn string(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.raw(bytes);
    }

    fn raw(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(PRIME);
        }
    }

    fn origin(&mut self, origin: Origin) {
        self.number(origin.node.0);
        self.number(origin.incarnation);
    }

    const fn finish(self) -> u128 {
        let mut hash = self.0;
        hash ^= hash >> 67;
        hash = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
        hash ^= hash >> 61;
        hash = hash.wrapping_mul(0xD6E8_FEB8_6659_FD93_C2B2_AE3D_27D4_EB4F);
        hash ^ (hash >> 64)
    }
}

/// Zero for a tombstone: replicas collect tombstones at different times and
/// are equal all the same.
pub(crate) fn of_entry(key: &Blob, entry: &Entry) -> u128 {
    let Some(value) = &entry.value else { return 0 };
    let mut hasher = Hasher::new(b'e');
    hasher.string(key);
    hasher.string(value);
    hasher.number(entry.stamp.fence);
    hasher.number(entry.stamp.hlc.millis);
    hasher.number(u64::from(entry.stamp.hlc.counter));
    hasher.number(entry.stamp.hlc.node.0);
    hasher.origin(entry.dot.origin);
    hasher.number(entry.dot.sequence);
    hasher.finish()
}

/// Zero for sequence zero, which is the same as an absent origin.
pub(crate) fn of_slot(origin: Origin, sequence: u64) -> u128 {
    if sequence == 0 {
        return 0;
    }
    let mut hasher = Hasher::new(b'v');
    hasher.origin(origin);
    hasher.number(sequence);
    hasher.finish()
}
