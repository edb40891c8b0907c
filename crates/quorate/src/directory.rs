//! Who is where, as this node knows it: gossip's allocation table for the
//! shards, the metadata view for nodes and system groups, replies for leaders.
//! All of it is a hint (law 6).

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use quorate_calvin::{Destination, Route, Router, SequencerRoute};
use quorate_crdt::{Allocation, Registry};
use quorate_meta::{SEQUENCER_GROUP, shard_of};
use quorate_types::{GroupId, KeyRange, NodeId, ShardId};

/// Leaders that replies, heartbeats and gossip named.
#[derive(Default)]
struct Hints {
    shards: BTreeMap<ShardId, NodeId>,
    sequencer: Option<NodeId>,
}

/// See the module. What concerns nodes and system groups alone is meta's part.
pub(crate) struct Directory {
    pub(crate) known: Arc<quorate_meta::Directory>,
    registry: Arc<Mutex<Registry>>,
    hints: RwLock<Hints>,
}

impl Deref for Directory {
    type Target = quorate_meta::Directory;

    fn deref(&self) -> &Self::Target {
        &self.known
    }
}

impl Directory {
    pub(crate) fn new(
        known: Arc<quorate_meta::Directory>,
        registry: Arc<Mutex<Registry>>,
    ) -> Arc<Self> {
        Arc::new(Self { known, registry, hints: RwLock::default() })
    }

    /// The nodes that may lead a group, the presumed leader first.
    pub(crate) fn candidates(&self, group: GroupId) -> Vec<NodeId> {
        let mut nodes = self.group_nodes(group);
        if let Some(leader) = shard_of(group).and_then(|shard| self.shard_leader(shard)) {
            nodes.retain(|node| *node != leader);
            nodes.insert(0, leader);
        }
        nodes
    }

    /// Where a one-way message for the shard's leader goes.
    pub(crate) fn shard_targets(&self, shard: ShardId) -> Vec<NodeId> {
        if let Some(leader) = self.hints.read().shards.get(&shard) {
            return vec![*leader];
        }
        let registry = self.registry.lock();
        registry.allocations().get(shard).map(|known| known.voters.0.clone()).unwrap_or_default()
    }

    /// Where a one-way message for the sequencer's leader goes.
    pub(crate) fn sequencer_targets(&self) -> Vec<NodeId> {
        match self.hints.read().sequencer {
            Some(leader) => vec![leader],
            None => self.group_nodes(SEQUENCER_GROUP),
        }
    }

    /// The presumed leader of a shard.
    pub(crate) fn shard_leader(&self, shard: ShardId) -> Option<NodeId> {
        self.hints.read().shards.get(&shard).copied()
    }

    fn route(&self, allocation: &Allocation) -> Route {
        let hint = self.shard_leader(allocation.shard);
        let leader = hint.or(allocation.leader);
        Route {
            shard: allocation.shard,
            epoch: allocation.epoch,
            range: allocation.range.clone(),
            leader,
            voters: leader_first(Some(self.node()), allocation.voters.0.clone()),
        }
    }
}

impl Router for Directory {
    fn locate(&self, key: &[u8]) -> Option<Route> {
        let found = self.registry.lock().allocations().locate(key).cloned()?;
        Some(self.route(&found))
    }

    fn overlapping(&self, range: &KeyRange) -> Vec<Route> {
        let mut found: Vec<Allocation> = self
            .registry
            .lock()
            .allocations()
            .iter()
            .filter(|allocation| allocation.range.overlaps(range))
            .cloned()
            .collect();
        found.sort_by(|a, b| a.range.start.cmp(&b.range.start));
        found.iter().map(|allocation| self.route(allocation)).collect()
    }

    fn sequencer(&self) -> SequencerRoute {
        let leader = self.hints.read().sequencer;
        SequencerRoute { leader, voters: self.group_nodes(SEQUENCER_GROUP) }
    }

    fn learned(&self, of: Destination, leader: Option<NodeId>) {
        let mut hints = self.hints.write();
        match (of, leader) {
            (Destination::Shard(shard), Some(leader)) => {
                hints.shards.insert(shard, leader);
            }
            (Destination::Shard(shard), None) => {
                hints.shards.remove(&shard);
            }
            (Destination::Sequencer, leader) => hints.sequencer = leader,
            (Destination::Everyone, _) => {}
        }
    }

    /// The allocation table is on its way; the retry will find it.
    fn moved(&self, shard: ShardId) {
        self.hints.write().shards.remove(&shard);
    }
}

fn leader_first(leader: Option<NodeId>, mut nodes: Vec<NodeId>) -> Vec<NodeId> {
    if let Some(place) = nodes.iter().position(|node| Some(*node) == leader) {
        nodes.swap(0, place);
    }
    nodes
}
