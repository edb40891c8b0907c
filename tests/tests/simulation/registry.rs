//! Registries and the gossip that carries them, without a cluster.

use std::collections::BTreeMap;

use quorate_tests::sim::{Run, perform_registry};

const SEEDS: std::ops::Range<u64> = 1..11;

/// What each set of seeds must get to, by the names under which it is counted.
const AIMS: [&str; 4] = [
    "registry: another value has the stamp of a write",
    "registry: a member holds what was removed without it",
    "registry: tombstones are forgotten",
    "registry: a write is refused as stale",
];

#[track_caller]
fn clean(seed: u64) -> Run {
    let run = perform_registry(seed, None);
    let findings: Vec<String> = run.findings.iter().map(ToString::to_string).collect();
    let replay = format!("cargo xtask sim registry --seeds 1 --from {seed}");
    assert!(findings.is_empty(), "{}\n{replay}", findings.join("\n"));
    run
}

#[test]
fn registries_converge_and_forget_what_was_removed() {
    let mut reached: BTreeMap<String, u64> = BTreeMap::new();
    for seed in SEEDS {
        let run = clean(seed);
        assert!(run.counts(), "seed {seed} says nothing: {run:?}");
        for (site, counts) in run.sites {
            *reached.entry(site).or_default() += counts.reached;
        }
    }
    for aim in AIMS {
        assert!(reached.contains_key(aim), "not reached: {aim}");
    }
}

#[test]
fn one_seed_is_one_trace_of_registries() {
    let [first, second, other] = [7, 7, 8].map(clean);
    assert_eq!(first.trace_lines, second.trace_lines);
    assert_eq!(first.trace_hash, second.trace_hash);
    assert_ne!(first.trace_hash, other.trace_hash);
}
