//! The command line of the simulator.
#![allow(clippy::disallowed_methods, reason = "limits in real time, outside of the simulations")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use quorate::types::fault::{Canary, HAS_CANARIES};
use quorate_testkit::sim::{Keep, TRACE_LINES_MAX};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use super::child::{Child, FOLDER, POLL};
use super::finding::Finding;
use super::hunt::{CanaryArgs, hunt};
use super::life::SweepArgs;
use super::meta;
use super::options::{Log, Options};
use super::places::{FIXED_SEEDS, missed, never_taken};
use super::registry::perform_traced;
use super::report::Report;
use super::run::{Run, perform, perform_keeping};
use super::shrink::shrink;

/// Runs that once found a bug, as files of options.
const REGRESSIONS: &str = "tests/seeds";
/// How a finding begins in the trace.
const FOUND: &str = " FOUND ";
/// Lines of the trace that are shown with a finding.
const EXCERPT_LINES: usize = 40;

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
    /// Run the fixed set of seeds and the runs in tests/seeds, and demand that
    /// they reach every place of the code that they should.
    Fixed(FixedArgs),
    /// Run seeds twice, in processes of their own, and compare their traces.
    Meta(MetaArgs),
    /// Make a run smaller in which something was found.
    Shrink(ShrinkArgs),
    /// Plant bugs, one at a time, and show that they are found.
    Canaries(CanaryArgs),
    /// Run new seeds until the time is over.
    Soak(SoakArgs),
    /// Run registries and the gossip that carries them, without a cluster.
    Registry(RegistryArgs),
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
    /// Fail if the time was over before so many were run that count.
    #[arg(long, default_value_t = 1)]
    least: u64,
    /// What logs are kept on, whatever the seeds say.
    #[arg(long, value_enum)]
    log: Option<Log>,
}

#[derive(clap::Args, Debug)]
struct FixedArgs {
    /// Runs at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

#[derive(clap::Args, Debug)]
struct ReplayArgs {
    /// The seed, one with another log (7@segments, 7@redb), or the options.json of
    /// a finding.
    what: String,
    /// Where to leave options, trace and histories.
    #[arg(long)]
    to: Option<PathBuf>,
    /// Print what the nodes log to standard error, filtered as by `RUST_LOG`,
    /// with virtual time.
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
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
struct RegistryArgs {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How many.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// A bug to plant, in a build with canaries; ends with the first seed that
    /// finds it.
    #[arg(long)]
    canary: Option<String>,
    /// Lines of the trace to show of a seed in which something is found.
    #[arg(long, default_value_t = EXCERPT_LINES)]
    lines: usize,
}

#[derive(clap::Args, Debug)]
struct OneArgs {
    what: String,
    /// Leave nothing in target/sim.
    #[arg(long)]
    leaves_nothing: bool,
    /// Where to leave the whole trace.
    #[arg(long)]
    trace: Option<PathBuf>,
}

/// Whether all is well.
pub(super) type Outcome = Result<bool, Box<dyn std::error::Error>>;

impl Command {
    /// Does what was asked. Fails where something was found.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let outcome = match self.task {
            None => {
                let RunArgs { seeds, from, minutes, jobs, least, log } = self.seeds;
                let work = (from..from + seeds).map(|seed| match log {
                    Some(log) => Work { seed, what: log.with(seed) },
                    None => Work::of(seed),
                });
                many(work, minutes.map(deadline), jobs).map(|report| is_clean(&report, least))
            }
            Some(Task::Fixed(args)) => fixed(&args),
            Some(Task::Soak(args)) => {
                let from = args.from.unwrap_or_else(|| {
                    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
                    since.as_secs() * 1_000
                });
                let work = (from..).map(Work::of);
                many(work, Some(deadline(args.minutes)), args.jobs)
                    .map(|report| is_clean(&report, 1))
            }
            Some(Task::Replay(args)) => replay(&args),
            Some(Task::Shrink(args)) => make_smaller(&args),
            Some(Task::Canaries(args)) => hunt(&args),
            Some(Task::Meta(args)) => meta::compare(&args.seeds),
            Some(Task::Registry(args)) => registries(&args),
            Some(Task::Sweep(args)) => args.run(),
            Some(Task::One(args)) => one(&args),
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

/// The options of a seed, perhaps with another log (`7@segments`, `7@redb`), or
/// those in a file.
fn options(what: &str) -> Result<Options, Box<dyn std::error::Error>> {
    if let Ok(seed) = what.parse() {
        return Ok(Options::draw(seed));
    }
    for log in Log::ALL {
        let seed = what.split('@').next().and_then(|seed| seed.parse().ok());
        if let Some(seed) = seed.filter(|seed| log.with(*seed) == what) {
            return Ok(Options { has_segments: log == Log::Segments, ..Options::draw(seed) });
        }
    }
    let text = std::fs::read_to_string(what)
        .map_err(|error| format!("'{what}' is no seed, and as a file: {error}"))?;
    let options: Options =
        serde_json::from_str(&text).map_err(|error| format!("{what}: {error}"))?;
    if let Some(canary) = options.canary.as_deref().filter(|_| !HAS_CANARIES) {
        return Err(format!("{what} plants '{canary}', and this build has no planted bugs").into());
    }
    Ok(options)
}

fn replay(args: &ReplayArgs) -> Outcome {
    if let Some(filter) = &args.log {
        let filter = EnvFilter::try_new(filter)?;
        let logs =
            tracing_subscriber::fmt().with_env_filter(filter).with_timer(VirtualTime::default());
        logs.with_writer(std::io::stderr).with_ansi(false).init();
    }
    let record = perform(options(&args.what)?);
    for line in record.excerpt(EXCERPT_LINES) {
        println!("{line}");
    }
    let folder = args.to.clone().unwrap_or_else(|| folder(&args.what));
    record.write(&folder)?;
    println!("options, trace and histories are in {}", folder.display());
    let is_clean = record.run.findings.is_empty();
    show(&record.run.findings);
    let mut report = Report::default();
    println!("trace {:016x}, {} lines", record.run.trace_hash, record.run.trace_lines);
    report.add(record.run, replay_command(&args.what));
    print!("{report}");
    Ok(is_clean)
}

/// Milliseconds since the first line, by the clock of the simulation.
#[derive(Default)]
struct VirtualTime(OnceLock<tokio::time::Instant>);

impl FormatTime for VirtualTime {
    fn format_time(&self, line: &mut Writer<'_>) -> std::fmt::Result {
        let begun = self.0.get_or_init(tokio::time::Instant::now);
        write!(line, "{:>9}", begun.elapsed().as_millis())
    }
}

/// Registries are small: they run here, one after the other.
fn registries(args: &RegistryArgs) -> Outcome {
    let named = |name: &String| {
        let canary = Canary::from_name(name).filter(|_| HAS_CANARIES);
        canary.ok_or_else(|| format!("this build has no canary '{name}'"))
    };
    let canary = args.canary.as_ref().map(named).transpose()?;
    let mut report = Report::of_registries();
    for seed in args.from..args.from + args.seeds {
        let (run, trace) = perform_traced(seed, canary);
        println!(
            "registry {seed}: {:.1} s in {:.1} s, {} writes, {} faults, trace {:016x}{}",
            run.virtual_millis as f64 / 1000.0,
            run.wall_millis as f64 / 1000.0,
            run.completed,
            run.strikes(),
            run.trace_hash,
            if run.counts() { "" } else { ", does not count" },
        );
        let is_found = !run.findings.is_empty();
        if is_found {
            let begin = trace.len().saturating_sub(args.lines);
            trace.iter().skip(begin).for_each(|line| println!("{line}"));
        }
        show(&run.findings);
        report.add(run, format!("cargo xtask sim registry --seeds 1 --from {seed}"));
        if is_found && canary.is_some() {
            break;
        }
    }
    print!("\n{report}");
    Ok(report.is_clean() && report.runs() > 0)
}

fn show(findings: &[Finding]) {
    for finding in findings {
        println!("VIOLATION {finding}");
    }
}

fn make_smaller(args: &ShrinkArgs) -> Outcome {
    let options = options(&args.what)?;
    let target = args.to.clone().unwrap_or_else(|| folder(&args.what).join("small.json"));
    let attempt = target.with_extension("attempt.json");
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let first = Child::start(options.seed, &args.what, false)?.wait()?;
    let Some(finding) = first.findings.first() else {
        println!("nothing is found in this run");
        return Ok(false);
    };
    println!("looking for a smaller run with: {finding}");
    let mut runs = 0;
    let small = shrink(&options, &mut |tried| {
        runs += 1;
        let run = write(&attempt, tried)
            .and_then(|()| Child::start(tried.seed, &attempt.to_string_lossy(), false)?.wait());
        let shows = run.is_ok_and(|run| run.findings.iter().any(|it| it.rule == finding.rule));
        let mark = if shows { "still there" } else { "gone" };
        if shows {
            // Whoever loses patience has what there is so far.
            let _ = write(&target, tried);
        }
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

/// Runs one here and prints it for the process that asked.
fn one(args: &OneArgs) -> Outcome {
    let record = match &args.trace {
        None => perform(options(&args.what)?),
        Some(file) => {
            let keep = Keep::First(TRACE_LINES_MAX);
            let record = perform_keeping(options(&args.what)?, keep);
            std::fs::write(file, record.trace().join("\n"))?;
            record
        }
    };
    if !record.run.findings.is_empty() && !args.leaves_nothing {
        record.write(&folder(&args.what))?;
    }
    println!("{}", serde_json::to_string(&record.run)?);
    Ok(true)
}

/// Where a finding is left: under the seed, or under the name of the file.
fn folder(what: &str) -> PathBuf {
    Path::new(FOLDER).join(Path::new(what).file_stem().unwrap_or_default())
}

fn replay_command(what: &str) -> String {
    format!("cargo xtask sim replay {what}")
}

/// Seeds one after the other, some at a time, each in a process of its own: one
/// that hangs, aborts or leaks costs no other.
fn many(
    mut work: impl Iterator<Item = Work>,
    until: Option<Instant>,
    jobs: usize,
) -> Result<Report, Box<dyn std::error::Error>> {
    let mut report = Report::default();
    let mut children: Vec<Child> = Vec::new();
    loop {
        let is_over = until.is_some_and(|until| Instant::now() >= until);
        if children.len() < jobs.max(1)
            && !is_over
            && let Some(next) = work.next()
        {
            children.push(Child::start(next.seed, &next.what, true)?);
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
                tell(&run, &child.what);
                report.add(run, replay_command(&child.what));
            }
            Err(error) => {
                println!("seed {}: {error}", child.seed);
                let replay = replay_command(&child.what);
                report.add_lost(child.seed, replay, error.to_string());
            }
        }
    }
    print!("\n{report}");
    Ok(report)
}

/// A run to make: a seed's, or that of a file.
struct Work {
    seed: u64,
    what: String,
}

impl Work {
    fn of(seed: u64) -> Self {
        Self { seed, what: seed.to_string() }
    }
}

/// Whether nothing was found in runs that were long and busy enough to find
/// something: so many, and four of five of all.
fn is_clean(report: &Report, least: u64) -> bool {
    let (counted, runs) = (report.counted(), report.runs());
    let is_enough = counted >= least && counted * 5 >= runs * 4;
    if !is_enough {
        println!("only {counted} of {runs} seeds count, of at least {least} and 4 of 5");
    }
    report.is_clean() && is_enough
}

/// The seeds that every change is tried on, with those that once found a bug.
fn fixed(args: &FixedArgs) -> Outcome {
    let mut work: Vec<Work> = FIXED_SEEDS.map(Work::of).collect();
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(REGRESSIONS).map_err(|error| {
        format!("{REGRESSIONS}: {error}; run this from the root of the repository")
    })? {
        files.push(entry?.path());
    }
    files.sort();
    for file in files {
        let what = file.to_string_lossy().into_owned();
        work.push(Work { seed: options(&what)?.seed, what });
    }
    let report = many(work.into_iter(), None, args.jobs)?;
    let missed = missed(report.sites());
    for place in &missed {
        println!("VIOLATION nothing reached '{place}', which every fixed set of seeds must reach");
    }
    let never_taken = never_taken(report.sites());
    for site in &never_taken {
        println!("VIOLATION no run took the rare branch '{site}', which every fixed set must");
    }
    let unchecked = report.unchecked();
    for id in &unchecked {
        println!("VIOLATION no run has checked {id}");
    }
    let undecided = report.undecided();
    if undecided > 0 {
        println!("VIOLATION {undecided} histories are undecided, of seeds that all can be judged");
    }
    let is_whole =
        missed.is_empty() && never_taken.is_empty() && unchecked.is_empty() && undecided == 0;
    Ok(is_clean(&report, 1) && is_whole)
}

fn tell(run: &Run, what: &str) {
    println!(
        "seed {}: {:.1} s in {:.1} s, {} operations, {} faults{}{}{}",
        run.seed,
        run.virtual_millis as f64 / 1000.0,
        run.wall_millis as f64 / 1000.0,
        run.completed,
        run.strikes(),
        if run.undecided > 0 { ", UNDECIDED" } else { "" },
        if run.counts() { "" } else { ", does not count" },
        if run.findings.is_empty() { "" } else { ", VIOLATION" },
    );
    show(&run.findings);
    if !run.findings.is_empty() {
        let trace = std::fs::read_to_string(folder(what).join("trace.txt")).unwrap_or_default();
        for line in before_finding(&trace) {
            println!("{line}");
        }
        println!("replay: {}", replay_command(what));
        println!("left in {}", folder(what).display());
    }
}

/// The lines of a trace that led to what was found first.
fn before_finding(trace: &str) -> Vec<&str> {
    let lines: Vec<&str> = trace.lines().collect();
    let found = lines.iter().position(|line| line.contains(FOUND));
    let end = found.map_or(lines.len(), |at| at + 1);
    lines[end.saturating_sub(EXCERPT_LINES)..end].to_vec()
}
