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
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use quorate_tests::{eventually, free_block};
use quorate_types::runtime::random;
use tempfile::TempDir;

const NODES: u16 = 3;
/// How long anything may take; a session answers within its own deadline.
const PATIENCE: Duration = Duration::from_secs(90);
/// The deadline of a call that is to succeed whatever becomes of leaders.
const DEADLINE: Duration = Duration::from_secs(10);
/// One that is over before a leader has a successor, so that a caller is told
/// that it does not know.
const SHORT_DEADLINE: Duration = Duration::from_millis(700);

/// A process, killed with this value.
struct Process {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Process {
    fn spawn(
        number: u16,
        address: SocketAddr,
        directory: &Path,
        members: &str,
        deadline: Duration,
    ) -> Self {
        let log = directory.with_extension("log");
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_session"))
            .args([&number.to_string(), &address.to_string()])
            .arg(directory)
            .args([members, &deadline.as_millis().to_string()])
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

    fn tell(&mut self, line: &str) {
        writeln!(self.orders, "{line}").unwrap();
        self.orders.flush().unwrap();
    }

    fn order(&mut self, line: &str) -> String {
        self.tell(line);
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
    deadline: Duration,
    directory: TempDir,
}

impl Cluster {
    fn start() -> Self {
        Self::start_with(DEADLINE)
    }

    fn start_with(deadline: Duration) -> Self {
        let mut cluster = Self {
            processes: (1..=NODES).map(|_| RefCell::new(None)).collect(),
            base_port: free_block(),
            deadline,
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
            let (address, members) = (self.address(*node), members.join(","));
            let process = Process::spawn(*node, address, &directory, &members, self.deadline);
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
        eventually(&format!("node {node}: {line}"), PATIENCE, || self.order_once(node, line))
    }

    /// Gives an order; says what stands in its way.
    fn order_once(&self, node: u16, line: &str) -> Result<String, String> {
        let mut process = self.process(node).borrow_mut();
        let answer = process.as_mut().expect("the node is alive").order(line);
        match answer.split_once(' ') {
            Some(("unclear", why)) => Err(why.to_owned()),
            Some(("failed", why)) if line.starts_with("transfer") || line.starts_with("split") => {
                Err(why.to_owned())
            }
            Some(("failed", why)) => panic!("node {node}: {line}: {why}"),
            _ => Ok(answer),
        }
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
    // The map tells whether it is done, not the answer: an order that was given
    // once too often is refused.
    eventually("the split is done", PATIENCE, || {
        if cluster.route(splitter, "f").0 != parent {
            return Ok(());
        }
        Err(format!("{:?}", cluster.order_once(splitter, "split d")))
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

/// Commands that are under way at a time, and how many are answered before the
/// leader is killed; then as many as are under way have no answer yet, or one
/// that nobody has read.
const UNDER_WAY: usize = 8;
const ANSWERED: usize = 16;
/// Deaths that may be tried until one has left in doubt a command that took
/// effect. What did not is there to be seen too, but is the easier half.
const DEATHS_MAX: usize = 25;
/// A death comes at most this long after an answer: at any moment of what the
/// leader does with the next ones, and not always at the first.
const DELAY_MICROS_MAX: u64 = 4_000;
const START: &str = "start";

/// Swaps on the same keys, each with a value of its own, of which each finds
/// what its predecessor wrote: together they are a chain.
struct Chain<'a> {
    cluster: &'a mut Cluster,
    keys: &'static [&'static str],
    /// Who begins them; another node leads the shard of the first key.
    node: u16,
    begun: usize,
    /// What each swap that took effect found, by what it wrote.
    found: BTreeMap<String, String>,
    /// The ids of the swaps of unknown outcome, by what they write.
    unknown: BTreeMap<String, String>,
}

impl<'a> Chain<'a> {
    fn on(cluster: &'a mut Cluster, keys: &'static [&'static str]) -> Self {
        cluster.order(1, &format!("put{}", pairs(keys, START)));
        let (found, unknown) = (BTreeMap::new(), BTreeMap::new());
        Self { cluster, keys, node: 1, begun: 0, found, unknown }
    }

    fn begin(&mut self) {
        self.begun += 1;
        let order = format!("swap v{} {}", self.begun, self.keys.join(" "));
        self.cluster.process(self.node).borrow_mut().as_mut().unwrap().tell(&order);
    }

    /// Reads one answer, whichever comes first.
    fn hear(&mut self) {
        let said = self.cluster.process(self.node).borrow_mut().as_mut().unwrap().listen();
        let words: Vec<&str> = said.splitn(3, ' ').collect();
        match words.as_slice() {
            ["swapped", value, found] => self.took_effect(value, found),
            ["unknown", value, id] => {
                self.unknown.insert((*value).to_owned(), (*id).to_owned());
            }
            // It was not executed and will not be, or it breaks the chain.
            ["refused", _] => {}
            _ => panic!("{said}"),
        }
    }

    fn took_effect(&mut self, value: &str, found: &str) {
        let (_, first) = found.split(' ').next().unwrap().split_once('=').unwrap();
        assert_eq!(format!(" {found}"), pairs(self.keys, first), "{value} found half a swap");
        let known = self.found.insert(value.to_owned(), first.to_owned());
        assert!(known.is_none_or(|known| known == first), "{value} has two results");
    }

    /// Kills the leader while commands are under way, and hears what their
    /// caller is told of them.
    fn strike(&mut self) {
        let (_, leader) = self.cluster.route(1, self.keys[0]);
        self.node = leader % NODES + 1;
        (0..UNDER_WAY).for_each(|_| self.begin());
        for _ in 0..ANSWERED {
            self.hear();
            self.begin();
        }
        std::thread::sleep(Duration::from_micros(random() % DELAY_MICROS_MAX));
        self.cluster.kill(leader);
        (0..UNDER_WAY).for_each(|_| self.hear());
    }

    /// A further swap, by another node.
    fn mark(&mut self) {
        self.begun += 1;
        let node = self.cluster.alive().into_iter().find(|node| *node != self.node).unwrap();
        let id = self.cluster.order(node, "reserve").strip_prefix("id ").unwrap().to_owned();
        self.retry(&format!("v{}", self.begun), &id);
    }

    /// Has a swap answered by each node that is alive, under the id of its
    /// first attempt.
    fn retry(&mut self, value: &str, id: &str) {
        for node in self.cluster.alive() {
            let retry = format!("retry {id}{}", pairs(self.keys, value));
            let answer = self.cluster.order(node, &retry);
            self.took_effect(value, answer.strip_prefix("done ").unwrap());
        }
    }

    /// The values in the order in which they were written, each once, up to
    /// the one that stands there now.
    fn assert_whole(&self) -> Vec<String> {
        let mut next: BTreeMap<&str, &str> = BTreeMap::new();
        for (value, found) in &self.found {
            let other = next.insert(found, value);
            assert_eq!(other, None, "{value} found {found} as well");
        }
        let written = std::iter::successors(next.remove(START), |last| next.remove(last));
        let written: Vec<String> = written.map(str::to_owned).collect();
        assert_eq!(
            written.len(),
            self.found.len(),
            "{written:?} leaves out some of {:?}",
            self.found
        );
        let now = self.cluster.order(self.node, &format!("get {}", self.keys.join(" ")));
        assert_eq!(now, format!("done{}", pairs(self.keys, written.last().unwrap())));
        written
    }
}

/// A swap that ran twice would be found by two others, or found where another
/// was: between its own attempt and the retry stands the mark.
#[test]
fn a_command_outstanding_when_its_leader_is_killed_takes_effect_once() {
    let mut cluster = Cluster::start_with(SHORT_DEADLINE);
    for keys in [&["b"] as &[&str], &["c", "x"]] {
        let mut chain = Chain::on(&mut cluster, keys);
        let (mut had, mut had_not) = (0, 0);
        for death in 1.. {
            chain.strike();
            let unknown = std::mem::take(&mut chain.unknown);
            let before = chain.begun;
            chain.mark();
            unknown.iter().for_each(|(value, id)| chain.retry(value, id));
            chain.cluster.revive();
            // Also the one that was dead knows.
            unknown.iter().for_each(|(value, id)| chain.retry(value, id));
            let written = chain.assert_whole();
            let mark = written.iter().position(|value| *value == format!("v{}", before + 1));
            let place = |value: &String| written.iter().position(|written| written == value);
            let early = unknown.keys().filter(|value| place(value) < mark).count();
            had += early;
            had_not += unknown.len() - early;
            println!("{keys:?}: {death} deaths left {had} done in doubt, and {had_not} not done");
            if had > 0 {
                break;
            }
            assert!(death < DEATHS_MAX, "no death fell between an effect and its answer");
        }
    }
}
