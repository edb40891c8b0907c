//! The processes, and what they say.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::node::{Answer, NODES, Order, Status};

/// How long anything may take that is not measured.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(250);

/// Three processes. They end with this value.
pub(crate) struct Cluster {
    processes: BTreeMap<u64, Process>,
    answers: Receiver<(u64, Instant, Answer)>,
    said: Sender<(u64, Instant, Answer)>,
    addresses: BTreeMap<u64, String>,
    kind: Kind,
    directory: PathBuf,
}

/// What their groups are like.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) groups: u64,
    pub(crate) awake: bool,
    /// Whether their state is in an engine.
    pub(crate) rows: bool,
    pub(crate) snapshot_mib_per_second: Option<u64>,
}

impl Kind {
    /// Groups that do nothing but count.
    pub(crate) const fn counters(groups: u64, awake: bool) -> Self {
        Self { groups, awake, rows: false, snapshot_mib_per_second: None }
    }
}

struct Process {
    child: Child,
    orders: ChildStdin,
}

impl Drop for Process {
    fn drop(&mut self) {
        // What fails here is a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Cluster {
    /// Starts them, and waits until every group is led.
    pub(crate) fn start(kind: Kind, directory: &Path) -> Outcome<Self> {
        let (said, answers) = mpsc::channel();
        let mut cluster = Self {
            processes: BTreeMap::new(),
            answers,
            said,
            addresses: BTreeMap::new(),
            kind,
            directory: directory.to_owned(),
        };
        for id in NODES {
            cluster.spawn(id, &[])?;
        }
        cluster.addresses = cluster.each(|answer| match answer {
            Answer::Listening { address } => Some(address),
            _ => None,
        })?;
        let addresses = cluster.addresses.clone();
        cluster.tell_all(&Order::Begin { addresses })?;
        cluster.each(|answer| matches!(answer, Answer::Begun).then_some(()))?;
        cluster.wait("every group is led", |status| {
            status.values().map(|status| status.leads.len() as u64).sum::<u64>() == kind.groups
        })?;
        Ok(cluster)
    }

    fn spawn(&mut self, id: u64, more: &[String]) -> Outcome {
        let Kind { groups, awake, rows, snapshot_mib_per_second } = self.kind;
        let mut program = Command::new(std::env::current_exe()?);
        program.args(["node", "--id", &id.to_string(), "--groups", &groups.to_string()]);
        program.arg("--dir").arg(self.directory.join(id.to_string())).args(more);
        program.args(awake.then_some("--awake")).args(rows.then_some("--rows"));
        if let Some(mib) = snapshot_mib_per_second {
            program.args(["--snapshot-mib-per-second", &mib.to_string()]);
        }
        let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = child.stdin.take().ok_or("no standard input")?;
        let said = child.stdout.take().ok_or("no standard output")?;
        let answers = self.said.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                let Ok(answer) = serde_json::from_str(&line) else { break };
                if answers.send((id, Instant::now(), answer)).is_err() {
                    break;
                }
            }
        });
        self.processes.insert(id, Process { child, orders });
        Ok(())
    }

    /// Starts one again that was killed, and waits until it runs its groups.
    pub(crate) fn restart(&mut self, id: u64) -> Outcome {
        let address = self.addresses.get(&id).ok_or("no such process")?;
        self.spawn(id, &["--listen".to_owned(), address.clone()])?;
        self.one(|answer| matches!(answer, Answer::Listening { .. }).then_some(()))?;
        self.tell(id, &Order::Begin { addresses: self.addresses.clone() })?;
        self.one(|answer| matches!(answer, Answer::Begun).then_some(()))
    }

    pub(crate) fn tell(&mut self, id: u64, order: &Order) -> Outcome {
        let process = self.processes.get_mut(&id).ok_or("no such process")?;
        writeln!(process.orders, "{}", serde_json::to_string(order)?)?;
        Ok(process.orders.flush()?)
    }

    pub(crate) fn tell_all(&mut self, order: &Order) -> Outcome {
        let ids: Vec<u64> = self.processes.keys().copied().collect();
        ids.into_iter().try_for_each(|id| self.tell(id, order))
    }

    /// Waits for what each of them says; other answers are passed over.
    pub(crate) fn each<T>(
        &self,
        mut is_meant: impl FnMut(Answer) -> Option<T>,
    ) -> Outcome<BTreeMap<u64, T>> {
        let mut said = BTreeMap::new();
        while said.len() < self.processes.len() {
            let (id, _, answer) = self.next(PATIENCE)?;
            if let Some(meant) = is_meant(answer) {
                said.insert(id, meant);
            }
        }
        Ok(said)
    }

    /// Waits for what one of them says; other answers are passed over.
    pub(crate) fn one<T>(&self, is_meant: impl Fn(Answer) -> Option<T>) -> Outcome<T> {
        loop {
            if let Some(meant) = is_meant(self.next(PATIENCE)?.2) {
                return Ok(meant);
            }
        }
    }

    /// The next answer, of whom, and when it came.
    pub(crate) fn next(&self, patience: Duration) -> Outcome<(u64, Instant, Answer)> {
        let answer = self.answers.recv_timeout(patience);
        Ok(answer.map_err(|_| format!("no answer within {} s", patience.as_secs()))?)
    }

    pub(crate) fn status(&mut self) -> Outcome<BTreeMap<u64, Status>> {
        self.tell_all(&Order::Status)?;
        self.each(|answer| match answer {
            Answer::Status(status) => Some(status),
            _ => None,
        })
    }

    /// Waits until their groups are as wanted.
    pub(crate) fn wait(
        &mut self,
        what: &str,
        is_there: impl Fn(&BTreeMap<u64, Status>) -> bool,
    ) -> Outcome<BTreeMap<u64, Status>> {
        let until = Instant::now() + PATIENCE;
        loop {
            let status = self.status()?;
            if is_there(&status) {
                return Ok(status);
            }
            if Instant::now() > until {
                let counts = status
                    .values()
                    .map(|status| format!("{} led, {} resting", status.leads.len(), status.resting))
                    .collect::<Vec<_>>();
                return Err(
                    format!("not within {PATIENCE:?}: {what} ({})", counts.join("; ")).into()
                );
            }
            std::thread::sleep(PAUSE);
        }
    }

    pub(crate) const fn groups(&self) -> u64 {
        self.kind.groups
    }

    /// Ends one at once, and says when.
    pub(crate) fn kill(&mut self, id: u64) -> Outcome<Instant> {
        let mut process = self.processes.remove(&id).ok_or("no such process")?;
        let at = Instant::now();
        process.child.kill()?;
        Ok(at)
    }

    /// Seconds of processor time that all have used.
    pub(crate) fn cpu_seconds(&self) -> Option<f64> {
        let used =
            |process: &Process| quorate_benches::cpu_seconds(&process.child.id().to_string());
        self.processes.values().map(used).sum()
    }

    /// The most that one of them holds in memory.
    pub(crate) fn resident_bytes(&self) -> Option<u64> {
        let held =
            |process: &Process| quorate_benches::resident_bytes(&process.child.id().to_string());
        self.processes.values().map(held).try_fold(0, |most, held| Some(most.max(held?)))
    }
}
