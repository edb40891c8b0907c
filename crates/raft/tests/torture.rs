//! Seeded runs in which nodes lose power and connections at any moment.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::Mutex;
use quorate_raft::Group;
use quorate_types::env::{Rng, SplitMix};
use quorate_types::runtime::spawn;
use support::*;

/// How many seeds a normal test run tries; `RAFT_TORTURE_SEEDS` overrides.
const SEEDS: u64 = 25;
const STEPS: u64 = 30;
/// Far more than the steps and a few elections take.
const VIRTUAL_TIME_MAX: Duration = Duration::from_secs(300);

/// Offers unique commands to whichever replica takes them and notes those
/// that were acknowledged.
async fn offer(replicas: Vec<Group>, name: String, acknowledged: Arc<Mutex<Vec<Bytes>>>) {
    for replica in replicas {
        let command = Bytes::from(format!("{name}/{}", replica.replica()));
        if replica.propose(command.clone(), Duration::from_millis(500)).await.is_ok() {
            acknowledged.lock().push(command);
        }
    }
}

async fn run(seed: u64) {
    let mut chance = SplitMix::new(seed);
    let network = Network::default();
    let mut nodes = seeded_cluster(&network, &[1]).await;
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let mut clients = Vec::new();
    for step in 0..STEPS {
        match chance.below(8) {
            0 | 1 => {
                let victim = chance.below(3) as usize;
                let replica = 11 + victim as u64;
                nodes[victim].crash_and_restart().await;
                nodes[victim].create(1, replica).await;
            }
            2 => network.isolate(nodes[chance.below(3) as usize].id),
            3 | 4 => network.heal(),
            _ => {}
        }
        for burst in 0..chance.below(12) {
            let name = format!("{step}.{burst}");
            let client = offer(groups_of(&nodes, 1), name, Arc::clone(&acknowledged));
            clients.push(spawn(client));
        }
        tokio::time::sleep(Duration::from_millis(chance.below(1500))).await;
    }
    network.heal();
    join_all(clients).await;
    let replicas = groups_of(&nodes, 1);
    // An election may still be under way, and be lost to a later one.
    let last = loop {
        let leader = leader_of(&replicas).await;
        let last = leader.propose(Bytes::from_static(b"last"), Duration::from_secs(5)).await;
        if let Ok(last) = last {
            break last;
        }
        // A leader that has lost its lease says no at once; let time pass.
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    applied_everywhere(&replicas, last.index).await;
    let tape = nodes[0].tape(1);
    for node in &nodes {
        assert_eq!(node.tape(1), tape, "seed {seed}: replicas diverge");
    }
    for command in acknowledged.lock().iter() {
        let times = tape.iter().filter(|&applied| applied == command).count();
        assert_eq!(times, 1, "seed {seed}: {command:?} was acknowledged");
    }
}

#[test]
fn what_was_acknowledged_is_applied_once_on_every_replica() {
    let seeds = std::env::var("RAFT_TORTURE_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    for seed in 0..seeds.unwrap_or(SEEDS) {
        simulate_seed(seed, async move {
            let ended = tokio::time::timeout(VIRTUAL_TIME_MAX, run(seed)).await;
            assert!(ended.is_ok(), "seed {seed}: no agreement after all faults have ended");
        });
    }
}
