//! Groups on three processes: what many cost while nobody uses them, how long they are
//! without a leader when a process is killed, what it costs a leader to bring a follower
//! a snapshot, and how many puts and reads of clients one serves, beside etcd.
#![allow(clippy::disallowed_methods, reason = "it is no part of a node: it measures real time")]

mod bars;
mod catchup;
mod clients;
mod connections;
mod node;
mod options;
mod process;
mod report;
mod requests;
mod rows;
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use quorate_benches::Outcome;

use options::Options;

/// Measures Raft groups on three processes of this machine.
#[derive(Parser)]
#[command(name = "groups-bench", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// One of the processes.
    #[command(hide = true)]
    Node(node::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ended = match &cli.part {
        None => run::run(&cli.options),
        Some(Part::Node(options)) => node::run(options),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
