//! Clients: one connection each, one command in flight, until time is up.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_benches::{Measured, Window};
use quorate_types::env::SplitMix;
use quorate_types::runtime;

use crate::Outcome;
use crate::connection::{Connection, Frame, encode};
use crate::keys::Keys;

/// How long after the end an answer may still take. Then it is lost.
const PATIENCE: Duration = Duration::from_secs(12);
/// The pause of a client after an error, lest it does nothing but fail.
const PAUSE: Duration = Duration::from_millis(10);
/// Commands that are sent at once before anything is measured.
const PIPELINE: usize = 100;

/// What a client does over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// `SET` of a value of 256 bytes at any key.
    Set,
    /// `GET` of such a value.
    Get,
    /// `INCR` of any counter.
    Incr,
    /// `MSET` of a key in each of two shards: one transaction.
    Mset,
    /// `MULTI`, `DECRBY` in one shard, `INCRBY` in another, `EXEC`; sent
    /// together.
    Transfer,
}

impl Work {
    /// Every kind, by its name.
    const ALL: [(&'static str, Self); 5] = [
        ("set", Self::Set),
        ("get", Self::Get),
        ("incr", Self::Incr),
        ("mset", Self::Mset),
        ("transfer", Self::Transfer),
    ];

    /// The kind of a name.
    pub(crate) fn named(name: &str) -> Outcome<Self> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        let names = Self::ALL.map(|(known, _)| known).join(", ");
        found.map(|(_, work)| *work).ok_or_else(|| format!("'{name}' is none of {names}").into())
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, work)| *work == self).map_or("", |(name, _)| name)
    }

    /// Appends its commands to `wire`; how many replies they have.
    fn request(self, keys: &Keys, rng: &mut SplitMix, wire: &mut Vec<u8>) -> usize {
        match self {
            Self::Set => encode(wire, &["SET", &keys.any(rng), &keys.value]),
            Self::Get => encode(wire, &["GET", &keys.any(rng)]),
            Self::Incr => encode(wire, &["INCR", &keys.counter(rng)]),
            Self::Mset => {
                let [one, other] = keys.two_accounts(rng);
                encode(wire, &["MSET", one, "1000", other, "1000"]);
            }
            Self::Transfer => {
                let [from, to] = keys.two_accounts(rng);
                encode(wire, &["MULTI"]);
                encode(wire, &["DECRBY", from, "1"]);
                encode(wire, &["INCRBY", to, "1"]);
                encode(wire, &["EXEC"]);
                return 4;
            }
        }
        1
    }

    /// Whether the last reply is the one that the work ends with.
    fn is_done(self, reply: &Frame) -> bool {
        match (self, reply) {
            (Self::Set | Self::Mset, Frame::SimpleString(text)) => text == b"OK",
            (Self::Get, Frame::BulkString(_)) | (Self::Incr, Frame::Integer(_)) => true,
            (Self::Transfer, Frame::Array(replies)) => {
                matches!(replies.as_slice(), [Frame::Integer(_), Frame::Integer(_)])
            }
            _ => false,
        }
    }
}

/// What to do, where and how long.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) work: Work,
    pub(crate) clients: u32,
    pub(crate) duration: Duration,
    /// The clients are spread over these evenly.
    pub(crate) gateways: Vec<SocketAddr>,
    pub(crate) keys: Arc<Keys>,
}

/// Runs a plan; `begun` is called when counting begins.
pub(crate) async fn run(plan: &Arc<Plan>, begun: impl FnOnce()) -> Outcome<Measured> {
    let window = Window::of(plan.duration);
    let clients = (0..plan.clients)
        .map(|number| runtime::spawn(Client::new(plan, number, window).run()))
        .collect();
    window.pass(begun, clients).await
}

/// Writes every key that is read later.
pub(crate) async fn fill(gateway: SocketAddr, keys: &Keys) -> Outcome {
    let mut connection = Connection::open(gateway).await?;
    let names: Vec<String> = Keys::all().collect();
    for names in names.chunks(PIPELINE) {
        let mut wire = Vec::new();
        for name in names {
            encode(&mut wire, &["SET", name, &keys.value]);
        }
        match connection.exchange(&wire, names.len()).await? {
            Frame::Error(text) => return Err(format!("a first SET was refused: {text}").into()),
            _ => continue,
        }
    }
    Ok(())
}

struct Client {
    plan: Arc<Plan>,
    window: Window,
    rng: SplitMix,
    /// Where in the plan's gateways it is; another after an error.
    gateway: usize,
    measured: Measured,
}

impl Client {
    fn new(plan: &Arc<Plan>, number: u32, window: Window) -> Self {
        let gateway = usize::try_from(number).unwrap_or_default();
        let rng = SplitMix::new(u64::from(number));
        Self { plan: Arc::clone(plan), window, rng, gateway, measured: Measured::default() }
    }

    async fn run(mut self) -> Measured {
        let mut connection = None;
        let mut wire = Vec::new();
        while Instant::now() < self.window.end {
            let mut open = match connection.take() {
                Some(open) => open,
                None => match self.connect().await {
                    Ok(open) => open,
                    Err(error) => {
                        self.failed(&error.to_string()).await;
                        continue;
                    }
                },
            };
            wire.clear();
            let replies = self.plan.work.request(&self.plan.keys, &mut self.rng, &mut wire);
            let start = Instant::now();
            let answer = tokio::time::timeout_at(
                (self.window.end + PATIENCE).into(),
                open.exchange(&wire, replies),
            );
            match answer.await {
                Ok(Ok(reply)) if self.plan.work.is_done(&reply) => {
                    self.measured.done(start, self.window);
                    connection = Some(open);
                }
                Ok(Ok(reply)) => {
                    connection = Some(open);
                    self.failed(&format!("{reply:?}")).await;
                }
                Ok(Err(error)) => self.failed(&error.to_string()).await,
                Err(_) => self.failed("no answer").await,
            }
        }
        self.measured
    }

    async fn connect(&self) -> io::Result<Connection> {
        let place = self.gateway % self.plan.gateways.len().max(1);
        let gateway = self.plan.gateways.get(place).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Connection::open(*gateway).await
    }

    async fn failed(&mut self, why: &str) {
        self.measured.failed(why);
        self.gateway += 1;
        tokio::time::sleep(PAUSE).await;
    }
}
