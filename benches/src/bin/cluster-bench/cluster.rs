//! The cluster under test.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use quorate_benches::Process;
use quorate_testkit::process::free_ports;
use quorate_tests::{Admin, Shard, server};

use crate::{Outcome, options::Options};

/// How long shards may take until each has a leader.
const LEADERS_MAX: Duration = Duration::from_secs(30);
/// How often that is looked at.
const POLL: Duration = Duration::from_millis(100);

/// Replicas of each shard, if there are as many nodes.
const REPLICAS_MAX: u64 = 3;

/// Durable nodes, each a process; they end with this value.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) processes: Vec<Process>,
    pub(crate) gateways: Vec<SocketAddr>,
    /// The shards as they were when all of them had a leader.
    pub(crate) shards: Vec<Shard>,
}

impl Cluster {
    /// Starts the nodes with directories in `directory`, and waits until all
    /// serve and every shard is led.
    pub(crate) async fn start(options: &Options, directory: &Path) -> Outcome<Self> {
        let count = usize::try_from(options.nodes)?;
        let ports = free_ports(3 * count)?.release();
        let (nodes, rest) = ports.split_at(count);
        let (gateways, admins) = rest.split_at(count);
        let members: Vec<String> = (1..).zip(nodes).map(|(id, at)| format!("{id}={at}")).collect();
        let mut processes = Vec::new();
        for (id, ((node, gateway), admin)) in (1..).zip(nodes.iter().zip(gateways).zip(admins)) {
            let name = format!("node-{id}");
            let mut command = Command::new(server());
            command
                .args(["start", "--exit-with-parent", "--node", &id.to_string()])
                .arg("--dir")
                .arg(directory.join(&name))
                .args(["--addr", &node.to_string()])
                .args(["--gateway", &gateway.to_string()])
                .args(["--admin", &admin.to_string()])
                .args(["--initial-cluster", &members.join(",")])
                .args(["--shards", &options.shards.to_string()])
                .args(["--replicas", &options.nodes.min(REPLICAS_MAX).to_string()])
                .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned()));
            processes.push(Process::start(&name, &mut command, directory)?);
        }
        for (process, admin) in processes.iter_mut().zip(admins) {
            process.wait_ready(async || Admin::at(*admin).is_ready()).await?;
        }
        let first = admins.first().ok_or("a cluster has a node")?;
        let shards = led_shards(Admin::at(*first)).await?;
        Ok(Self { processes, gateways: gateways.to_vec(), shards })
    }
}

async fn led_shards(admin: Admin) -> Outcome<Vec<Shard>> {
    let begin = Instant::now();
    loop {
        let seen = admin.shards();
        match seen {
            Ok(shards) if shards.iter().all(|shard| shard.leader.is_some()) => return Ok(shards),
            seen if begin.elapsed() >= LEADERS_MAX => {
                return Err(format!("not every shard has a leader: {seen:?}").into());
            }
            _ => tokio::time::sleep(POLL).await,
        }
    }
}
