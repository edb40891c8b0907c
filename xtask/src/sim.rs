//! `cargo xtask sim`.

use std::ffi::OsString;
use std::process::Command;

use crate::{Outcome, artifacts, shell};

/// The program that simulates; of the package of end-to-end tests.
const PROGRAM: &str = "sim";

/// What `sim` takes: whatever the program does, which explains itself.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// Passed on: `--help` tells what there is.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    program: Vec<OsString>,
}

/// The subcommands that need planted bugs, or a flag that does.
const NEEDS_CANARIES: [&str; 2] = ["canaries", "--canary"];

/// How long seeds are run that no run of CI before has seen, and how many of
/// them have to fit in.
const FRESH_MINUTES: u64 = 5;
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
    let commit =
        shell::read(Command::new("git").current_dir(shell::root()).args(["rev-parse", "HEAD"]))?;
    let from = first_seed(commit.trim())?.to_string();
    let (minutes, least) = (FRESH_MINUTES.to_string(), FRESH_SEEDS_MIN.to_string());
    let seeds = "1000";
    run(&Args::of(&["--from", &from, "--seeds", seeds, "--minutes", &minutes, "--least", &least]))
}

/// The first of a thousand seeds that a commit stands for.
fn first_seed(commit: &str) -> Outcome<u64> {
    let digits = commit.get(..8).ok_or_else(|| format!("'{commit}' is no commit"))?;
    Ok(u64::from_str_radix(digits, 16)? * 1_000)
}

/// Cuts the power at every write of a node's life.
pub(crate) fn sweep() -> Outcome {
    run(&Args::of(&["sweep"]))
}

impl Args {
    fn of(program: &[&str]) -> Self {
        Self { program: program.iter().map(OsString::from).collect() }
    }
}

/// Builds the simulator as tests are built, or with planted bugs where those
/// are asked for, and runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    let needs_canaries =
        args.program.iter().any(|argument| NEEDS_CANARIES.iter().any(|name| argument == name));
    let built = if needs_canaries {
        artifacts::build_with_canaries(PROGRAM)?
    } else {
        artifacts::build_programs(&[PROGRAM])?
    };
    let mut command = Command::new(built.program(PROGRAM)?);
    shell::run(command.current_dir(shell::root()).args(&args.program))
}

#[cfg(test)]
mod tests;
