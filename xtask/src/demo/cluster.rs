//! Nodes as processes on this machine.

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::admin::Admin;
use super::progress::wait_until;
use crate::Outcome;

/// The nodes that found the cluster; one more joins later.
pub(super) const FOUNDERS: [u64; 3] = [1, 2, 3];
/// The node that joins.
pub(super) const JOINER: u64 = 4;

/// The shards and replicas that the cluster begins with.
pub(super) const SHARDS: u32 = 8;
pub(super) const REPLICAS: u32 = 3;

/// How long a node may take until it serves.
const READY_MAX: Duration = Duration::from_secs(30);

/// Ports come in blocks: node N listens at the block's first port plus N for
/// nodes, and these distances above it for clients and operators. All lie
/// below the range from which systems take the ports of outgoing connections,
/// so that a node that was killed finds its own free again.
const BLOCK_PORTS: u16 = 20;
const BLOCKS: u16 = 500;
const FIRST_PORT: u16 = 17_000;
const GATEWAY_ABOVE: u16 = 5;
const ADMIN_ABOVE: u16 = 10;

/// Processes, ended with this value unless they are left running.
#[derive(Debug)]
pub(super) struct Cluster {
    server: PathBuf,
    dir: PathBuf,
    base_port: u16,
    is_kept: bool,
    running: Vec<(u64, Child)>,
}

impl Cluster {
    /// A cluster without nodes, in an empty folder beside the program.
    pub(super) fn create(server: &Path, is_kept: bool) -> Outcome<Self> {
        let base_port = free_block().ok_or("no block of free ports was found")?;
        // Two running clusters never have the same ports, so a folder of this
        // name is a leftover.
        let target = server.ancestors().nth(2).ok_or("the server's program has no folder")?;
        let dir = target.join("demo").join(base_port.to_string());
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir_all(&dir)?;
        Ok(Self { server: server.to_path_buf(), dir, base_port, is_kept, running: Vec::new() })
    }

    /// Where data and logs are.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where clients reach a node.
    pub(super) fn gateway(&self, node: u64) -> SocketAddr {
        self.address(GATEWAY_ABOVE, node)
    }

    /// A node's admin interface.
    pub(super) fn admin(&self, node: u64) -> Admin {
        Admin::at(self.address(ADMIN_ABOVE, node))
    }

    fn address(&self, above: u16, node: u64) -> SocketAddr {
        // Nodes have one digit.
        let number = u16::try_from(node).unwrap_or_default();
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.base_port + above + number))
    }

    /// Starts a node, for the first time or again.
    pub(super) fn start(&mut self, node: u64) -> Outcome {
        let log = OpenOptions::new().create(true).append(true).open(self.log(node))?;
        let mut command = Command::new(&self.server);
        command
            .arg("start")
            .args(["--node", &node.to_string()])
            .arg("--dir")
            .arg(self.dir.join(format!("node-{node}")))
            .args(["--addr", &self.address(0, node).to_string()])
            .args(["--gateway", &self.gateway(node).to_string()])
            .args(["--admin", &self.address(ADMIN_ABOVE, node).to_string()])
            .args(self.membership(node))
            .stdout(Stdio::null())
            .stderr(log);
        // However this process ends, its nodes see their standard input end,
        // and follow; unless they are meant to stay.
        if self.is_kept {
            command.stdin(Stdio::null());
        } else {
            command.arg("--exit-with-parent").stdin(Stdio::piped());
        }
        let child =
            command.spawn().map_err(|error| format!("cannot start node {node}: {error}"))?;
        self.running.push((node, child));
        Ok(())
    }

    fn membership(&self, node: u64) -> Vec<String> {
        if FOUNDERS.contains(&node) {
            let founders = FOUNDERS.map(|id| format!("{id}={}", self.address(0, id))).join(",");
            let (shards, replicas) = (SHARDS.to_string(), REPLICAS.to_string());
            let words =
                ["--initial-cluster", &founders, "--shards", &shards, "--replicas", &replicas];
            words.map(str::to_owned).to_vec()
        } else {
            let members = FOUNDERS.map(|id| self.address(0, id).to_string()).join(",");
            vec!["--join".to_owned(), members]
        }
    }

    /// Waits until a node serves.
    pub(super) fn wait_ready(&mut self, node: u64) -> Outcome {
        let log = self.log(node);
        let admin = self.admin(node);
        let child = self.child(node)?;
        wait_until(&format!("node {node} serves"), READY_MAX, || {
            if let Some(status) = child.try_wait()? {
                let said = tail(&log);
                return Err(format!("node {node} ended by itself ({status}): {said}").into());
            }
            Ok(admin.ready())
        })
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self, node: u64) -> Outcome {
        let child = self.child(node)?;
        child.kill()?;
        child.wait()?;
        self.running.retain(|(id, _)| *id != node);
        Ok(())
    }

    fn child(&mut self, node: u64) -> Outcome<&mut Child> {
        let found = self.running.iter_mut().find(|(id, _)| *id == node);
        found.map(|(_, child)| child).ok_or_else(|| format!("node {node} does not run").into())
    }

    fn log(&self, node: u64) -> PathBuf {
        self.dir.join(format!("node-{node}.log"))
    }

    /// The nodes that run.
    pub(super) fn nodes(&self) -> Vec<u64> {
        let mut nodes: Vec<u64> = self.running.iter().map(|(node, _)| *node).collect();
        nodes.sort_unstable();
        nodes
    }

    /// Nodes that have ended although nobody ended them, and how.
    pub(super) fn fallen(&mut self) -> Vec<String> {
        let logs = self.dir.clone();
        let fallen = self.running.iter_mut().filter_map(|(node, child)| {
            let status = child.try_wait().ok()??;
            let log = logs.join(format!("node-{node}.log"));
            // Status 0 is a node that was told to stop, and not by the demo.
            Some(format!(
                "node {node} ended ({status}) though not ended by the demo; see {}",
                log.display()
            ))
        });
        fallen.collect()
    }

    /// Leaves the processes running; says how to use and to end them.
    pub(super) fn leave_running(mut self) -> String {
        let mut text = String::from("the cluster goes on:\n");
        for node in self.nodes() {
            let (gateway, admin) = (self.gateway(node), self.address(ADMIN_ABOVE, node));
            text.push_str(&format!(
                "  node {node}: redis-cli -p {}   or   {} status --admin {admin}\n",
                gateway.port(),
                self.server.display()
            ));
        }
        let ids: Vec<String> = self.running.iter().map(|(_, c)| c.id().to_string()).collect();
        text.push_str(&format!("end it with: kill {}\n", ids.join(" ")));
        text.push_str(&format!("its data is in {}\n", self.dir.display()));
        self.running.clear();
        text
    }

    /// Ends every node and removes what they stored.
    pub(super) fn remove(mut self) -> Outcome {
        self.end();
        Ok(std::fs::remove_dir_all(&self.dir)?)
    }

    fn end(&mut self) {
        for (_, mut child) in self.running.drain(..) {
            // What fails here is a process that has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
    }
}

/// The first port of a block in which nobody listens. Where the search begins
/// depends on the process, so that two demos rarely meet.
fn free_block() -> Option<u16> {
    let own = u16::try_from(std::process::id() % u32::from(BLOCKS)).unwrap_or_default();
    let blocks = (own..BLOCKS).chain(0..own).map(|block| FIRST_PORT + block * BLOCK_PORTS);
    let is_free = |base: &u16| {
        (*base..base + BLOCK_PORTS)
            .all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
    };
    blocks.into_iter().find(is_free)
}

/// The last lines of a node's log.
fn tail(log: &Path) -> String {
    const LINES: usize = 5;
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests;
