//! Clients that read and write while a cluster is tormented, and remember what
//! they were told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use quorate_testkit::check::bank::Bank;
use quorate_testkit::check::list_append::Consistency;
use quorate_testkit::check::{bank, durability, list_append};
use quorate_testkit::history::{
    Datum, History, Invocation, Key, MicroOp, Operation, ProcessId, Recorder,
};
use quorate_types::env::{Rng, SplitMix};
use quorate_types::runtime::random;
use tokio::time::Instant;

use crate::resp::{Client, Execution, Failure, Reply, Words, words};
use crate::wait::eventually;

/// Lists that are appended to at a time. More would meet each other less.
const LISTS: u64 = 6;
/// After so many appends the clients turn to new lists, so that none grows
/// too long to be read often.
const APPENDS_PER_GENERATION: i64 = 600;
/// Accounts, and what each begins with.
const ACCOUNTS: u64 = 10;
const BALANCE: i64 = 1_000;
/// How long the service may need to do what a tormentor waits for: far longer
/// than an election, on a machine that is busy with other things.
const RESUMES: Duration = Duration::from_secs(90);
/// The pause before a client tries again what was refused.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Appends to lists and reads them, alone and in transactions.
    Lists,
    /// Moves money between accounts and reads all of them.
    Bank,
    /// Writes one new key after another.
    Puts,
}

/// Clients of a cluster's nodes.
#[derive(Debug)]
pub struct Load {
    gateways: Vec<SocketAddr>,
    seed: u64,
    stop: AtomicBool,
    started: Instant,
    lists: Recorder,
    bank: Recorder,
    puts: Recorder,
    element: AtomicI64,
    processes: AtomicU64,
    done: AtomicU64,
    puts_done: AtomicU64,
    refused: AtomicU64,
    unknown: AtomicU64,
}

/// How far a load has come: what a tormentor waits for.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a>(&'a Load);

/// What came of a load, to be judged.
#[derive(Debug)]
pub struct LoadReport {
    /// Operations that succeeded.
    pub done: u64,
    /// Operations that were refused.
    pub refused: u64,
    /// Operations of unknown outcome.
    pub unknown: u64,
    lists: Vec<Operation>,
    bank: Vec<Operation>,
    puts: Vec<Operation>,
}

impl Load {
    /// Load on the nodes behind `gateways`.
    ///
    /// # Panics
    /// When the accounts cannot be opened.
    #[must_use]
    pub fn on(gateways: &[SocketAddr]) -> Self {
        let seed = random();
        println!("the load's seed is {seed}");
        let load = Self {
            gateways: gateways.to_vec(),
            seed,
            stop: AtomicBool::new(false),
            started: Instant::now(),
            lists: Recorder::default(),
            bank: Recorder::default(),
            puts: Recorder::default(),
            element: AtomicI64::new(0),
            processes: AtomicU64::new(0),
            done: AtomicU64::new(0),
            puts_done: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
        };
        let mut command = words("MSET");
        for account in 0..ACCOUNTS {
            command.extend([account_key(account), BALANCE.to_string()]);
        }
        load.insist(&command);
        load
    }

    /// Runs one client for each element of `work`, and meanwhile `torment`.
    /// When that is over the clients stop, and everything is read once more.
    ///
    /// # Panics
    /// When `torment` does, or nothing can be read at the end.
    pub fn run(&self, work: &[Work], torment: impl FnOnce(Progress<'_>)) -> LoadReport {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        std::thread::scope(|scope| {
            for (number, work) in work.iter().enumerate() {
                scope.spawn(move || Worker::new(self, number).run(*work));
            }
            // Also when the torment panics: the scope waits for the clients.
            let _stop = Stop(&self.stop);
            torment(Progress(self));
        });
        self.read_everything(work);
        LoadReport {
            done: self.done.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            unknown: self.unknown.load(Ordering::Relaxed),
            lists: self.lists.history().operations().unwrap(),
            bank: self.bank.history().operations().unwrap(),
            puts: self.puts.history().operations().unwrap(),
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn insist(&self, command: &Words) -> Reply {
        insist(&self.gateways, command)
    }

    /// Reads every list and account, after everything else was over.
    fn read_everything(&self, work: &[Work]) {
        let process = ProcessId(self.processes.fetch_add(1, Ordering::Relaxed));
        if work.contains(&Work::Lists) {
            for list in keys(&self.lists.history()) {
                let asked = vec![MicroOp::read(list.clone())];
                let invocation = self.lists.invoke(process, self.now(), "read", asked).unwrap();
                let reply = self.insist(&words(&format!("GET {list}")));
                invocation.ok(self.now(), vec![MicroOp::saw(list, list_of(&reply))]);
            }
        }
        if work.contains(&Work::Bank) {
            let invocation = self.bank.invoke(process, self.now(), "audit", audit()).unwrap();
            let reply = self.insist(&audit_command());
            invocation.ok(self.now(), audited(reply));
        }
    }
}

impl Progress<'_> {
    /// Operations that succeeded so far.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.0.done.load(Ordering::Relaxed)
    }

    /// Waits until `more` further operations have succeeded.
    ///
    /// # Panics
    /// When that takes too long: the service does not resume.
    #[track_caller]
    pub fn wait(&self, more: u64) {
        Self::wait_count(&self.0.done, more);
    }

    /// As [`Progress::wait`], for writes of new keys only.
    #[track_caller]
    pub fn wait_puts(&self, more: u64) {
        Self::wait_count(&self.0.puts_done, more);
    }

    #[track_caller]
    fn wait_count(count: &AtomicU64, more: u64) {
        let goal = count.load(Ordering::Relaxed) + more;
        eventually("the service goes on", RESUMES, || {
            let done = count.load(Ordering::Relaxed);
            if done >= goal { Ok(()) } else { Err(format!("{done} of {goal} operations")) }
        });
    }

    /// How long the load has run.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.now()
    }

    /// Waits for a time: how long something is meant to last.
    pub fn wait_for(&self, time: Duration) {
        let until = self.0.now() + time;
        self.wait_until(until);
    }

    /// Waits until the load has run for `time`.
    pub fn wait_until(&self, time: Duration) {
        eventually("time passes", time + RESUMES, || {
            if self.0.now() >= time { Ok(()) } else { Err("not yet".to_owned()) }
        });
    }
}

impl LoadReport {
    /// Judges everything the load did. `gateway` is asked for what was put.
    ///
    /// # Panics
    /// With the checkers' findings, or when hardly anything was done.
    #[track_caller]
    pub fn assert_correct(&self, gateway: SocketAddr) {
        println!(
            "the load: {} done, {} refused, {} of unknown outcome",
            self.done, self.refused, self.unknown
        );
        assert!(self.done > 0, "nothing succeeded");
        let judge = |what: &str, verdict: quorate_testkit::check::Verdict| {
            verdict.into_result().unwrap_or_else(|findings| panic!("{what}: {findings}"));
        };
        judge("lists", list_append::check(&self.lists, Consistency::StrictSerializable));
        if !self.bank.is_empty() {
            let bank = Bank {
                accounts: (0..ACCOUNTS).map(|account| Key::from(account_key(account))).collect(),
                total: i64::try_from(ACCOUNTS).unwrap() * BALANCE,
                allows_negative: true,
                needs_final_read: true,
            };
            judge("bank", bank::check(&self.bank, &bank));
        }
        let last = self.read_puts(gateway);
        judge("puts", durability::check(&self.puts, &last, durability::Writes::Latest));
    }

    /// What stands at the keys that were put.
    fn read_puts(&self, gateway: SocketAddr) -> BTreeMap<Key, Datum> {
        const KEYS_AT_ONCE: usize = 200;
        let keys: Vec<&Key> =
            self.puts.iter().flat_map(|put| put.txn.iter().flat_map(MicroOp::keys)).collect();
        let mut last = BTreeMap::new();
        for keys in keys.chunks(KEYS_AT_ONCE) {
            let mut command = words("MGET");
            command.extend(keys.iter().map(|key| key.as_str().to_owned()));
            let values = insist(&[gateway], &command).elements();
            for (key, value) in keys.iter().zip(values) {
                let value = value.text().map_or(Datum::Nil, |text| Datum::Int(number(text)));
                last.insert((*key).clone(), value);
            }
        }
        last
    }
}

/// One client with at most one connection.
struct Worker<'a> {
    load: &'a Load,
    number: usize,
    /// Which node it talks to.
    turn: usize,
    rng: SplitMix,
    process: ProcessId,
    client: Option<Client>,
    puts: u64,
}

impl<'a> Worker<'a> {
    fn new(load: &'a Load, number: usize) -> Self {
        let process = ProcessId(load.processes.fetch_add(1, Ordering::Relaxed));
        let rng = SplitMix::new(load.seed.wrapping_add(number as u64));
        Self { load, number, turn: number, rng, process, client: None, puts: 0 }
    }

    fn run(&mut self, work: Work) {
        while !self.load.stop.load(Ordering::Relaxed) {
            if self.client.is_none() && !self.connect() {
                std::thread::sleep(RETRY_PAUSE);
                continue;
            }
            match work {
                Work::Lists => self.lists(),
                Work::Bank => self.bank(),
                Work::Puts => self.put(),
            }
        }
    }

    /// Connects to the next node.
    fn connect(&mut self) -> bool {
        let gateway = self.load.gateways[self.turn % self.load.gateways.len()];
        self.turn += 1;
        self.client = Client::connect(gateway).ok();
        self.client.is_some()
    }

    /// Runs an operation and records how it ended. `send` returns the steps
    /// with what was read, or `None` for a conflict.
    fn record(
        &mut self,
        recorder: &Recorder,
        f: &'static str,
        asked: Vec<MicroOp>,
        send: impl FnOnce(&mut Client) -> Result<Option<Vec<MicroOp>>, Failure>,
    ) {
        let Some(client) = self.client.as_mut() else { return };
        let invocation: Invocation =
            recorder.invoke(self.process, self.load.now(), f, asked).unwrap();
        let outcome = send(client);
        let now = self.load.now();
        match outcome {
            Ok(Some(txn)) => {
                invocation.ok(now, txn);
                self.load.done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(None) => invocation.fail(now, "conflict"),
            Err(Failure::Refused(reason)) => {
                invocation.fail(now, reason);
                self.load.refused.fetch_add(1, Ordering::Relaxed);
                // Another node may know better.
                self.client = None;
                std::thread::sleep(RETRY_PAUSE);
            }
            Err(Failure::Unknown(reason)) => {
                invocation.unknown(now, reason);
                self.load.unknown.fetch_add(1, Ordering::Relaxed);
                // Whoever does not know how its last operation ended is
                // another process from now on.
                self.process = ProcessId(self.load.processes.fetch_add(1, Ordering::Relaxed));
                self.client = None;
            }
        }
    }

    fn lists(&mut self) {
        let steps = match self.rng.below(10) {
            // Alone, so that the direct way of one shard is exercised too.
            0..=1 => vec![self.append()],
            2..=3 => vec![self.read()],
            4 => return self.read_many(),
            _ => {
                let count = 2 + self.rng.below(3);
                (0..count)
                    .map(|_| if self.rng.below(2) == 0 { self.append() } else { self.read() })
                    .collect()
            }
        };
        let commands: Vec<Words> = steps.iter().map(list_command).collect();
        let recorder = self.load.lists.clone();
        self.record(&recorder, "txn", steps.clone(), |client| {
            let replies = match commands.as_slice() {
                [alone] => vec![client.run(alone.clone())?],
                several => match client.transaction(several)? {
                    Execution::Done(replies) => replies,
                    Execution::Conflict => return Ok(None),
                },
            };
            assert_eq!(replies.len(), steps.len(), "one reply for each command");
            Ok(Some(steps.into_iter().zip(&replies).map(answered).collect()))
        });
    }

    /// Several lists at one moment, by `MGET`.
    fn read_many(&mut self) {
        let generation = self.generation();
        let lists: Vec<String> = (0..LISTS).map(|list| list_key(generation, list)).collect();
        let asked = lists.iter().map(|list| MicroOp::read(list.as_str())).collect();
        let recorder = self.load.lists.clone();
        self.record(&recorder, "mget", asked, |client| {
            let command: Words =
                std::iter::once("MGET".to_owned()).chain(lists.iter().cloned()).collect();
            let values = client.run(command)?.elements();
            let seen = lists.iter().zip(&values);
            Ok(Some(
                seen.map(|(list, value)| MicroOp::saw(list.as_str(), list_of(value))).collect(),
            ))
        });
    }

    fn generation(&self) -> i64 {
        self.load.element.load(Ordering::Relaxed) / APPENDS_PER_GENERATION
    }

    fn append(&mut self) -> MicroOp {
        let element = self.load.element.fetch_add(1, Ordering::Relaxed);
        let list = list_key(element / APPENDS_PER_GENERATION, self.rng.below(LISTS));
        MicroOp::append(list, element)
    }

    fn read(&mut self) -> MicroOp {
        MicroOp::read(list_key(self.generation(), self.rng.below(LISTS)))
    }

    fn bank(&mut self) {
        match self.rng.below(4) {
            0 => {
                let recorder = self.load.bank.clone();
                self.record(&recorder, "audit", audit(), |client| {
                    Ok(Some(audited(client.run(audit_command())?)))
                });
            }
            way => {
                let from = self.rng.below(ACCOUNTS);
                let to = (from + 1 + self.rng.below(ACCOUNTS - 1)) % ACCOUNTS;
                let amount = 1 + i64::try_from(self.rng.below(20)).unwrap();
                let (from, to) = (account_key(from), account_key(to));
                let steps = vec![MicroOp::transfer(from.as_str(), to.as_str(), amount)];
                let recorder = self.load.bank.clone();
                self.record(&recorder, "transfer", steps.clone(), |client| {
                    let commands = match way {
                        1 => watched_transfer(client, &from, &to, amount)?,
                        _ => vec![
                            words(&format!("DECRBY {from} {amount}")),
                            words(&format!("INCRBY {to} {amount}")),
                        ],
                    };
                    match client.transaction(&commands)? {
                        Execution::Done(_) => Ok(Some(steps)),
                        Execution::Conflict => Ok(None),
                    }
                });
            }
        }
    }

    fn put(&mut self) {
        self.puts += 1;
        let (key, value) = (format!("put:{}:{}", self.number, self.puts), self.puts);
        let steps = vec![MicroOp::write(key.as_str(), i64::try_from(value).unwrap())];
        let recorder = self.load.puts.clone();
        let done = &self.load.puts_done;
        self.record(&recorder, "put", steps.clone(), |client| {
            client.run(words(&format!("SET {key} {value}")))?;
            done.fetch_add(1, Ordering::Relaxed);
            Ok(Some(steps))
        });
    }
}

/// Runs a command until it succeeds, on one node after the other.
fn insist(gateways: &[SocketAddr], command: &Words) -> Reply {
    let mut turns = gateways.iter().cycle();
    eventually("a command succeeds", RESUMES, || {
        let gateway = turns.next().expect("there is a node");
        let mut client = Client::connect(*gateway).map_err(|error| error.to_string())?;
        client.run(command.clone()).map_err(|failure| format!("{failure:?}"))
    })
}

fn list_key(generation: i64, list: u64) -> String {
    format!("list:{generation}:{list}")
}

fn account_key(account: u64) -> String {
    format!("account:{account}")
}

fn number(text: &str) -> i64 {
    text.parse().unwrap_or_else(|_| panic!("'{text}' is no number"))
}

/// A list is the text of its elements, each followed by a comma.
fn list_of(reply: &Reply) -> Datum {
    match reply.text() {
        None => Datum::Nil,
        Some(text) => Datum::List(text.split_terminator(',').map(number).collect()),
    }
}

fn list_command(step: &MicroOp) -> Words {
    match step {
        MicroOp::Append { key, value } => words(&format!("APPEND {key} {value},")),
        MicroOp::Read { key, .. } => words(&format!("GET {key}")),
        other => panic!("{other} is no step on a list"),
    }
}

fn answered((step, reply): (MicroOp, &Reply)) -> MicroOp {
    match step {
        MicroOp::Read { key, .. } => MicroOp::saw(key, list_of(reply)),
        step => step,
    }
}

fn keys(history: &History) -> Vec<Key> {
    let steps = history.events.iter().flat_map(|event| &event.txn);
    let mut keys: Vec<Key> = steps.flat_map(MicroOp::keys).cloned().collect();
    keys.sort();
    keys.dedup();
    keys
}

fn audit() -> Vec<MicroOp> {
    (0..ACCOUNTS).map(|account| MicroOp::read(account_key(account))).collect()
}

fn audit_command() -> Words {
    std::iter::once("MGET".to_owned()).chain((0..ACCOUNTS).map(account_key)).collect()
}

fn audited(reply: Reply) -> Vec<MicroOp> {
    let balance = |value: &Reply| value.text().map_or(0, number);
    let balances = reply.elements();
    assert_eq!(balances.len() as u64, ACCOUNTS, "one balance for each account");
    let seen = (0..ACCOUNTS).zip(&balances);
    seen.map(|(account, value)| MicroOp::saw_int(account_key(account), balance(value))).collect()
}

/// Reads both balances under `WATCH`; returns the writes that depend on them.
fn watched_transfer(
    client: &mut Client,
    from: &str,
    to: &str,
    amount: i64,
) -> Result<Vec<Words>, Failure> {
    client.run(words(&format!("WATCH {from} {to}")))?;
    let mut balance = |account: &str| -> Result<i64, Failure> {
        Ok(client.run(words(&format!("GET {account}")))?.text().map_or(0, number))
    };
    let (paying, paid) = (balance(from)?, balance(to)?);
    Ok(vec![
        words(&format!("SET {from} {}", paying - amount)),
        words(&format!("SET {to} {}", paid + amount)),
    ])
}
