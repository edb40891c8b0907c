//! `quorate dev`: a cluster of processes on this machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use quorate_types::NodeId;
use quorate_types::watch;
use tokio::process::{Child, Command};

use super::args::DevArgs;
use super::client::AdminClient;
use super::config::InitialCluster;
use super::signals::stop_signal;

/// How often a starting node is asked whether it serves.
const POLL: Duration = Duration::from_millis(100);
/// How long a cluster may take until every node serves.
const START: Duration = Duration::from_secs(120);
/// How long a node may take to end by itself.
const END: Duration = Duration::from_secs(10);

/// Distances from the base port; with the default of 7100, node 1 has 7101,
/// 6401 and 8101.
const GATEWAY_BELOW: u16 = 700;
const ADMIN_ABOVE: u16 = 1_000;

/// Why a development cluster is not up.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// A process cannot be started or watched.
    #[error("cannot run node {node}: {source}")]
    Run {
        /// The node.
        node: u64,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A node ended before it served.
    #[error("node {node} ended before it served ({status}); its messages are above")]
    Ended {
        /// The node.
        node: u64,
        /// How it ended.
        status: ExitStatus,
    },
    /// A node took too long.
    #[error("node {node} does not serve after {} s: {reason}", START.as_secs())]
    NotReady {
        /// The node.
        node: u64,
        /// What it says itself.
        reason: String,
    },
    /// Every node has ended.
    #[error("every node has ended")]
    AllEnded,
    /// The process itself cannot be prepared.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// One node of a development cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DevNode {
    /// Its number.
    pub node: u64,
    /// Where it keeps its data.
    pub dir: PathBuf,
    /// Where other nodes reach it.
    pub addr: SocketAddr,
    /// Where clients connect.
    pub gateway: SocketAddr,
    /// Where operators connect.
    pub admin: SocketAddr,
}

/// The nodes that the flags describe.
#[must_use]
pub fn dev_nodes(args: &DevArgs) -> Vec<DevNode> {
    let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let nodes = u16::try_from(args.nodes).unwrap_or(1);
    // The flag's range leaves room below and above.
    let node = |number: u16| DevNode {
        node: u64::from(number),
        dir: args.dir.join(format!("node-{number}")),
        addr: local(args.base_port + number),
        gateway: local(args.base_port - GATEWAY_BELOW + number),
        admin: local(args.base_port + ADMIN_ABOVE + number),
    };
    (1..=nodes).map(node).collect()
}

struct Running {
    node: DevNode,
    /// Killed when dropped. Its standard input stays open as long as this
    /// process lives; its end asks the node to end.
    child: Child,
}

/// Runs the cluster until SIGTERM, SIGINT or the end of its last node.
pub(super) async fn run(args: &DevArgs) -> Result<(), DevError> {
    let mut stop = stop_signal(false)?;
    let mut cluster = Vec::new();
    for node in dev_nodes(args) {
        let child =
            spawn(args, &node).map_err(|source| DevError::Run { node: node.node, source })?;
        cluster.push(Running { node, child });
    }
    let result = supervise(&mut cluster, &mut stop).await;
    end(cluster).await;
    result
}

async fn supervise(
    cluster: &mut [Running],
    stop: &mut watch::Receiver<bool>,
) -> Result<(), DevError> {
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => return Ok(()),
        ready = wait_until_ready(cluster) => ready?,
    }
    println!("the cluster serves; end it with Ctrl-C");
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => Ok(()),
        error = wait_until_all_ended(cluster) => Err(error),
    }
}

fn spawn(args: &DevArgs, node: &DevNode) -> std::io::Result<Child> {
    let members: InitialCluster =
        dev_nodes(args).into_iter().map(|node| (NodeId(node.node), node.addr)).collect();
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("start")
        .arg("--exit-with-parent")
        .args(["--node", &node.node.to_string()])
        .arg("--dir")
        .arg(&node.dir)
        .args(["--addr", &node.addr.to_string()])
        .args(["--gateway", &node.gateway.to_string()])
        .args(["--admin", &node.admin.to_string()])
        .args(["--initial-cluster", &members.to_string()])
        .args(["--shards", &args.shards.to_string()]);
    if let Some(replicas) = args.replicas {
        command.args(["--replicas", &replicas.to_string()]);
    }
    if let Some(config) = &args.config {
        command.arg("--config").arg(config);
    }
    if std::env::var_os("RUST_LOG").is_none() {
        command.env("RUST_LOG", "warn");
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true).spawn()
}

/// Prints each node once it serves.
async fn wait_until_ready(cluster: &mut [Running]) -> Result<(), DevError> {
    let deadline = tokio::time::Instant::now() + START;
    for running in cluster {
        let node = running.node.node;
        while let Err(error) = AdminClient::new(running.node.admin).ready().await {
            let status = running.child.try_wait();
            if let Some(status) = status.map_err(|source| DevError::Run { node, source })? {
                return Err(DevError::Ended { node, status });
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(DevError::NotReady { node, reason: error.to_string() });
            }
            tokio::time::sleep(POLL).await;
        }
        let DevNode { gateway, admin, .. } = &running.node;
        println!("node {node}: gateway {gateway}, admin {admin}");
    }
    Ok(())
}

/// A node that ends is reported; the others go on without it, which is what a
/// cluster is for.
async fn wait_until_all_ended(cluster: &mut [Running]) -> DevError {
    let mut left: Vec<&mut Running> = cluster.iter_mut().collect();
    while !left.is_empty() {
        tokio::time::sleep(POLL).await;
        left.retain_mut(|running| match running.child.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) => {
                eprintln!("node {} ended: {status}", running.node.node);
                false
            }
            Err(error) => {
                eprintln!("node {} cannot be watched: {error}", running.node.node);
                false
            }
        });
    }
    DevError::AllEnded
}

/// Ends every node: first by closing its standard input, then by force.
async fn end(mut cluster: Vec<Running>) {
    for running in &mut cluster {
        drop(running.child.stdin.take());
    }
    let deadline = tokio::time::Instant::now() + END;
    for mut running in cluster {
        if tokio::time::timeout_at(deadline, running.child.wait()).await.is_err() {
            eprintln!("node {} did not end and is killed", running.node.node);
            // What fails here is a process that is gone.
            let _ = running.child.kill().await;
        }
    }
}
