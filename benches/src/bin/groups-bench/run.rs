//! What is measured.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use quorate_benches::Machine;

use crate::Outcome;
use crate::node::{Answer, Order, Status, home};
use crate::options::Options;
use crate::process::{Cluster, Kind};
use crate::report::{Idle, Killed, Report, Taken};
use crate::{catchup, clients, connections};

/// What the memory of many groups is compared with.
const FEW_GROUPS: u64 = 10;
/// The process that is killed.
const LOST: u64 = 1;
/// How long groups are written to before it is.
const LOADED: Duration = Duration::from_secs(5);
/// How long they may take to serve again.
const RECOVERY_MAX: Duration = Duration::from_secs(60);

/// Measures everything and prints it.
pub(crate) fn run(options: &Options) -> Outcome {
    let beside = std::env::current_exe()?;
    let parent = options.dir.as_deref().or(beside.parent()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)
        .map_err(|error| format!("cannot use {}: {error}", parent.display()))?;
    let scratch = tempfile::tempdir_in(parent)?;
    let machine = Machine::of(scratch.path());
    println!("{}", machine.describe());
    let mut report = Report::new(machine);
    for part in &options.parts {
        println!("{}", measure(part, options, scratch.path(), &mut report)?);
    }
    report.write(options.json.as_deref())
}

/// Measures one part, and returns its table.
fn measure(part: &str, options: &Options, scratch: &Path, report: &mut Report) -> Outcome<String> {
    match part {
        "idle" => {
            report.idle = idle(options, scratch)?;
            Ok(report.of_idle())
        }
        "killed" => {
            for _ in 0..options.rounds {
                report.killed.push(kill(options, scratch)?);
            }
            Ok(report.of_killed(options))
        }
        "catch-up" => {
            report.caught_up = catchup::run(options, scratch)?;
            Ok(report.of_caught_up(options))
        }
        "connections" => {
            let connections = report.connections.insert(connections::run()?);
            Ok(connections.table())
        }
        "clients" => {
            let clients = report.clients.insert(clients::run(options, scratch)?);
            Ok(clients.table())
        }
        other => {
            let parts = "idle, connections, killed, catch-up, clients";
            Err(format!("there is no part '{other}': {parts}").into())
        }
    }
}

/// What groups cost that nobody uses: few, many, and many that are awake, in turns.
fn idle(options: &Options, scratch: &Path) -> Outcome<Vec<Idle>> {
    let (few, many) = (FEW_GROUPS, options.groups);
    let mut all: Vec<Idle> = [(few, false), (many, false), (many, true)]
        .into_iter()
        .map(|(groups, awake)| Idle { groups, awake, rounds: Vec::new() })
        .collect();
    for _ in 0..options.rounds {
        for Idle { groups, awake, rounds } in &mut all {
            rounds.push(take(*groups, *awake, options.seconds, scratch)?);
        }
    }
    Ok(all)
}

/// What they take in one round, with processes that begin anew.
fn take(groups: u64, awake: bool, seconds: u64, scratch: &Path) -> Outcome<Taken> {
    let directory = tempfile::tempdir_in(scratch)?;
    let mut cluster = Cluster::start(Kind::counters(groups, awake), directory.path())?;
    if !awake {
        cluster.wait("every group rests", |status| {
            status.values().all(|status| status.resting == groups)
        })?;
    }
    let (used, began) = (cluster.cpu_seconds(), Instant::now());
    std::thread::sleep(Duration::from_secs(seconds));
    let (cpu, elapsed) = (cluster.cpu_seconds(), began.elapsed());
    let of_a_core = cpu.zip(used).map(|(now, before)| (now - before) / elapsed.as_secs_f64());
    Ok(Taken { of_a_core, resident_bytes: cluster.resident_bytes() })
}

/// Kills a process that leads groups, and waits until others serve them.
fn kill(options: &Options, scratch: &Path) -> Outcome<Killed> {
    let directory = tempfile::tempdir_in(scratch)?;
    let mut cluster = Cluster::start(Kind::counters(options.led * 3, false), directory.path())?;
    settle(&mut cluster)?;
    cluster.tell_all(&Order::Load { clients: options.clients })?;
    cluster.each(|answer| matches!(answer, Answer::Loading).then_some(()))?;
    let (before, began) = (done(&cluster.status()?), Instant::now());
    std::thread::sleep(LOADED);
    let mut status = cluster.status()?;
    let per_second = (done(&status) - before) as f64 / began.elapsed().as_secs_f64();
    let led = status.remove(&LOST).map(|status| status.leads).unwrap_or_default();

    let killed = cluster.kill(LOST)?;
    cluster.tell_all(&Order::Serve { groups: led.keys().copied().collect() })?;
    let mut millis = BTreeMap::new();
    let mut elections = 0;
    while millis.len() < led.len() {
        let (_, at, answer) = cluster.next(RECOVERY_MAX)?;
        let Answer::Served { group, term } = answer else { continue };
        let before = led.get(&group).copied().unwrap_or(term);
        elections = elections.max(term.saturating_sub(before));
        millis.insert(group, u64::try_from(at.duration_since(killed).as_millis())?);
    }
    Ok(Killed {
        led: led.len() as u64,
        per_second,
        elections,
        millis: millis.into_values().collect(),
    })
}

/// Has every process lead its third.
fn settle(cluster: &mut Cluster) -> Outcome {
    let each = cluster.groups() / 3;
    for _ in 0..20 {
        cluster.tell_all(&Order::Settle)?;
        cluster.each(|answer| matches!(answer, Answer::Settled).then_some(()))?;
        let status = cluster.status()?;
        let at_home = |(&id, status): (&u64, &Status)| {
            let groups = status.leads.keys().filter(|group| home(**group) == id);
            groups.count() as u64 == each
        };
        if status.iter().all(at_home) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    Err("the groups cannot be spread evenly".into())
}

fn done(status: &BTreeMap<u64, Status>) -> u64 {
    status.values().map(|status| status.done).sum()
}
