//! From the flags to the report.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_benches::{
    Etcd, EtcdClients, Machine, Process, cpu_seconds, flushes, machine_cpu_seconds, sync_rate,
};

use crate::Outcome;
use crate::cluster::Cluster;
use crate::keys::{KEYS, Keys, VALUE_BYTES};
use crate::load::{self, Plan, Work};
use crate::options::Options;
use crate::redis::{self, Redis};
use crate::report::{Cost, Limits, OURS, Report, Row, line};

/// How long the disk is measured, each time.
const DISK: Duration = Duration::from_millis(1_500);
/// How long a cluster settles after its start, and how long its idleness is
/// then measured.
const SETTLE: Duration = Duration::from_secs(2);

/// Measures everything and prints the report.
pub(crate) async fn run(options: &Options) -> Outcome {
    let works = options.work.iter().map(|name| Work::named(name)).collect::<Outcome<Vec<_>>>()?;
    let parent = parent_directory(options)?;
    let machine = Machine::of(&parent);
    if machine.is_in_memory() {
        let parent = parent.display();
        return Err(format!("{parent} is in memory; name a directory on a disk with --dir").into());
    }
    // Dropped last, when no process writes into it any more.
    let scratch = tempfile::TempDir::with_prefix_in("cluster-bench-", &parent)?;
    let directory = scratch.path();
    eprintln!("data is in {}", directory.display());

    let before = disk_limits(directory, options)?;
    eprintln!("starting {} nodes", options.nodes);
    let mut cluster = Cluster::start(options, directory).await?;
    let keys = Arc::new(Keys::over(&cluster.shards));
    let shards = cluster.shards.len();
    let drive = Drive { options, works: &works, directory, keys: &keys };
    eprintln!("measuring what the cluster costs when nobody asks anything");
    tokio::time::sleep(SETTLE).await;
    let before_idle = Usage::of(&cluster.processes, directory);
    tokio::time::sleep(SETTLE).await;
    let idle = Usage::of(&cluster.processes, directory).since(&before_idle, 1);
    let mut rows = drive.all(OURS, &cluster.gateways, &mut cluster.processes).await?;
    drop(cluster);

    let mut absent = Vec::new();
    match redis::version() {
        _ if options.no_peers => absent.push("redis-server: left out (--no-peers)".to_owned()),
        None => absent.push("redis-server: not installed".to_owned()),
        Some(version) => {
            eprintln!("starting redis-server {version}: one node, appendfsync always");
            let Redis { process, gateway } = Redis::start(directory).await?;
            let name = format!("redis {version}");
            rows.extend(drive.all(&name, &[gateway], &mut [process]).await?);
        }
    }
    match (Etcd::version(), &options.etcd_clients) {
        _ if options.no_peers => absent.push("etcd: left out (--no-peers)".to_owned()),
        (None, _) => absent.push("etcd: not installed".to_owned()),
        (_, None) => absent.push("etcd: its clients are not built".to_owned()),
        (Some(version), Some(clients)) => {
            eprintln!("starting etcd {version}: {} nodes", options.nodes);
            let program = clients.clone();
            let clients = EtcdClients { program, keys: KEYS, value_bytes: VALUE_BYTES };
            let mut peer = Etcd::start(options.nodes, directory, clients).await?;
            rows.extend(drive.etcd(&format!("etcd {version}"), &mut peer).await?);
        }
    }

    let limits = vec![before, disk_limits(directory, options)?];
    let (nodes, seconds) = (options.nodes, options.seconds);
    let idle_cores = idle.server_cores;
    let report = Report { machine, nodes, shards, seconds, idle_cores, limits, rows, absent };
    println!("\n{}", report.render());
    if let Some(file) = &options.json {
        report.write_json(file)?;
    }
    Ok(scratch.close()?)
}

/// Where the data's own directory is made: where the flags say, or in a folder
/// beside the one that the program was built into.
fn parent_directory(options: &Options) -> Outcome<PathBuf> {
    let parent = match &options.dir {
        Some(named) => named.clone(),
        None => {
            let program = std::env::current_exe()?;
            let target = program.ancestors().nth(2).ok_or("the program has no folder")?;
            target.join("bench")
        }
    };
    std::fs::create_dir_all(&parent)
        .map_err(|error| format!("cannot use {}: {error}", parent.display()))?;
    Ok(parent.canonicalize()?)
}

fn disk_limits(directory: &Path, options: &Options) -> Outcome<Limits> {
    eprintln!("measuring the disk");
    let one = sync_rate(directory, 1, DISK)?;
    let each = sync_rate(directory, usize::try_from(options.nodes)?, DISK)?;
    Ok(Limits { one, each })
}

/// The same load for every system.
struct Drive<'a> {
    options: &'a Options,
    works: &'a [Work],
    directory: &'a Path,
    keys: &'a Arc<Keys>,
}

impl Drive<'_> {
    /// Every kind of work with every number of clients.
    async fn all(
        &self,
        system: &str,
        gateways: &[SocketAddr],
        servers: &mut [Process],
    ) -> Outcome<Vec<Row>> {
        let first = gateways.first().ok_or("there is no gateway")?;
        load::fill(*first, self.keys).await?;
        let mut rows = Vec::new();
        for work in self.works {
            for clients in &self.options.clients {
                let plan = Plan {
                    work: *work,
                    clients: *clients,
                    duration: Duration::from_secs(self.options.seconds),
                    gateways: gateways.to_vec(),
                    keys: Arc::clone(self.keys),
                };
                let row = self.one(system, Arc::new(plan), servers).await?;
                eprint!("{}", line(&row));
                rows.push(row);
            }
        }
        Ok(rows)
    }

    /// What etcd has, too.
    async fn etcd(&self, system: &str, peer: &mut Etcd) -> Outcome<Vec<Row>> {
        let duration = Duration::from_secs(self.options.seconds);
        let mut rows = Vec::new();
        for work in self.works.iter().filter(|work| matches!(work, Work::Set | Work::Get)) {
            for clients in &self.options.clients {
                let begun = Cell::new(None);
                let note = || begun.set(Some(Usage::of(&peer.processes, self.directory)));
                let (at, name) = (peer.everywhere(), work.name());
                let measured = peer.run(at, name, *clients, duration, note).await?;
                let after = Usage::of(&peer.processes, self.directory);
                let (count, seconds) = (measured.micros.len(), duration.as_secs_f64());
                let mut row = Row::new(system, name, *clients, seconds, measured);
                let cost = begun.take().map(|begun| after.since(&begun, count)).unwrap_or_default();
                // The clients are a process of their own here.
                row.cost = Cost { client_cores: cost.other_cores, other_cores: None, ..cost };
                for server in &mut peer.processes {
                    server.check()?;
                }
                eprint!("{}", line(&row));
                rows.push(row);
            }
        }
        Ok(rows)
    }

    async fn one(&self, system: &str, plan: Arc<Plan>, servers: &mut [Process]) -> Outcome<Row> {
        let begun = Cell::new(None);
        let measured =
            load::run(&plan, || begun.set(Some(Usage::of(servers, self.directory)))).await?;
        let after = Usage::of(servers, self.directory);
        for server in servers {
            server.check()?;
        }
        let count = measured.micros.len();
        let seconds = plan.duration.as_secs_f64();
        let mut row = Row::new(system, plan.work.name(), plan.clients, seconds, measured);
        row.cost = begun.take().map(|begun| after.since(&begun, count)).unwrap_or_default();
        Ok(row)
    }
}

/// What has been used up to a moment.
struct Usage {
    at: Instant,
    servers: Option<f64>,
    clients: Option<f64>,
    machine: Option<f64>,
    flushes: Option<u64>,
}

impl Usage {
    fn of(servers: &[Process], directory: &Path) -> Self {
        Self {
            at: Instant::now(),
            servers: servers.iter().map(Process::cpu_seconds).sum(),
            clients: cpu_seconds("self"),
            machine: machine_cpu_seconds(),
            flushes: flushes(directory),
        }
    }

    fn since(&self, before: &Self, operations: usize) -> Cost {
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        let cores = |now: Option<f64>, then: Option<f64>| Some((now? - then?) / seconds);
        let server_cores = cores(self.servers, before.servers);
        let client_cores = cores(self.clients, before.clients);
        let all_cores = cores(self.machine, before.machine);
        let other_cores = || Some((all_cores? - server_cores? - client_cores?).max(0.0));
        let flushes = || Some(self.flushes?.saturating_sub(before.flushes?) as f64);
        Cost {
            server_cores,
            client_cores,
            other_cores: other_cores(),
            flushes: flushes().map(|count| count / operations.max(1) as f64),
        }
    }
}
