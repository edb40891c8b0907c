//! Exactly once, on real processes: a request id survives the death of every
//! process that ever saw it. The nodes are `src/bin/session.rs`, because the
//! gateway's protocol has no request ids.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use quorate_tests::{eventually, free_block};
use tempfile::TempDir;

const NODES: u16 = 3;
/// How long anything may take; a session answers within its own deadline.
const PATIENCE: Duration = Duration::from_secs(90);

/// A process, killed with this value.
struct Process {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Process {
    fn spawn(number: u16, address: SocketAddr, directory: &Path, members: &str) -> Self {
        let log = directory.with_extension("log");
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_session"))
            .args([&number.to_string(), &address.to_string()])
            .arg(directory)
            .arg(members)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, orders, answers }
    }

    /// The next line it says. It ends by itself if it does not serve in time,
    /// and then there is none.
    fn listen(&mut self) -> String {
        let mut line = String::new();
        let bytes = self.answers.read_line(&mut line).unwrap();
        assert!(bytes > 0, "the process ended: {:?}", self.child.try_wait());
        line.trim_end().to_owned()
    }

    fn order(&mut self, line: &str) -> String {
        writeln!(self.orders, "{line}").unwrap();
        self.orders.flush().unwrap();
        self.listen()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL. What fails here is a process that is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nodes 1 to 3, each a process or dead.
struct Cluster {
    processes: Vec<RefCell<Option<Process>>>,
    base_port: u16,
    directory: TempDir,
}

impl Cluster {
    fn start() -> Self {
        let mut cluster = Self {
            processes: (1..=NODES).map(|_| RefCell::new(None)).collect(),
            base_port: free_block(),
            directory: TempDir::with_prefix("quorate-sessions-").unwrap(),
        };
        cluster.revive();
        cluster
    }

    fn address(&self, node: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.base_port + node))
    }

    /// Starts every process that is dead and waits until all serve.
    fn revive(&mut self) {
        let members: Vec<String> =
            (1..=NODES).map(|node| format!("{node}={}", self.address(node))).collect();
        let dead: Vec<u16> = (1..=NODES).filter(|node| !self.is_alive(*node)).collect();
        for node in &dead {
            let directory = self.directory.path().join(format!("node-{node}"));
            let process =
                Process::spawn(*node, self.address(*node), &directory, &members.join(","));
            *self.process(*node).borrow_mut() = Some(process);
        }
        for node in dead {
            let said = self.process(node).borrow_mut().as_mut().unwrap().listen();
            assert_eq!(said, "serving", "node {node}");
        }
    }

    fn process(&self, node: u16) -> &RefCell<Option<Process>> {
        &self.processes[usize::from(node) - 1]
    }

    fn is_alive(&self, node: u16) -> bool {
        self.process(node).borrow().is_some()
    }

    fn alive(&self) -> Vec<u16> {
        (1..=NODES).filter(|node| self.is_alive(*node)).collect()
    }

    /// SIGKILL.
    fn kill(&self, node: u16) {
        assert!(self.process(node).borrow_mut().take().is_some(), "node {node} is dead");
    }

    /// Gives an order until it is carried out.
    #[track_caller]
    fn order(&self, node: u16, line: &str) -> String {
        eventually(&format!("node {node}: {line}"), PATIENCE, || {
            let mut process = self.process(node).borrow_mut();
            let answer = process.as_mut().expect("the node is alive").order(line);
            match answer.split_once(' ') {
                Some(("unclear", why)) => Err(why.to_owned()),
                Some(("failed", why))
                    if line.starts_with("transfer") || line.starts_with("split") =>
                {
                    Err(why.to_owned())
                }
                Some(("failed", why)) => panic!("node {node}: {line}: {why}"),
                _ => Ok(answer),
            }
        })
    }

    /// A key's shard, and the node that leads it and is alive.
    #[track_caller]
    fn route(&self, on: u16, key: &str) -> (String, u16) {
        eventually("the shard has a leader", PATIENCE, || {
            let answer = self.order(on, &format!("route {key}"));
            let words: Vec<&str> = answer.split(' ').collect();
            let leader: u16 = words[2].parse().unwrap();
            if self.alive().contains(&leader) {
                Ok((words[1].to_owned(), leader))
            } else {
                Err(answer.clone())
            }
        })
    }
}

/// A command that was executed once, with the id it was executed under.
struct Swap {
    keys: &'static [&'static str],
    request: String,
    first: String,
}

/// Keys of one shard, of two, and of all four; the first also lies on both
/// sides of the cut at "d".
const FOOTPRINTS: [&[&str]; 4] = [&["b", "f"], &["e"], &["c", "x"], &["a", "i", "o", "z"]];

fn pairs(keys: &[&str], value: &str) -> String {
    keys.iter().map(|key| format!(" {key}={value}")).collect()
}

impl Swap {
    /// Writes "swapped" where "before" stood, and lets another node overwrite
    /// that with "later".
    fn run(cluster: &Cluster, node: u16, keys: &'static [&'static str]) -> Self {
        cluster.order(node, &format!("put{}", pairs(keys, "before")));
        let request = cluster.order(node, "reserve").strip_prefix("id ").unwrap().to_owned();
        let first = cluster.order(node, &format!("retry {request}{}", pairs(keys, "swapped")));
        assert_eq!(first, format!("done{}", pairs(keys, "before")));
        cluster.order(node % NODES + 1, &format!("put{}", pairs(keys, "later")));
        Self { keys, request, first }
    }

    /// The first result on every node that is alive, and no effect.
    fn assert_once(&self, cluster: &Cluster) {
        let Self { keys, request, first } = self;
        for node in cluster.alive() {
            let again = cluster.order(node, &format!("retry {request}{}", pairs(keys, "swapped")));
            assert_eq!(again, *first, "{keys:?} on node {node}");
            let now = cluster.order(node, &format!("get {}", keys.join(" ")));
            assert_eq!(now, format!("done{}", pairs(keys, "later")), "{keys:?} on node {node}");
        }
    }
}

fn swaps(cluster: &Cluster) -> Vec<Swap> {
    let nodes = (1..=NODES).cycle();
    FOOTPRINTS.into_iter().zip(nodes).map(|(keys, node)| Swap::run(cluster, node, keys)).collect()
}

#[test]
fn a_retry_after_the_leaders_process_was_killed_gets_the_first_result() {
    let mut cluster = Cluster::start();
    let swaps = swaps(&cluster);
    for key in ["b", "c", "z"] {
        let (_, leader) = cluster.route(1, key);
        cluster.kill(leader);
        for swap in &swaps {
            swap.assert_once(&cluster);
        }
        cluster.revive();
    }
    // Also the one that was dead knows.
    for swap in &swaps {
        swap.assert_once(&cluster);
    }
}

#[test]
fn a_retry_across_a_split_by_another_process_gets_the_first_result() {
    let mut cluster = Cluster::start();
    let swaps = swaps(&cluster);
    let (parent, leader) = cluster.route(1, "f");
    let splitter = leader % NODES + 1;
    eventually("the split is begun", PATIENCE, || {
        if cluster.route(splitter, "f").0 != parent {
            return Ok(());
        }
        cluster.order(splitter, "split d");
        Err("asked".to_owned())
    });
    for node in cluster.alive() {
        eventually("the split is known", PATIENCE, || match cluster.route(node, "f").0 {
            same if same == parent => Err(same),
            _ => Ok(()),
        });
    }
    // What was one shard's own command is one of two shards now.
    for swap in &swaps {
        swap.assert_once(&cluster);
    }
    let (_, leader) = cluster.route(1, "f");
    cluster.kill(leader);
    for swap in &swaps {
        swap.assert_once(&cluster);
    }
    cluster.revive();
    for swap in &swaps {
        swap.assert_once(&cluster);
    }
}

#[test]
fn a_retry_after_every_process_was_killed_gets_the_first_result() {
    let mut cluster = Cluster::start();
    let swaps = swaps(&cluster);
    for _ in 0..2 {
        for node in 1..=NODES {
            cluster.kill(node);
        }
        cluster.revive();
        for swap in &swaps {
            swap.assert_once(&cluster);
        }
    }
}
