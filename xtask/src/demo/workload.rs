//! Clients that transfer money and write keys, through everything that
//! happens.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::interrupt::{Interrupt, Wait};
use super::progress::Progress;
use super::resp::{Connection, Reply};
use crate::Outcome;

/// What an account begins with.
pub(super) const BALANCE: i64 = 1_000;

/// The largest single transfer.
const AMOUNT_MAX: u64 = 10;

/// How long a client waits before it tries again what was refused.
const RETRY: Duration = Duration::from_millis(10);

/// How long loading the accounts may take. They are few; elections may be
/// under way.
const LOAD_MAX: Duration = Duration::from_secs(20);

/// How often the load says how far it is.
const TELL: Duration = Duration::from_secs(2);

/// Requests that are sent before their answers are awaited.
const PIPELINE: usize = 100;

/// What the clients do.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Accounts to transfer between.
    pub(super) accounts: u64,
    /// Connections, half of them for each kind of work.
    pub(super) connections: usize,
    /// The nodes to connect to; a client that loses one takes the next.
    pub(super) gateways: Vec<SocketAddr>,
}

/// A kind of work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// From one account to another, as one transaction.
    Transfer,
    /// A key of its own.
    Write,
}

/// What a client lived through.
#[derive(Debug)]
pub(super) struct Journal {
    /// Its work.
    pub(super) kind: Kind,
    /// How long each operation took, retries and reconnections included, in
    /// microseconds.
    pub(super) latencies_micros: Vec<u64>,
    /// Since when the longest of them, or the last unfinished one, waited.
    pub(super) longest: (Instant, Duration),
    /// Acknowledged writes, in order.
    pub(super) acknowledged: Vec<Write>,
    /// Transfers that found an account changed and began again.
    pub(super) conflicts: u64,
    /// Answers that said: not executed.
    pub(super) refused: u64,
    /// Connections lost with an answer outstanding: executed or not.
    pub(super) unknown: u64,
    /// Answers that should not be.
    pub(super) wrong: Vec<String>,
}

/// A write that was acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Write {
    /// The key, which holds its own name.
    pub(super) key: String,
    /// When the answer came.
    pub(super) at: Instant,
}

/// The name of an account.
pub(super) fn account(number: u64) -> String {
    format!("account:{number}")
}

/// Gives every account its balance. Doing so again changes nothing, so what was
/// refused, or lost with its connection, is sent once more.
///
/// # Errors
/// When time is up, or an answer is none that may be.
pub(super) fn load_accounts(plan: &Plan, interrupt: &Interrupt) -> Outcome {
    let wait = Wait { what: "accounts are loaded", limit: LOAD_MAX, poll: RETRY };
    load_accounts_within(plan, interrupt, &wait)
}

fn load_accounts_within(plan: &Plan, interrupt: &Interrupt, wait: &Wait<'_>) -> Outcome {
    let names: Vec<String> = (0..plan.accounts).map(account).collect();
    let mut left = names.as_slice();
    let mut gateways = plan.gateways.iter().cycle();
    let mut connection = None;
    interrupt.wait_until(wait, || {
        while !left.is_empty() {
            let opened = match connection.take() {
                Some(connection) => Ok(connection),
                None => Connection::open(*gateways.next().ok_or("there is no gateway")?),
            };
            let (some, rest) = left.split_at(left.len().min(PIPELINE));
            let replies = opened.and_then(|opened| set_balances(connection.insert(opened), some));
            match replies {
                Ok(replies) => {
                    if let Err(reason) = judge_balances(&replies)? {
                        return Ok(Err(reason));
                    }
                }
                Err(error) => {
                    connection = None;
                    return Ok(Err(error.to_string()));
                }
            }
            left = rest;
        }
        Ok(Ok(()))
    })
}

fn set_balances(connection: &mut Connection, names: &[String]) -> io::Result<Vec<Reply>> {
    for name in names {
        connection.push(&["SET", name, &BALANCE.to_string()]);
    }
    connection.finish()
}

/// Whether all were set; why not yet, otherwise.
fn judge_balances(replies: &[Reply]) -> Outcome<Result<(), String>> {
    if let Some(refusal) = replies.iter().find_map(Reply::not_executed) {
        return Ok(Err(refusal.to_owned()));
    }
    match replies.iter().find(|reply| !reply.is_ok()) {
        Some(reply) => Err(format!("SET of an account was answered with {reply:?}").into()),
        None => Ok(Ok(())),
    }
}

/// Running clients.
#[derive(Debug)]
pub(super) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Journal>>,
    teller: JoinHandle<()>,
    start: Instant,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    transfers: AtomicU64,
    writes: AtomicU64,
}

impl Load {
    /// Starts the clients, and tells how far they are.
    pub(super) fn start(plan: &Plan, progress: &Arc<Progress>) -> Outcome<Self> {
        let shared = Arc::new(Shared::default());
        let mut clients = Vec::new();
        for number in 0..plan.connections {
            let client = Client::new(plan, number, Arc::clone(&shared));
            let thread = std::thread::Builder::new().name(format!("client-{number}"));
            clients.push(thread.spawn(move || client.run())?);
        }
        let teller = {
            let (shared, progress) = (Arc::clone(&shared), Arc::clone(progress));
            let thread = std::thread::Builder::new().name("teller".to_owned());
            thread.spawn(move || tell(&shared, &progress))?
        };
        Ok(Self { shared, clients, teller, start: Instant::now() })
    }

    /// How long it has been running.
    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Lets each client finish what it is at. How long they ran, and what
    /// they lived through.
    pub(super) fn stop(self) -> Outcome<(Duration, Vec<Journal>)> {
        let duration = self.start.elapsed();
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.teller.thread().unpark();
        let journals: Result<Vec<Journal>, _> =
            self.clients.into_iter().map(JoinHandle::join).collect();
        Ok((duration, journals.map_err(|_| "a client panicked")?))
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn counts(&self) -> Counts {
        let [transfers, writes] =
            [&self.transfers, &self.writes].map(|counter| counter.load(Ordering::Relaxed));
        Counts { transfers, writes }
    }
}

/// Operations done so far.
struct Counts {
    transfers: u64,
    writes: u64,
}

fn tell(shared: &Shared, progress: &Progress) {
    let (mut before, mut then) = (shared.counts(), Instant::now());
    loop {
        std::thread::park_timeout(TELL);
        if shared.is_over() {
            return;
        }
        let (counts, now) = (shared.counts(), Instant::now());
        let seconds = (now - then).as_secs_f64();
        let per_second = |count: u64, before: u64| (count - before) as f64 / seconds;
        let transfers = per_second(counts.transfers, before.transfers);
        let writes = per_second(counts.writes, before.writes);
        progress.say(&format!("  {transfers:.0} transfers/s, {writes:.0} writes/s"));
        (before, then) = (counts, now);
    }
}

/// How an attempt ended.
enum Attempt {
    Done,
    Conflict,
    /// The node says so; trying again is safe.
    NotExecuted {
        is_loading: bool,
    },
    Wrong(String),
}

struct Client {
    plan: Plan,
    shared: Arc<Shared>,
    number: usize,
    /// Where in the plan's gateways the client is.
    gateway: usize,
    connection: Option<Connection>,
    random: Random,
    /// Never used twice: a write of unknown outcome may still happen.
    next_write: u64,
    journal: Journal,
}

impl Client {
    fn new(plan: &Plan, number: usize, shared: Arc<Shared>) -> Self {
        let kind = if number.is_multiple_of(2) { Kind::Transfer } else { Kind::Write };
        let journal = Journal {
            kind,
            latencies_micros: Vec::new(),
            longest: (Instant::now(), Duration::ZERO),
            acknowledged: Vec::new(),
            conflicts: 0,
            refused: 0,
            unknown: 0,
            wrong: Vec::new(),
        };
        // Neighbours do different work, so each node gets both kinds.
        let gateway = number / 2;
        let random = Random(number as u64);
        let plan = plan.clone();
        Self { plan, shared, number, gateway, connection: None, random, next_write: 0, journal }
    }

    fn run(mut self) -> Journal {
        let mut since = Instant::now();
        while !self.shared.is_over() {
            if self.step() {
                self.done(since);
                since = Instant::now();
            }
        }
        self.waited(since);
        self.journal
    }

    /// One attempt; whether it succeeded.
    fn step(&mut self) -> bool {
        let Some(mut connection) = self.connection.take().or_else(|| self.connect()) else {
            std::thread::sleep(RETRY);
            return false;
        };
        let attempt = match self.journal.kind {
            Kind::Transfer => self.transfer(&mut connection),
            Kind::Write => self.write(&mut connection),
        };
        match attempt {
            Ok(Attempt::Done) => {
                self.connection = Some(connection);
                return true;
            }
            Ok(Attempt::Conflict) => {
                self.journal.conflicts += 1;
                self.connection = Some(connection);
            }
            Ok(Attempt::NotExecuted { is_loading }) => {
                self.journal.refused += 1;
                if is_loading {
                    self.gateway += 1;
                } else {
                    self.connection = Some(connection);
                }
                std::thread::sleep(RETRY);
            }
            // On a connection of its own nothing is left half-done.
            Ok(Attempt::Wrong(what)) => self.journal.wrong.push(what),
            Err(_) => {
                self.journal.unknown += 1;
                self.gateway += 1;
            }
        }
        false
    }

    fn connect(&mut self) -> Option<Connection> {
        let count = self.plan.gateways.len().max(1);
        let gateway = self.plan.gateways.get(self.gateway % count)?;
        let connection = Connection::open(*gateway).ok();
        if connection.is_none() {
            self.gateway += 1;
        }
        connection
    }

    fn done(&mut self, since: Instant) {
        let counter = match self.journal.kind {
            Kind::Transfer => &self.shared.transfers,
            Kind::Write => &self.shared.writes,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let latency = self.waited(since);
        self.journal.latencies_micros.push(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    fn waited(&mut self, since: Instant) -> Duration {
        let waited = since.elapsed();
        if waited > self.journal.longest.1 {
            self.journal.longest = (since, waited);
        }
        waited
    }

    /// Reads two accounts and, if neither has changed since, writes both. An
    /// account may go below zero: what must hold is the sum.
    fn transfer(&mut self, connection: &mut Connection) -> io::Result<Attempt> {
        let [a, b] = self.two_accounts();
        connection.push(&["WATCH", &a, &b]);
        connection.push(&["GET", &a]);
        connection.push(&["GET", &b]);
        let read = connection.finish()?;
        if let Some(attempt) = not_executed(&read) {
            connection.call(&["UNWATCH"])?;
            return Ok(attempt);
        }
        let [watched, Reply::Bulk(from), Reply::Bulk(to)] = read.as_slice() else {
            return Ok(Attempt::Wrong(format!("the accounts {a} and {b} read {read:?}")));
        };
        let (true, Ok(from), Ok(to)) = (watched.is_ok(), from.parse::<i64>(), to.parse::<i64>())
        else {
            return Ok(Attempt::Wrong(format!("the accounts {a} and {b} read {read:?}")));
        };
        let amount = (1 + self.random.below(AMOUNT_MAX)).cast_signed();
        connection.push(&["MULTI"]);
        connection.push(&["SET", &a, &(from - amount).to_string()]);
        connection.push(&["SET", &b, &(to + amount).to_string()]);
        connection.push(&["EXEC"]);
        Ok(executed(&connection.finish()?))
    }

    fn two_accounts(&mut self) -> [String; 2] {
        let count = self.plan.accounts;
        let first = self.random.below(count);
        let distance = 1 + self.random.below(count.saturating_sub(1).max(1));
        [account(first), account((first + distance) % count.max(1))]
    }

    fn write(&mut self, connection: &mut Connection) -> io::Result<Attempt> {
        let key = format!("seq:{}:{}", self.number, self.next_write);
        self.next_write += 1;
        let reply = connection.call(&["SET", &key, &key])?;
        if reply.is_ok() {
            self.journal.acknowledged.push(Write { key, at: Instant::now() });
            return Ok(Attempt::Done);
        }
        let wrong = || Attempt::Wrong(format!("SET {key} was answered with {reply:?}"));
        Ok(not_executed(std::slice::from_ref(&reply)).unwrap_or_else(wrong))
    }
}

fn not_executed(replies: &[Reply]) -> Option<Attempt> {
    let text = replies.iter().find_map(Reply::not_executed)?;
    Some(Attempt::NotExecuted { is_loading: text.starts_with("LOADING ") })
}

/// What the answers to `MULTI`, two commands and `EXEC` amount to.
fn executed(replies: &[Reply]) -> Attempt {
    let is_right = match replies.last() {
        Some(Reply::Nil) => return Attempt::Conflict,
        Some(Reply::Array(results)) => results.len() == 2 && results.iter().all(Reply::is_ok),
        _ => false,
    };
    if is_right {
        return Attempt::Done;
    }
    let wrong = || Attempt::Wrong(format!("a transfer was answered with {replies:?}"));
    not_executed(replies).unwrap_or_else(wrong)
}

/// A small generator (splitmix64): the load needs spread, not secrecy.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end.max(1)
    }
}

#[cfg(test)]
mod tests;
