//! The command that shows that planted bugs are found.
#![allow(clippy::disallowed_methods, reason = "measures in real time, outside of the simulations")]

use std::path::Path;
use std::time::Instant;

use quorate::types::fault::{Canary, HAS_CANARIES};

use super::canaries::{SCENARIOS, SEEDS_MAX, Scenario};
use super::child::{Child, FOLDER};
use super::cli::Outcome;
use super::finding::Finding;
use super::registry;
use super::run::Run;

#[derive(clap::Args, Debug)]
pub(super) struct CanaryArgs {
    /// Their names; all of them if none is given.
    names: Vec<String>,
    /// How many runs to try for each.
    #[arg(long, default_value_t = SEEDS_MAX)]
    seeds: u64,
    /// How many of the same runs without the bug must be judged, and be silent.
    #[arg(long, default_value_t = 20)]
    controls: u64,
    /// Runs at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

/// Plants bugs and looks for them.
pub(super) fn hunt(args: &CanaryArgs) -> Outcome {
    if !HAS_CANARIES {
        return Err("this build has no planted bugs: cargo xtask sim canaries makes one".into());
    }
    for name in &args.names {
        if Canary::from_name(name).is_none() {
            let known = Canary::ALL.map(Canary::name).join(", ");
            return Err(format!("there is no '{name}': {known}").into());
        }
    }
    let is_asked = |scenario: &&Scenario| {
        args.names.is_empty() || args.names.iter().any(|name| name == scenario.canary.name())
    };
    println!("| planted | found in | by | virtual s | s | runs without it |");
    println!("|---|---|---|---|---|---|");
    let mut is_found = true;
    for scenario in SCENARIOS.iter().filter(is_asked) {
        let begun = Instant::now();
        let hunted = Hunt::of(scenario, args)?;
        let duration = begun.elapsed();
        let found_in = hunted.found.as_ref().map(|(seed, _)| *seed);
        let controls = Controls::of(scenario, found_in, args)?;
        is_found &= found_in.is_some() && controls.are_silent(args.controls);
        println!(
            "| {} | {} | {} | {:.0} | {:.0} | {controls} |",
            scenario.canary.name(),
            hunted.found.as_ref().map_or_else(
                || format!("none of {} runs", hunted.runs),
                |(seed, _)| format!("run {} of seed {seed}", hunted.runs)
            ),
            hunted.found.as_ref().map_or("-", |(_, rule)| rule),
            hunted.virtual_millis as f64 / 1_000.0,
            duration.as_secs_f64(),
        );
    }
    Ok(is_found)
}

/// How a planted bug was looked for.
#[derive(Default)]
struct Hunt {
    runs: u64,
    virtual_millis: u64,
    found: Option<(u64, String)>,
}

impl Hunt {
    /// Tries seeds until the bug is found by a rule that is there to find it.
    fn of(scenario: &Scenario, args: &CanaryArgs) -> Result<Self, Box<dyn std::error::Error>> {
        let mut hunt = Self::default();
        let seeds: Vec<u64> = (1..=args.seeds).collect();
        for seeds in seeds.chunks(args.jobs.max(1)) {
            for run in at_once(scenario, seeds, true)?.into_iter().flatten() {
                hunt.runs += 1;
                hunt.virtual_millis += run.virtual_millis;
                let by = |finding: &&Finding| scenario.rules.contains(&finding.rule.as_str());
                if let Some(finding) = run.findings.iter().find(by) {
                    hunt.found = Some((run.seed, finding.rule.clone()));
                    return Ok(hunt);
                }
                for finding in &run.findings {
                    println!("seed {}, but not that: {finding}", run.seed);
                }
            }
        }
        Ok(hunt)
    }
}

/// The same runs without the bug.
#[derive(Default)]
struct Controls {
    judged: u64,
    silent: u64,
    undecided: u64,
    /// Processes that ended without a verdict.
    died: u64,
    /// Whether no checker could judge the run in which the bug was found.
    leaves_found_open: bool,
}

impl Controls {
    /// Runs as many as can be judged as are asked for, above all the one in
    /// which the bug was found: what no checker could judge is not silent.
    fn of(
        scenario: &Scenario,
        found_in: Option<u64>,
        args: &CanaryArgs,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let mut controls = Self::default();
        let others = (1..=2 * args.controls).filter(|seed| Some(*seed) != found_in);
        let seeds: Vec<u64> = found_in.into_iter().chain(others).collect();
        for seeds in seeds.chunks(args.jobs.max(1)) {
            if controls.judged >= args.controls {
                break;
            }
            let runs = at_once(scenario, seeds, false)?;
            controls.died += runs.iter().filter(|run| run.is_none()).count() as u64;
            for run in runs.into_iter().flatten() {
                let is_judged = run.undecided == 0 || !run.findings.is_empty();
                controls.judged += u64::from(is_judged);
                controls.undecided += u64::from(!is_judged);
                controls.silent += u64::from(is_judged && run.findings.is_empty());
                controls.leaves_found_open |= !is_judged && Some(run.seed) == found_in;
                for finding in &run.findings {
                    println!("seed {}, without the bug: {finding}", run.seed);
                }
            }
        }
        Ok(controls)
    }

    const fn are_silent(&self, least: u64) -> bool {
        let are_silent = self.silent == self.judged && self.died == 0;
        self.judged >= least && are_silent && !self.leaves_found_open
    }
}

impl std::fmt::Display for Controls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} silent", self.silent, self.judged)?;
        if self.undecided > 0 {
            write!(f, ", {} undecided", self.undecided)?;
        }
        if self.died > 0 {
            write!(f, ", {} died", self.died)?;
        }
        if self.leaves_found_open {
            f.write_str(", that in which it was found among them")?;
        }
        Ok(())
    }
}

/// Runs of a scenario, side by side. A process that dies over a bug says
/// nothing: `None`.
fn at_once(
    scenario: &Scenario,
    seeds: &[u64],
    is_planted: bool,
) -> Result<Vec<Option<Run>>, Box<dyn std::error::Error>> {
    let Some(_) = scenario.options(0, is_planted) else {
        // Registries are small enough to be run here.
        let canary = is_planted.then_some(scenario.canary);
        return Ok(seeds.iter().map(|seed| Some(registry::perform(*seed, canary))).collect());
    };
    let mut children = Vec::new();
    for seed in seeds {
        let kind = if is_planted { "planted" } else { "control" };
        let name = format!("{}-{kind}-{seed}.json", scenario.canary.name());
        let file = Path::new(FOLDER).join(name);
        std::fs::create_dir_all(FOLDER)?;
        let options = scenario.options(*seed, is_planted);
        std::fs::write(&file, serde_json::to_string(&options)?)?;
        children.push((Child::start(*seed, &file.to_string_lossy(), false)?, file));
    }
    let mut runs = Vec::new();
    for (mut child, file) in children {
        let run = child.wait();
        if let Err(error) = &run {
            println!("seed {}: {error}", child.seed);
        }
        runs.push(run.ok());
        std::fs::remove_file(file)?;
    }
    Ok(runs)
}
