//! The processes, and what they say.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
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
    groups: u64,
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
    /// Starts them with so many groups each, every one of which is led.
    pub(crate) fn start(groups: u64, awake: bool, directory: &Path) -> Outcome<Self> {
        let (answers_in, answers) = mpsc::channel();
        let mut processes = BTreeMap::new();
        for id in NODES {
            let mut program = Command::new(std::env::current_exe()?);
            program.args(["node", "--id", &id.to_string(), "--groups", &groups.to_string()]);
            program.arg("--dir").arg(directory.join(id.to_string()));
            program.args(awake.then_some("--awake"));
            let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let orders = child.stdin.take().ok_or("no standard input")?;
            let said = child.stdout.take().ok_or("no standard output")?;
            let answers = answers_in.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(said).lines().map_while(Result::ok) {
                    let Ok(answer) = serde_json::from_str(&line) else { break };
                    if answers.send((id, Instant::now(), answer)).is_err() {
                        break;
                    }
                }
            });
            processes.insert(id, Process { child, orders });
        }
        let mut cluster = Self { processes, answers, groups };
        let addresses = cluster.each(|answer| match answer {
            Answer::Listening { address } => Some(address),
            _ => None,
        })?;
        cluster.tell_all(&Order::Begin { addresses })?;
        cluster.each(|answer| matches!(answer, Answer::Begun).then_some(()))?;
        cluster.wait("every group is led", |status| {
            status.values().map(|status| status.leads.len() as u64).sum::<u64>() == groups
        })?;
        Ok(cluster)
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
        self.groups
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
