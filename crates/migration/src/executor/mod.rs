//! The driver: wherever the authority is, it brings every unfinished
//! migration to its end.

mod drive;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_types::env::Clock;
use quorate_types::{MigrationId, NodeId, runtime, watch};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use crate::machine::{Machine, Policy};
use crate::ports::{Journal, JournalError, ReplicaControl};
use crate::row::MigrationRow;
use drive::{Context, End};

/// How the executor paces itself.
#[derive(Clone)]
pub struct Config {
    /// The node it runs on, which signs the rows' timestamps.
    pub node: NodeId,
    /// Where the timestamps come from. They inform; they decide nothing.
    pub clock: Arc<dyn Clock>,
    /// The machine's limits.
    pub policy: Policy,
    /// Migrations under way at once: each costs a snapshot's bandwidth at both
    /// ends. Placement limits each node; this limits the coordinator.
    pub concurrency_max: usize,
    /// How often the journal is read without being asked to ([`Executor::wake`]).
    pub scan_interval: Duration,
    /// How often a target that is catching up is measured.
    pub poll_interval: Duration,
    /// The delay after the first failure; it doubles with each further one.
    pub backoff_min: Duration,
    /// The longest delay between two tries.
    pub backoff_max: Duration,
    /// When a call to the journal or a group counts as failed with its outcome
    /// unknown. Longer than a transfer's pause budget and an election.
    pub call_timeout: Duration,
}

impl Config {
    /// Values for a cluster in one data centre.
    #[must_use]
    pub fn new(node: NodeId, clock: Arc<dyn Clock>) -> Self {
        Self {
            node,
            clock,
            policy: Policy::default(),
            concurrency_max: 8,
            scan_interval: Duration::from_secs(5),
            poll_interval: Duration::from_millis(200),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            call_timeout: Duration::from_secs(10),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("node", &self.node)
            .field("policy", &self.policy)
            .field("concurrency_max", &self.concurrency_max)
            .finish_non_exhaustive()
    }
}

/// What the executor is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// The term in which this node is the authority and acts.
    pub authority: Option<u64>,
    /// The migrations under way.
    pub running: BTreeMap<MigrationId, Running>,
    /// Unfinished migrations that wait for their turn.
    pub waiting: usize,
    /// Migrations completed here since the start.
    pub completed: u64,
    /// Migrations aborted here since the start.
    pub aborted: u64,
    /// Migrations ended here whose longest write pause exceeded the budget.
    pub over_budget: u64,
    /// The longest write pause of the migrations ended here.
    pub pause_longest: Duration,
}

impl Status {
    /// The migrations that can only go on and cannot.
    pub fn stuck(&self) -> impl Iterator<Item = &MigrationRow> {
        self.running.values().filter(|running| running.is_stuck).map(|running| &running.row)
    }
}

/// One migration under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Its row.
    pub row: MigrationRow,
    /// Failures since it last moved on.
    pub failures: u32,
    /// Whether it can only go on and cannot: an operator should look.
    pub is_stuck: bool,
}

/// The running executor of a node. Dropping it stops it as [`Executor::stop`]
/// does, without waiting.
#[derive(Debug)]
pub struct Executor {
    shared: Arc<Shared>,
    status: watch::Receiver<Status>,
    task: Task,
}

/// What the handle tells the driver.
#[derive(Debug, Default)]
struct Shared {
    wake: Notify,
    stop: Notify,
    cancelled: Mutex<BTreeSet<MigrationId>>,
}

/// A task that ends with its owner.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Executor {
    /// Starts the executor. While `authority` holds a term, it loads all rows
    /// and resumes or compensates every unfinished one; it stops at once when
    /// the term is over.
    #[must_use]
    pub fn spawn(
        journal: Arc<dyn Journal>,
        control: Arc<dyn ReplicaControl>,
        authority: watch::Receiver<Option<u64>>,
        config: Config,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let (sender, status) = watch::channel(Status::default());
        let driver =
            Driver { journal, control, config, shared: Arc::clone(&shared), status: sender };
        let task = Task(runtime::spawn(driver.run(authority)));
        Self { shared, status, task }
    }

    /// Reads the journal now: a migration was recorded.
    pub fn wake(&self) {
        self.shared.wake.notify_one();
    }

    /// Gives a running migration up, if it has not reached its cutover. Not
    /// durable before the status shows [`crate::Phase::Aborting`]: a change of
    /// authority before that forgets it.
    pub fn cancel(&self, id: MigrationId) {
        let is_running = self.status.borrow().running.contains_key(&id);
        if is_running {
            self.shared.cancelled.lock().insert(id);
        }
    }

    /// What it is doing, to look at or to wait on.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Stops every migration where it stands and waits until they are stopped.
    /// Whoever is the authority next resumes them.
    pub async fn stop(mut self) {
        self.shared.stop.notify_one();
        if let Err(error) = (&mut self.task.0).await {
            tracing::error!(%error, "the migration executor had failed");
        }
    }
}

struct Driver {
    journal: Arc<dyn Journal>,
    control: Arc<dyn ReplicaControl>,
    config: Config,
    shared: Arc<Shared>,
    status: watch::Sender<Status>,
}

impl Driver {
    async fn run(self, mut authority: watch::Receiver<Option<u64>>) {
        loop {
            let granted = tokio::select! {
                biased;
                () = self.shared.stop.notified() => return,
                granted = authority.wait_for(Option::is_some) => granted,
            };
            let Ok(Some(term)) = granted else { return };
            tracing::info!(term, "coordinating migrations");
            self.publish(|status| status.authority = Some(term));
            let (ended, mut ends) = mpsc::channel(self.config.concurrency_max.max(1));
            let is_over = tokio::select! {
                biased;
                () = self.shared.stop.notified() => true,
                lost = authority.wait_for(|now| *now != Some(term)) => lost.is_err(),
                never = self.lead(term, ended, &mut ends) => match never {},
            };
            // The migrations' tasks were told to end together with `lead`; each
            // holds a sender until it has. No two terms overlap on a node.
            while ends.recv().await.is_some() {}
            self.shared.cancelled.lock().clear();
            self.publish(|status| {
                status.authority = None;
                status.running.clear();
                status.waiting = 0;
            });
            if is_over {
                return;
            }
        }
    }

    /// Coordinates for as long as it is let.
    async fn lead(
        &self,
        term: u64,
        ended: mpsc::Sender<(MigrationId, End)>,
        ends: &mut mpsc::Receiver<(MigrationId, End)>,
    ) -> Infallible {
        let mut tasks = BTreeMap::new();
        loop {
            match self.rows().await {
                Ok(rows) => self.start(rows, term, &mut tasks, &ended),
                Err(JournalError::NotAuthority | JournalError::Failed) => break,
                Err(error) => tracing::warn!(%error, "the journal cannot be read"),
            }
            let end = tokio::select! {
                biased;
                end = ends.recv() => end,
                () = self.shared.wake.notified() => None,
                () = tokio::time::sleep(self.config.scan_interval) => None,
            };
            if let Some((id, end)) = end {
                tasks.remove(&id);
                self.settle(id, end);
                if end == End::StandDown {
                    break;
                }
            }
        }
        drop(tasks);
        tracing::warn!(term, "the journal takes no more from this term; standing by");
        std::future::pending().await
    }

    async fn rows(&self) -> Result<Vec<MigrationRow>, JournalError> {
        let read = tokio::time::timeout(self.config.call_timeout, self.journal.rows());
        read.await.unwrap_or(Err(JournalError::Unavailable))
    }

    /// Starts what fits: first what can only go forward or is being undone,
    /// for it holds up its group, then the oldest.
    fn start(
        &self,
        mut rows: Vec<MigrationRow>,
        term: u64,
        tasks: &mut BTreeMap<MigrationId, Task>,
        ended: &mpsc::Sender<(MigrationId, End)>,
    ) {
        rows.retain(|row| !tasks.contains_key(&row.id));
        rows.sort_by_key(|row| (row.phase().is_abortable(), row.hlc, row.id));
        let free = self.config.concurrency_max.max(1).saturating_sub(tasks.len());
        let waiting = rows.len().saturating_sub(free);
        for row in rows.into_iter().take(free) {
            let id = row.id;
            tracing::info!(%id, position = %row.position(), "taking up a migration");
            let context = Context {
                journal: Arc::clone(&self.journal),
                control: Arc::clone(&self.control),
                config: self.config.clone(),
                shared: Arc::clone(&self.shared),
                status: self.status.clone(),
                ended: ended.clone(),
            };
            let machine = Machine::new(row, term, self.config.policy);
            tasks.insert(id, Task(runtime::spawn(context.drive(machine))));
        }
        self.publish(|status| status.waiting = waiting);
    }

    fn settle(&self, id: MigrationId, end: End) {
        self.shared.cancelled.lock().remove(&id);
        let budget = self.config.policy.pause_budget;
        self.publish(|status| {
            status.running.remove(&id);
            let End::Finished { is_completed, pause_longest } = end else { return };
            if is_completed {
                status.completed += 1;
            } else {
                status.aborted += 1;
            }
            if pause_longest > budget {
                tracing::warn!(%id, ?pause_longest, ?budget, "writes paused for too long");
                status.over_budget += 1;
            }
            status.pause_longest = status.pause_longest.max(pause_longest);
        });
    }

    fn publish(&self, change: impl FnOnce(&mut Status)) {
        self.status.modify(|status| {
            change(status);
            true
        });
    }
}
