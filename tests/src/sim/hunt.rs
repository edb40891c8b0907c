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
    /// How many of the same runs without the bug must be silent.
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
        let controls = silent(scenario, args)?;
        is_found &= hunted.found.is_some() && controls == args.controls;
        println!(
            "| {} | {} | {} | {:.0} | {:.0} | {controls} of {} silent |",
            scenario.canary.name(),
            hunted.found.as_ref().map_or_else(
                || format!("none of {} runs", hunted.runs),
                |(seed, _)| format!("run {} of seed {seed}", hunted.runs)
            ),
            hunted.found.as_ref().map_or("-", |(_, rule)| rule),
            hunted.virtual_millis as f64 / 1_000.0,
            begun.elapsed().as_secs_f64(),
            args.controls,
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
            for run in at_once(scenario, seeds, true)? {
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

/// Of the runs without the bug, how many find nothing.
fn silent(scenario: &Scenario, args: &CanaryArgs) -> Result<u64, Box<dyn std::error::Error>> {
    let mut silent = 0;
    let seeds: Vec<u64> = (1..=args.controls).collect();
    for seeds in seeds.chunks(args.jobs.max(1)) {
        for run in at_once(scenario, seeds, false)? {
            silent += u64::from(run.findings.is_empty());
            for finding in &run.findings {
                println!("seed {}, without the bug: {finding}", run.seed);
            }
        }
    }
    Ok(silent)
}

/// Runs of a scenario, side by side.
fn at_once(
    scenario: &Scenario,
    seeds: &[u64],
    is_planted: bool,
) -> Result<Vec<Run>, Box<dyn std::error::Error>> {
    let Some(_) = scenario.options(0, is_planted) else {
        // Registries are small enough to be run here.
        let canary = is_planted.then_some(scenario.canary);
        return Ok(seeds.iter().map(|seed| registry::perform(*seed, canary)).collect());
    };
    let mut children = Vec::new();
    for seed in seeds {
        let kind = if is_planted { "planted" } else { "control" };
        let name = format!("{}-{kind}-{seed}.json", scenario.canary.name());
        let file = Path::new(FOLDER).join(name);
        std::fs::create_dir_all(FOLDER)?;
        let options = scenario.options(*seed, is_planted);
        std::fs::write(&file, serde_json::to_string(&options)?)?;
        children.push((Child::start(*seed, &file.to_string_lossy())?, file));
    }
    let mut runs = Vec::new();
    for (mut child, file) in children {
        runs.push(child.wait()?);
        std::fs::remove_file(file)?;
    }
    Ok(runs)
}
