//! `cargo xtask sim`.

use crate::program::{self, Args};
use crate::{Outcome, artifacts, shell};

/// The program that simulates; of the package of end-to-end tests.
const PROGRAM: &str = "sim";

/// How arguments begin that need planted bugs: a subcommand and a flag.
const NEEDS_CANARIES: [&str; 2] = ["canaries", "--canary"];
/// The layers in which bugs can be planted. Each has tests that they do what
/// their names say.
const HAVE_CANARIES: [&str; 5] =
    ["quorate-calvin", "quorate-crdt", "quorate-meta", "quorate-migration", "quorate-raft"];

/// How long seeds are run that no run of CI before has seen, and how many of
/// them have to fit in.
const FRESH_MINUTES: u64 = 4;
const FRESH_SEEDS_MIN: u64 = 30;

/// Runs seeds twice, in processes of their own: each must be one run.
pub(crate) fn compare_replays() -> Outcome {
    run(&Args::of(&["meta", "2", "12"]))
}

/// Runs the fixed set of seeds, and those that once found a bug.
pub(crate) fn run_fixed_seeds() -> Outcome {
    run(&Args::of(&["fixed"]))
}

/// Runs seeds that follow from the commit: others for every change, and the
/// same ones if a run is repeated.
pub(crate) fn run_fresh_seeds() -> Outcome {
    let from = first_seed(&program::commit()?)?.to_string();
    let (minutes, least) = (FRESH_MINUTES.to_string(), FRESH_SEEDS_MIN.to_string());
    let seeds = "1000";
    run(&Args::of(&["--from", &from, "--seeds", seeds, "--minutes", &minutes, "--least", &least]))
}

/// The first of a thousand seeds that a commit stands for.
fn first_seed(commit: &str) -> Outcome<u64> {
    Ok(program::number_of(commit)? * 1_000)
}

/// Cuts the power at every write of a node's life.
pub(crate) fn sweep() -> Outcome {
    run(&Args::of(&["sweep"]))
}

/// Builds the simulator as tests are built, or with planted bugs where those
/// are asked for, and runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    let needs_canaries = args.passed_on.iter().any(|argument| {
        let argument = argument.to_string_lossy();
        NEEDS_CANARIES.iter().any(|beginning| argument.starts_with(beginning))
    });
    if args.passed_on.len() == 1 && needs_canaries {
        test_canaries()?;
    }
    if needs_canaries {
        program::run_built(&artifacts::build_with_canaries(PROGRAM)?, PROGRAM, args)
    } else {
        program::run(PROGRAM, args)
    }
}

/// Planted bugs do what their names say. No other test runs with them.
fn test_canaries() -> Outcome {
    let mut command = shell::cargo();
    command.arg("test");
    for layer in HAVE_CANARIES {
        command.args(["--package", layer]);
    }
    shell::run(command.args(["--features", "quorate-types/canary", "--test", "canaries"]))
}

#[cfg(test)]
mod tests;
