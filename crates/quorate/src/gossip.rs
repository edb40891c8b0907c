//! What gossip carries: the allocation table and every node's load.

use std::sync::{Arc, Weak};
use std::time::Duration;

use quorate_calvin::{Destination, Router, ShardService};
use quorate_crdt::{NodeLoad, Registry, ShardLoad};

use crate::node::NodeInner;

/// How often a node reports its load and reads the others'.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// How old a deleted entry must be before it may be forgotten.
const TOMBSTONE_AGE_MILLIS: u64 = 3_600_000;

/// Reports this node's load and takes leaders from the others', until the node
/// is dropped.
pub(crate) async fn report(node: Weak<NodeInner>) {
    loop {
        let Some(inner) = node.upgrade() else { return };
        inner.report_load();
        inner.learn_leaders();
        drop(inner);
        tokio::time::sleep(REPORT_EVERY).await;
    }
}

impl NodeInner {
    /// Writes what gossip is to spread, if the write says that it changed
    /// anything.
    pub(crate) fn spread(&self, write: impl FnOnce(&mut Registry, u64) -> bool) {
        let keep = |mark_millis| self.identity.keep_clock(mark_millis);
        match Registry::write(&self.registry, self.clock.wall_millis(), keep, write) {
            Ok(true) => self.gossip.notify_changed(),
            Ok(false) => {}
            // A disk that fails here is not trusted with anything else either.
            Err(error) => self.hosting.failure.send(Some(Arc::new(error.into()))),
        }
    }

    fn report_load(&self) {
        let load = self.measure();
        self.spread(|registry, now| registry.refresh(&load, now, TOMBSTONE_AGE_MILLIS));
    }

    fn measure(&self) -> NodeLoad {
        let shards: Vec<ShardLoad> =
            self.services.shards().iter().map(|service| self.measure_shard(service)).collect();
        let applied = shards.iter().map(|shard| (shard.shard, shard.applied_index)).collect();
        let rates = self.load_meter.lock().measure(applied, self.clock.monotonic());
        let unknown =
            |error: &std::io::Error| tracing::warn!(%error, "the disk does not tell its room");
        let room = self.disk.available_bytes().inspect_err(unknown);
        NodeLoad::measured(self.node, shards, &rates, room.ok().flatten())
    }

    fn measure_shard(&self, service: &ShardService) -> ShardLoad {
        let leadership = service.leadership();
        let status = self.engine.status(service.shard()).ok();
        ShardLoad {
            shard: service.shard(),
            leader: leadership.leads,
            term: leadership.term,
            applied_index: status.as_ref().map_or(0, |status| status.applied),
            rows: status.as_ref().map_or(0, |status| status.rows_estimate),
            bytes: status.as_ref().map_or(0, |status| status.bytes_estimate),
            ..ShardLoad::default()
        }
    }

    /// A node without a replica of a shard learns here who leads it, and one
    /// with a replica that a call in doubt has made forget it.
    fn learn_leaders(&self) {
        for service in self.services.shards() {
            let (shard, leader) = (service.shard(), service.leadership().leader);
            if leader.is_some() && self.directory.shard_leader(shard).is_none() {
                self.directory.learned(Destination::Shard(shard), leader);
            }
        }
        for member in self.gossip.members() {
            self.directory.learn_address(member.node, &member.address);
        }
        let alive = self.gossip.alive();
        let leaders = self.registry.lock().leaders();
        for (shard, leader) in leaders {
            if self.services.shard(shard).is_none() && alive.contains(&leader) {
                self.directory.learned(Destination::Shard(shard), Some(leader));
            }
        }
    }
}
