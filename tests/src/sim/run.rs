//! One run: a cluster under fire, then healed, and what is to be said of it.
#![allow(clippy::disallowed_methods, reason = "measures how long a simulation takes in real time")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quorate_testkit::TestkitError;
use quorate_testkit::history::{History, Recorder};
use quorate_testkit::sim::{Keep, Sim, SimOptions, SiteCounts, Trace, run_with};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::cluster::{Cluster, Probes, Struck};
use super::faults::{self, Fault};
use super::finding::Finding;
use super::ledger::Ledger;
use super::load::{Load, Work};
use super::operators::Operator;
use super::options::Options;
use super::rest;

/// A run that has not come to an end in so much virtual time never will.
const DURATION_MAX: Duration = Duration::from_secs(7_200);
/// A run that takes longer on any machine is no longer a test.
const WALL_DURATION_MAX: Duration = Duration::from_secs(240);
/// How often it is looked whether something was found.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// So many of the last lines of the trace are kept for a reader.
const TRACE_LINES_KEPT: usize = 300_000;
/// What a run has to have had to count as one.
const COUNTS_FROM: (Duration, u64, u64) = (Duration::from_secs(60), 500, 5);

/// What one run did and found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its seed.
    pub seed: u64,
    /// What is wrong; nothing, if all is well.
    pub findings: Vec<Finding>,
    /// How long it was, in virtual time.
    pub virtual_millis: u64,
    /// How long it took.
    pub wall_millis: u64,
    /// Operations of clients that were answered.
    pub completed: u64,
    /// Transactions that were committed.
    pub committed: u64,
    /// Operations that checkers have looked at.
    pub judged: u64,
    /// Histories of which no checker could tell whether they are good.
    #[serde(default)]
    pub undecided: u64,
    /// How often each fault struck.
    pub struck: BTreeMap<Fault, Struck>,
    /// Times that a disk lost its power.
    pub power_cuts: u64,
    /// Writes that a power cut has torn.
    pub writes_torn: u64,
    /// Messages that were sent.
    pub messages: u64,
    /// How often each invariant was checked, in a watched run.
    #[serde(default)]
    pub checks: BTreeMap<String, u64>,
    /// Places of the code that were reached, and rare branches taken.
    pub sites: BTreeMap<String, SiteCounts>,
    /// The hash and the length of its trace: the same in every run of the seed.
    pub trace_hash: u64,
    /// See [`Run::trace_hash`].
    pub trace_lines: u64,
}

impl Run {
    /// Whether it was long and busy enough to say something, and all of it was
    /// judged.
    #[must_use]
    pub fn counts(&self) -> bool {
        let (duration, completed, strikes) = COUNTS_FROM;
        self.undecided == 0
            && u128::from(self.virtual_millis) >= duration.as_millis()
            && self.completed >= completed
            && self.strikes() >= strikes
    }

    /// How many faults struck.
    #[must_use]
    pub fn strikes(&self) -> u64 {
        self.struck.values().map(|struck| struck.times).sum()
    }
}

/// A run and what a reader may want to see of it.
pub struct Record {
    /// What is to be said of it.
    pub run: Run,
    /// Its options.
    pub options: Options,
    trace: Option<Trace>,
    histories: Vec<(&'static str, History)>,
}

/// What the run leaves where it can be had after a panic.
#[derive(Default)]
struct Left {
    probes: Probes,
    trace: OnceLock<Trace>,
    ledger: OnceLock<Ledger>,
    end: Mutex<End>,
}

#[derive(Default, Clone)]
struct End {
    elapsed: Duration,
    work: Work,
    power_cuts: u64,
    writes_torn: u64,
    messages: u64,
    histories: Vec<(&'static str, Recorder)>,
}

/// Runs a cluster as the options have it. The end of its trace is kept.
#[must_use]
pub fn perform(options: Options) -> Record {
    perform_keeping(options, Keep::Last(TRACE_LINES_KEPT))
}

/// Runs a cluster as the options have it, and keeps such lines of its trace.
#[must_use]
pub(super) fn perform_keeping(options: Options, keep: Keep) -> Record {
    let begun = Instant::now();
    let left = Arc::new(Left::default());
    let shared = Arc::clone(&left);
    let drawn = options.clone();
    let sim_options = SimOptions { seed: options.seed, duration_max: DURATION_MAX };
    let finished = run_with(sim_options, |sim| async move {
        sim.trace().set_keep(keep);
        let _ = shared.trace.set(sim.trace().clone());
        watched(&sim, drawn, &shared).await;
    });
    let end = left.end.lock().clone();
    let at_millis = u64::try_from(end.elapsed.as_millis()).unwrap();
    match finished {
        Ok(_) => {}
        Err(TestkitError::Panicked { panics, .. }) => {
            left.probes.findings.add("nothing panics", at_millis, panics.join("; "));
        }
        Err(error) => left.probes.findings.add("a run ends", at_millis, error.to_string()),
    }
    let trace = left.trace.get().cloned();
    let run = Run {
        seed: options.seed,
        findings: left.probes.findings.all(),
        virtual_millis: at_millis,
        wall_millis: u64::try_from(begun.elapsed().as_millis()).unwrap(),
        completed: end.work.completed,
        committed: end.work.committed,
        judged: end.work.judged,
        undecided: left.probes.undecided(),
        struck: left.probes.struck(),
        power_cuts: end.power_cuts,
        writes_torn: end.writes_torn,
        messages: end.messages,
        checks: left.ledger.get().map(checks).unwrap_or_default(),
        sites: left.probes.coverage.counts(),
        trace_hash: trace.as_ref().map_or(0, Trace::hash),
        trace_lines: trace.as_ref().map_or(0, Trace::count),
    };
    let histories = end.histories.iter().map(|(kind, seen)| (*kind, seen.history())).collect();
    Record { run, options, trace, histories }
}

fn checks(ledger: &Ledger) -> BTreeMap<String, u64> {
    ledger.counts().into_iter().map(|(id, count)| (id.to_owned(), count)).collect()
}

/// The run, until something is found.
async fn watched(sim: &Sim, options: Options, left: &Left) {
    let begun = Instant::now();
    let found = async {
        while left.probes.findings.is_empty() {
            left.end.lock().elapsed = sim.elapsed();
            if begun.elapsed() > WALL_DURATION_MAX {
                let at_millis = u64::try_from(sim.elapsed().as_millis()).unwrap();
                let what = format!("not within {WALL_DURATION_MAX:?} of real time");
                left.probes.findings.add("a run ends", at_millis, what);
            }
            sleep(LOOK_EVERY).await;
        }
    };
    tokio::select! {
        biased;
        () = found => {}
        () = life(sim, options, left) => {}
    }
    left.end.lock().elapsed = sim.elapsed();
}

/// First clients work while faults strike, then the cluster is healed and has
/// to come to rest.
async fn life(sim: &Sim, options: Options, left: &Left) {
    let cluster = Cluster::found_as(sim, options, left.probes.clone(), |_| {}).await;
    if let Some(ledger) = cluster.ledger() {
        let _ = left.ledger.set(ledger.clone());
    }
    let mut load = Load::start(&cluster).await;
    left.end.lock().histories = load.recorders();
    let operator = Operator::of(&cluster);
    cluster.slow_down();
    {
        let fire = async {
            let lasts = Duration::from_millis(cluster.options.fire_millis);
            tokio::join!(faults::befall(&cluster, &operator), sleep(lasts));
        };
        let work = async {
            fire.await;
            cluster.heal().await;
            cluster.serving().await;
            load.stop().await;
            operator.settled().await;
            left.end.lock().work = load.finish().await;
            operator.agreed().await;
            cluster.look_at_migrations();
            rest::at_rest(&cluster).await;
        };
        tokio::select! {
            biased;
            () = cluster.watch() => {}
            () = work => {}
        }
    }
    let disks = cluster.disk_counters();
    let mut end = left.end.lock();
    end.power_cuts = disks.iter().map(|disk| disk.crashes).sum();
    end.writes_torn = disks.iter().map(|disk| disk.writes_torn).sum();
    end.messages = cluster.network.counters().sent;
}

impl Record {
    /// The last lines of the trace.
    #[must_use]
    pub fn excerpt(&self, lines: usize) -> Vec<String> {
        let kept = self.trace.as_ref().map(Trace::lines).unwrap_or_default();
        kept[kept.len().saturating_sub(lines)..].to_vec()
    }

    /// The whole kept trace.
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        self.trace.as_ref().map(Trace::lines).unwrap_or_default()
    }

    /// Writes options, trace and histories into a folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
        std::fs::create_dir_all(folder)?;
        let options = serde_json::to_string_pretty(&self.options)?;
        std::fs::write(folder.join("options.json"), options)?;
        std::fs::write(folder.join("trace.txt"), self.trace().join("\n"))?;
        for (name, history) in &self.histories {
            let mut file = Vec::new();
            history.write_json(&mut file)?;
            std::fs::write(folder.join(format!("{name}.jsonl")), file)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
