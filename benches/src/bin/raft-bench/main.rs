//! The Raft log beside the disk's limit, another layout and logs of others: one
//! table for each way of appending, measured in turns.
#![allow(clippy::disallowed_methods, reason = "it is no part of a node: it measures real time")]

mod bars;
mod drive;
mod opening;
mod options;
mod report;
mod run;
mod stores;

use std::process::ExitCode;

use clap::Parser;
use quorate_benches::Outcome;

use options::Options;

/// Measures durable logs on this machine: entries per second, latencies, bytes
/// that reach the device, and how long opening takes.
#[derive(Parser)]
#[command(name = "raft-bench")]
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
