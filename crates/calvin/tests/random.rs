//! Seeded random runs of the whole model: everything that may be late, lost,
//! doubled, deposed, restarted or split is, at some seed. A failing seed is
//! printed; `QUORATE_SEED=<seed>` replays it alone with its trace, and
//! `QUORATE_RUNS=<n>` runs more of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(missing_docs, unreachable_pub, dead_code, reason = "the support is shared between files")]

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use support::checker::is_strictly_serializable;
use support::cluster::GateRule;
use support::procedures::quiet_contained_panics;
use support::random::{MIXED, Mix, Run};

fn runs(usual: u64) -> u64 {
    std::env::var("QUORATE_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(usual)
}

/// Runs the seeds, or the one that is asked for, and names the one that fails.
fn each_seed(test: &str, usual: u64, run: impl Fn(u64) -> Run, check: impl Fn(&mut Run)) {
    quiet_contained_panics();
    let asked = std::env::var("QUORATE_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    let seeds = asked.map_or(0..runs(usual), |seed| seed..seed + 1);
    for seed in seeds {
        let mut run = run(seed);
        let outcome = catch_unwind(AssertUnwindSafe(|| check(&mut run)));
        if let Err(panic) = outcome {
            if asked.is_some() {
                run.trace.iter().for_each(|step| eprintln!("{step}"));
            }
            eprintln!(
                "seed {seed} fails; replay it with\n  \
                 QUORATE_SEED={seed} cargo test -p quorate-calvin --test random {test}"
            );
            resume_unwind(panic);
        }
    }
}

#[test]
fn random_histories_are_strictly_serializable() {
    each_seed(
        "random_histories_are_strictly_serializable",
        3_000,
        |seed| Run::new(seed, MIXED),
        |run| {
            run.finish();
            run.judge();
        },
    );
}

#[test]
fn forgotten_requests_are_answered_expired_and_memory_returns_to_its_floor() {
    let mix = Mix { retention_millis: 2_000, ..MIXED };
    each_seed(
        "forgotten_requests_are_answered_expired_and_memory_returns_to_its_floor",
        2_000,
        |seed| Run::new(seed, mix),
        |run| {
            run.finish();
            run.judge();
            run.drain(mix.retention_millis);
        },
    );
}

#[test]
fn the_same_seed_twice_leaves_the_same_trace() {
    quiet_contained_panics();
    for seed in 0..20 {
        let traces: Vec<_> = (0..2)
            .map(|_| {
                let mut run = Run::new(seed, MIXED);
                run.finish();
                (run.trace, run.cluster.fingerprint())
            })
            .collect();
        assert_eq!(traces[0], traces[1], "seed {seed}");
    }
}

/// The checks are worth something only if they find what is broken.
fn some_seed_fails(mix: Mix, seeds: u64) -> bool {
    quiet_contained_panics();
    (0..seeds).any(|seed| {
        let mut run = Run::new(seed, mix);
        run.finish();
        !is_strictly_serializable(&run.cluster.history)
    })
}

#[test]
fn without_the_gate_some_history_is_not_strictly_serializable() {
    let calm = Mix { disturbances: 0, splits: false, hot: true, ..MIXED };
    for gate in [GateRule::Off, GateRule::VerdictsUngated, GateRule::ReadsUngated] {
        assert!(some_seed_fails(Mix { gate, ..calm }, 3_000), "{gate:?} goes unnoticed");
    }
}

#[test]
fn without_fences_some_command_runs_twice() {
    let mix = Mix { fences: false, ..MIXED };
    assert!(some_seed_fails(mix, 10_000), "a missing fence goes unnoticed");
}
