//! A follower that fell behind a purge, and what its snapshot costs the leader.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::node::{Answer, Order, State};
use crate::options::Options;
use crate::process::{Cluster, Kind};
use crate::report::CaughtUp;

/// How long each rate is measured that has no end of its own.
const MEASURED: Duration = Duration::from_secs(5);
/// How long writes go on before the first.
const WARMED: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(180);
/// A follower that lacks fewer entries is as close as one that was never away.
const LAG_MAX: u64 = 1_000;

/// One group, whose follower is killed as often as there are rounds.
pub(crate) fn run(options: &Options, scratch: &Path) -> Outcome<Vec<CaughtUp>> {
    let directory = tempfile::tempdir_in(scratch)?;
    let kind = Kind {
        groups: 1,
        awake: true,
        rows: true,
        snapshot_mib_per_second: options.snapshot_mib_per_second,
    };
    let mut cluster = Cluster::start(kind, directory.path())?;
    let (leader, _) = leader(&mut cluster)?;
    cluster.tell(leader, &Order::Fill { mib: options.state_mib })?;
    cluster.one(|answer| matches!(answer, Answer::Filled).then_some(()))?;
    cluster.tell(leader, &Order::Load { clients: options.clients })?;
    cluster.one(|answer| matches!(answer, Answer::Loading).then_some(()))?;
    std::thread::sleep(WARMED);
    (0..options.rounds).map(|_| round(&mut cluster, leader)).collect()
}

/// Who leads the one group, and how that is.
pub(crate) fn leader(cluster: &mut Cluster) -> Outcome<(u64, State)> {
    let status = cluster.status()?;
    let leads = status.into_iter().find(|(_, status)| !status.leads.is_empty());
    let (leader, status) = leads.ok_or("nobody leads")?;
    Ok((leader, status.state.ok_or("it says nothing of its state")?))
}

fn round(cluster: &mut Cluster, leader: u64) -> Outcome<CaughtUp> {
    wait(cluster, "the followers have everything", |states| {
        states.iter().all(|state| state.applied + LAG_MAX >= most_applied(states))
    })?;
    let all = rate(cluster, leader)?;
    let lost = *crate::node::NODES.iter().rev().find(|id| **id != leader).ok_or("no follower")?;
    cluster.kill(lost)?;
    let had = most_applied(&states(cluster)?);
    wait(cluster, "the log is purged past it", |states| {
        states.iter().any(|state| state.purged > had)
    })?;
    let without = rate(cluster, leader)?;

    let sent_before = of(cluster, leader)?.1.snapshots_sent;
    cluster.restart(lost)?;
    let (began, done_before) = (Instant::now(), of(cluster, leader)?.0);
    let mut done = done_before;
    while began.elapsed() < PATIENCE {
        std::thread::sleep(PAUSE);
        let status = cluster.status()?;
        let state = |id| Some(status.get(&id)?.state.as_ref()?.clone());
        let (ahead, behind) = state(leader).zip(state(lost)).ok_or("no state")?;
        done = status.get(&leader).map_or(done, |status| status.done);
        if behind.snapshot_bytes_received > 0 && behind.applied + LAG_MAX >= ahead.applied {
            let seconds = began.elapsed().as_secs_f64();
            return Ok(CaughtUp {
                all,
                without,
                meanwhile: (done - done_before) as f64 / seconds,
                seconds,
                bytes: behind.snapshot_bytes_received,
                snapshots: ahead.snapshots_sent - sent_before,
            });
        }
    }
    Err(format!("it has not caught up within {PATIENCE:?}, under {done} writes").into())
}

/// Commands per second.
fn rate(cluster: &mut Cluster, leader: u64) -> Outcome<f64> {
    let (before, began) = (of(cluster, leader)?.0, Instant::now());
    std::thread::sleep(MEASURED);
    let done = of(cluster, leader)?.0 - before;
    Ok(done as f64 / began.elapsed().as_secs_f64())
}

/// What a process has done, and how its state is.
fn of(cluster: &mut Cluster, id: u64) -> Outcome<(u64, State)> {
    let status = cluster.status()?.remove(&id).ok_or("no such process")?;
    Ok((status.done, status.state.ok_or("it says nothing of its state")?))
}

fn states(cluster: &mut Cluster) -> Outcome<Vec<State>> {
    Ok(cluster.status()?.into_values().filter_map(|status| status.state).collect())
}

fn most_applied(states: &[State]) -> u64 {
    states.iter().map(|state| state.applied).max().unwrap_or_default()
}

fn wait(cluster: &mut Cluster, what: &str, is_so: impl Fn(&[State]) -> bool) -> Outcome {
    let until = Instant::now() + PATIENCE;
    while !is_so(&states(cluster)?) {
        if Instant::now() > until {
            return Err(format!("not within {PATIENCE:?}: {what}").into());
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
