//! Clients that read and write while a cluster is tormented, and remember what
//! they were told.

mod report;

use std::fs::File;
use std::io::BufWriter;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use quorate_testkit::history::{Datum, History, Invocation, Key, MicroOp, ProcessId, Recorder};
use quorate_types::env::{Rng, SplitMix};
use quorate_types::runtime::random;
use tokio::time::Instant;

use crate::resp::{Client, Execution, Failure, Reply, Words, words};
use crate::wait::eventually;

pub(crate) use report::REPLIES;
pub use report::{Judgement, LoadReport};

/// Lists that are appended to at a time. More would meet each other less.
const LISTS: u64 = 6;
/// After so many appends the clients turn to new lists, so that none grows
/// too long to be read often.
const APPENDS_PER_GENERATION: i64 = 600;
/// Accounts, and what each begins with.
const ACCOUNTS: u64 = 10;
const BALANCE: i64 = 1_000;
/// Registers that are written at a time. Each is judged by itself, by search.
const REGISTERS: u64 = 4;
/// After so many steps the clients turn to new registers, so that each search
/// is short. An operation of unknown outcome counts for several: it may have
/// happened at any later moment.
const STEPS_PER_GENERATION: u64 = 800;
const STEPS_OF_UNKNOWN: u64 = 100;
/// How long the service may need to do what a tormentor waits for: far longer
/// than an election, on a machine that is busy with other things.
const RESUMES: Duration = Duration::from_secs(90);
/// So much of an operation is shown in an excerpt; the rest is in its file.
const EXCERPT_LINE_CHARACTERS: usize = 240;
/// After so many turns a client goes to the next node: those that were driven
/// away from one come back to it.
const TURNS_PER_CONNECTION: u64 = 200;
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
    /// Reads, sets, and compares and sets single keys.
    Registers,
}

/// Clients of a cluster's nodes.
#[derive(Debug)]
pub struct Load {
    gateways: RwLock<Vec<SocketAddr>>,
    seed: u64,
    stop: AtomicBool,
    started: Instant,
    lists: Recorder,
    bank: Recorder,
    puts: Recorder,
    registers: Recorder,
    element: AtomicI64,
    register_steps: AtomicU64,
    processes: AtomicU64,
    done: AtomicU64,
    puts_done: AtomicU64,
    conflicts: AtomicU64,
    refused: AtomicU64,
    unknown: AtomicU64,
    /// The first answer that was none.
    nonsense: Mutex<Option<String>>,
    silence: Mutex<Silence>,
}

/// The longest time in which no operation of any client succeeded.
#[derive(Debug, Clone, Copy, Default)]
struct Silence {
    last_success: Duration,
    longest: Duration,
    longest_began: Duration,
}

impl Silence {
    fn ends(&mut self, now: Duration) {
        let silent = now.saturating_sub(self.last_success);
        if silent > self.longest {
            (self.longest, self.longest_began) = (silent, self.last_success);
        }
        self.last_success = self.last_success.max(now);
    }
}

/// How far a load has come: what a tormentor waits for.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a>(&'a Load);

impl Load {
    /// Load on the nodes behind `gateways`.
    ///
    /// # Panics
    /// When the accounts cannot be opened.
    #[must_use]
    pub fn on(gateways: &[SocketAddr]) -> Self {
        let seed = random();
        println!("the load's seed is {seed}");
        Self::seeded(gateways, seed)
    }

    /// As [`Load::on`], with a seed of choice. It decides what each client asks
    /// for, not what it meets.
    ///
    /// # Panics
    /// When the accounts cannot be opened.
    #[must_use]
    pub fn seeded(gateways: &[SocketAddr], seed: u64) -> Self {
        let load = Self {
            gateways: RwLock::new(gateways.to_vec()),
            seed,
            stop: AtomicBool::new(false),
            started: Instant::now(),
            lists: Recorder::default(),
            bank: Recorder::default(),
            puts: Recorder::default(),
            registers: Recorder::default(),
            element: AtomicI64::new(0),
            register_steps: AtomicU64::new(0),
            processes: AtomicU64::new(0),
            done: AtomicU64::new(0),
            puts_done: AtomicU64::new(0),
            conflicts: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            nonsense: Mutex::default(),
            silence: Mutex::default(),
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
        LoadReport::of(self)
    }

    /// Clients may turn to a further node from now on.
    pub fn add_gateway(&self, gateway: SocketAddr) {
        self.gateways.write().push(gateway);
    }

    /// No client turns to a node any more once it has lost its connection.
    pub fn remove_gateway(&self, gateway: SocketAddr) {
        self.gateways.write().retain(|known| *known != gateway);
    }

    /// Writes all that was recorded as files of JSON lines into a folder.
    ///
    /// # Errors
    /// Those of the files.
    pub fn write_histories(&self, folder: &Path) -> std::io::Result<Vec<PathBuf>> {
        let mut written = Vec::new();
        for (name, recorder) in self.recorders() {
            let path = folder.join(format!("{name}.jsonl"));
            let mut file = BufWriter::new(File::create(&path)?);
            let wrote = recorder.history().write_json(&mut file);
            wrote.map_err(|error| std::io::Error::other(error.to_string()))?;
            written.push(path);
        }
        Ok(written)
    }

    /// The last operations that were begun, one a line.
    #[must_use]
    pub fn excerpt(&self, operations_max: usize) -> String {
        let histories = self.recorders().map(|(_, recorder)| recorder.history());
        let Ok(operations) = History::merged(histories).operations() else {
            return "the history is malformed".to_owned();
        };
        let begin = operations.len().saturating_sub(operations_max);
        let lines = operations[begin..].iter().map(|operation| {
            let line = operation.to_string();
            line.chars().take(EXCERPT_LINE_CHARACTERS).collect::<String>()
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn recorders(&self) -> [(&'static str, &Recorder); 4] {
        [
            ("lists", &self.lists),
            ("bank", &self.bank),
            ("puts", &self.puts),
            ("registers", &self.registers),
        ]
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn insist(&self, command: &Words) -> Reply {
        insist(&self.gateways.read().clone(), command)
    }

    /// Reads every list and account, after everything else was over.
    fn read_everything(&self, work: &[Work]) {
        let process = ProcessId(self.processes.fetch_add(1, Ordering::Relaxed));
        let read = |recorder: &Recorder, asked, command: &Words, meaning: &Meaning<'_>| {
            let invocation = recorder.invoke(process, self.now(), "read", asked).unwrap();
            match meaning(&self.insist(command)) {
                Ok(seen) => invocation.ok(self.now(), seen),
                Err(failure) => {
                    let why = format!("{failure:?}");
                    self.note_nonsense(&why);
                    invocation.unknown(self.now(), why);
                }
            }
        };
        if work.contains(&Work::Lists) {
            for list in keys(&self.lists.history()) {
                let asked = vec![MicroOp::read(list.clone())];
                let command = words(&format!("GET {list}"));
                read(&self.lists, asked, &command, &|reply| {
                    Ok(vec![MicroOp::saw(list.clone(), list_of(reply)?)])
                });
            }
        }
        if work.contains(&Work::Registers) {
            for register in keys(&self.registers.history()) {
                let asked = vec![MicroOp::read(register.clone())];
                let command = words(&format!("GET {register}"));
                read(&self.registers, asked, &command, &|reply| {
                    Ok(vec![MicroOp::saw(register.clone(), number_of(reply)?)])
                });
            }
        }
        if work.contains(&Work::Bank) {
            read(&self.bank, audit(), &audit_command(), &audited);
        }
    }

    fn note_nonsense(&self, what: &str) {
        self.nonsense.lock().get_or_insert_with(|| what.to_owned());
    }
}

/// What a reply shows.
type Meaning<'a> = dyn Fn(&Reply) -> Result<Vec<MicroOp>, Failure> + 'a;

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
        for turn in 1_u64.. {
            if self.load.stop.load(Ordering::Relaxed) {
                break;
            }
            if turn.is_multiple_of(TURNS_PER_CONNECTION) {
                self.client = None;
            }
            if self.client.is_none() && !self.connect() {
                std::thread::sleep(RETRY_PAUSE);
                continue;
            }
            match work {
                Work::Lists => self.lists(),
                Work::Bank => self.bank(),
                Work::Puts => self.put(),
                Work::Registers => self.registers(),
            }
        }
    }

    /// Connects to the next node.
    fn connect(&mut self) -> bool {
        let gateways = self.load.gateways.read().clone();
        let gateway = gateways[self.turn % gateways.len()];
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
        if let Err(Failure::Nonsense(what)) = &outcome {
            self.load.note_nonsense(what);
        }
        match outcome {
            Ok(Some(txn)) => {
                invocation.ok(now, txn);
                self.load.done.fetch_add(1, Ordering::Relaxed);
                self.load.silence.lock().ends(now);
            }
            Ok(None) => {
                invocation.fail(now, "conflict");
                self.load.conflicts.fetch_add(1, Ordering::Relaxed);
            }
            Err(Failure::Refused(reason)) => {
                invocation.fail(now, reason);
                self.load.refused.fetch_add(1, Ordering::Relaxed);
                // Another node may know better.
                self.client = None;
                std::thread::sleep(RETRY_PAUSE);
            }
            Err(Failure::Unknown(reason) | Failure::Nonsense(reason)) => {
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
            if replies.len() != steps.len() {
                return Err(Failure::Nonsense(format!("{steps:?} got the replies {replies:?}")));
            }
            let answered = steps.into_iter().zip(&replies).map(answered);
            Ok(Some(answered.collect::<Result<_, _>>()?))
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
            let reply = client.run(command)?;
            let seen = lists.iter().zip(reply.as_elements(lists.len())?);
            let saw = seen.map(|(list, value)| Ok(MicroOp::saw(list.as_str(), list_of(value)?)));
            Ok(Some(saw.collect::<Result<_, Failure>>()?))
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
                    Ok(Some(audited(&client.run(audit_command())?)?))
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

impl Worker<'_> {
    fn registers(&mut self) {
        let steps = &self.load.register_steps;
        let step = steps.fetch_add(1, Ordering::Relaxed);
        let generation = step / STEPS_PER_GENERATION;
        let key = format!("register:{generation}:{}", self.rng.below(REGISTERS));
        let value = i64::try_from(step).unwrap();
        let process = self.process;
        match self.rng.below(10) {
            0..=3 => drop(self.read_register(&key, None)),
            4..=6 => {
                let asked = vec![MicroOp::write(key.as_str(), value)];
                let recorder = self.load.registers.clone();
                self.record(&recorder, "write", asked.clone(), |client| {
                    client.run(words(&format!("SET {key} {value}")))?;
                    Ok(Some(asked))
                });
            }
            _ => self.compare_and_set(&key, value),
        }
        if self.process != process {
            // An outcome is unknown.
            steps.fetch_add(STEPS_OF_UNKNOWN, Ordering::Relaxed);
        }
    }

    /// Reads a register, after another command if one is given.
    fn read_register(&mut self, key: &str, first: Option<Words>) -> Option<Datum> {
        let mut seen = None;
        let recorder = self.load.registers.clone();
        self.record(&recorder, "read", vec![MicroOp::read(key)], |client| {
            if let Some(first) = first {
                client.run(first)?;
            }
            let value = number_of(&client.run(words(&format!("GET {key}")))?)?;
            seen = Some(value.clone());
            Ok(Some(vec![MicroOp::saw(key, value)]))
        });
        seen
    }

    /// Sets a register unless it has changed since it was read.
    fn compare_and_set(&mut self, key: &str, value: i64) {
        let watch = words(&format!("WATCH {key}"));
        let asked = match self.read_register(key, Some(watch)) {
            Some(Datum::Int(expected)) => MicroOp::compare_and_set(key, expected, value),
            // Nothing stood there: then this is a write that may be refused.
            Some(_) => MicroOp::write(key, value),
            None => return,
        };
        let asked = vec![asked];
        let recorder = self.load.registers.clone();
        self.record(&recorder, "cas", asked.clone(), |client| {
            match client.transaction(&[words(&format!("SET {key} {value}"))])? {
                Execution::Done(_) => Ok(Some(asked)),
                Execution::Conflict => Ok(None),
            }
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

/// A register's text is a number.
fn number_of(reply: &Reply) -> Result<Datum, Failure> {
    reply.as_text()?.map_or(Ok(Datum::Nil), |text| number(text).map(Datum::Int))
}

fn list_key(generation: i64, list: u64) -> String {
    format!("list:{generation}:{list}")
}

fn account_key(account: u64) -> String {
    format!("account:{account}")
}

fn number(text: &str) -> Result<i64, Failure> {
    text.parse().map_err(|_| Failure::Nonsense(format!("'{text}' is no number")))
}

/// A list is the text of its elements, each followed by a comma.
fn list_of(reply: &Reply) -> Result<Datum, Failure> {
    match reply.as_text()? {
        None => Ok(Datum::Nil),
        Some(text) => {
            text.split_terminator(',').map(number).collect::<Result<_, _>>().map(Datum::List)
        }
    }
}

fn list_command(step: &MicroOp) -> Words {
    match step {
        MicroOp::Append { key, value } => words(&format!("APPEND {key} {value},")),
        MicroOp::Read { key, .. } => words(&format!("GET {key}")),
        other => panic!("{other} is no step on a list"),
    }
}

fn answered((step, reply): (MicroOp, &Reply)) -> Result<MicroOp, Failure> {
    match step {
        MicroOp::Read { key, .. } => Ok(MicroOp::saw(key, list_of(reply)?)),
        step => Ok(step),
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

fn audited(reply: &Reply) -> Result<Vec<MicroOp>, Failure> {
    let balances = reply.as_elements(usize::try_from(ACCOUNTS).unwrap())?;
    let seen = (0..ACCOUNTS).zip(balances);
    seen.map(|(account, value)| Ok(MicroOp::saw_int(account_key(account), balance(value)?)))
        .collect()
}

fn balance(reply: &Reply) -> Result<i64, Failure> {
    reply.as_text()?.map_or(Ok(0), number)
}

/// Reads both balances under `WATCH`; returns the writes that depend on them.
fn watched_transfer(
    client: &mut Client,
    from: &str,
    to: &str,
    amount: i64,
) -> Result<Vec<Words>, Failure> {
    client.run(words(&format!("WATCH {from} {to}")))?;
    let mut read = |account: &str| -> Result<i64, Failure> {
        balance(&client.run(words(&format!("GET {account}")))?)
    };
    let (paying, paid) = (read(from)?, read(to)?);
    Ok(vec![
        words(&format!("SET {from} {}", paying - amount)),
        words(&format!("SET {to} {}", paid + amount)),
    ])
}
