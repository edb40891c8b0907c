//! Seeded random runs of the production services: clients that read and write
//! registers and lists on three shards, while slices, watermarks, contributions
//! and replies are held back and offices are lost and won again.
//! `QUORATE_SEED=<seed>` replays one run, `QUORATE_RUNS=<n>` asks for more.

use std::time::Duration;

use quorate_calvin::ServiceConfig;
use quorate_types::ShardId;
use quorate_types::env::{Rng, SplitMix};

use super::gate::{read, write};
use super::wires::{Held, node_of};
use super::world::{World, run};
use crate::support::checker::{Operation, is_strictly_serializable};
use crate::support::procedures::Op;
use crate::support::{blob, blobs, map_cut_at};

const RUNS: u64 = 40;
const CLIENTS: u64 = 4;
const OPERATIONS: u64 = 6;
/// Changes of the weather in one run; afterwards it is calm, so that every
/// call ends.
const CHANGES: u64 = 40;
const KEYS: [&str; 4] = ["a", "aa", "b", "c"];

fn some_keys(rng: &mut SplitMix) -> Vec<&'static str> {
    let first = rng.below(4) as usize;
    let second = rng.below(4) as usize;
    let mut keys = vec![KEYS[first.min(second)], KEYS[first.max(second)]];
    keys.dedup();
    keys
}

fn operation(rng: &mut SplitMix, value: &str) -> Op {
    let keys = some_keys(rng);
    match rng.below(8) {
        0..=2 => read(&keys[..1]),
        3 => read(&keys),
        4 => write(&keys[..1], value),
        5 => write(&keys, value),
        6 => {
            let (reads, writes) = (blobs(&some_keys(rng)).into(), blobs(&keys).into());
            Op::ReadWrite { reads, writes, value: blob(value) }
        }
        _ => Op::Append { keys: blobs(&keys).into(), item: blob(value) },
    }
}

async fn change(world: &World, rng: &mut SplitMix) {
    let shard = ShardId(1 + rng.below(3));
    match rng.below(16) {
        0 => world.log(shard).begin_term(),
        1 => world.sequencer().begin_term(),
        2 => world.wires.hold(Held::Contributions(shard)),
        3 => world.wires.hold(Held::Watermarks(node_of(shard))),
        4..=8 => world.wires.hold(Held::Slices(shard)),
        9..=11 => world.wires.release(Held::Slices(shard)),
        12 => world.wires.release_everything(),
        _ => {}
    }
    tokio::time::sleep(Duration::from_millis(rng.below(40))).await;
}

async fn weather(seed: u64, has_gate: bool) -> Vec<Operation> {
    let world = World::start(map_cut_at(&["b", "c"]), ServiceConfig::default(), seed).await;
    if !has_gate {
        world.open_gates();
    }
    let mut rng = SplitMix::new(seed);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let script = (0..OPERATIONS)
                .map(|number| operation(&mut rng, &format!("{client}{number}")))
                .collect();
            world.spawn(script)
        })
        .collect();
    for _ in 0..CHANGES {
        change(&world, &mut rng).await;
    }
    world.wires.release_everything();
    for client in clients {
        client.await.unwrap();
    }
    world.history()
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("QUORATE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("QUORATE_RUNS").unwrap_or(RUNS),
    }
}

#[test]
fn the_services_are_strictly_serializable_in_any_weather() {
    for seed in seeds() {
        let history = run(seed, weather(seed, true));
        assert!(
            is_strictly_serializable(&history),
            "QUORATE_SEED={seed}: no order explains {history:#?}"
        );
    }
}

/// The weather is bad enough, and the checker sharp enough, to see that the
/// gate is needed.
#[test]
fn without_a_gate_some_weather_shows() {
    let breaks = |seed| !is_strictly_serializable(&run(seed, weather(seed, false)));
    assert!((0..RUNS).any(breaks));
}

#[test]
fn a_seed_replays_its_run() {
    let told = || format!("{:?}", run(3, weather(3, true)));
    assert_eq!(told(), told());
}
