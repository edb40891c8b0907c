//! Runs simulated clusters, and says what was found.

use std::process::ExitCode;

use clap::Parser;
use quorate_tests::sim::cli;

fn main() -> ExitCode {
    cli::Command::parse().run()
}
