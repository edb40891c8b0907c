//! Tasks that are programs of the package of end-to-end tests.

use std::ffi::OsString;
use std::process::Command;

use crate::artifacts::{self, Artifacts};
use crate::{Outcome, shell};

/// What such a task takes: whatever the program does, which explains itself.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// Passed on: `--help` tells what there is.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) passed_on: Vec<OsString>,
}

impl Args {
    /// What a step of CI passes on.
    pub(crate) fn of(passed_on: &[&str]) -> Self {
        Self { passed_on: passed_on.iter().map(OsString::from).collect() }
    }
}

/// Builds a program and the server as tests are built, and runs the former,
/// which may start the latter.
pub(crate) fn run(name: &str, args: &Args) -> Outcome {
    let built = artifacts::build_programs(&[artifacts::SERVER, name])?;
    let mut command = Command::new(built.program(name)?);
    command.env(artifacts::SERVER_VARIABLE, built.server()?);
    pass_on(command, args)
}

/// Runs a program that a build left behind and that starts no other.
pub(crate) fn run_built(built: &Artifacts, name: &str, args: &Args) -> Outcome {
    pass_on(Command::new(built.program(name)?), args)
}

fn pass_on(mut command: Command, args: &Args) -> Outcome {
    shell::run(command.current_dir(shell::root()).args(&args.passed_on))
}

/// The commit that is checked out.
pub(crate) fn commit() -> Outcome<String> {
    let mut git = Command::new("git");
    Ok(shell::read(git.current_dir(shell::root()).args(["rev-parse", "HEAD"]))?.trim().to_owned())
}

/// The number that a commit stands for where a step of CI draws: another for
/// every change, and the same one if the step is repeated.
pub(crate) fn number_of(commit: &str) -> Outcome<u64> {
    let digits = commit.get(..8).ok_or_else(|| format!("'{commit}' is no commit"))?;
    Ok(u64::from_str_radix(digits, 16)?)
}
