use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::OnceLock;

use quorate_types::{Blob, GroupId, Hlc, KeyRange, NodeId, Seq, ShardEpoch, ShardId};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::wire::{self, Kind};
use crate::{CrdtError, DeltaMap, Entry, Keyspace, Put, Stamp};

/// Where a shard is. A hint: whoever acts on it sends the epoch along, and the
/// shard's own log decides.
#[derive(Clone, Debug, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub struct Allocation {
    /// The shard.
    pub shard: ShardId,
    /// The keys it owns.
    pub range: KeyRange,
    /// The version of that ownership.
    pub epoch: ShardEpoch,
    /// Its leader, if one is known.
    pub leader: Option<NodeId>,
    /// The nodes that hold a voter.
    pub voters: Seq<NodeId>,
    /// Its Raft group.
    pub group: GroupId,
}

/// The allocations in one [`Keyspace`] of a [`DeltaMap`], found by shard and by
/// key.
///
/// Every write is fenced by the version of the metadata map that the writer
/// acts on. A lower fence than one seen is refused, and the refusal says which
/// fence to reach; a retired shard's fence binds all shards of the table. A
/// node that writes an older version of the map is a leader that was replaced.
///
/// The table indexes the map, it does not own it: several views share one map
/// and so one replication. Tell it which keys a merge changed with
/// [`Self::refresh`].
#[derive(Clone, Debug)]
pub struct AllocationTable {
    keyspace: Keyspace,
    shards: BTreeMap<ShardId, Fenced>,
    unreadable: BTreeSet<Blob>,
    /// From each boundary to the next, the shard that owns the keys. Drawn
    /// when first needed after a change.
    owners: OnceLock<BTreeMap<Blob, Option<ShardId>>>,
}

#[derive(Clone, Debug)]
struct Fenced {
    allocation: Allocation,
    stamp: Stamp,
}

impl AllocationTable {
    /// The table of `keyspace`, as far as `map` holds it.
    #[must_use]
    pub fn new(keyspace: Keyspace, map: &DeltaMap) -> Self {
        let mut table = Self {
            keyspace,
            shards: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            owners: OnceLock::new(),
        };
        let keys: Vec<Blob> = map.scan(keyspace).map(|(key, _)| key.clone()).collect();
        table.refresh(map, &keys);
        table
    }

    /// Writes an allocation decided under `fence`.
    ///
    /// # Errors
    /// [`CrdtError::StaleAllocation`] when a decision at least as new is known
    /// (under the same fence: one whose timestamp `hlc` does not exceed), or a
    /// limit. The table is unchanged then.
    pub fn allocate(
        &mut self,
        map: &mut DeltaMap,
        allocation: &Allocation,
        fence: u64,
        hlc: Hlc,
    ) -> Result<(), CrdtError> {
        let shard = allocation.shard;
        let key = self.key(shard);
        let value = Blob(wire::seal(Kind::Allocation, allocation));
        let put = map.put(key.clone(), value, fence, hlc)?;
        self.settle(map, key, put, shard, fence)
    }

    /// Removes a shard that has ceased to exist, as decided under `fence`.
    ///
    /// # Errors
    /// As for [`Self::allocate`].
    pub fn retire(
        &mut self,
        map: &mut DeltaMap,
        shard: ShardId,
        fence: u64,
        hlc: Hlc,
    ) -> Result<(), CrdtError> {
        let key = self.key(shard);
        let put = map.remove(key.clone(), fence, hlc)?;
        self.settle(map, key, put, shard, fence)
    }

    fn settle(
        &mut self,
        map: &DeltaMap,
        key: Blob,
        put: Put,
        shard: ShardId,
        fence: u64,
    ) -> Result<(), CrdtError> {
        match put {
            Put::Written(_) => {
                self.refresh(map, &[key]);
                Ok(())
            }
            Put::Stale { current } => {
                Err(CrdtError::StaleAllocation { shard, fence, current_fence: current.fence })
            }
        }
    }

    /// Reads again what the map holds under these keys. Keys of other
    /// keyspaces are passed over.
    pub fn refresh(&mut self, map: &DeltaMap, changed: &[Blob]) {
        for key in changed {
            if let Some(shard) = self.shard(key) {
                self.read(key, shard, map.entry(key));
                self.owners.take();
            }
        }
    }

    fn read(&mut self, key: &Blob, shard: ShardId, entry: Option<&Entry>) {
        self.unreadable.remove(key);
        self.shards.remove(&shard);
        let Some((entry, value)) = entry.and_then(|entry| Some((entry, entry.value.as_ref()?)))
        else {
            return;
        };
        match wire::open_as::<Allocation>(Kind::Allocation, value) {
            Ok(allocation) if allocation.shard == shard => {
                self.shards.insert(shard, Fenced { allocation, stamp: entry.stamp });
            }
            _ => {
                self.unreadable.insert(key.clone());
            }
        }
    }

    /// The allocation that a key falls into. Where ranges overlap, as they do
    /// while a split spreads, the one of the highest fence has it.
    #[must_use]
    pub fn locate(&self, key: &[u8]) -> Option<&Allocation> {
        let owners = self.owners.get_or_init(|| self.draw_owners());
        let up_to_key = (Bound::Unbounded, Bound::Included(key));
        let (_, owner) = owners.range::<[u8], _>(up_to_key).next_back()?;
        self.get((*owner)?)
    }

    /// Where a shard is.
    #[must_use]
    pub fn get(&self, shard: ShardId) -> Option<&Allocation> {
        Some(&self.shards.get(&shard)?.allocation)
    }

    /// The fence under which a shard was allocated.
    #[must_use]
    pub fn fence(&self, shard: ShardId) -> Option<u64> {
        Some(self.shards.get(&shard)?.stamp.fence)
    }

    /// All allocations in the order of shards.
    pub fn iter(&self) -> impl Iterator<Item = &Allocation> {
        self.shards.values().map(|fenced| &fenced.allocation)
    }

    /// How many shards are allocated.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// Keys whose value this build cannot read, most likely because a newer
    /// one wrote it. They are replicated all the same.
    pub fn unreadable(&self) -> impl Iterator<Item = &Blob> {
        self.unreadable.iter()
    }

    /// Sweeps over all range boundaries with the set of ranges that are open
    /// at each; the newest of them owns the keys up to the next boundary.
    fn draw_owners(&self) -> BTreeMap<Blob, Option<ShardId>> {
        let mut boundaries: BTreeMap<Blob, Vec<(Stamp, ShardId)>> = BTreeMap::new();
        for (&shard, Fenced { allocation, stamp }) in &self.shards {
            if allocation.range.is_empty() {
                continue;
            }
            let KeyRange { start, end } = allocation.range.clone();
            for boundary in [Some(start), end].into_iter().flatten() {
                boundaries.entry(boundary).or_default().push((*stamp, shard));
            }
        }
        let mut open = BTreeSet::new();
        let owner_from = |(boundary, toggled): (Blob, Vec<(Stamp, ShardId)>)| {
            for range in toggled {
                if !open.remove(&range) {
                    open.insert(range);
                }
            }
            (boundary, open.last().map(|&(_, shard)| shard))
        };
        boundaries.into_iter().map(owner_from).collect()
    }

    fn key(&self, shard: ShardId) -> Blob {
        key_of(self.keyspace, shard.0)
    }

    fn shard(&self, key: &Blob) -> Option<ShardId> {
        id_of(self.keyspace, key).map(ShardId)
    }
}

/// `[keyspace u8][id u64 BE]`, so that keys order like ids.
pub(crate) fn key_of(keyspace: Keyspace, id: u64) -> Blob {
    let mut key = Vec::with_capacity(9);
    key.push(keyspace.0);
    key.extend_from_slice(&id.to_be_bytes());
    Blob::from(key)
}

/// The id within a key of [`key_of`]; `None` for any other key.
pub(crate) fn id_of(keyspace: Keyspace, key: &[u8]) -> Option<u64> {
    let (&first, id) = key.split_first()?;
    let id: [u8; 8] = id.try_into().ok()?;
    (first == keyspace.0).then(|| u64::from_be_bytes(id))
}
