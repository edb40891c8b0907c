//! Build tasks of quorate: `cargo xtask --help`.
#![allow(
    clippy::disallowed_methods,
    reason = "tasks live outside the cores: they measure real time and use plain threads"
)]

mod artifacts;
mod bench;
mod ci;
mod demo;
mod docs;
mod fuzz;
mod program;
mod shell;
mod sim;
mod test;
mod tidy;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What a task ends with. Its error is one message for a person.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Build tasks of quorate.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Show the main job: a cluster of processes under load, failures included.
    Demo(demo::Args),
    /// Run every test: unit, property, simulation, end-to-end, then doc tests.
    Test(test::Args),
    /// Everything that must hold before a change is merged, cheapest first.
    Ci,
    /// Torment a cluster of processes, and judge what its clients saw.
    Chaos(program::Args),
    /// Simulate whole clusters in virtual time, each from a seed.
    Sim(program::Args),
    /// Feed decoders and cores with hostile inputs, longer than tests do.
    Fuzz(fuzz::Args),
    /// Check the rules of the house that no compiler knows.
    Tidy,
    /// Measure the cores and a cluster of processes, beside the limits of the machine.
    Bench(bench::Args),
    /// Check the book's links and build the API documentation.
    Docs,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Demo(args) => demo::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Ci => ci::run(),
        Task::Chaos(args) => program::run("chaos", &args),
        Task::Sim(args) => sim::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Tidy => tidy::run(),
        Task::Bench(args) => bench::run(&args),
        Task::Docs => docs::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
