//! Chance kills, stalls and transfers for as long as one likes.

use std::time::Duration;

use quorate_tests::{Cluster, Load, Progress, Work};
use quorate_types::env::{Rng, SplitMix};
use quorate_types::runtime::random;

use crate::serializability::transfer_all;

const CLIENTS: [Work; 8] = [
    Work::Lists,
    Work::Lists,
    Work::Lists,
    Work::Lists,
    Work::Bank,
    Work::Bank,
    Work::Puts,
    Work::Puts,
];

/// How long an everyday run lasts, and how many there are.
const SECONDS: u64 = 10;
const RUNS: u64 = 1;
/// Between two strikes so many operations have to succeed: the service always
/// comes back.
const BETWEEN: u64 = 100;
/// A stall lasts up to so long: from nothing that anybody notices to one after
/// which the stalled node was voted out and taken for dead.
const STALL_MAX_MILLIS: u64 = 6_000;

/// A number from the environment: see docs/testing.md.
fn asked(variable: &str, otherwise: u64) -> u64 {
    let Ok(text) = std::env::var(variable) else { return otherwise };
    text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not '{text}'"))
}

#[test]
fn torment_leaves_histories_strictly_serializable_and_acknowledged_writes_in_place() {
    let seconds = Duration::from_secs(asked("QUORATE_TORMENT_SECONDS", SECONDS));
    for run in 0..asked("QUORATE_TORMENT_RUNS", RUNS) {
        let seed = asked("QUORATE_TORMENT_SEED", random()).wrapping_add(run);
        println!("run {run} for {seconds:?}; the order of strikes is QUORATE_TORMENT_SEED={seed}");
        let mut chance = SplitMix::new(seed);
        let mut cluster = Cluster::start(3);
        let load = Load::on(&cluster.gateways());
        let report = load.run(&CLIENTS, |progress| {
            progress.wait(BETWEEN);
            progress.wait_puts(1);
            while progress.elapsed() < seconds {
                strike(&mut cluster, progress, &mut chance);
                progress.wait(BETWEEN);
            }
        });
        report.assert_correct(cluster.gateway(1));
        cluster.wait_agreement();
    }
}

/// One blow, after which every node runs again.
fn strike(cluster: &mut Cluster, progress: Progress<'_>, chance: &mut SplitMix) {
    let victim = 1 + chance.below(3);
    let stall = Duration::from_millis(chance.below(STALL_MAX_MILLIS));
    match chance.below(6) {
        0..=1 => {
            println!("kills {victim}");
            cluster.kill(victim);
            progress.wait(BETWEEN);
            cluster.restart(victim);
        }
        2 => {
            println!("kills all");
            for id in cluster.ids() {
                cluster.kill(id);
            }
            cluster.start_all();
        }
        3 => {
            println!("stalls {victim} for {stall:?}");
            cluster.pause(victim);
            progress.wait_for(stall);
            cluster.resume(victim);
        }
        4 => {
            println!("stalls {victim} and kills it");
            cluster.pause(victim);
            progress.wait_for(stall / 2);
            cluster.kill(victim);
            cluster.restart(victim);
        }
        _ => {
            println!("lets {victim} lead");
            transfer_all(cluster, victim);
        }
    }
}
