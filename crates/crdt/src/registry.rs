use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_types::hlc::HlcClock;
use quorate_types::{Hlc, NodeId, ShardId};

use crate::{
    Allocation, AllocationTable, Collected, CrdtError, DeltaMap, Keyspace, Limits, LoadTable,
    MergeOutcome, NodeLoad, Novelty, Origin, Summary,
};

/// The allocations' keyspace in a [`Registry`].
const ALLOCATIONS: Keyspace = Keyspace(b'a');

/// The load reports' keyspace in a [`Registry`].
const LOADS: Keyspace = Keyspace(b'l');

/// What a [`Registry`] starts from.
#[derive(Debug, Clone, Copy)]
pub struct RegistryConfig {
    /// This node in this life; the incarnation must never have been used.
    pub origin: Origin,
    /// The clock mark that an earlier life persisted, zero for the first.
    pub high_water_millis: u64,
    /// The limits of the shared map.
    pub limits: Limits,
}

/// A node's replica of what the cluster tells itself by gossip: where shards
/// are and what nodes carry.
///
/// Both tables live in one [`DeltaMap`], so one state is replicated. The
/// registry also owns the hybrid clock: it observes every merge, so a write
/// made after a merge is newer than everything merged.
///
/// The methods from [`Self::root`] on are what anti-entropy calls, by
/// [`State`](quorate_types::anti_entropy::State).
#[derive(Debug)]
pub struct Registry {
    map: DeltaMap,
    clock: HlcClock,
    allocations: AllocationTable,
    loads: LoadTable,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new(config: RegistryConfig) -> Self {
        let map = DeltaMap::new(config.origin, config.limits);
        Self {
            clock: HlcClock::new(config.origin.node, config.high_water_millis),
            allocations: AllocationTable::new(ALLOCATIONS, &map),
            loads: LoadTable::new(LOADS),
            map,
        }
    }

    /// Where shards are.
    #[must_use]
    pub const fn allocations(&self) -> &AllocationTable {
        &self.allocations
    }

    /// Publishes an allocation decided under `fence`, the version of the
    /// metadata map.
    ///
    /// # Errors
    /// [`CrdtError::StaleAllocation`] says which fence to reach.
    pub fn allocate(
        &mut self,
        allocation: &Allocation,
        fence: u64,
        now_millis: u64,
    ) -> Result<(), CrdtError> {
        let hlc = self.clock.tick(now_millis);
        self.allocations.allocate(&mut self.map, allocation, fence, hlc)
    }

    /// Brings the table to these allocations, decided under `fence`; whether
    /// that changed anything. What a later fence has decided stays as it is: a
    /// deposed leader cannot overwrite a newer decision.
    pub fn publish(
        &mut self,
        allocations: impl IntoIterator<Item = Allocation>,
        fence: u64,
        now_millis: u64,
    ) -> bool {
        let mut is_changed = false;
        for allocation in allocations {
            let shard = allocation.shard;
            if self.allocations.get(shard) == Some(&allocation) {
                continue;
            }
            match self.allocate(&allocation, fence, now_millis) {
                Ok(()) => is_changed = true,
                Err(CrdtError::StaleAllocation { .. }) => {}
                Err(error) => tracing::warn!(%shard, %error, "an allocation is not published"),
            }
        }
        is_changed
    }

    /// Removes a shard, as decided under `fence`.
    ///
    /// # Errors
    /// As for [`Self::allocate`].
    pub fn retire(&mut self, shard: ShardId, fence: u64, now_millis: u64) -> Result<(), CrdtError> {
        let hlc = self.clock.tick(now_millis);
        self.allocations.retire(&mut self.map, shard, fence, hlc)
    }

    /// A node's latest report.
    ///
    /// # Errors
    /// When this build cannot read it.
    pub fn load(&self, node: NodeId) -> Result<Option<NodeLoad>, CrdtError> {
        self.loads.get(&self.map, node)
    }

    /// All reports in the order of nodes.
    pub fn loads(&self) -> impl Iterator<Item = (NodeId, Result<NodeLoad, CrdtError>)> + '_ {
        self.loads.iter(&self.map)
    }

    /// The reports that this build can read.
    #[must_use]
    pub fn readable_loads(&self) -> BTreeMap<NodeId, NodeLoad> {
        self.loads().filter_map(|(node, load)| Some((node, load.ok()?))).collect()
    }

    /// Who leads each shard by the reports: of those that say they do, the one
    /// of the latest term. Reports that this build cannot read say nothing.
    #[must_use]
    pub fn leaders(&self) -> BTreeMap<ShardId, NodeId> {
        let mut newest: BTreeMap<ShardId, (u64, NodeId)> = BTreeMap::new();
        for (node, load) in self.readable_loads() {
            for shard in load.shards.iter().filter(|shard| shard.leader) {
                let known = newest.entry(shard.shard).or_default();
                *known = (*known).max((shard.term, node));
            }
        }
        newest.into_iter().map(|(shard, (_, node))| (shard, node)).collect()
    }

    /// Publishes this node's report.
    ///
    /// # Errors
    /// As for [`LoadTable::report`].
    pub fn report_load(&mut self, load: &NodeLoad, now_millis: u64) -> Result<(), CrdtError> {
        let hlc = self.clock.tick(now_millis);
        self.loads.report(&mut self.map, load, hlc)
    }

    /// Removes the report of a node that has left.
    ///
    /// # Errors
    /// As for [`LoadTable::remove`].
    pub fn remove_load(&mut self, node: NodeId, now_millis: u64) -> Result<(), CrdtError> {
        let hlc = self.clock.tick(now_millis);
        self.loads.remove(&mut self.map, node, hlc)
    }

    /// Publishes this node's report, and forgets what every member has seen
    /// removed at least `age_millis_min` ago; whether the report was taken.
    pub fn refresh(&mut self, load: &NodeLoad, now_millis: u64, age_millis_min: u64) -> bool {
        let reported = self.report_load(load, now_millis);
        if let Err(error) = &reported {
            tracing::warn!(%error, "this node's load cannot be reported");
        }
        self.collect(now_millis, age_millis_min);
        reported.is_ok()
    }

    /// Writes to a registry that anti-entropy reads at the same time. `keep`
    /// persists a clock mark, and does nothing when that mark is persisted.
    ///
    /// No peer ever sees a timestamp that a later life of this node could draw
    /// again: the mark above all that `write` draws at `now_millis` is durable
    /// before `write` is called.
    ///
    /// # Errors
    /// That of `keep`; then nothing is written.
    pub fn write<T, E>(
        shared: &Mutex<Self>,
        now_millis: u64,
        keep: impl Fn(u64) -> Result<(), E>,
        write: impl FnOnce(&mut Self, u64) -> T,
    ) -> Result<T, E> {
        // Without the lock first: the disk is slow, and whoever looks for a
        // shard waits for the lock.
        let mark_millis = shared.lock().clock.reserve(now_millis);
        keep(mark_millis)?;
        let mut registry = shared.lock();
        // A merge in between may have moved the clock on.
        keep(registry.clock.reserve(now_millis))?;
        Ok(write(&mut registry, now_millis))
    }

    /// The shared map, for reading.
    #[must_use]
    pub const fn map(&self) -> &DeltaMap {
        &self.map
    }

    /// The clock mark. It is to be durable before anything written since
    /// leaves the node; [`Self::write`] sees to that.
    #[must_use]
    pub const fn high_water_millis(&self) -> u64 {
        self.clock.high_water()
    }

    /// Draws a timestamp from the registry's clock.
    pub fn tick(&mut self, now_millis: u64) -> Hlc {
        self.clock.tick(now_millis)
    }

    /// The fingerprint to compare with a peer's.
    #[must_use]
    pub const fn root(&self) -> u128 {
        self.map.root()
    }

    /// What to send a peer whose root differs.
    #[must_use]
    pub fn vector(&self) -> Bytes {
        self.map.summary().encode()
    }

    /// The answer to a peer's [`Self::vector`], at most `bytes_max` bytes long;
    /// `None` when there is nothing to tell. Becomes a reset by itself where a
    /// delta cannot help.
    ///
    /// # Errors
    /// When the bytes are not a vector, or the budget is below
    /// [`Self::budget_bytes_needed`].
    pub fn delta(&self, since: &[u8], bytes_max: usize) -> Result<Option<Bytes>, CrdtError> {
        let peer = Summary::decode(since, self.map.limits())?;
        Ok(self.map.novelty(&peer, bytes_max)?.map(|novelty| novelty.encode()))
    }

    /// The first part of the whole state, whatever the peer has seen. For an
    /// occasional repair between replicas whose vectors never stand still long
    /// enough to be found equal. The parts that follow come from
    /// [`Self::delta`].
    ///
    /// # Errors
    /// When the budget is below [`Self::budget_bytes_needed`].
    pub fn reset(&self, bytes_max: usize) -> Result<Bytes, CrdtError> {
        Ok(self.map.reset_chunk(&quorate_types::Blob::new(), bytes_max)?.encode())
    }

    /// The least budget with which replication always makes progress.
    #[must_use]
    pub fn budget_bytes_needed(&self) -> usize {
        DeltaMap::delta_bytes_needed(self.map.limits()).max(self.map.reset_bytes_needed())
    }

    /// Takes in a peer's answer. If the outcome says that there is more, or
    /// gaps, send the peer our [`Self::vector`] again.
    ///
    /// # Errors
    /// When the bytes are not an answer, or one that no correct peer gives.
    /// Nothing is changed then.
    pub fn merge(&mut self, answer: &[u8]) -> Result<MergeOutcome, CrdtError> {
        let novelty = Novelty::decode(answer)?;
        let outcome = self.map.merge_novelty(&novelty)?;
        self.clock.observe(outcome.latest);
        self.allocations.refresh(&self.map, &outcome.changed);
        Ok(outcome)
    }

    /// Notes a member's [`Self::vector`].
    ///
    /// # Errors
    /// When the bytes are not a vector.
    pub fn acknowledge(&mut self, node: NodeId, vector: &[u8]) -> Result<(), CrdtError> {
        let peer = Summary::decode(vector, self.map.limits())?;
        self.map.acknowledge(node, peer.acknowledgement());
        Ok(())
    }

    /// Notes a member's root, and says whether it equals ours.
    pub fn acknowledge_root(&mut self, node: NodeId, root: u128) -> bool {
        self.map.acknowledge_root(node, root)
    }

    /// Tells who the members are. Until then nothing is collected.
    pub fn retain_members(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        self.map.retain_members(nodes);
    }

    /// Stops waiting for a node's acknowledgements.
    pub fn forget(&mut self, node: NodeId) {
        self.map.forget_member(node);
    }

    /// Forgets what every member has seen removed at least `age_millis_min`
    /// ago.
    pub fn collect(&mut self, now_millis: u64, age_millis_min: u64) -> Collected {
        self.map.collect(now_millis, age_millis_min)
    }

    /// Writes under a new incarnation from now on; see
    /// [`CrdtError::OwnOriginAhead`].
    ///
    /// # Errors
    /// [`CrdtError::IncarnationNotNew`].
    pub fn renew(&mut self, incarnation: u64) -> Result<(), CrdtError> {
        self.map.renew(incarnation)
    }
}
