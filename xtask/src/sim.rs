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

/// Runs seeds twice, in processes of their own: each must be one run.
pub(crate) fn compare_replays() -> Outcome {
    run(&Args { program: ["meta", "2", "12"].map(OsString::from).to_vec() })
}

/// Builds the simulator as tests are built, and runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    let built = artifacts::build_programs(&[PROGRAM])?;
    let mut command = Command::new(built.program(PROGRAM)?);
    shell::run(command.current_dir(shell::root()).args(&args.program))
}
