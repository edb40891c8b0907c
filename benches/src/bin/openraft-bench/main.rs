//! What a group costs beside bare openraft: three members in one process, all in
//! memory, and clients that write one empty command after another.
#![allow(clippy::disallowed_methods, reason = "it is no part of a node: it measures real time")]

mod bars;
#[path = "../../../../crates/raft/examples/another_log/memory.rs"]
mod memory;
mod options;
mod ours;
mod run;
mod theirs;

use std::process::ExitCode;

use clap::Parser;
use quorate_benches::Outcome;

use options::Options;

/// Measures writes to a group in memory beside openraft's own.
#[derive(Parser)]
#[command(name = "openraft-bench")]
struct Cli {
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    match run::run(&Cli::parse().options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
