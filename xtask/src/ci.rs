//! `cargo xtask ci`.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::program::{self, Args};
use crate::{Outcome, artifacts, docs, shell, sim, test, tidy};

/// How long an example may run. Each ends by itself, in seconds; one that
/// hangs shall not hold everything up.
const EXAMPLE_DURATION_MAX: Duration = Duration::from_secs(60);

/// How long processes are tormented, and with how many different orders of
/// strikes.
const CHAOS_SECONDS: u64 = 120;
const CHAOS_SEEDS: u64 = 1_000_000;

/// How often a running example is looked at.
const POLL: Duration = Duration::from_millis(20);

/// A step's name and what it does.
type Step = (&'static str, fn() -> Outcome);

/// Cheapest first: most mistakes are found before anything is compiled.
const STEPS: [Step; 12] = [
    ("format", format),
    ("tidy", tidy::run),
    ("links", docs::check_links),
    ("clippy", clippy),
    ("rustdoc", docs::build),
    ("test", run_tests),
    ("examples", run_examples),
    ("replay", sim::compare_replays),
    ("seeds", sim::run_fixed_seeds),
    ("sweep", sim::sweep),
    ("chaos", torment),
    ("fresh", sim::run_fresh_seeds),
];

/// Everything that must hold before a change is merged. Stops at the first
/// step that fails.
pub(crate) fn run() -> Outcome {
    let mut table = Vec::new();
    for (name, step) in STEPS {
        eprintln!("\nci: {name}");
        let start = Instant::now();
        let outcome = step();
        table.push((name, start.elapsed()));
        if let Err(error) = outcome {
            eprint!("\n{}", render(&table));
            return Err(format!("ci failed at '{name}': {error}").into());
        }
    }
    eprint!("\n{}", render(&table));
    eprintln!("ci: everything holds");
    Ok(())
}

/// The durations, one line each and a sum.
fn render(table: &[(&str, Duration)]) -> String {
    let sum = table.iter().map(|(_, duration)| *duration).sum();
    let line =
        |name: &str, duration: Duration| format!("{name:<10} {:>8.1} s\n", duration.as_secs_f64());
    let steps = table.iter().map(|(name, duration)| line(name, *duration));
    steps.chain([line("all", sum)]).collect()
}

fn format() -> Outcome {
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Outcome {
    let mut command = shell::cargo();
    command.arg("clippy").args(artifacts::ALL_CODE).arg("--all-targets");
    shell::run(command.args(["--", "-D", "warnings"]))?;
    // What users install has none of the features that tests need.
    let mut command = shell::cargo();
    command.args(["clippy", "--package", "quorate-server"]);
    shell::run(command.args(["--", "-D", "warnings"]))
}

fn run_tests() -> Outcome {
    test::run(&test::Args::default())
}

/// Torments a cluster of processes, with strikes that follow from the commit.
fn torment() -> Outcome {
    let seed = program::number_of(&program::commit()?)? % CHAOS_SEEDS;
    let (seconds, seed) = (CHAOS_SECONDS.to_string(), seed.to_string());
    program::run("chaos", &Args::of(&["--seconds", &seconds, "--seed", &seed]))
}

/// Runs what the tests' build left behind: nothing is compiled again.
fn run_examples() -> Outcome {
    let mut examples = artifacts::build_everything()?.examples;
    examples.sort();
    let logs = shell::root().join("target").join("examples");
    std::fs::create_dir_all(&logs)?;
    for program in examples {
        let name = program.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        run_example(&name, &program, &logs.join(format!("{name}.log")), EXAMPLE_DURATION_MAX)?;
    }
    Ok(())
}

/// Runs one example to its end; what it printed is shown when it fails.
fn run_example(name: &str, program: &Path, log: &Path, duration_max: Duration) -> Outcome {
    let output = File::create(log)?;
    let start = Instant::now();
    let mut child = Command::new(program)
        .current_dir(shell::root())
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .map_err(|error| format!("cannot run the example '{name}': {error}"))?;
    let problem = loop {
        match child.try_wait()? {
            Some(status) if status.success() => {
                eprintln!("example {name:<24} {:>6.1} s", start.elapsed().as_secs_f64());
                return Ok(());
            }
            Some(status) => break format!("failed ({status})"),
            None if start.elapsed() >= duration_max => {
                child.kill()?;
                child.wait()?;
                break format!("did not end within {} s", duration_max.as_secs());
            }
            None => std::thread::sleep(POLL),
        }
    };
    eprint!("{}", std::fs::read_to_string(log).unwrap_or_default());
    Err(format!("the example '{name}' {problem}").into())
}

#[cfg(test)]
mod tests;
