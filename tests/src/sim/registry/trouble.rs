//! What befalls the nodes, one thing after the other in each of two lanes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate::types::env::{Rng, SplitMix};
use quorate::types::{Blob, NodeId};
use quorate_crdt::{Entry, Stamp};
use quorate_testkit::sim::{LinkConfig, swizzle};
use tokio::time::sleep;

use super::house::{ALLOCATIONS, House, MISSED_REMOVAL, Node, shard_of};
use super::writers::{OWN_FROM, allocate, newest_fence, retire};
use crate::sim::faults::Fault;
use crate::sim::options::Draw;

/// The most keys that are removed while a member is away.
const REMOVED_MAX: usize = 4;

const NETWORK: [Fault; 11] = [
    Fault::Isolation,
    Fault::Isolation,
    Fault::Isolation,
    Fault::OneWayCut,
    Fault::TwoWayCut,
    Fault::Halves,
    Fault::MajorityRing,
    Fault::Swizzle,
    Fault::Loss,
    Fault::Duplication,
    Fault::Delay,
];

/// A restart comes without the mark of the clock.
const MACHINES: [Fault; 7] = [
    Fault::Restart,
    Fault::Restart,
    Fault::Restart,
    Fault::PowerCut,
    Fault::LongOutage,
    Fault::Pause,
    Fault::ClockJump,
];

/// Strikes until it is dropped.
pub(super) async fn befall(house: &House) {
    tokio::join!(disturb_on(house), harm_on(house));
}

async fn disturb_on(house: &House) {
    let mut chance = Draw(SplitMix::new(house.plan.seed ^ (1 << 48)));
    loop {
        sleep(Duration::from_millis(chance.between(500, 3_000))).await;
        let fault = chance.pick(&NETWORK);
        let struck = disturb(house, fault, &mut chance).await;
        house.note(fault, struck.is_some());
    }
}

async fn harm_on(house: &House) {
    let mut chance = Draw(SplitMix::new(house.plan.seed ^ (2 << 48)));
    loop {
        sleep(Duration::from_millis(chance.between(1_000, 6_000))).await;
        let fault = chance.pick(&MACHINES);
        let struck = harm(house, fault, &mut chance).await;
        house.note(fault, struck.is_some());
    }
}

/// Faults between nodes; `None` if there was nobody to strike.
async fn disturb(house: &House, fault: Fault, chance: &mut Draw) -> Option<()> {
    let network = &house.network;
    let nodes = house.ids();
    let first = chance.pick(&nodes);
    let others: Vec<NodeId> = nodes.iter().copied().filter(|node| *node != first).collect();
    let second = chance.pick(&others);
    let usual = house.plan.link;
    let lasts = Duration::from_millis(chance.between(500, 6_000));
    house.sim.trace().record(format_args!("{fault:?} strikes"));
    match fault {
        Fault::Isolation => return absence(house, chance).await,
        Fault::OneWayCut => network.cut_one_way(first, second),
        Fault::TwoWayCut => network.partition(&[first], &[second]),
        Fault::Halves => {
            let (mut left, right): (Vec<_>, Vec<_>) = others.iter().partition(|_| chance.one_in(2));
            left.push(first);
            network.partition(&left, &right);
        }
        Fault::MajorityRing => network.majority_ring(&nodes),
        Fault::Swizzle => {
            for step in swizzle(&nodes, chance.0.next_u64()) {
                network.swizzle_step(step);
                sleep(lasts / 6).await;
            }
        }
        Fault::Loss => {
            let loss_per_mille = chance.pick(&[50, 200, 400]);
            network.set_link(LinkConfig { loss_per_mille, ..usual });
        }
        Fault::Duplication => {
            network.set_link(LinkConfig { is_ordered: false, ..usual });
            house.twice_per_mille.store(300, Ordering::Relaxed);
        }
        Fault::Delay => {
            let extra = Duration::from_millis(chance.pick(&[20, 200, 600]));
            network.spike_node(first, extra, lasts);
        }
        fault => unreachable!("{fault:?} is no fault of the network"),
    }
    sleep(lasts).await;
    network.heal();
    network.set_link(usual);
    house.twice_per_mille.store(0, Ordering::Relaxed);
    Some(())
}

/// Nobody hears some node, which hears nobody, while others remove what it
/// holds, and for longer than removals are remembered for their age alone.
async fn absence(house: &House, chance: &mut Draw) -> Option<()> {
    let awake = house.awake();
    let place = chance.choose(&awake)?;
    let others: Vec<usize> = awake.into_iter().filter(|other| *other != place).collect();
    let absent = house.node(place)?;
    house.network.isolate(absent.id());
    sleep(Duration::from_millis(chance.between(200, 1_500))).await;
    let mut removed: Vec<(Blob, Stamp)> = Vec::new();
    for (key, entry) in passing(&absent) {
        let is_wanted = removed.len() < REMOVED_MAX && chance.one_in(2);
        let other = chance.choose(&others).and_then(|other| house.node(other));
        let Some(other) = other.filter(|other| is_wanted && other.is_awake()) else { continue };
        house.left_alone.lock().insert(shard_of(&key));
        if retire(house, &other, shard_of(&key), newest_fence(house)).await.is_some() {
            removed.push((key, entry.stamp));
        }
    }
    let lasts_millis = house.plan.age_millis + chance.between(1_000, 5_000);
    sleep(Duration::from_millis(lasts_millis)).await;
    // It may have lost its power meanwhile, and with it all that it held.
    let still_holds = |(key, stamp): &(Blob, Stamp)| {
        let registry = absent.registry.lock();
        registry.map().entry(key).is_some_and(|entry| entry.stamp == *stamp)
    };
    if absent.life.is_alive() && removed.iter().any(still_holds) {
        house.seen.coverage.reach(MISSED_REMOVAL);
    }
    house.network.rejoin(absent.id());
    Some(())
}

/// The shards that a node knows and that are not written all the time.
fn passing(node: &Node) -> Vec<(Blob, Entry)> {
    let registry = node.registry.lock();
    let map = registry.map();
    let keys = map.scan(ALLOCATIONS).map(|(key, _)| key);
    keys.filter(|key| shard_of(key).0 >= OWN_FROM)
        .filter_map(|key| Some((key.clone(), map.entry(key)?.clone())))
        .collect()
}

/// Faults of machines; `None` if there was nobody to strike.
async fn harm(house: &House, fault: Fault, chance: &mut Draw) -> Option<()> {
    let place = chance.choose(&house.awake())?;
    house.sim.trace().record(format_args!("{fault:?} strikes"));
    match fault {
        Fault::Restart => return put_back(house, place, chance).await,
        Fault::PowerCut | Fault::LongOutage => {
            let longest = if fault == Fault::PowerCut { 1_500 } else { 15_000 };
            house.crash(place);
            sleep(Duration::from_millis(chance.between(1, longest))).await;
            house.restart(place).await;
        }
        Fault::Pause => {
            let node = house.node(place)?;
            node.life.pause();
            sleep(Duration::from_millis(chance.between(100, 8_000))).await;
            node.life.resume();
        }
        Fault::ClockJump => {
            let millis = i64::try_from(chance.below(2_000)).unwrap() - 1_000;
            house.jump(place, millis);
            sleep(Duration::from_millis(chance.between(100, 4_000))).await;
            house.mend_clock(place);
        }
        fault => unreachable!("{fault:?} is no fault of a machine"),
    }
    Some(())
}

/// A node loses its power and is put back to the moment of one of its writes,
/// which others have seen. It writes again there, before it hears of anything:
/// under the same stamp, something else.
async fn put_back(house: &House, place: usize, chance: &mut Draw) -> Option<()> {
    let id = house.node(place)?.id();
    house.crash(place);
    sleep(Duration::from_millis(chance.between(1, 2_000))).await;
    let Some((key, old)) = remembered(house, id, chance) else {
        house.restart(place).await;
        return None;
    };
    house.restart_at(place, old.stamp.hlc.millis).await;
    let node = house.node(place)?;
    let (shard, fence) = (shard_of(&key), old.stamp.fence);
    if !chance.one_in(4) {
        house.left_alone.lock().insert(shard);
    }
    if chance.one_in(5) {
        retire(house, &node, shard, fence).await;
    } else {
        allocate(house, &node, shard, fence).await;
    }
    sleep(Duration::from_millis(chance.between(1, 3_000))).await;
    house.mend_clock(place);
    Some(())
}

/// A write of a node as others remember it, made at the first tick of its
/// millisecond: such a tick comes again when the clock is put back.
fn remembered(house: &House, node: NodeId, chance: &mut Draw) -> Option<(Blob, Entry)> {
    let mut known: Vec<(Blob, Entry)> = house.nodes().iter().flat_map(passing).collect();
    known.retain(|(_, entry)| entry.stamp.hlc.node == node && entry.stamp.hlc.counter == 0);
    known.sort();
    known.dedup();
    let place = chance.below(u64::try_from(known.len()).unwrap().max(1));
    known.into_iter().nth(usize::try_from(place).unwrap())
}
