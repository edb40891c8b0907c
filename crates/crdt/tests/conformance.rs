//! The registry as a state that anti-entropy carries, against the suite that
//! every such state must pass.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use quorate_crdt::{Allocation, Limits, Origin, Registry, RegistryConfig};
use quorate_types::conformance::state_suite;
use quorate_types::{GroupId, KeyRange, NodeId, ShardEpoch, ShardId};

/// A time of day at which nothing is ahead of anything.
const NOW_MILLIS: u64 = 1_000;

fn registry(node: NodeId) -> Registry {
    let origin = Origin::new(node, 1);
    // The suite's small budget has room for one entry.
    let limits = Limits { key_bytes_max: 64, value_bytes_max: 1 << 10, ..Limits::default() };
    Registry::new(RegistryConfig { origin, high_water_millis: 0, limits })
}

/// A shard's place, with keys that weigh something.
fn allocate(registry: &mut Registry, number: u64) {
    let key = |number: u64| format!("{number:0200}");
    let allocation = Allocation {
        shard: ShardId(number),
        range: KeyRange::new(key(number).as_str(), key(number + 1).as_str()),
        epoch: ShardEpoch(1),
        leader: Some(NodeId(1)),
        voters: vec![NodeId(1), NodeId(2), NodeId(3)].into(),
        group: GroupId(number),
    };
    registry.allocate(&allocation, 1, NOW_MILLIS + number).unwrap();
}

#[test]
fn allocations_conform() {
    state_suite(registry, allocate);
}

#[test]
fn allocations_of_few_shards_by_many_conform() {
    state_suite(registry, |registry, number| {
        // The same few shards, decided again and again, and removed between.
        let shard = |number: u64| ShardId(number % 16);
        registry.retire(shard(number + 1), 1, NOW_MILLIS + number).unwrap();
        let allocation = Allocation {
            shard: shard(number),
            range: KeyRange::new(format!("{number:0200}").as_str(), "z"),
            epoch: ShardEpoch(number),
            leader: Some(NodeId(number)),
            voters: vec![NodeId(number)].into(),
            group: GroupId(number),
        };
        registry.allocate(&allocation, 1, NOW_MILLIS + number).unwrap();
    });
}
