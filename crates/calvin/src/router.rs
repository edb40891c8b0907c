//! A [`Router`] over where shards were allocated to, and over what replies
//! said since.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use quorate_types::{KeyRange, NodeId, ShardId};

use crate::ports::{Destination, Route, Router, SequencerRoute};

/// How many leaders are remembered before those of shards that are nowhere
/// allocated are dropped: a report may name a shard before its allocation is
/// known here, so not at once.
const HINTS_KEPT_MIN: usize = 64;

/// Where shards and the sequencer were put (port), as far as this node knows.
/// A route's leader is the one that the allocation names, if it names one.
pub trait Allocations: Send + Sync + 'static {
    /// The shard that holds a key.
    fn locate(&self, key: &[u8]) -> Option<Route>;

    /// The shards that hold keys of a range, in any order.
    fn overlapping(&self, range: &KeyRange) -> Vec<Route>;

    /// Where a shard is.
    fn shard(&self, shard: ShardId) -> Option<Route>;

    /// The nodes of the sequencer's voters.
    fn sequencer(&self) -> Vec<NodeId>;
}

/// Leaders that replies, heartbeats and reports named.
#[derive(Debug)]
struct Hints {
    shards: BTreeMap<ShardId, NodeId>,
    sequencer: Option<NodeId>,
    /// With so many shards those without an allocation are dropped.
    sweep_at: usize,
}

/// The [`Router`] of a node: [`Allocations`] with the leaders that were named
/// since. A leader that was named goes before the allocation's, and the node
/// itself before the other voters, for it answers soonest.
///
/// Whoever holds the router can read its allocations through it.
#[derive(Debug)]
pub struct HintedRouter<A> {
    node: NodeId,
    allocations: A,
    hints: RwLock<Hints>,
    was_complete: AtomicBool,
}

impl<A> Deref for HintedRouter<A> {
    type Target = A;

    fn deref(&self) -> &A {
        &self.allocations
    }
}

impl<A: Allocations> HintedRouter<A> {
    /// The router of `node`, to which nobody named a leader yet.
    #[must_use]
    pub const fn new(node: NodeId, allocations: A) -> Self {
        let hints = Hints { shards: BTreeMap::new(), sequencer: None, sweep_at: HINTS_KEPT_MIN };
        let was_complete = AtomicBool::new(false);
        Self { node, allocations, hints: RwLock::new(hints), was_complete }
    }

    /// Whether every key has a route. Once so, it stays so: ranges are only
    /// cut and handed over.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        if self.was_complete.load(Ordering::Relaxed) {
            return true;
        }
        let routes = Router::overlapping(self, &KeyRange::all());
        let is_complete = KeyRange::partition(routes.iter().map(|route| &route.range));
        self.was_complete.store(is_complete, Ordering::Relaxed);
        is_complete
    }

    /// The leader that was last named for a shard.
    #[must_use]
    pub fn shard_leader(&self, shard: ShardId) -> Option<NodeId> {
        self.hints.read().shards.get(&shard).copied()
    }

    /// These nodes, before them the leader that was last named for a shard:
    /// whom to ask about it, in this order.
    #[must_use]
    pub fn leader_first(&self, shard: ShardId, mut nodes: Vec<NodeId>) -> Vec<NodeId> {
        if let Some(leader) = self.shard_leader(shard) {
            nodes.retain(|node| *node != leader);
            nodes.insert(0, leader);
        }
        nodes
    }

    /// Where a one-way message for the shard's leader goes.
    #[must_use]
    pub fn shard_targets(&self, shard: ShardId) -> Vec<NodeId> {
        match self.shard_leader(shard) {
            Some(leader) => vec![leader],
            None => self.allocations.shard(shard).map(|route| route.voters).unwrap_or_default(),
        }
    }

    /// Where a one-way message for the sequencer's leader goes.
    #[must_use]
    pub fn sequencer_targets(&self) -> Vec<NodeId> {
        let SequencerRoute { leader, voters } = Router::sequencer(self);
        leader.map_or(voters, |leader| vec![leader])
    }

    fn hinted(&self, found: Route) -> Route {
        let leader = self.shard_leader(found.shard).or(found.leader);
        Route { leader, voters: self.own_first(found.voters), ..found }
    }

    fn own_first(&self, mut nodes: Vec<NodeId>) -> Vec<NodeId> {
        if let Some(place) = nodes.iter().position(|node| *node == self.node) {
            nodes.swap(0, place);
        }
        nodes
    }

    /// Twice as many as the sweep left may come before the next, so that it
    /// costs little for each.
    fn learn_shard(&self, shard: ShardId, leader: NodeId) {
        let mut hints = self.hints.write();
        if hints.shards.len() >= hints.sweep_at && !hints.shards.contains_key(&shard) {
            hints.shards.retain(|shard, _| self.allocations.shard(*shard).is_some());
            hints.sweep_at = HINTS_KEPT_MIN.max(2 * hints.shards.len());
        }
        hints.shards.insert(shard, leader);
    }
}

impl<A: Allocations> Router for HintedRouter<A> {
    fn locate(&self, key: &[u8]) -> Option<Route> {
        self.allocations.locate(key).map(|found| self.hinted(found))
    }

    fn overlapping(&self, range: &KeyRange) -> Vec<Route> {
        let mut found = self.allocations.overlapping(range);
        found.sort_by(|a, b| a.range.start.cmp(&b.range.start));
        found.into_iter().map(|found| self.hinted(found)).collect()
    }

    fn sequencer(&self) -> SequencerRoute {
        let leader = self.hints.read().sequencer;
        SequencerRoute { leader, voters: self.own_first(self.allocations.sequencer()) }
    }

    fn learned(&self, of: Destination, leader: Option<NodeId>) {
        match (of, leader) {
            (Destination::Shard(shard), Some(leader)) => self.learn_shard(shard, leader),
            (Destination::Shard(shard), None) => self.moved(shard),
            (Destination::Sequencer, leader) => self.hints.write().sequencer = leader,
            (Destination::Everyone, _) => {}
        }
    }

    /// The allocation is on its way; the retry will find it.
    fn moved(&self, shard: ShardId) {
        self.hints.write().shards.remove(&shard);
    }
}
