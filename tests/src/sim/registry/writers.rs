//! Who writes what.

use std::time::Duration;

use parking_lot::Mutex;
use quorate::types::env::SplitMix;
use quorate::types::{GroupId, KeyRange, NodeId, Seq, ShardEpoch, ShardId};
use quorate_crdt::{Allocation, Entry};
use tokio::time::sleep;

use super::house::{House, Node, allocation_key, load_key};
use crate::sim::options::Draw;

/// Shards that one node alone writes: so many from this id on, times its own.
pub(super) const OWN_FROM: u64 = 100;
const OWN_EACH: u64 = 4;
/// From this id on shards are made, and once they are removed never again.
const PASSING_FROM: u64 = 1_000;
/// The most of them at a time.
const PASSING_MAX: usize = 12;
/// How often fences rise, where they do.
const FENCE_MILLIS: u64 = 10_000;

/// Shards that were made and are not removed yet.
#[derive(Default)]
struct Passing {
    made: u64,
    present: Vec<ShardId>,
}

/// Writes until it is dropped. It does not matter that one does it all: what a
/// write takes is no time.
pub(super) async fn write(house: &House) {
    let passing = Mutex::default();
    let mut chance = Draw(SplitMix::new(house.plan.seed ^ 0x0077_7269_7465));
    loop {
        let pause_millis = chance.between(1, house.plan.pause_millis_max);
        sleep(Duration::from_millis(pause_millis)).await;
        step(house, &passing, &mut chance).await;
    }
}

/// One write somewhere.
async fn step(house: &House, passing: &Mutex<Passing>, chance: &mut Draw) {
    let Some(node) = chance.choose(&house.awake()).and_then(|place| house.node(place)) else {
        return;
    };
    let fence = fence(house, chance);
    let shared = ShardId(chance.between(1, house.plan.shared));
    let own = ShardId(OWN_FROM * node.id().0 + chance.below(OWN_EACH));
    let made = {
        let passing = passing.lock();
        chance.choose(&passing.present)
    };
    match (chance.below(20), made) {
        (0..=7, _) => drop(allocate(house, &node, shared, fence).await),
        (8..=9, _) => drop(retire(house, &node, shared, fence).await),
        (10..=12, _) if !house.left_alone.lock().contains(&own) => {
            drop(allocate(house, &node, own, fence).await);
        }
        (13..=14, Some(shard)) => {
            passing.lock().present.retain(|present| *present != shard);
            drop(retire(house, &node, shard, fence).await);
        }
        (15..=16, Some(shard)) if !house.left_alone.lock().contains(&shard) => {
            drop(allocate(house, &node, shard, fence).await);
        }
        (17, _) => remove_load(house, &node, chance).await,
        _ => make(house, &node, passing, fence).await,
    }
}

/// The fence of the leader.
pub(super) fn newest_fence(house: &House) -> u64 {
    let millis = u64::try_from(house.sim.elapsed().as_millis()).unwrap();
    if house.plan.fences_rise { 1 + millis / FENCE_MILLIS } else { 1 }
}

/// The same, or that of one which was replaced without noticing.
fn fence(house: &House, chance: &mut Draw) -> u64 {
    (newest_fence(house) - u64::from(chance.one_in(6))).max(1)
}

async fn make(house: &House, node: &Node, passing: &Mutex<Passing>, fence: u64) {
    let shard = {
        let mut passing = passing.lock();
        if passing.present.len() >= PASSING_MAX {
            return;
        }
        passing.made += 1;
        ShardId(PASSING_FROM + passing.made)
    };
    if allocate(house, node, shard, fence).await.is_some() {
        passing.lock().present.push(shard);
    }
}

/// Publishes an allocation that nobody has published before.
pub(super) async fn allocate(
    house: &House,
    node: &Node,
    shard: ShardId,
    fence: u64,
) -> Option<Entry> {
    let allocation = Allocation {
        shard,
        range: range(shard),
        epoch: ShardEpoch(house.number()),
        leader: Some(node.id()),
        voters: Seq(vec![node.id()]),
        group: GroupId(shard.0),
    };
    let work = async {
        house.write(node, &allocation_key(shard), |registry, now| {
            registry.allocate(&allocation, fence, now).is_ok()
        })
    };
    node.life.run(work).await
}

/// Removes a shard, whether the node knows it or not.
pub(super) async fn retire(
    house: &House,
    node: &Node,
    shard: ShardId,
    fence: u64,
) -> Option<Entry> {
    let work = async {
        house.write(node, &allocation_key(shard), |registry, now| {
            registry.retire(shard, fence, now).is_ok()
        })
    };
    node.life.run(work).await
}

/// Removes what some node reports, as if it had left; it reports again.
async fn remove_load(house: &House, node: &Node, chance: &mut Draw) {
    let of: NodeId = chance.pick(&house.ids());
    let work = async {
        house.write(node, &load_key(of), |registry, now| registry.remove_load(of, now).is_ok())
    };
    drop(node.life.run(work).await);
}

/// The keys of a shard: no two overlap.
fn range(shard: ShardId) -> KeyRange {
    let name = |end: &str| format!("{:08}{end}", shard.0);
    KeyRange::new(name("").as_str(), name("~").as_str())
}
