//! Clients, and what their histories must satisfy.

mod bank;
mod claims;
mod client;
mod counters;
mod judging;
mod lists;
mod order;
mod puts;
mod reads;
mod registers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use quorate_testkit::history::{Operation, Recorder};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::cluster::Cluster;
use super::operators::soon;
use super::options::Weights;
use bank::ACCOUNTS;
use claims::Claims;
use client::Client;
use lists::LISTS;
use order::Calls;
use reads::Marks;
use registers::Registers;

/// Keys that are there all the time, on all sides of the cuts.
pub const KEYS: [&str; 10] = [
    "account-1",
    "ballast-2",
    "iceberg-3",
    "kettle-4",
    "quarry-5",
    "zebra-6",
    "apples",
    "berries",
    "nuts",
    "yams",
];

/// How long a client rests that has nothing to do yet.
const AHEAD_PAUSE: Duration = Duration::from_millis(50);

/// Clients at work.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

/// What all clients share.
struct Shared {
    cluster: Cluster,
    /// When the clients began, in virtual time.
    begun_at: Duration,
    is_over: AtomicBool,
    element: AtomicI64,
    processes: AtomicU64,
    completed: AtomicU64,
    committed: AtomicU64,
    calls: Calls,
    bank: Recorder,
    lists: Recorder,
    puts: Recorder,
    registers: Registers,
    counters: Recorder,
    marks: Marks,
    claims: Claims,
}

/// What the clients did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Operations that were answered, reads included.
    pub completed: u64,
    /// Transactions that wrote and were committed.
    pub committed: u64,
    /// Operations that the checkers have looked at, whatever their outcome.
    pub judged: u64,
}

/// A kind of work.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Audit,
    ReadLists,
    Transfer,
    Append,
    Put,
    Registers,
    Counters,
    Marks,
    Claims,
}

impl Kind {
    /// All of them, with their parts of the whole.
    fn parts(weights: &Weights) -> [(Self, u64); 9] {
        [
            (Self::Audit, weights.audits),
            (Self::ReadLists, weights.list_reads),
            (Self::Transfer, weights.transfers),
            (Self::Append, weights.appends),
            (Self::Put, weights.puts),
            (Self::Registers, weights.registers),
            (Self::Counters, weights.counters),
            (Self::Marks, weights.reads),
            (Self::Claims, weights.claims),
        ]
    }
}

impl Load {
    /// Opens the accounts and sets the clients to work.
    pub async fn start(cluster: &Cluster) -> Self {
        let shared = Arc::new(Shared {
            cluster: cluster.clone(),
            begun_at: cluster.sim.elapsed(),
            is_over: AtomicBool::new(false),
            element: AtomicI64::new(1),
            processes: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            calls: Calls::default(),
            bank: Recorder::default(),
            lists: Recorder::default(),
            puts: Recorder::default(),
            registers: Registers::default(),
            counters: Recorder::default(),
            marks: Marks::default(),
            claims: Claims::default(),
        });
        let count = cluster.options.load.clients;
        Client::new(&shared, count).open_accounts().await;
        let harness = cluster.sim.harness();
        let clients =
            (0..count).map(|number| harness.spawn(Client::new(&shared, number).work())).collect();
        Self { shared, clients }
    }

    /// Lets the clients end what they are at, and begin nothing more.
    pub async fn stop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            client.await.expect("no client panics");
        }
    }

    /// Ends the clients, reads everything on every node, and judges.
    pub async fn finish(mut self) -> Work {
        self.stop().await;
        let cluster = &self.shared.cluster;
        let mut last = Client::new(&self.shared, cluster.options.load.clients + 1);
        for place in cluster.running() {
            last.place = place;
            last.only_here = true;
            if !last.read_everything().await {
                last.has_no_answer();
            }
            last.judge_puts().await;
            last.judge_counters().await;
        }
        self.judge();
        self.judge_order().await;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let recorders = self.shared.recorders();
        let judged = recorders.map(|(_, recorder)| recorder.operations().len());
        Work {
            completed: count(&self.shared.completed),
            committed: count(&self.shared.committed),
            judged: judged.iter().sum::<usize>() as u64,
        }
    }

    /// Where what clients see is written down, by kind of work.
    pub(super) fn recorders(&self) -> Vec<(&'static str, Recorder)> {
        self.shared.recorders().map(|(kind, recorder)| (kind, recorder.clone())).to_vec()
    }

    fn judge(&self) {
        let shared = &self.shared;
        bank::judge(shared, &shared.bank.operations());
        lists::judge(shared, &shared.lists.operations());
        let judgements = [
            registers::judge(&shared.registers.recorder.operations()),
            counters::judge(&shared.counters.operations()),
            reads::judge(&shared.marks.recorder.operations()),
            claims::judge(&shared.claims.recorder.operations()),
        ];
        for (rule, verdict) in judgements.concat() {
            judging::tell(&shared.cluster, rule, &verdict);
        }
    }

    /// O9, once everything that was logged is executed. (Where it never is,
    /// that is a finding of its own.)
    async fn judge_order(&self) {
        let Shared { cluster, calls, .. } = &*self.shared;
        let Some(ledger) = cluster.ledger() else { return };
        if soon(|| ledger.content()).await.is_ok() {
            judging::tell(cluster, "O9", &calls.judge(ledger.order()));
        }
    }
}

impl Shared {
    /// Whether the clients have done what is due by now: their operations are
    /// spread over the whole fire, so that all of it strikes a cluster at work.
    fn is_ahead(&self) -> bool {
        let options = &self.cluster.options;
        let begun = self.cluster.sim.elapsed().saturating_sub(self.begun_at);
        let passed = u64::try_from(begun.as_millis()).unwrap().min(options.fire_millis);
        let due = options.load.operations_max * passed / options.fire_millis.max(1);
        self.completed.load(Ordering::Relaxed) > due + options.load.clients
    }

    fn recorders(&self) -> [(&'static str, &Recorder); 7] {
        [
            ("bank", &self.bank),
            ("lists", &self.lists),
            ("puts", &self.puts),
            ("registers", &self.registers.recorder),
            ("counters", &self.counters),
            ("reads", &self.marks.recorder),
            ("claims", &self.claims.recorder),
        ]
    }
}

/// A recorder whose clients each do one thing at a time.
trait Recorded {
    fn operations(&self) -> Vec<Operation>;
}

impl Recorded for Recorder {
    fn operations(&self) -> Vec<Operation> {
        self.history().operations().unwrap()
    }
}

impl Client {
    async fn work(mut self) {
        let load = self.shared.cluster.options.load;
        let parts = Kind::parts(&load.weights);
        let sum: u64 = parts.iter().map(|(_, part)| part).sum();
        while sum > 0 && !self.shared.is_over.load(Ordering::Relaxed) {
            if self.shared.is_ahead() {
                sleep(AHEAD_PAUSE).await;
                continue;
            }
            let mut part = self.chance.below(sum);
            let kind = parts.iter().find(|(_, weight)| {
                let is_it = part < *weight;
                part = part.saturating_sub(*weight);
                is_it
            });
            self.work_at(kind.map_or(Kind::Put, |(kind, _)| *kind)).await;
            sleep(Duration::from_millis(self.chance.below(load.pause_millis_max + 1))).await;
        }
    }

    async fn work_at(&mut self, kind: Kind) {
        let hot_keys = self.shared.cluster.options.load.hot_keys;
        let accounts = &ACCOUNTS[..hot_keys.clamp(2, ACCOUNTS.len())];
        let lists = &LISTS[..hot_keys.clamp(2, LISTS.len())];
        match kind {
            Kind::Audit => drop(self.audit().await),
            Kind::ReadLists => drop(self.read_lists(lists).await),
            Kind::Transfer => self.transfer(accounts).await,
            Kind::Append => self.append(lists).await,
            Kind::Put => self.put().await,
            Kind::Registers => self.use_registers().await,
            Kind::Counters => self.use_counters().await,
            Kind::Marks => self.use_marks().await,
            Kind::Claims => self.use_claims().await,
        }
    }

    /// Reads for the last time what is judged by what everybody saw. Whether
    /// all of it was answered.
    async fn read_everything(&mut self) -> bool {
        self.audit().await
            && self.read_lists(&LISTS).await
            && self.read_all_registers().await
            && self.read_all_marks().await
            && self.look_at_all().await
    }

    /// Once a cluster is healed, every node answers.
    fn has_no_answer(&self) {
        let Shared { cluster, .. } = &*self.shared;
        cluster.find("a healed cluster answers", format!("{} does not", cluster.id(self.place)));
    }
}

#[cfg(test)]
mod tests;
