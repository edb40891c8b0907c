//! Clients, and what their histories must satisfy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use quorate::types::Blob;
use quorate::types::env::{Rng, SplitMix};
use quorate::{Answer, ExecuteError, Transaction};
use quorate_testkit::check::bank::{self, Bank};
use quorate_testkit::check::list_append::{self, Consistency};
use quorate_testkit::history::{Datum, Invocation, Key, MicroOp, ProcessId, Recorder};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::cluster::Cluster;

/// On three shards, so that most pairs are on two.
const ACCOUNTS: [&str; 6] =
    ["account-1", "ballast-2", "iceberg-3", "kettle-4", "quarry-5", "zebra-6"];
const LISTS: [&str; 4] = ["apples", "berries", "nuts", "yams"];
/// All of them.
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
/// What an account begins with.
const BALANCE: i64 = 100;
const CLIENTS: u64 = 4;
/// Other nodes are asked so often about an outcome that is unknown.
const RETRIES: usize = 3;

/// How a call ended.
enum End {
    Answered(Answer),
    Refused(String),
    Unknown(String),
}

/// Clients at work.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

struct Shared {
    cluster: Cluster,
    is_over: AtomicBool,
    element: AtomicI64,
    processes: AtomicU64,
    committed: AtomicU64,
    bank: Recorder,
    lists: Recorder,
}

impl Load {
    /// Opens the accounts and sets the clients to work.
    pub async fn start(cluster: &Cluster) -> Self {
        let shared = Arc::new(Shared {
            cluster: cluster.clone(),
            is_over: AtomicBool::new(false),
            element: AtomicI64::new(1),
            processes: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            bank: Recorder::default(),
            lists: Recorder::default(),
        });
        let mut opening = Transaction::new();
        for account in ACCOUNTS {
            opening = opening.put(account, BALANCE.to_string().as_str());
        }
        let mut client = Client::new(&shared, CLIENTS);
        assert!(matches!(client.execute(&opening).await, End::Answered(_)), "accounts are opened");
        let harness = cluster.sim.harness();
        let clients =
            (0..CLIENTS).map(|number| harness.spawn(Client::new(&shared, number).work())).collect();
        Self { shared, clients }
    }

    /// Ends the clients, reads everything on every node, and judges. Returns
    /// how many transactions were committed meanwhile.
    pub async fn finish(self) -> u64 {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("no client panics");
        }
        let mut last = Client::new(&self.shared, CLIENTS + 1);
        for _ in 0..self.shared.cluster.members() {
            assert!(last.audit().await, "the accounts can be read in the end");
            assert!(last.read_lists().await, "the lists can be read in the end");
            last.place += 1;
        }
        let operations = self.shared.bank.history().operations().unwrap();
        let accounts: Vec<Key> = ACCOUNTS.map(Key::from).to_vec();
        let total = BALANCE * i64::try_from(accounts.len()).unwrap();
        let rules = Bank { accounts, total, allows_negative: false, needs_final_read: true };
        bank::check(&operations, &rules).into_result().unwrap();
        let operations = self.shared.lists.history().operations().unwrap();
        let verdict = list_append::check(&operations, Consistency::StrictSerializable);
        verdict.into_result().unwrap();
        self.shared.committed.load(Ordering::Relaxed)
    }
}

/// One client. It asks one node at a time, and another one after a failure.
struct Client {
    shared: Arc<Shared>,
    number: u64,
    process: ProcessId,
    chance: SplitMix,
    place: usize,
}

impl Client {
    fn new(shared: &Arc<Shared>, number: u64) -> Self {
        let chance = SplitMix::new(shared.cluster.sim.seed().rotate_left(17) ^ number);
        let place = usize::try_from(number).unwrap();
        let shared = Arc::clone(shared);
        let process = ProcessId(shared.processes.fetch_add(1, Ordering::Relaxed));
        Self { shared, number, process, chance, place }
    }

    async fn work(mut self) {
        while !self.shared.is_over.load(Ordering::Relaxed) {
            match self.chance.below(8) {
                0 => drop(self.audit().await),
                1 => drop(self.read_lists().await),
                2..=4 => self.transfer().await,
                _ => self.append().await,
            }
            sleep(Duration::from_millis(self.chance.below(100))).await;
        }
    }

    fn pair<const N: usize>(&mut self, keys: [&'static str; N]) -> [&'static str; 2] {
        let count = u64::try_from(N).unwrap();
        let first = self.chance.below(count);
        let second = (first + 1 + self.chance.below(count - 1)) % count;
        [first, second].map(|at| keys[usize::try_from(at).unwrap()])
    }

    async fn audit(&mut self) -> bool {
        let asked = ACCOUNTS.map(MicroOp::read).to_vec();
        let invocation = self.invoke(&self.shared.bank, "audit", asked);
        let read = self.read(&ACCOUNTS).await.map(|values| {
            let seen = ACCOUNTS.iter().zip(&values);
            seen.map(|(account, value)| MicroOp::saw_int(*account, number(value))).collect()
        });
        self.end_read(invocation, read)
    }

    async fn read_lists(&mut self) -> bool {
        let asked = LISTS.map(MicroOp::read).to_vec();
        let invocation = self.invoke(&self.shared.lists, "read", asked);
        let read = self.read(&LISTS).await.map(|values| {
            let seen = LISTS.iter().zip(&values);
            seen.map(|(key, value)| MicroOp::saw(*key, list(value))).collect()
        });
        self.end_read(invocation, read)
    }

    async fn transfer(&mut self) {
        let [from, to] = self.pair(ACCOUNTS);
        let amount = 1 + i64::try_from(self.chance.below(20)).unwrap();
        let Some(before) = self.read(&[from, to]).await else { return };
        let (paying, paid) = (number(&before[0]) - amount, number(&before[1]) + amount);
        if paying < 0 {
            return;
        }
        let call = Transaction::new()
            .expect(from, before[0].clone())
            .expect(to, before[1].clone())
            .put(from, paying.to_string().as_str())
            .put(to, paid.to_string().as_str());
        let txn = vec![MicroOp::transfer(from, to, amount)];
        let invocation = self.invoke(&self.shared.bank, "transfer", txn.clone());
        self.write(invocation, &call, txn).await;
    }

    /// Appends to two lists: reads them, then writes if they are unchanged.
    async fn append(&mut self) {
        let keys = self.pair(LISTS);
        let Some(before) = self.read(&keys).await else { return };
        let element = self.shared.element.fetch_add(1, Ordering::Relaxed);
        let (mut call, mut asked, mut seen) = (Transaction::new(), Vec::new(), Vec::new());
        for (key, value) in keys.iter().zip(before) {
            let text = value.as_ref().map_or("", |value| std::str::from_utf8(value).unwrap());
            let longer = format!("{text} {element}");
            asked.push(MicroOp::append(*key, element));
            seen.extend([MicroOp::saw(*key, list(&value)), MicroOp::append(*key, element)]);
            call = call.expect(*key, value).put(*key, longer.as_str());
        }
        let invocation = self.invoke(&self.shared.lists, "append", asked);
        self.write(invocation, &call, seen).await;
    }

    async fn write(&mut self, invocation: Invocation, call: &Transaction, done: Vec<MicroOp>) {
        let end = self.execute(call).await;
        let now = self.shared.cluster.sim.elapsed();
        match end {
            End::Answered(answer) if answer.committed => {
                self.shared.committed.fetch_add(1, Ordering::Relaxed);
                invocation.ok(now, done);
            }
            End::Answered(_) => invocation.fail(now, "a condition did not hold"),
            End::Refused(reason) => invocation.fail(now, reason),
            End::Unknown(reason) => {
                invocation.unknown(now, reason);
                self.process = ProcessId(self.shared.processes.fetch_add(1, Ordering::Relaxed));
            }
        }
    }

    async fn read(&mut self, keys: &[&str]) -> Option<Vec<Option<Blob>>> {
        let call = keys.iter().fold(Transaction::new(), |call, key| call.get(*key));
        match self.execute(&call).await {
            End::Answered(answer) => Some(answer.values.0),
            End::Refused(_) | End::Unknown(_) => None,
        }
    }

    fn invoke(&self, recorder: &Recorder, what: &'static str, txn: Vec<MicroOp>) -> Invocation {
        recorder.invoke(self.process, self.shared.cluster.sim.elapsed(), what, txn).unwrap()
    }

    fn end_read(&self, invocation: Invocation, read: Option<Vec<MicroOp>>) -> bool {
        let (now, is_read) = (self.shared.cluster.sim.elapsed(), read.is_some());
        match read {
            Some(seen) => invocation.ok(now, seen),
            None => invocation.fail(now, "nothing was read"),
        }
        is_read
    }

    /// Executes on some node; an outcome that is unknown is asked of others.
    async fn execute(&mut self, transaction: &Transaction) -> End {
        let mut request = None;
        let mut reason = String::new();
        for attempt in 0..=RETRIES {
            let Some((life, node)) = self.some_node() else {
                sleep(Duration::from_millis(200)).await;
                continue;
            };
            let (call, retried) = (transaction.call(), request);
            let task = life.spawn(async move {
                let session = node.session();
                match retried {
                    None => session.execute(call).await,
                    Some(request) => session.retry(request, call).await,
                }
            });
            let outcome = task.await;
            self.trace(attempt, &outcome);
            match outcome {
                Ok(Ok(result)) => {
                    if let Some(ledger) = self.shared.cluster.ledger() {
                        ledger.answered(&transaction.call().args);
                    }
                    return End::Answered(Answer::of(&result).unwrap());
                }
                Ok(Err(ExecuteError::Unknown(id))) => request = Some(id),
                Ok(Err(ExecuteError::Refused(why))) if request.is_none() => {
                    self.place += 1;
                    return End::Refused(why);
                }
                Ok(Err(ExecuteError::Aborted(why))) => return End::Refused(why),
                Ok(Err(error)) => reason = error.to_string(),
                // Its node died over it.
                Err(_) if request.is_none() => {
                    self.place += 1;
                    return End::Unknown("the node died".to_owned());
                }
                Err(_) => reason = "the node died".to_owned(),
            }
            self.place += 1;
        }
        if request.is_none() && reason.is_empty() {
            return End::Refused("no node runs".to_owned());
        }
        End::Unknown(reason)
    }

    fn some_node(&self) -> Option<(Arc<quorate_testkit::sim::SimNode>, Arc<quorate::Node>)> {
        let count = self.shared.cluster.members();
        (0..count).find_map(|step| self.shared.cluster.node((self.place + step) % count))
    }

    fn trace(
        &self,
        attempt: usize,
        outcome: &Result<Result<Blob, ExecuteError>, tokio::task::JoinError>,
    ) {
        let trace = self.shared.cluster.sim.trace();
        let client = self.number;
        match outcome {
            Ok(Ok(result)) => trace.record(format_args!(
                "client {client}.{attempt}: {:?}",
                Answer::of(result).unwrap()
            )),
            Ok(Err(error)) => trace.record(format_args!("client {client}.{attempt}: {error}")),
            Err(_) => trace.record(format_args!("client {client}.{attempt}: the node died")),
        }
    }
}

fn number(value: &Option<Blob>) -> i64 {
    std::str::from_utf8(value.as_ref().unwrap()).unwrap().parse().unwrap()
}

fn list(value: &Option<Blob>) -> Datum {
    let text = value.as_ref().map_or("", |value| std::str::from_utf8(value).unwrap());
    Datum::List(text.split_whitespace().map(|element| element.parse().unwrap()).collect())
}
