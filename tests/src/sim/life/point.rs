//! One run of a chapter.
#![allow(clippy::disallowed_methods, reason = "measures how long a point takes in real time")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quorate::types::env::{Rng, SplitMix};
use quorate_testkit::TestkitError;
use quorate_testkit::sim::{Keep, Sim, SimOptions, Trace, run_with};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::chapter::{Chapter, NODE_1};
use super::script::{Script, Told};
use super::warden::{Aim, Warden};
use crate::sim::cluster::{Beginning, Cluster, Probes};
use crate::sim::finding::Finding;
use crate::sim::options::Log;

/// A chapter that is not over by then never will be.
const DURATION_MAX: Duration = Duration::from_secs(3_600);
/// One that takes longer on any machine stands still.
const WALL_DURATION_MAX: Duration = Duration::from_secs(120);
/// How often it is looked whether something was found.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// So many lines of the trace are kept.
const TRACE_LINES_KEPT: usize = 100_000;
/// One death in so many is followed by another one during the start after it.
const DEATHS_PER_SECOND_DEATH: u64 = 4;
/// More than a start does to a disk.
const START_OPERATIONS: u64 = 40;

/// What is wrong on purpose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ills {
    /// The syncs of node 1's disk do nothing.
    pub is_lying: bool,
    /// The bug that is planted in all nodes.
    pub canary: Option<String>,
}

/// A run of a chapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// The chapter.
    pub chapter: Chapter,
    /// The operation during which node 1's disk loses power, counted from 1, if
    /// it does.
    pub at: Option<u64>,
    /// What is wrong on purpose.
    pub ills: Ills,
}

/// What a run of a chapter did and found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointReport {
    /// See [`Point`].
    pub chapter: Chapter,
    /// See [`Point`].
    pub at: Option<u64>,
    /// Operations of node 1's disk while the script was played.
    pub operations: u64,
    /// Those of them that are syncs.
    pub syncs: u64,
    /// Times that node 1 died.
    pub deaths: u64,
    /// Deaths that found something unsynced.
    pub unsynced: u64,
    /// Writes that a death has torn.
    pub torn: u64,
    /// Writes that were acknowledged in this run.
    pub acknowledged: u64,
    /// Values that were read back and were right, on all nodes together.
    pub verified: u64,
    /// What is wrong; nothing, if all is well.
    pub findings: Vec<Finding>,
    /// How long it was, in virtual time.
    pub virtual_millis: u64,
    /// The hash of its trace.
    pub trace_hash: u64,
}

/// Where a chapter begins.
#[derive(Clone, Default)]
pub(super) struct Morning {
    pub(super) beginning: Beginning,
    pub(super) told: Told,
}

/// Who plays.
struct Stage {
    cluster: Cluster,
    warden: Warden,
    script: Script,
}

/// What a run leaves, also when it panics.
#[derive(Default)]
struct Left {
    probes: Probes,
    report: Mutex<Option<PointReport>>,
    stage: Mutex<Option<Stage>>,
    trace: Mutex<Option<Trace>>,
    evening: Mutex<Option<Morning>>,
}

/// A run, its trace, and where the next chapter begins.
pub(super) struct Played {
    pub(super) report: PointReport,
    pub(super) trace: Option<Trace>,
    pub(super) evening: Option<Morning>,
}

impl Point {
    /// A run without a death.
    pub(super) fn healthy(chapter: Chapter) -> Self {
        Self { chapter, at: None, ills: Ills::default() }
    }

    fn aim(&self) -> Aim {
        let name = self.chapter.seed() ^ (self.at.unwrap_or_default() << 8);
        let mut chance = SplitMix::new(name);
        let seed = chance.next_u64();
        let dies_again = self.at.is_some() && chance.below(DEATHS_PER_SECOND_DEATH) == 0;
        let again_at = dies_again.then(|| 1 + chance.below(START_OPERATIONS));
        Aim { at: self.at, again_at, seed, is_lying: self.ills.is_lying }
    }

    /// Plays it, from where it begins.
    pub(super) fn play(&self, log: Log, morning: &Morning) -> Played {
        let left = Arc::new(Left::default());
        let (shared, begins, point) = (Arc::clone(&left), morning.clone(), self.clone());
        let seed = self.chapter.seed();
        let finished =
            run_with(SimOptions { seed, duration_max: DURATION_MAX }, |sim| async move {
                sim.trace().set_keep(Keep::Last(TRACE_LINES_KEPT));
                *shared.trace.lock() = Some(sim.trace().clone());
                point.watched(&sim, log, begins, &shared).await;
            });
        let findings = &left.probes.findings;
        match finished {
            Ok(_) => {}
            Err(TestkitError::Panicked { panics, .. }) => {
                findings.add("nothing panics", 0, panics.join("; "));
            }
            Err(error) => findings.add("a run ends", 0, error.to_string()),
        }
        let trace = left.trace.lock().clone();
        let mut report = left.report.lock().take().unwrap_or_else(|| self.unplayed());
        report.findings = findings.all();
        report.trace_hash = trace.as_ref().map_or(0, Trace::hash);
        let evening = left.evening.lock().take();
        Played { report, trace, evening }
    }

    fn unplayed(&self) -> PointReport {
        PointReport {
            chapter: self.chapter,
            at: self.at,
            operations: 0,
            syncs: 0,
            deaths: 0,
            unsynced: 0,
            torn: 0,
            acknowledged: 0,
            verified: 0,
            findings: Vec::new(),
            virtual_millis: 0,
            trace_hash: 0,
        }
    }

    /// The run, until something is found.
    async fn watched(&self, sim: &Sim, log: Log, morning: Morning, left: &Left) {
        let (begun, before) = (Instant::now(), morning.told.clone());
        let found = async {
            while left.probes.findings.is_empty() {
                if begun.elapsed() > WALL_DURATION_MAX {
                    let what = format!("not within {WALL_DURATION_MAX:?} of real time");
                    left.probes.findings.add("a run ends", 0, what);
                }
                sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            biased;
            () = found => {}
            () = self.live(sim, log, morning, left) => {}
        }
        if let Some(stage) = left.stage.lock().take() {
            self.judge(sim, &stage, &before, left);
            stage.cluster.dismantle();
        }
    }

    /// Notes what has happened, however far the run came.
    fn judge(&self, sim: &Sim, stage: &Stage, before: &Told, left: &Left) {
        let (disk, told) = (stage.cluster.disk(NODE_1).counters(), stage.script.told());
        let mut report = left.report.lock();
        let report = report.get_or_insert_with(|| self.unplayed());
        (report.deaths, report.unsynced) = (stage.warden.deaths(), disk.crashes_unsynced);
        report.torn = disk.writes_torn;
        report.acknowledged = told.acknowledged - before.acknowledged;
        report.verified = told.verified - before.verified;
        report.virtual_millis = u64::try_from(sim.elapsed().as_millis()).unwrap();
    }

    async fn live(&self, sim: &Sim, log: Log, morning: Morning, left: &Left) {
        let mut options = self.chapter.options(log);
        options.canary.clone_from(&self.ills.canary);
        let Morning { beginning, told } = morning;
        let clock_millis = beginning.clock_millis;
        let probes = left.probes.clone();
        let cluster = Cluster::assemble(sim, options, probes, Chapter::configure, beginning);
        let warden = Warden::new(&cluster, self.aim());
        let script = Script::new(&cluster, &warden, told);
        let stage =
            Stage { cluster: cluster.clone(), warden: warden.clone(), script: script.clone() };
        *left.stage.lock() = Some(stage);
        {
            let chapter = async {
                self.open(&cluster, &warden).await;
                self.chapter.play(&script).await;
                let disk = cluster.disk(NODE_1).counters();
                let mut report = self.unplayed();
                (report.operations, report.syncs) = (disk.operations, disk.syncs);
                *left.report.lock() = Some(report);
                // The machine room is left in order before anything is read.
                for place in 0..cluster.members() {
                    warden.start(place).await;
                }
                warden.serving().await;
                script.verify().await;
            };
            tokio::select! {
                biased;
                () = warden.guard() => {}
                () = chapter => {}
            }
        }
        if self.at.is_none() {
            for place in 0..cluster.members() {
                warden.stop(place).await;
            }
            let images = (0..cluster.members()).map(|place| cluster.disk(place).image()).collect();
            let millis = i64::try_from(sim.elapsed().as_millis()).unwrap();
            let clock_millis = clock_millis + millis;
            let ledger = cluster.ledger().cloned();
            let beginning = Beginning { images, ledger, clock_millis };
            *left.evening.lock() = Some(Morning { beginning, told: script.told() });
        }
    }

    /// Turns the machines on and waits until all nodes serve.
    async fn open(&self, cluster: &Cluster, warden: &Warden) {
        let harness = cluster.sim.harness();
        let first = warden.clone();
        let rising = harness.spawn(async move { first.start(NODE_1).await });
        sleep(self.chapter.others_start_after()).await;
        for place in (0..cluster.members()).filter(|place| *place != NODE_1) {
            warden.start(place).await;
        }
        rising.await.expect("no start panics");
        warden.serving().await;
    }
}
