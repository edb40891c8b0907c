//! What a group costs beside bare openraft: three members in one process, all in
//! memory, and clients that write one empty command after another.
#![allow(clippy::disallowed_methods, reason = "it is no part of a node: it measures real time")]

#[path = "../../../../crates/raft/examples/another_log/memory.rs"]
mod memory;
mod options;
mod ours;
mod run;
mod theirs;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

use options::Options;

/// What a step ends with. Its error is one message for a person.
type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

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
