//! The command line of the simulator.
#![allow(clippy::disallowed_methods, reason = "limits in real time, outside of the simulations")]

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};

use super::finding::Finding;
use super::life::SweepArgs;
use super::options::Options;
use super::report::Report;
use super::run::{Record, Run, perform};
use super::shrink::shrink;

/// Where findings are left, from the folder in which the program runs.
const FOLDER: &str = "target/sim";
/// Lines of the trace that are shown with a finding.
const EXCERPT_LINES: usize = 40;
/// Longer than any run takes on a slow machine.
const WALL_DURATION_MAX: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(20);

/// Simulated clusters, each from a seed.
#[derive(Parser, Debug)]
#[command(
    name = "cargo xtask sim",
    bin_name = "cargo xtask sim",
    about = "Runs whole clusters in virtual time, each from a seed",
    args_conflicts_with_subcommands = true
)]
pub struct Command {
    #[command(flatten)]
    seeds: RunArgs,
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Subcommand, Debug)]
enum Task {
    /// Run one seed, or the options in a file, and print the end of its trace.
    Replay(ReplayArgs),
    /// Run seeds twice, in processes of their own, and compare their traces.
    Meta(MetaArgs),
    /// Make a run smaller in which something was found.
    Shrink(ShrinkArgs),
    /// Run new seeds until the time is over.
    Soak(SoakArgs),
    /// Let a node die at every write and sync of its life.
    Sweep(SweepArgs),
    /// Run one seed and print what it found, as JSON.
    #[command(hide = true)]
    One(OneArgs),
}

#[derive(clap::Args, Debug)]
struct RunArgs {
    /// How many seeds.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Begin no further seed after so many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// Seeds at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

#[derive(clap::Args, Debug)]
struct ReplayArgs {
    /// The seed, or the options.json of a finding.
    what: String,
    /// Where to leave options, trace and histories.
    #[arg(long)]
    to: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
struct ShrinkArgs {
    /// The seed, or the options.json of a finding.
    what: String,
    /// Where to write the options of the smaller run.
    #[arg(long)]
    to: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
struct MetaArgs {
    /// The seeds.
    #[arg(default_values_t = [1, 2])]
    seeds: Vec<u64>,
}

#[derive(clap::Args, Debug)]
struct SoakArgs {
    /// How long.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Seeds at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// The first seed; one that follows from the time of day if not given.
    #[arg(long)]
    from: Option<u64>,
}

#[derive(clap::Args, Debug)]
struct OneArgs {
    what: String,
}

type Outcome = Result<bool, Box<dyn std::error::Error>>;

impl Command {
    /// Does what was asked. Fails where something was found.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let outcome = match self.task {
            None => {
                let RunArgs { seeds, from, minutes, jobs } = self.seeds;
                many(from, Some(seeds), minutes.map(deadline), jobs)
            }
            Some(Task::Soak(args)) => {
                let from = args.from.unwrap_or_else(|| {
                    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
                    since.as_secs() * 1_000
                });
                many(from, None, Some(deadline(args.minutes)), args.jobs)
            }
            Some(Task::Replay(args)) => replay(&args),
            Some(Task::Shrink(args)) => make_smaller(&args),
            Some(Task::Meta(args)) => compare(&args.seeds),
            Some(Task::Sweep(args)) => args.run(),
            Some(Task::One(args)) => one(&args.what),
        };
        match outcome {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("sim: {error}");
                ExitCode::FAILURE
            }
        }
    }
}

fn deadline(minutes: u64) -> Instant {
    Instant::now() + Duration::from_secs(minutes * 60)
}

/// The options of a seed, or those in a file.
fn options(what: &str) -> Result<Options, Box<dyn std::error::Error>> {
    if let Ok(seed) = what.parse() {
        return Ok(Options::draw(seed));
    }
    let text = std::fs::read_to_string(what)
        .map_err(|error| format!("'{what}' is no seed, and as a file: {error}"))?;
    Ok(serde_json::from_str(&text).map_err(|error| format!("{what}: {error}"))?)
}

fn replay(args: &ReplayArgs) -> Outcome {
    let record = perform(options(&args.what)?);
    for line in record.excerpt(EXCERPT_LINES) {
        println!("{line}");
    }
    let folder = args.to.clone().unwrap_or_else(|| folder(record.run.seed));
    record.write(&folder)?;
    println!("options, trace and histories are in {}", folder.display());
    let is_clean = record.run.findings.is_empty();
    show(&record.run.findings);
    let mut report = Report::default();
    println!("trace {:016x}, {} lines", record.run.trace_hash, record.run.trace_lines);
    report.add(record.run);
    print!("{report}");
    Ok(is_clean)
}

fn show(findings: &[Finding]) {
    for finding in findings {
        println!("VIOLATION {finding}");
    }
}

fn make_smaller(args: &ShrinkArgs) -> Outcome {
    let options = options(&args.what)?;
    let target = args.to.clone().unwrap_or_else(|| folder(options.seed).join("small.json"));
    let attempt = target.with_extension("attempt.json");
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let first = Child::start(options.seed, &args.what)?.wait()?;
    let Some(finding) = first.findings.first() else {
        println!("nothing is found in this run");
        return Ok(false);
    };
    println!("looking for a smaller run with: {finding}");
    let mut runs = 0;
    let small = shrink(&options, &mut |tried| {
        runs += 1;
        let run = write(&attempt, tried)
            .and_then(|()| Child::start(tried.seed, &attempt.to_string_lossy())?.wait());
        let shows = run.is_ok_and(|run| run.findings.iter().any(|it| it.rule == finding.rule));
        let mark = if shows { "still there" } else { "gone" };
        println!(
            "run {runs}: {} strikes of {} kinds, {} clients, {} founders: {mark}",
            tried.strikes.len(),
            tried.kinds().len(),
            tried.load.clients,
            tried.founders
        );
        shows
    });
    write(&target, &small)?;
    let _ = std::fs::remove_file(&attempt);
    println!("the smaller run is in {}", target.display());
    println!("replay: cargo xtask sim replay {}", target.display());
    println!("keep it as tests/seeds/NAME.json once the bug is mended");
    Ok(true)
}

fn write(path: &Path, options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    Ok(std::fs::write(path, serde_json::to_string_pretty(options)?)?)
}

/// Each seed in two processes: their traces must be the same.
fn compare(seeds: &[u64]) -> Outcome {
    let mut is_same = true;
    for seed in seeds {
        let what = seed.to_string();
        let mut children = [Child::start(*seed, &what)?, Child::start(*seed, &what)?];
        let mut runs = Vec::new();
        for child in &mut children {
            runs.push(child.wait()?);
        }
        let [first, second] = &runs[..] else { continue };
        let same = first.trace_hash == second.trace_hash && first.trace_lines == second.trace_lines;
        println!(
            "seed {seed}: {:016x}, {} lines; again: {:016x}, {} lines",
            first.trace_hash, first.trace_lines, second.trace_hash, second.trace_lines
        );
        is_same &= same && first.findings == second.findings;
    }
    if !is_same {
        println!("VIOLATION a seed was two different runs");
    }
    Ok(is_same)
}

/// Runs one here and prints it for the process that asked.
fn one(what: &str) -> Outcome {
    let record = perform(options(what)?);
    if !record.run.findings.is_empty() {
        leave(&record)?;
    }
    println!("{}", serde_json::to_string(&record.run)?);
    Ok(true)
}

fn leave(record: &Record) -> Result<(), Box<dyn std::error::Error>> {
    record.write(&folder(record.run.seed))
}

fn folder(seed: u64) -> PathBuf {
    Path::new(FOLDER).join(seed.to_string())
}

/// Seeds one after the other, some at a time, each in a process of its own: one
/// that hangs, aborts or leaks costs no other.
fn many(from: u64, count: Option<u64>, until: Option<Instant>, jobs: usize) -> Outcome {
    let mut report = Report::default();
    let mut children: Vec<Child> = Vec::new();
    let mut next = from;
    let end = count.map(|count| from + count);
    loop {
        let is_over = end.is_some_and(|end| next >= end)
            || until.is_some_and(|until| Instant::now() >= until);
        if !is_over && children.len() < jobs.max(1) {
            children.push(Child::start(next, &next.to_string())?);
            next += 1;
            continue;
        }
        if children.is_empty() {
            break;
        }
        let ended = children.iter_mut().position(|child| child.has_ended());
        let Some(place) = ended else {
            std::thread::sleep(POLL);
            continue;
        };
        let mut child = children.remove(place);
        match child.wait() {
            Ok(run) => {
                tell(&run);
                report.add(run);
            }
            Err(error) => {
                println!("seed {}: {error}", child.seed);
                report.add_lost(child.seed, error.to_string());
            }
        }
    }
    print!("\n{report}");
    Ok(report.violations().is_empty() && report.runs() > 0)
}

fn tell(run: &Run) {
    println!(
        "seed {}: {:.1} s in {:.1} s, {} operations, {} faults{}{}",
        run.seed,
        run.virtual_millis as f64 / 1000.0,
        run.wall_millis as f64 / 1000.0,
        run.completed,
        run.strikes(),
        if run.counts() { "" } else { ", does not count" },
        if run.findings.is_empty() { "" } else { ", VIOLATION" },
    );
    show(&run.findings);
    if !run.findings.is_empty() {
        println!("replay: cargo xtask sim replay {}", run.seed);
        println!("left in {}", folder(run.seed).display());
    }
}

/// A process that runs one seed.
struct Child {
    seed: u64,
    process: std::process::Child,
    output: PathBuf,
    until: Instant,
}

impl Child {
    fn start(seed: u64, what: &str) -> Result<Self, Box<dyn std::error::Error>> {
        std::fs::create_dir_all(FOLDER)?;
        static STARTED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = STARTED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let output = Path::new(FOLDER).join(format!("run-{}-{number}.json", std::process::id()));
        let process = std::process::Command::new(std::env::current_exe()?)
            .args(["one", what])
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&output)?)
            .stderr(std::fs::File::create(output.with_extension("log"))?)
            .spawn()?;
        Ok(Self { seed, process, output, until: Instant::now() + WALL_DURATION_MAX })
    }

    fn has_ended(&mut self) -> bool {
        if Instant::now() >= self.until {
            // It is found dead when it is waited for.
            let _ = self.process.kill();
        }
        !matches!(self.process.try_wait(), Ok(None))
    }

    fn wait(&mut self) -> Result<Run, Box<dyn std::error::Error>> {
        while !self.has_ended() {
            std::thread::sleep(POLL);
        }
        let status = self.process.wait()?;
        let text = std::fs::read_to_string(&self.output)?;
        let log = self.output.with_extension("log");
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let _ = std::fs::remove_file(&self.output);
        let _ = std::fs::remove_file(&log);
        if !status.success() {
            let last: Vec<&str> = said.lines().rev().take(5).collect();
            return Err(format!("its process ended with {status}: {last:?}").into());
        }
        Ok(serde_json::from_str(text.trim())?)
    }
}
