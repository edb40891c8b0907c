//! `cargo xtask chaos`.

use std::ffi::OsString;
use std::process::Command;

use crate::{Outcome, artifacts, shell};

/// The program that torments; of the package of end-to-end tests.
const PROGRAM: &str = "chaos";

/// What `chaos` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long strikes go on; starting, healing and judging come on top.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Nodes that found the cluster [default: as the seed says].
    #[arg(long, value_parser = clap::value_parser!(u64).range(3..=5))]
    nodes: Option<u64>,
    /// Decides what is done in which order, not when, nor what it meets
    /// [default: drawn].
    #[arg(long)]
    seed: Option<u64>,
    /// Fill disks by a limit on the size of files even where a small file
    /// system could be mounted.
    #[arg(long)]
    without_mount: bool,
    /// Keep logs and data in target/chaos even if nothing is found.
    #[arg(long)]
    keep: bool,
    /// Garble what passes between clients and gateways, which nothing guards:
    /// succeeds when that is found.
    #[arg(long)]
    control: bool,
}

impl Args {
    /// The strikes of a seed, for so long, and everything else as usual.
    pub(crate) fn for_seconds(seconds: u64, seed: u64) -> Self {
        let (nodes, seed) = (None, Some(seed));
        Self { seconds, nodes, seed, without_mount: false, keep: false, control: false }
    }
}

/// Builds server and tormentor as tests are built, and runs the latter.
pub(crate) fn run(args: &Args) -> Outcome {
    let built = artifacts::build_programs(&[artifacts::SERVER, PROGRAM])?;
    let mut command = Command::new(built.program(PROGRAM)?);
    command
        .current_dir(shell::root())
        .args(to_arguments(args))
        .env(artifacts::SERVER_VARIABLE, built.server()?);
    shell::run(&mut command)
}

/// The flags as the program takes them.
fn to_arguments(args: &Args) -> Vec<OsString> {
    let Args { seconds, nodes, seed, without_mount, keep, control } = args;
    let numbers = [("--seconds", Some(*seconds)), ("--nodes", *nodes), ("--seed", *seed)];
    let mut arguments: Vec<OsString> = Vec::new();
    for (flag, value) in numbers {
        if let Some(value) = value {
            arguments.extend([flag.into(), value.to_string().into()]);
        }
    }
    let switches =
        [("--without-mount", *without_mount), ("--keep", *keep), ("--control", *control)];
    arguments.extend(switches.into_iter().filter(|(_, is_on)| *is_on).map(|(flag, _)| flag.into()));
    arguments
}

#[cfg(test)]
mod tests;
