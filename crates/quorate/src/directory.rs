//! Who is where, as this node knows it: gossip's allocation table for the
//! shards, the metadata view for nodes and system groups, replies for leaders.
//! All of it is a hint (law 6).

use std::ops::Deref;
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_calvin::{Allocations, HintedRouter, Route};
use quorate_crdt::{Allocation, Registry};
use quorate_meta::{SEQUENCER_GROUP, shard_of};
use quorate_types::{GroupId, KeyRange, NodeId, ShardId};

/// See the module. Leaders are calvin's part.
pub(crate) type Directory = HintedRouter<Places>;

/// What gossip and the metadata say, without what replies said.
pub(crate) struct Places {
    pub(crate) known: Arc<quorate_meta::Directory>,
    pub(crate) registry: Arc<Mutex<Registry>>,
}

impl Deref for Places {
    type Target = quorate_meta::Directory;

    fn deref(&self) -> &Self::Target {
        &self.known
    }
}

impl Allocations for Places {
    fn locate(&self, key: &[u8]) -> Option<Route> {
        self.registry.lock().allocations().locate(key).map(route)
    }

    fn overlapping(&self, range: &KeyRange) -> Vec<Route> {
        let registry = self.registry.lock();
        let allocations = registry.allocations().iter();
        allocations.filter(|found| found.range.overlaps(range)).map(route).collect()
    }

    fn shard(&self, shard: ShardId) -> Option<Route> {
        self.registry.lock().allocations().get(shard).map(route)
    }

    fn sequencer(&self) -> Vec<NodeId> {
        self.group_nodes(SEQUENCER_GROUP)
    }
}

fn route(allocation: &Allocation) -> Route {
    Route {
        shard: allocation.shard,
        epoch: allocation.epoch,
        range: allocation.range.clone(),
        leader: allocation.leader,
        voters: allocation.voters.0.clone(),
    }
}

/// The nodes that may lead a group, the presumed leader first.
pub(crate) fn candidates(directory: &Directory, group: GroupId) -> Vec<NodeId> {
    let nodes = directory.group_nodes(group);
    match shard_of(group) {
        Some(shard) => directory.leader_first(shard, nodes),
        None => nodes,
    }
}
