//! Chance kills, stalls and transfers for as long as one likes: chaos with what
//! is over soon, so that a few seconds suffice.

use std::path::Path;

use quorate_tests::chaos::{self, Arsenal, Options};
use quorate_types::runtime::random;

/// How long an everyday run lasts, and how many there are.
const SECONDS: u64 = 10;
const RUNS: u64 = 1;

/// A number from the environment: see docs/testing.md.
fn asked(variable: &str, otherwise: u64) -> u64 {
    let Ok(text) = std::env::var(variable) else { return otherwise };
    text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not '{text}'"))
}

#[test]
fn torment_leaves_histories_strictly_serializable_and_acknowledged_writes_in_place() {
    for run in 0..asked("QUORATE_TORMENT_RUNS", RUNS) {
        let options = Options {
            arsenal: Arsenal::Processes,
            seed: asked("QUORATE_TORMENT_SEED", random()).wrapping_add(run),
            seconds: asked("QUORATE_TORMENT_SECONDS", SECONDS),
            nodes: 3,
            folder: Path::new(env!("CARGO_TARGET_TMPDIR")).join("torment"),
            may_mount: false,
            keeps: false,
            is_control: false,
        };
        assert!(chaos::run(&options).unwrap(), "see above what is wrong, and where its logs are");
    }
}
