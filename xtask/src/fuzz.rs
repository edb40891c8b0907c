//! `cargo xtask fuzz`: the fuzz targets for longer than tests take.

use std::process::Command;

use serde_json::Value;

use crate::artifacts;
use crate::{Outcome, shell};

/// What a target calls the time it may take; see `quorate_testkit::fuzz`.
const SECONDS_VARIABLE: &str = "QUORATE_FUZZ_SECONDS";
/// What a target calls the seed of its inputs.
const SEED_VARIABLE: &str = "QUORATE_FUZZ_SEED";
/// Asks targets to print what they are instead of running.
const LIST_VARIABLE: (&str, &str) = ("CARGO_BOLERO_SELECT", "all");

/// What `fuzz` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long each target takes.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3_000))]
    seconds: u64,
    /// The targets of this package only, for instance quorate-crdt.
    #[arg(long, value_name = "NAME")]
    package: Option<String>,
    /// Another sequence of inputs than that of the tests. Inputs guided by
    /// coverage have none.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Draw inputs by chance even where they could be guided by coverage.
    #[arg(long)]
    by_chance: bool,
}

/// Runs every target, guided by coverage where the tool for it is installed.
pub(crate) fn run(args: &Args) -> Outcome {
    let is_installed = shell::succeeds(shell::cargo().args(["bolero", "--version"]));
    if is_installed && !args.by_chance {
        return run_by_coverage(args);
    }
    if !is_installed {
        eprintln!(
            "cargo-bolero is not installed: inputs are drawn by chance. After \
             'cargo install cargo-bolero' they are guided by what they reach."
        );
    }
    run_by_chance(args)
}

/// As tests, only longer.
fn run_by_chance(args: &Args) -> Outcome {
    let selections = if has_nextest() { nextest(args)? } else { cargo_test(args)? };
    for mut command in selections {
        command.env(SECONDS_VARIABLE, args.seconds.to_string());
        command.env(SEED_VARIABLE, args.seed.to_string());
        shell::run(&mut command)?;
    }
    Ok(())
}

/// The targets are in files named `fuzz`: binaries of tests, and modules.
fn nextest(args: &Args) -> Outcome<Vec<Command>> {
    let mut command = shell::cargo();
    command.args(["nextest", "run", "--no-fail-fast"]).args(artifacts::everything()?);
    let targets = "(binary(fuzz) + test(fuzz::))";
    let filter = match &args.package {
        Some(package) => format!("package(={package}) & {targets}"),
        None => targets.to_owned(),
    };
    command.args(["-E", &filter]);
    Ok(vec![command])
}

/// The same without nextest: two runs, because one filter of names serves
/// modules only.
fn cargo_test(args: &Args) -> Outcome<Vec<Command>> {
    [&["--lib", "fuzz::"], &["--test", "fuzz"]]
        .into_iter()
        .map(|targets| {
            let mut command = shell::cargo();
            command.args(["test", "--no-fail-fast"]);
            match &args.package {
                Some(package) => command.args(["--package", package]),
                None => command.args(artifacts::everything()?),
            };
            command.args(targets);
            Ok(command)
        })
        .collect()
}

/// One target after the other, each with all the machine's attention.
fn run_by_coverage(args: &Args) -> Outcome {
    let mut listed = Vec::new();
    for mut command in cargo_test(args)? {
        command.args(["--", "--nocapture"]).env(LIST_VARIABLE.0, LIST_VARIABLE.1);
        listed.extend(targets(&shell::read(&mut command)?));
    }
    let time = format!("{}s", args.seconds);
    let mut failed = Vec::new();
    for (package, target) in listed {
        let mut command = shell::cargo();
        // No sanitizer: there is no unsafe code to watch, and stable has none.
        command.args(["bolero", "test", "--profile", "dev", "--sanitizer", "NONE", "-T", &time]);
        command.args(["--package", &package, &target]);
        if let Err(error) = shell::run(&mut command) {
            eprintln!("{error}");
            failed.push(target);
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", ")).into()) }
}

/// What targets print when they are asked what they are: package and path.
fn targets(printed: &str) -> Vec<(String, String)> {
    let target = |line: &str| {
        let target: Value = serde_json::from_str(line).ok()?;
        target.get("__bolero_target")?;
        let text = |field: &str| Some(target.get(field)?.as_str()?.to_owned());
        Some((text("package_name")?, text("test_name")?))
    };
    let mut targets: Vec<_> = printed.lines().filter_map(target).collect();
    targets.dedup();
    targets
}

fn has_nextest() -> bool {
    shell::succeeds(shell::cargo().args(["nextest", "--version"]))
}

#[cfg(test)]
mod tests;
