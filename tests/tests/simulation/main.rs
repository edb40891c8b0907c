//! Whole clusters, with every layer as it runs in production, on one thread,
//! in virtual time, from a seed. Only the network, the disk and the clock are
//! simulated.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]

mod invariants;
mod routing;

use std::ops::Range;
use std::time::Duration;

use quorate::types::env::{Rng, SplitMix};
use quorate_testkit::sim::{Finished, LinkConfig, Sim, run};
use quorate_tests::sim::{Cluster, Load, Operator, eventually};
use tokio::time::sleep;

/// The seeds of an everyday run, one for each share.
const SEEDS: Range<u64> = 10..20;
/// So many faults strike one after the other.
const FAULTS: usize = 8;

/// What befalls the cluster. What an operator asks for is only begun: the
/// faults that follow strike while it is carried out.
#[derive(Debug, Clone, Copy)]
enum Fault {
    PowerCut,
    /// Of all nodes at once.
    Blackout,
    /// In the middle of some write.
    TornWrite,
    Isolation,
    OneWayCut,
    Loss,
    ClockJump,
    /// A shard gets another leader.
    Transfer,
    /// A shard becomes two.
    Split,
    /// A fourth node joins, and placement moves replicas to it.
    Join,
    /// A node is to be emptied, after a fourth has joined.
    Drain,
}

impl Fault {
    const ALL: [Self; 11] = [
        Self::PowerCut,
        Self::Blackout,
        Self::TornWrite,
        Self::Isolation,
        Self::OneWayCut,
        Self::Loss,
        Self::ClockJump,
        Self::Transfer,
        Self::Split,
        Self::Join,
        Self::Drain,
    ];

    /// Strikes, lasts, and is over when this returns.
    async fn strike(self, cluster: &Cluster, operator: &Operator, chance: &mut SplitMix) {
        let victim = usize::try_from(chance.below(cluster.members() as u64)).unwrap();
        let next = cluster.id((victim + 1) % cluster.members());
        let lasts = Duration::from_millis(500 + chance.below(3000));
        match self {
            Self::PowerCut => {
                cluster.crash(victim);
                sleep(lasts).await;
                cluster.restart(victim).await;
            }
            Self::Blackout => {
                (0..cluster.members()).for_each(|place| cluster.crash(place));
                sleep(lasts).await;
                for place in 0..cluster.members() {
                    cluster.restart(place).await;
                }
            }
            Self::TornWrite => {
                cluster.tear(victim, 1 + chance.below(100), chance.next_u64());
                sleep(lasts).await;
                cluster.crash(victim);
                cluster.restart(victim).await;
            }
            Self::ClockJump => {
                let millis = i64::try_from(chance.below(20_000)).unwrap() - 10_000;
                cluster.jump(victim, millis);
            }
            Self::Isolation => {
                cluster.network.isolate(cluster.id(victim));
                sleep(lasts).await;
                cluster.network.heal();
            }
            Self::OneWayCut => {
                cluster.network.cut_one_way(cluster.id(victim), next);
                sleep(lasts).await;
                cluster.network.heal();
            }
            Self::Loss => {
                let lossy = LinkConfig {
                    loss_per_mille: 50,
                    duplicate_per_mille: 50,
                    is_ordered: false,
                    ..LinkConfig::default()
                };
                cluster.network.set_link(lossy);
                sleep(lasts).await;
                cluster.network.set_link(LinkConfig::default());
            }
            Self::Transfer => operator.transfer(chance).await,
            Self::Split => operator.split(chance).await,
            Self::Join => cluster.join().await,
            Self::Drain => operator.drain(chance).await,
        }
    }
}

/// Founds a cluster, works on it while `faults` strike, and judges what the
/// clients saw and what the nodes did. Returns how many transactions were
/// committed.
async fn torment(sim: Sim, faults: Vec<Fault>) -> u64 {
    let cluster = Cluster::found(&sim).await;
    let Some(ledger) = cluster.ledger() else { return strike(&cluster, faults).await };
    let committed = tokio::select! {
        biased;
        finding = ledger.finding() => panic!("{finding}"),
        committed = strike(&cluster, faults) => committed,
    };
    eventually("all groups are as the metadata says", || ledger.homes()).await;
    eventually("the shards hold what the order says", || ledger.content()).await;
    cluster.look_at_migrations();
    assert_eq!(ledger.findings(), [], "after {:?}", ledger.counts());
    committed
}

async fn strike(cluster: &Cluster, faults: Vec<Fault>) -> u64 {
    let load = Load::start(cluster).await;
    let operator = Operator::of(cluster);
    let mut chance = SplitMix::new(cluster.sim.seed() ^ 0x6661_756c_7473);
    sleep(Duration::from_secs(1)).await;
    for fault in faults {
        cluster.sim.trace().record(format_args!("{fault:?}"));
        fault.strike(cluster, &operator, &mut chance).await;
        sleep(Duration::from_millis(500 + chance.below(1000))).await;
    }
    cluster.serving().await;
    operator.settled().await;
    let committed = load.finish().await;
    operator.agreed().await;
    committed
}

fn simulate(seed: u64, faults: &[Fault]) -> Finished<u64> {
    let finished = run(seed, |sim| torment(sim, faults.to_vec()));
    finished.unwrap_or_else(|error| panic!("seed {seed}, {faults:?}: {error}"))
}

/// The faults of a seed.
fn faults(seed: u64) -> Vec<Fault> {
    let mut chance = SplitMix::new(seed);
    let kinds = Fault::ALL.len() as u64;
    let mut draw = || Fault::ALL[usize::try_from(chance.below(kinds)).unwrap()];
    (0..FAULTS).map(|_| draw()).collect()
}

#[test]
fn a_cluster_is_founded_and_works() {
    assert!(simulate(1, &[]).value > 0);
}

/// The clients are more than a node has room for on behalf of another one.
#[test]
fn what_a_node_has_no_room_for_is_tried_again() {
    let finished = simulate(5, &[]);
    assert!(finished.value > 0);
    let is_refused = |line: &String| line.ends_with("no room on channel 2");
    assert!(finished.trace.lines().iter().any(is_refused), "all calls had room");
}

#[test]
fn one_seed_is_one_trace() {
    let (first, second) = (simulate(2, &Fault::ALL).trace, simulate(2, &Fault::ALL).trace);
    assert_eq!(first.difference(&second), None);
    assert_eq!(first.hash(), second.hash());
    assert_ne!(simulate(3, &[]).trace.hash(), simulate(4, &[]).trace.hash());
}

/// The seeds to try: `QUORATE_SEEDS=100..200` asks for others than the usual.
fn seeds() -> Range<u64> {
    let Ok(asked) = std::env::var("QUORATE_SEEDS") else { return SEEDS };
    let ends = asked
        .split_once("..")
        .and_then(|(first, end)| Some(first.trim().parse().ok()?..end.trim().parse().ok()?));
    ends.unwrap_or_else(|| panic!("QUORATE_SEEDS is FIRST..END, not '{asked}'"))
}

/// Tries every tenth seed.
fn try_share(share: usize) {
    for seed in seeds().skip(share).step_by(10) {
        let finished = simulate(seed, &faults(seed));
        println!("seed {seed}: {} commits in {:?}", finished.value, finished.elapsed);
        assert!(finished.value > 0, "seed {seed} committed nothing");
    }
}

/// A test for each share of the seeds, so that a runner can run them side by
/// side.
mod tormented_clusters_stay_strictly_serializable {
    macro_rules! shares {
        ($($name:ident tries $share:literal;)*) => {
            $(#[test]
            fn $name() {
                super::try_share($share);
            })*
        };
    }

    shares! {
        share_0 tries 0;
        share_1 tries 1;
        share_2 tries 2;
        share_3 tries 3;
        share_4 tries 4;
        share_5 tries 5;
        share_6 tries 6;
        share_7 tries 7;
        share_8 tries 8;
        share_9 tries 9;
    }
}
