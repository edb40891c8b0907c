//! Chaos with real processes; `cargo xtask chaos` builds and runs it.
#![allow(clippy::print_stderr)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use quorate_tests::chaos::{self, Arsenal, NODES_MAX, NODES_MIN, Options};
use quorate_types::runtime::random;

/// Torments a cluster of processes and judges what its clients saw.
#[derive(Parser)]
#[command(name = "cargo xtask chaos", bin_name = "cargo xtask chaos")]
struct Arguments {
    /// How long strikes go on, at least 1; starting, healing and judging come
    /// on top. From 60 on some strikes must take effect, from 120 on a kill, a
    /// stall, a partition, a full disk, a move and a split.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Nodes that found the cluster [default: as the seed says].
    #[arg(long, value_parser = clap::value_parser!(u64).range(NODES_MIN..=NODES_MAX))]
    nodes: Option<u64>,
    /// Decides what is done in which order, not when, nor what it meets
    /// [default: drawn].
    #[arg(long)]
    seed: Option<u64>,
    /// Fill disks by a limit on the size of files even where a small file
    /// system could be mounted.
    #[arg(long)]
    without_mount: bool,
    /// Keep logs and data even if nothing was found.
    #[arg(long)]
    keep: bool,
    /// Garble what passes between clients and gateways, which nothing guards:
    /// succeeds when a checker finds that, and by nothing else.
    #[arg(long)]
    control: bool,
    /// Where the run's folder is made.
    #[arg(long, default_value = "target/chaos")]
    folder: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Short enough to be typed again.
    let seed = arguments.seed.unwrap_or_else(|| random() % 1_000_000);
    let options = Options {
        arsenal: Arsenal::Everything,
        seed,
        seconds: arguments.seconds,
        nodes: arguments.nodes.unwrap_or_else(|| Options::nodes_of(seed)),
        folder: arguments.folder,
        may_mount: !arguments.without_mount,
        keeps: arguments.keep,
        is_control: arguments.control,
    };
    match chaos::run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: chaos in {}: {error}", options.folder.display());
            ExitCode::FAILURE
        }
    }
}
