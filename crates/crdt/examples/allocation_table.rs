//! Three nodes learn where shards are, one of them goes away while a shard is
//! split, and a leader that was replaced finds out.
//!
//! Run with `cargo run -p quorate-crdt --example allocation_table`.

use quorate_crdt::{Allocation, CrdtError, Limits, Origin, Registry, RegistryConfig};
use quorate_types::{GroupId, KeyRange, NodeId, ShardEpoch, ShardId};

const BUDGET_BYTES: usize = 64 << 10;

fn main() -> Result<(), CrdtError> {
    let [mut leader, mut follower, mut away] = [1, 2, 3].map(registry);

    println!("Map version 1: one shard owns every key.");
    leader.allocate(&allocation(1, KeyRange::all(), 1), 1, 1_000)?;
    let bytes = exchange(&leader, &mut follower)? + exchange(&leader, &mut away)?;
    println!("  two peers learned of it in {bytes} bytes");

    println!("Map version 2: split at \"m\" while node 3 is away.");
    let (left, right) = (
        KeyRange { start: "".into(), end: Some("m".into()) },
        KeyRange { start: "m".into(), end: None },
    );
    leader.allocate(&allocation(1, left, 1), 2, 2_000)?;
    leader.allocate(&allocation(2, right, 2), 2, 2_000)?;
    exchange(&leader, &mut follower)?;
    show("node 2", &follower);
    show("node 3", &away);

    println!("Node 3 believes it leads, and publishes under version 1.");
    away.allocate(&allocation(1, KeyRange::all(), 3), 1, 3_000)?;
    exchange(&away, &mut follower)?;
    show("node 2", &follower);

    println!("Once it has heard, it is told at once.");
    exchange(&follower, &mut away)?;
    match away.allocate(&allocation(1, KeyRange::all(), 3), 1, 4_000) {
        Err(refusal @ CrdtError::StaleAllocation { .. }) => println!("  {refusal}"),
        other => other?,
    }
    exchange(&away, &mut leader)?;
    assert_eq!(leader.root(), away.root());
    println!("All roots are equal: {:032x}", away.root());
    Ok(())
}

fn registry(node: u64) -> Registry {
    let origin = Origin::new(NodeId(node), 1);
    Registry::new(RegistryConfig { origin, high_water_millis: 0, limits: Limits::default() })
}

fn allocation(shard: u64, range: KeyRange, leader: u64) -> Allocation {
    Allocation {
        shard: ShardId(shard),
        range,
        epoch: ShardEpoch(1),
        leader: Some(NodeId(leader)),
        voters: vec![NodeId(1), NodeId(2), NodeId(3)].into(),
        group: GroupId(shard),
    }
}

/// One direction of anti-entropy; returns the bytes that were sent.
fn exchange(source: &Registry, target: &mut Registry) -> Result<usize, CrdtError> {
    let mut bytes = 0;
    loop {
        let vector = target.vector();
        let Some(answer) = source.delta(&vector, BUDGET_BYTES)? else { return Ok(bytes) };
        bytes += vector.len() + answer.len();
        if !target.merge(&answer)?.more {
            return Ok(bytes);
        }
    }
}

fn show(name: &str, registry: &Registry) {
    let located = registry.allocations().locate(b"zebra");
    match located.and_then(|allocation| Some((allocation.shard, allocation.leader?))) {
        Some((shard, leader)) => println!("  {name} finds \"zebra\" in {shard}, led by {leader}"),
        None => println!("  {name} does not know where \"zebra\" is"),
    }
}
