//! A cluster of `quorate` processes under load, beside what its disk allows
//! and beside other systems that are installed: one table.
#![allow(clippy::disallowed_methods, reason = "it is no part of a node: it measures real time")]

mod cluster;
mod connection;
mod keys;
mod load;
mod options;
mod redis;
mod report;
mod run;

use std::process::ExitCode;

use clap::Parser;
use quorate_benches::Outcome;
use quorate_server::cli::stop_signal;

use options::Options;

/// Measures a cluster of real processes on this machine: operations per second
/// and latencies, the disk's limit, and other systems under the same load.
#[derive(Parser)]
#[command(name = "cluster-bench")]
struct Cli {
    #[command(flatten)]
    options: Options,
    /// End when standard input does: a parent that dies takes this along.
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // One thread carries all clients, as in other load generators: the nodes
    // need the rest of the machine.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(until_stopped(&cli)),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs, or is interrupted. Either way every process that was started has
/// ended and the data is gone when this returns: they end with their values.
async fn until_stopped(cli: &Cli) -> Outcome {
    let mut stop = stop_signal(cli.exit_with_parent)?;
    tokio::select! {
        biased;
        _ = stop.wait_for(|is_stopped| *is_stopped) => Err("interrupted".into()),
        outcome = run::run(&cli.options) => outcome,
    }
}
