//! `cargo xtask test`.

use crate::artifacts::{self, SERVER_VARIABLE};
use crate::{Outcome, shell};

/// What `test` takes.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Leave doc tests out.
    #[arg(long)]
    no_doc: bool,
    /// Passed on to the test runner, for instance the name of a test.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    runner: Vec<String>,
}

/// Every test, with one profile and one set of features.
pub(crate) fn run(args: &Args) -> Outcome {
    let built = artifacts::build_everything()?;
    let everything = artifacts::everything()?;
    let mut runner = shell::cargo();
    if has_nextest() {
        runner.args(["nextest", "run"]).args(&everything);
    } else {
        eprintln!("cargo-nextest is not installed; 'cargo test' takes its place");
        runner.arg("test").args(&everything).arg("--tests");
    }
    runner.args(&args.runner).env(SERVER_VARIABLE, built.server()?);
    shell::run(&mut runner)?;
    if args.no_doc {
        return Ok(());
    }
    shell::run(shell::cargo().args(["test", "--doc"]).args(&everything))
}

fn has_nextest() -> bool {
    shell::succeeds(shell::cargo().args(["nextest", "--version"]))
}
