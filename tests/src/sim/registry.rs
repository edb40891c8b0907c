//! The gossip registry alone: several nodes that have nothing but a registry
//! and the driver that gossips it, as in production, over the simulated
//! network.
//!
//! A whole cluster shows little of how the registry merges. Its reports have
//! one writer each, its allocations follow one map, and nothing is removed
//! from it for long. Here many nodes write and remove the same keys, members
//! miss removals, and writers come back without the mark of their clock, so
//! that they draw timestamps again which they have used already.

mod house;
mod memory;
mod plan;
mod rest;
mod trouble;
mod writers;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quorate::types::fault::Canary;
use quorate_testkit::TestkitError;
use quorate_testkit::sim::{Keep, Sim, SimOptions, Trace, run_with};
use tokio::time::sleep;

use self::house::{House, Seen};
use self::plan::Plan;
use super::run::Run;

/// A run that has not come to an end in so much virtual time never will.
const DURATION_MAX: Duration = Duration::from_secs(1_200);
/// So many of the last lines of the trace are kept for a reader.
const TRACE_LINES_KEPT: usize = 300_000;

/// What the run leaves where it can be had after a panic.
#[derive(Default)]
struct Left {
    seen: Seen,
    trace: OnceLock<Trace>,
    end: Mutex<End>,
}

#[derive(Default, Clone, Copy)]
struct End {
    elapsed: Duration,
    messages: u64,
    judged: u64,
}

/// Runs registries as the seed has it, with a bug planted if one is named.
#[must_use]
pub fn perform(seed: u64, canary: Option<Canary>) -> Run {
    perform_traced(seed, canary).0
}

/// The same, with the last lines of the trace.
#[expect(clippy::disallowed_methods, reason = "measures how long a simulation takes in real time")]
pub(super) fn perform_traced(seed: u64, canary: Option<Canary>) -> (Run, Vec<String>) {
    let begun = Instant::now();
    let left = Arc::new(Left::default());
    let shared = Arc::clone(&left);
    let finished = run_with(SimOptions { seed, duration_max: DURATION_MAX }, |sim| async move {
        sim.trace().set_keep(Keep::Last(TRACE_LINES_KEPT));
        let _ = shared.trace.set(sim.trace().clone());
        life(&sim, Plan::draw(seed), canary, &shared).await;
    });
    let Left { seen, trace, end } = &*left;
    let end = *end.lock();
    let at_millis = u64::try_from(end.elapsed.as_millis()).unwrap();
    match finished {
        Ok(_) => {}
        Err(TestkitError::Panicked { panics, .. }) => {
            seen.findings.add("nothing panics", at_millis, panics.join("; "));
        }
        Err(error) => seen.findings.add("a run ends", at_millis, error.to_string()),
    }
    let trace = trace.get().cloned();
    let work = *seen.work.lock();
    let run = Run {
        seed,
        findings: seen.findings.all(),
        virtual_millis: at_millis,
        wall_millis: u64::try_from(begun.elapsed().as_millis()).unwrap(),
        completed: work.answered,
        committed: work.acknowledged,
        judged: end.judged,
        undecided: 0,
        struck: seen.struck.lock().clone(),
        power_cuts: work.power_cuts,
        writes_torn: 0,
        messages: end.messages,
        checks: BTreeMap::new(),
        sites: seen.coverage.counts(),
        trace_hash: trace.as_ref().map_or(0, Trace::hash),
        trace_lines: trace.as_ref().map_or(0, Trace::count),
    };
    (run, trace.as_ref().map(Trace::lines).unwrap_or_default())
}

/// First keys are written while faults strike, then everything is mended, and
/// the registries have to come to rest.
async fn life(sim: &Sim, plan: Plan, canary: Option<Canary>, left: &Left) {
    let house = House::open(sim, plan, canary, left.seen.clone()).await;
    rest::acquainted(&house).await;
    {
        let lasts = sleep(Duration::from_millis(house.plan.fire_millis));
        tokio::select! {
            biased;
            () = lasts => {}
            () = trouble::befall(&house) => {}
            () = writers::write(&house) => {}
        }
    }
    house.mend().await;
    let judged = rest::at_rest(&house).await;
    *left.end.lock() =
        End { elapsed: sim.elapsed(), messages: house.network.counters().sent, judged };
}
