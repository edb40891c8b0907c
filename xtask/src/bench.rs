//! `cargo xtask bench`.

use crate::{Outcome, shell};

/// What `bench` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Passed on to `cargo bench`, for instance the name of a bench.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    bench: Vec<String>,
}

/// The benches, in plain release.
pub(crate) fn run(args: &Args) -> Outcome {
    shell::run(shell::cargo().args(["bench", "--package", "quorate-benches"]).args(&args.bench))
}
