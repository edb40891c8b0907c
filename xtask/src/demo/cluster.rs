//! Nodes as processes on this machine.

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::admin::Admin;
use super::folder::Folder;
use super::interrupt::{Interrupt, Wait};
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

/// Node N listens at the folder's first port plus N for nodes, and these
/// distances above it for clients and operators.
const GATEWAY_ABOVE: u16 = 5;
const ADMIN_ABOVE: u16 = 10;

/// Processes, ended with this value unless they are left running.
#[derive(Debug)]
pub(super) struct Cluster {
    server: PathBuf,
    folder: Folder,
    is_kept: bool,
    interrupt: Interrupt,
    running: Vec<(u64, Child)>,
}

impl Cluster {
    /// A cluster without nodes, in an empty folder beside the program.
    pub(super) fn create(server: &Path, is_kept: bool, interrupt: &Interrupt) -> Outcome<Self> {
        let target = server.ancestors().nth(2).ok_or("the server's program has no folder")?;
        let folder = Folder::claim(&target.join("demo"))?;
        let (server, interrupt) = (server.to_path_buf(), interrupt.clone());
        Ok(Self { server, folder, is_kept, interrupt, running: Vec::new() })
    }

    /// Where data and logs are.
    pub(super) fn dir(&self) -> &Path {
        &self.folder.path
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
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.folder.base_port + above + number))
    }

    /// Starts a node, for the first time or again.
    pub(super) fn start(&mut self, node: u64) -> Outcome {
        let log = OpenOptions::new().create(true).append(true).open(self.log(node))?;
        let mut command = Command::new(&self.server);
        command
            .arg("start")
            .args(["--node", &node.to_string()])
            .arg("--dir")
            .arg(self.dir().join(format!("node-{node}")))
            .args(["--addr", &self.address(0, node).to_string()])
            .args(["--gateway", &self.gateway(node).to_string()])
            .args(["--admin", &self.address(ADMIN_ABOVE, node).to_string()])
            .args(self.membership(node))
            .stdout(Stdio::null())
            .stderr(log)
            // A Ctrl-C is for the demo, which then ends its nodes.
            .process_group(0);
        // However this process ends, its nodes see their standard input end,
        // and follow; unless they are meant to stay. Then only a SIGKILL of
        // this process leaves them behind.
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
        let what = format!("node {node} serves");
        let interrupt = self.interrupt.clone();
        interrupt.wait_until(&Wait::new(&what, READY_MAX), || self.ready(node))
    }

    /// Whether a node serves; why not yet, otherwise.
    ///
    /// # Errors
    /// When it never will, because it has ended.
    pub(super) fn ready(&mut self, node: u64) -> Outcome<Result<(), String>> {
        if let Some(status) = self.child(node)?.try_wait()? {
            let said = tail(&self.log(node));
            return Err(format!("node {node} ended by itself ({status}): {said}").into());
        }
        Ok(self.admin(node).ready())
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
        self.dir().join(format!("node-{node}.log"))
    }

    /// The nodes that run.
    pub(super) fn nodes(&self) -> Vec<u64> {
        let mut nodes: Vec<u64> = self.running.iter().map(|(node, _)| *node).collect();
        nodes.sort_unstable();
        nodes
    }

    /// Nodes that have ended although nobody ended them, and how.
    pub(super) fn fallen(&mut self) -> Vec<String> {
        let logs = self.dir().to_path_buf();
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
        self.running.retain_mut(|(_, child)| matches!(child.try_wait(), Ok(None)));
        if self.running.is_empty() {
            return format!("no node runs; logs and data are in {}\n", self.dir().display());
        }
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
        text.push_str(&format!("its data is in {}\n", self.dir().display()));
        self.running.clear();
        text
    }

    /// Ends every node and removes what they stored.
    pub(super) fn remove(mut self) -> Outcome {
        self.end();
        Ok(std::fs::remove_dir_all(self.dir())?)
    }

    /// Ends every node.
    pub(super) fn end(&mut self) {
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

/// The last lines of a node's log.
fn tail(log: &Path) -> String {
    const LINES: usize = 5;
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests;
