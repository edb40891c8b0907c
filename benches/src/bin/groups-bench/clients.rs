//! Puts and linearizable reads of clients on a connection, beside etcd.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_benches::{Etcd, EtcdClients, Measured, Process, Window, percentile};
use quorate_raft::tcp::{Mesh, MeshConfig};
use quorate_raft::{Lane, Network};
use quorate_types::env::{Rng, SplitMix};
use quorate_types::{NodeId, runtime};

use crate::node::{Answer, NODES, Order};
use crate::options::Options;
use crate::process::{Cluster, Kind};
use crate::report::{Called, Clients, Served};
use crate::{Outcome, catchup, connections, requests};

/// What clients of both put and get.
const KEYS: u64 = 10_000;
const VALUE_BYTES: usize = 256;
/// Puts at a time that write every key once.
const FILLED_AT_ONCE: u64 = 64;
/// How long either is left alone before the next turn, so that what it has put off
/// does not fall into that: engines commit within two seconds.
const SETTLE: Duration = Duration::from_millis(2_500);
/// What the clients' connections say they are.
const CLIENTS: NodeId = NodeId(1_000);
const DEADLINE: Duration = Duration::from_secs(10);
/// The pause of a client after an error, lest it does nothing but fail.
const PAUSE: Duration = Duration::from_millis(10);

/// What clients do, named as the clients of etcd do.
#[derive(Clone, Copy)]
enum Work {
    Put,
    Get,
}

impl Work {
    const fn name(self) -> &'static str {
        match self {
            Self::Put => "set",
            Self::Get => "get",
        }
    }

    fn request(self, row: u64) -> Bytes {
        match self {
            Self::Put => requests::put(row, &[b'x'; VALUE_BYTES]),
            Self::Get => requests::get(row),
        }
    }

    const fn answer_bytes(self) -> usize {
        match self {
            Self::Put => 0,
            Self::Get => VALUE_BYTES,
        }
    }
}

/// A group of three processes whose leader clients call over one connection, and a
/// cluster of etcd whose leader its clients call. They take turns, in every round.
pub(crate) fn run(options: &Options, scratch: &Path) -> Outcome<Clients> {
    let directory = tempfile::tempdir_in(scratch)?;
    let kind = Kind { groups: 1, awake: false, rows: true, snapshot_mib_per_second: None };
    let mut cluster = Cluster::start(kind, directory.path())?;
    let (leader, _) = catchup::leader(&mut cluster)?;
    cluster.tell(leader, &Order::Attend)?;
    let address = cluster.one(|answer| match answer {
        Answer::Attending { address } => Some(address),
        _ => None,
    })?;
    // One thread carries all clients, as it does those of etcd.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let hello = || connections::hello(CLIENTS);
        let mesh = Mesh::new(MeshConfig::default(), hello, move |_| Some(address.clone()));
        let ours = Ours { cluster, mesh, leader: NodeId(leader) };
        ours.fill().await?;
        let etcd = Theirs::start(options, directory.path()).await?;
        let duration = Duration::from_secs(options.call_seconds);
        let mut works = Vec::new();
        for work in [Work::Put, Work::Get] {
            for &callers in &options.callers {
                let mut called =
                    Called { work: work.name(), callers, ours: Vec::new(), etcd: Vec::new() };
                for round in 0..options.rounds {
                    // Each of them is as often the first.
                    for is_ours in [round % 2 == 0, round % 2 == 1] {
                        if is_ours {
                            called.ours.push(ours.run(work, callers, duration).await?);
                        } else if let Ok(etcd) = &etcd {
                            called.etcd.push(etcd.run(work, callers, duration).await?);
                        }
                        tokio::time::sleep(SETTLE).await;
                    }
                }
                works.push(called);
            }
        }
        Ok(Clients { etcd: etcd.map(|etcd| etcd.version), works })
    })
}

/// Processor time up to a moment.
struct Used(Instant, Option<f64>);

impl Used {
    fn now(cpu_seconds: Option<f64>) -> Self {
        Self(Instant::now(), cpu_seconds)
    }

    /// Cores from this moment to a later one.
    fn until(&self, later: &Self) -> Option<f64> {
        Some((later.1? - self.1?) / later.0.duration_since(self.0).as_secs_f64())
    }
}

fn served(measured: Measured, duration: Duration, cores: Option<f64>) -> Served {
    let Measured { micros, errors, first_error } = measured;
    Served {
        per_second: micros.len() as f64 / duration.as_secs_f64(),
        p99_millis: percentile(&micros, 99) as f64 / 1e3,
        cores,
        errors,
        first_error,
    }
}

/// A group, and the connection to its leader.
struct Ours {
    cluster: Cluster,
    mesh: Mesh,
    leader: NodeId,
}

impl Ours {
    /// Writes every key once.
    async fn fill(&self) -> Outcome {
        let writers: Vec<_> = (0..FILLED_AT_ONCE)
            .map(|first| {
                let (mesh, leader) = (self.mesh.clone(), self.leader);
                runtime::spawn(async move {
                    for row in (first..KEYS).step_by(FILLED_AT_ONCE as usize) {
                        call(&mesh, leader, Work::Put, row).await?;
                    }
                    Ok::<(), String>(())
                })
            })
            .collect();
        for writer in writers {
            writer.await??;
        }
        Ok(())
    }

    async fn run(&self, work: Work, callers: u32, duration: Duration) -> Outcome<Served> {
        let window = Window::of(duration);
        let clients = (0..callers)
            .map(|number| {
                let (mesh, leader) = (self.mesh.clone(), self.leader);
                runtime::spawn(client(mesh, leader, work, SplitMix::new(number.into()), window))
            })
            .collect();
        let mut begun = None;
        let note = || begun = Some(Used::now(self.cluster.cpu_seconds()));
        let measured = window.pass(note, clients).await?;
        let ended = Used::now(self.cluster.cpu_seconds());
        Ok(served(measured, duration, begun.and_then(|begun| begun.until(&ended))))
    }
}

async fn client(
    mesh: Mesh,
    leader: NodeId,
    work: Work,
    mut chance: SplitMix,
    window: Window,
) -> Measured {
    let mut measured = Measured::default();
    loop {
        let start = Instant::now();
        if start >= window.end {
            return measured;
        }
        match call(&mesh, leader, work, chance.below(KEYS)).await {
            Ok(()) => measured.done(start, window),
            Err(why) => {
                measured.failed(&why);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn call(mesh: &Mesh, leader: NodeId, work: Work, row: u64) -> Result<(), String> {
    let request = work.request(row);
    let answer = Network::call(mesh, leader, Lane::Request, requests::CHANNEL, request, DEADLINE);
    match answer.await {
        Ok(answer) if answer.len() == work.answer_bytes() => Ok(()),
        Ok(answer) => Err(format!("an answer of {} bytes", answer.len())),
        Err(error) => Err(error.to_string()),
    }
}

/// etcd, whose leader its clients call.
struct Theirs {
    etcd: Etcd,
    version: String,
}

impl Theirs {
    /// Says why where there is none.
    async fn start(options: &Options, directory: &Path) -> Outcome<Result<Self, String>> {
        let Some(version) = Etcd::version() else { return Ok(Err("not installed".to_owned())) };
        let Some(program) = options.etcd_clients.clone() else {
            return Ok(Err("its clients are not built".to_owned()));
        };
        let clients = EtcdClients { program, keys: KEYS, value_bytes: VALUE_BYTES };
        let etcd = Etcd::start(NODES.len() as u64, directory, clients).await?;
        Ok(Ok(Self { etcd, version }))
    }

    async fn run(&self, work: Work, callers: u32, duration: Duration) -> Outcome<Served> {
        let leader = self.etcd.leader().await?;
        let used = || Used::now(self.etcd.processes.iter().map(Process::cpu_seconds).sum());
        let mut begun = None;
        let note = || begun = Some(used());
        let measured = self.etcd.run(&[leader], work.name(), callers, duration, note).await?;
        let ended = used();
        Ok(served(measured, duration, begun.and_then(|begun| begun.until(&ended))))
    }
}
