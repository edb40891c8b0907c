//! The gate's lock table: FIFO per key, shared or exclusive, plus whole-shard
//! locks for ranges and splits.
//!
//! All locks of an entry are requested at once, at its place in the log, and
//! held until it is done. An entry is granted when nothing before it in the
//! log conflicts, so waits always point to lower places and cannot form a
//! cycle (invariant iii). A blocked entry holds its place in every queue,
//! free keys included: nobody overtakes it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quorate_types::Blob;

use crate::procedure::Access;

/// A transaction's place in its shard's log: the entry and the transaction
/// within it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Place {
    /// The log index.
    pub index: u64,
    /// The position within the entry.
    pub position: u32,
}

/// What an entry locks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockSet {
    /// Keys and the stronger of the accesses to each.
    pub keys: BTreeMap<Blob, Access>,
    /// The whole shard, if a range or a split needs it.
    pub whole: Option<Access>,
}

impl LockSet {
    /// Adds a key, keeping the stronger access.
    pub fn add(&mut self, key: Blob, access: Access) {
        let held = self.keys.entry(key).or_insert(access);
        *held = (*held).max(access);
    }

    /// Adds the whole shard, keeping the stronger access.
    pub fn add_whole(&mut self, access: Access) {
        self.whole = self.whole.max(Some(access));
    }

    fn writes(&self) -> bool {
        self.whole == Some(Access::Write)
            || self.keys.values().any(|access| *access == Access::Write)
    }
}

/// Two accesses to the same thing exclude each other unless both read.
fn conflict(a: Access, b: Access) -> bool {
    a == Access::Write || b == Access::Write
}

/// The entries of a queue that its own order lets run: the first, and if it
/// reads, the readers right behind it.
fn runnable_prefix(queue: &VecDeque<(Place, Access)>) -> impl Iterator<Item = Place> + '_ {
    let readers = queue.iter().take_while(|(_, access)| *access == Access::Read).count();
    queue.iter().take(readers.max(1)).map(|(place, _)| *place)
}

#[derive(Clone, Debug)]
struct Entry {
    locks: LockSet,
    writes: bool,
    granted: bool,
}

/// All lock queues of a shard.
#[derive(Clone, Debug, Default)]
pub struct LockTable {
    entries: BTreeMap<Place, Entry>,
    queues: BTreeMap<Blob, VecDeque<(Place, Access)>>,
    whole: BTreeMap<Place, Access>,
}

impl LockTable {
    /// Requests all of an entry's locks and says whether it holds them now.
    /// Places must be requested in ascending order.
    pub fn request(&mut self, place: Place, locks: LockSet) -> bool {
        debug_assert!(
            self.entries.last_key_value().is_none_or(|(last, _)| *last < place),
            "invariant: locks are requested in log order"
        );
        for (key, access) in &locks.keys {
            self.queues.entry(key.clone()).or_default().push_back((place, *access));
        }
        if let Some(access) = locks.whole {
            self.whole.insert(place, access);
        }
        let writes = locks.writes();
        let granted = self.is_free(place, &locks, writes);
        self.entries.insert(place, Entry { locks, writes, granted });
        granted
    }

    /// Gives up an entry's locks; returns the entries that hold theirs now and
    /// did not before, in log order.
    pub fn release(&mut self, place: Place) -> Vec<Place> {
        let Some(entry) = self.entries.remove(&place) else {
            return Vec::new();
        };
        self.whole.remove(&place);
        let mut candidates = BTreeSet::new();
        for key in entry.locks.keys.keys() {
            if let Some(queue) = self.queues.get_mut(key) {
                queue.retain(|(waiting, _)| *waiting != place);
                if queue.is_empty() {
                    self.queues.remove(key);
                } else {
                    candidates.extend(runnable_prefix(queue));
                }
            }
        }
        if entry.locks.whole.is_some() {
            candidates.extend(self.entries.range(place..).map(|(waiting, _)| *waiting));
        } else {
            candidates.extend(self.whole.keys().copied());
        }
        self.grant(candidates)
    }

    fn grant(&mut self, candidates: BTreeSet<Place>) -> Vec<Place> {
        let mut granted = Vec::new();
        for place in candidates {
            let Some(entry) = self.entries.get(&place) else { continue };
            if !entry.granted && self.is_free(place, &entry.locks, entry.writes) {
                granted.push(place);
            }
        }
        for place in &granted {
            if let Some(entry) = self.entries.get_mut(place) {
                entry.granted = true;
            }
        }
        granted
    }

    /// Whether nothing before `place` conflicts with it.
    fn is_free(&self, place: Place, locks: &LockSet, writes: bool) -> bool {
        let key_free = |(key, access): (&Blob, &Access)| {
            self.queues.get(key).is_none_or(|queue| {
                queue
                    .iter()
                    .take_while(|(earlier, _)| *earlier < place)
                    .all(|(_, held)| !conflict(*held, *access))
            })
        };
        let strongest = if writes { Access::Write } else { Access::Read };
        let whole_free = self.whole.range(..place).all(|(_, held)| !conflict(*held, strongest));
        let everything_free = |access: Access| {
            self.entries
                .range(..place)
                .all(|(_, earlier)| !(earlier.writes || access == Access::Write))
        };
        whole_free && locks.keys.iter().all(key_free) && locks.whole.is_none_or(everything_free)
    }

    /// Whether a read of these keys (and, with `whole`, of everything) would
    /// have to wait for exclusive work that is queued or running.
    #[must_use]
    pub fn blocks_read<'a>(&self, keys: impl IntoIterator<Item = &'a Blob>, whole: bool) -> bool {
        if self.entries.is_empty() {
            return false;
        }
        if whole {
            return self.entries.values().any(|entry| entry.writes);
        }
        self.whole.values().any(|access| *access == Access::Write)
            || keys.into_iter().any(|key| {
                self.queues
                    .get(key)
                    .is_some_and(|queue| queue.iter().any(|(_, held)| *held == Access::Write))
            })
    }

    /// Entries that hold or wait for locks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no entry holds or waits for a lock.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
