//! Clients, and what their histories must satisfy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use quorate::types::Blob;
use quorate::types::env::SplitMix;
use quorate::{Answer, ExecuteError, Transaction};
use quorate_testkit::check::bank::{self, Bank};
use quorate_testkit::check::durability::{self, Writes};
use quorate_testkit::check::list_append::{self, Consistency};
use quorate_testkit::history::{Datum, History, Invocation, Key, MicroOp, ProcessId, Recorder};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::cluster::Cluster;
use super::options::Draw;

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
/// Attempts to open the accounts, before anything strikes.
const OPENINGS: usize = 10;
/// Where in the key space keys of their own are put.
const PUT_AT: [&str; 5] = ["a", "c", "i", "l", "z"];
const PUTS_READ_AT_ONCE: usize = 50;
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
    completed: AtomicU64,
    committed: AtomicU64,
    bank: Recorder,
    lists: Recorder,
    puts: Recorder,
}

/// What the clients did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Operations that were answered, reads included.
    pub completed: u64,
    /// Transactions that wrote and were committed.
    pub committed: u64,
    /// Operations that the checkers have judged, whatever their outcome.
    pub judged: u64,
}

impl Load {
    /// Opens the accounts and sets the clients to work.
    pub async fn start(cluster: &Cluster) -> Self {
        let shared = Arc::new(Shared {
            cluster: cluster.clone(),
            is_over: AtomicBool::new(false),
            element: AtomicI64::new(1),
            processes: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            bank: Recorder::default(),
            lists: Recorder::default(),
            puts: Recorder::default(),
        });
        let mut opening = Transaction::new();
        for account in ACCOUNTS {
            opening = opening.put(account, BALANCE.to_string().as_str());
        }
        let count = cluster.options.load.clients;
        let mut client = Client::new(&shared, count);
        let mut is_open = false;
        for _ in 0..OPENINGS {
            is_open |= matches!(client.execute(&opening).await, End::Answered(_));
            if is_open {
                break;
            }
        }
        if !is_open {
            cluster.find("a founded cluster answers", "the accounts cannot be opened");
        }
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
            let is_read = last.audit(&ACCOUNTS).await && last.read_lists(&LISTS).await;
            if !is_read {
                cluster.find("a healed cluster answers", format!("{} does not", cluster.id(place)));
            }
            self.judge_puts(&mut last).await;
        }
        self.judge();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let recorders = [&self.shared.bank, &self.shared.lists, &self.shared.puts];
        let judged = recorders.map(|recorder| recorder.history().operations().unwrap().len());
        Work {
            completed: count(&self.shared.completed),
            committed: count(&self.shared.committed),
            judged: judged.iter().sum::<usize>() as u64,
        }
    }

    /// What the clients saw so far, by kind of work.
    pub(super) fn histories(&self) -> [(&'static str, History); 3] {
        let Shared { bank, lists, puts, .. } = &*self.shared;
        [("bank", bank.history()), ("lists", lists.history()), ("puts", puts.history())]
    }

    fn judge(&self) {
        let cluster = &self.shared.cluster;
        let operations = self.shared.bank.history().operations().unwrap();
        let accounts: Vec<Key> = ACCOUNTS.map(Key::from).to_vec();
        let total = BALANCE * i64::try_from(accounts.len()).unwrap();
        let rules = Bank { accounts, total, allows_negative: false, needs_final_read: true };
        if let Err(error) = bank::check(&operations, &rules).into_result() {
            cluster.find("money is neither made nor lost", error.to_string());
        }
        let operations = self.shared.lists.history().operations().unwrap();
        let verdict = list_append::check(&operations, Consistency::StrictSerializable);
        if let Err(error) = verdict.into_result() {
            cluster.find("lists are strictly serializable", error.to_string());
        }
    }

    /// Every write that was acknowledged is there, as one node has it.
    async fn judge_puts(&self, last: &mut Client) {
        let cluster = &self.shared.cluster;
        let operations = self.shared.puts.history().operations().unwrap();
        let mut found = BTreeMap::new();
        let keys: Vec<String> = operations
            .iter()
            .flat_map(|operation| &operation.txn)
            .filter_map(|step| match step {
                MicroOp::Append { key, .. } => Some(key.to_string()),
                _ => None,
            })
            .collect();
        for chunk in keys.chunks(PUTS_READ_AT_ONCE) {
            let names: Vec<&str> = chunk.iter().map(String::as_str).collect();
            let Some(values) = last.read(&names).await else {
                let id = cluster.id(last.place);
                cluster.find("a healed cluster answers", format!("{id} does not"));
                return;
            };
            let seen = names.iter().map(|name| Key::from(*name));
            found.extend(seen.zip(values.iter().map(list)));
        }
        let verdict = durability::check(&operations, &found, Writes::Latest);
        if let Err(error) = verdict.into_result() {
            cluster.find("what was acknowledged is there", error.to_string());
        }
    }
}

/// One client. It asks one node at a time, and another one after a failure.
struct Client {
    shared: Arc<Shared>,
    number: u64,
    process: ProcessId,
    chance: Draw,
    place: usize,
    /// Whether it asks no other node than that.
    only_here: bool,
}

impl Client {
    fn new(shared: &Arc<Shared>, number: u64) -> Self {
        let chance = Draw(SplitMix::new(shared.cluster.sim.seed().rotate_left(17) ^ number));
        let place = usize::try_from(number).unwrap();
        let shared = Arc::clone(shared);
        let process = ProcessId(shared.processes.fetch_add(1, Ordering::Relaxed));
        Self { shared, number, process, chance, place, only_here: false }
    }

    async fn work(mut self) {
        let load = self.shared.cluster.options.load;
        let weights = load.weights;
        let parts =
            [weights.audits, weights.list_reads, weights.transfers, weights.appends, weights.puts];
        let accounts = &ACCOUNTS[..load.hot_keys.clamp(2, ACCOUNTS.len())];
        let lists = &LISTS[..load.hot_keys.clamp(2, LISTS.len())];
        let is_over = |shared: &Shared| {
            shared.is_over.load(Ordering::Relaxed)
                || shared.completed.load(Ordering::Relaxed) >= load.operations_max
        };
        while !is_over(&self.shared) {
            let mut part = self.chance.below(parts.iter().sum());
            let kind = parts.iter().position(|weight| {
                let is_it = part < *weight;
                part = part.saturating_sub(*weight);
                is_it
            });
            match kind.unwrap_or_default() {
                0 => drop(self.audit(&ACCOUNTS).await),
                1 => drop(self.read_lists(lists).await),
                2 => self.transfer(accounts).await,
                3 => self.append(lists).await,
                _ => self.put().await,
            }
            sleep(Duration::from_millis(self.chance.below(load.pause_millis_max + 1))).await;
        }
    }

    fn pair(&mut self, keys: &[&'static str]) -> [&'static str; 2] {
        let count = keys.len() as u64;
        let first = self.chance.below(count);
        let second = (first + 1 + self.chance.below(count - 1)) % count;
        [first, second].map(|at| keys[usize::try_from(at).unwrap()])
    }

    async fn audit(&mut self, accounts: &[&'static str]) -> bool {
        let asked = accounts.iter().map(|account| MicroOp::read(*account)).collect();
        let invocation = self.invoke(&self.shared.bank, "audit", asked);
        let read = self.read(accounts).await.map(|values| {
            let seen = accounts.iter().zip(&values);
            seen.map(|(account, value)| MicroOp::saw_int(*account, number(value))).collect()
        });
        self.end_read(invocation, read)
    }

    async fn read_lists(&mut self, lists: &[&'static str]) -> bool {
        let asked = lists.iter().map(|key| MicroOp::read(*key)).collect();
        let invocation = self.invoke(&self.shared.lists, "read", asked);
        let read = self.read(lists).await.map(|values| {
            let seen = lists.iter().zip(&values);
            seen.map(|(key, value)| MicroOp::saw(*key, list(value))).collect()
        });
        self.end_read(invocation, read)
    }

    async fn transfer(&mut self, accounts: &[&'static str]) {
        let [from, to] = self.pair(accounts);
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
    async fn append(&mut self, lists: &[&'static str]) {
        let keys = self.pair(lists);
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

    /// Writes a key that nobody else writes: without a look at anything.
    async fn put(&mut self) {
        let element = self.shared.element.fetch_add(1, Ordering::Relaxed);
        let first = self.chance.pick(&PUT_AT);
        let key = format!("{first}put-{element}");
        let padding = " ".repeat(self.shared.cluster.options.load.padding_bytes);
        let call = Transaction::new().put(key.as_str(), format!("{element}{padding}").as_str());
        let txn = vec![MicroOp::append(key.as_str(), element)];
        let invocation = self.invoke(&self.shared.puts, "put", txn.clone());
        self.write(invocation, &call, txn).await;
    }

    async fn write(&mut self, invocation: Invocation, call: &Transaction, done: Vec<MicroOp>) {
        let end = self.execute(call).await;
        let now = self.shared.cluster.sim.elapsed();
        match end {
            End::Answered(answer) if answer.committed => {
                self.shared.completed.fetch_add(1, Ordering::Relaxed);
                self.shared.committed.fetch_add(1, Ordering::Relaxed);
                invocation.ok(now, done);
            }
            End::Answered(_) => {
                self.shared.completed.fetch_add(1, Ordering::Relaxed);
                invocation.fail(now, "a condition did not hold");
            }
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
            End::Answered(answer) => {
                self.shared.completed.fetch_add(1, Ordering::Relaxed);
                Some(answer.values.0)
            }
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
            self.place += usize::from(!self.only_here);
        }
        if request.is_none() && reason.is_empty() {
            return End::Refused("no node runs".to_owned());
        }
        End::Unknown(reason)
    }

    fn some_node(&self) -> Option<(Arc<quorate_testkit::sim::SimNode>, Arc<quorate::Node>)> {
        if self.only_here {
            return self.shared.cluster.node(self.place);
        }
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
