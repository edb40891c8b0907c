//! The keys that the load uses, and which of them lie in different shards.

use quorate_tests::Shard;
use quorate_types::env::{Rng, SplitMix};

/// Keys of each kind. Enough that hundreds of clients rarely meet, few enough
/// to be written before they are read.
pub(crate) const KEYS: u64 = 10_000;

/// What every value has.
pub(crate) const VALUE_BYTES: usize = 256;

/// The keys of a run.
#[derive(Debug)]
pub(crate) struct Keys {
    /// The value of every key that is no number.
    pub(crate) value: String,
    /// Accounts by the shard that holds them; none of the groups is empty.
    accounts: Vec<Vec<String>>,
}

impl Keys {
    /// Sorts the accounts by shard.
    pub(crate) fn over(shards: &[Shard]) -> Self {
        let of_shard = |shard: &Shard| -> Vec<String> {
            (0..KEYS).map(account).filter(|key| shard.holds(key)).collect()
        };
        let accounts = shards.iter().map(of_shard).filter(|keys| !keys.is_empty()).collect();
        Self { value: "x".repeat(VALUE_BYTES), accounts }
    }

    /// Every key that is read before it is written.
    pub(crate) fn all() -> impl Iterator<Item = String> {
        (0..KEYS).map(key)
    }

    /// Any key.
    pub(crate) fn any(&self, rng: &mut SplitMix) -> String {
        key(rng.below(KEYS))
    }

    /// Any counter.
    pub(crate) fn counter(&self, rng: &mut SplitMix) -> String {
        format!("counter:{:06}", rng.below(KEYS))
    }

    /// Two accounts in different shards.
    pub(crate) fn two_accounts(&self, rng: &mut SplitMix) -> [&str; 2] {
        let shards = self.accounts.len() as u64;
        let first = rng.below(shards);
        let second = (first + 1 + rng.below(shards.saturating_sub(1))) % shards.max(1);
        [first, second].map(|shard| {
            let keys = usize::try_from(shard).ok().and_then(|shard| self.accounts.get(shard));
            let keys = keys.map_or(&[] as &[String], Vec::as_slice);
            let place = usize::try_from(rng.below(keys.len() as u64)).unwrap_or_default();
            keys.get(place).map_or("", String::as_str)
        })
    }
}

fn key(number: u64) -> String {
    format!("key:{number:06}")
}

fn account(number: u64) -> String {
    format!("account:{number:06}")
}
