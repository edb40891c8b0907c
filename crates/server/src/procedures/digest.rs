//! What `DBSIZE` and `KEYS` need to know of a shard's rows.

use quorate_calvin::Rows;
use quorate_types::{Blob, Seq, codec};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::commands::{glob_matches, unpartition_key};

/// Most keys that `KEYS` returns: its result is a stored reply, and a client
/// that wants more is better served by `SCAN`. Fixed rather than configured,
/// because every replica must decide alike.
pub(super) const KEYS_MATCHES_MAX: usize = 10_000;

/// Most bytes of keys that `KEYS` returns, for the same reasons.
pub(super) const KEYS_BYTES_MAX: usize = 1 << 20;

/// One range of one shard, condensed.
#[derive(Clone, PartialEq, Eq, Debug, Default, ToMessagePack, FromMessagePack)]
pub(super) struct Digest {
    /// How many rows there are.
    pub(super) count: u64,
    /// For each pattern of the program the stored keys that match.
    pub(super) matches: Seq<Matches>,
}

/// The keys that match one pattern.
#[derive(Clone, PartialEq, Eq, Debug, Default, ToMessagePack, FromMessagePack)]
pub(super) struct Matches {
    /// The keys, as far as they fit the limits.
    pub(super) keys: Seq<Blob>,
    /// Whether there are more.
    pub(super) truncated: bool,
}

impl Digest {
    /// Reads every row once.
    pub(super) fn of(patterns: &[&Blob], rows: &mut Rows<'_>) -> Self {
        let mut count = 0;
        let mut collectors: Vec<_> = patterns.iter().map(|_| Collector::default()).collect();
        for (key, _) in rows {
            count += 1;
            for (pattern, collector) in patterns.iter().zip(&mut collectors) {
                if glob_matches(pattern, &unpartition_key(&key)) {
                    collector.take(&key);
                }
            }
        }
        let matches = collectors.into_iter().map(|collector| collector.matches).collect();
        Self { count, matches }
    }

    pub(super) fn encode(&self) -> Blob {
        codec::encode(self).into()
    }

    /// What cannot be read counts for nothing: the bytes were made by
    /// [`Digest::encode`] on a replica of the same cluster version.
    pub(super) fn decode(bytes: &[u8]) -> Self {
        codec::decode(bytes).unwrap_or_default()
    }
}

#[derive(Default)]
pub(super) struct Collector {
    pub(super) matches: Matches,
    bytes: usize,
}

impl Collector {
    pub(super) fn take(&mut self, key: &Blob) {
        let fits = self.matches.keys.len() < KEYS_MATCHES_MAX
            && self.bytes.saturating_add(key.len()) <= KEYS_BYTES_MAX;
        if fits {
            self.bytes += key.len();
            self.matches.keys.push(key.clone());
        } else {
            self.matches.truncated = true;
        }
    }
}
