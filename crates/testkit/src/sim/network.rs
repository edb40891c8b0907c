//! Messages between simulated nodes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_types::NodeId;
use quorate_types::env::{Rng, SplitMix};
use quorate_types::runtime::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::flight::{Departure, Flight};
use super::links::Links;
use super::{LinkConfig, Sim, SimNode, Trace};

/// More messages under way at once than this are a storm, not a test.
pub const IN_FLIGHT_MAX_DEFAULT: usize = 100_000;

/// What a node does with a message: from whom, and what it says. It runs as a
/// task of that node and dies with it. An error text reaches the caller as
/// [`CallError::Rejected`].
pub type Handler =
    Arc<dyn Fn(NodeId, Bytes) -> BoxFuture<Result<Bytes, String>> + Send + Sync + 'static>;

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The handler did not run and will not.
    #[error("not delivered to {to}: {reason}")]
    NotDelivered {
        /// The callee.
        to: NodeId,
        /// Why not.
        reason: String,
    },
    /// The handler may have run, may be running, or may still run.
    #[error("no answer from {to}: {reason}")]
    Unknown {
        /// The callee.
        to: NodeId,
        /// What is known.
        reason: String,
    },
    /// The handler ran and refused.
    #[error("{to} refused: {reason}")]
    Rejected {
        /// The callee.
        to: NodeId,
        /// What it said.
        reason: String,
    },
}

/// What became of messages so far. Requests, replies and one-way messages
/// count alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetworkCounters {
    /// Sent, duplicates included.
    pub sent: u64,
    /// Arrived.
    pub arrived: u64,
    /// Lost to chance or to a partition.
    pub lost: u64,
    /// Of those, lost to a partition.
    pub cut: u64,
    /// Took longer than the link has it, for a spike.
    pub late: u64,
    /// Sent twice by chance.
    pub duplicated: u64,
    /// Arrived where nobody listened.
    pub refused: u64,
}

/// A network between simulated nodes, driven by virtual time and the seed.
///
/// A message belongs to the network once it was sent: it survives its sender.
/// What is under way when a partition begins is lost at its arrival. Clones
/// are the same network.
#[derive(Clone)]
pub struct SimNetwork {
    pub(super) harness: Arc<SimNode>,
    pub(super) trace: Trace,
    pub(super) state: Arc<Mutex<State>>,
}

pub(super) struct State {
    pub(super) chance: SplitMix,
    pub(super) in_flight: usize,
    pub(super) counters: NetworkCounters,
    pub(super) links: Links,
    in_flight_max: usize,
    endpoints: BTreeMap<NodeId, Endpoint>,
    /// Per direction, closed when the message sent last has arrived.
    tails: BTreeMap<(NodeId, NodeId), oneshot::Receiver<()>>,
}

#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) node: Arc<SimNode>,
    pub(super) handler: Handler,
}

impl SimNetwork {
    /// A network of a simulation, whose chance is apart from everyone else's.
    #[must_use]
    pub fn new(sim: &Sim, link: LinkConfig) -> Self {
        let state = State {
            chance: SplitMix::new(sim.seed() ^ 0x006e_6574_776f_726b),
            in_flight: 0,
            counters: NetworkCounters::default(),
            links: Links::new(link),
            in_flight_max: IN_FLIGHT_MAX_DEFAULT,
            endpoints: BTreeMap::new(),
            tails: BTreeMap::new(),
        };
        Self {
            harness: Arc::clone(sim.harness()),
            trace: sim.trace().clone(),
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Lets `handler` answer for this life of a node. The handler of an
    /// earlier life is replaced; after a crash nobody answers.
    pub fn register(&self, node: &Arc<SimNode>, handler: Handler) {
        let endpoint = Endpoint { node: Arc::clone(node), handler };
        self.state.lock().endpoints.insert(node.id(), endpoint);
    }

    /// Sends `payload` and waits for the answer of `to`'s handler until
    /// `deadline` from now. The message is sent when this function returns and
    /// not when the future is first polled. It arrives once at most.
    pub fn call(
        &self,
        from: NodeId,
        to: NodeId,
        payload: Bytes,
        deadline: Duration,
    ) -> BoxFuture<Result<Bytes, CallError>> {
        let until = Instant::now() + deadline;
        let departure = match self.depart(from, to, "request", &payload) {
            Ok(departure) => departure,
            Err(reason) => {
                let refused = CallError::NotDelivered { to, reason };
                return Box::pin(std::future::ready(Err(refused)));
            }
        };
        let (answer, answered) = oneshot::channel();
        let flight = Flight { network: self.clone(), departure };
        self.spawn(async move {
            if let Some(outcome) = flight.exchange(payload).await {
                // A caller that gave up does not listen any more.
                let _ = answer.send(outcome);
            }
        });
        Box::pin(async move {
            if let Ok(Ok(outcome)) = timeout_at(until, answered).await {
                return outcome;
            }
            // The message was lost, or is late. The caller cannot tell.
            sleep_until(until).await;
            Err(CallError::Unknown { to, reason: "deadline".to_owned() })
        })
    }

    /// As [`call`](Self::call), but the message may arrive twice. One of the
    /// answers finds nobody who waits for it.
    pub fn call_repeatedly(
        &self,
        from: NodeId,
        to: NodeId,
        payload: Bytes,
        deadline: Duration,
    ) -> BoxFuture<Result<Bytes, CallError>> {
        if self.is_twice(from, to) {
            self.dispatch(from, to, "request", payload.clone());
        }
        self.call(from, to, payload, deadline)
    }

    /// Sends `payload` and forgets about it. It may arrive twice.
    pub fn send(&self, from: NodeId, to: NodeId, payload: Bytes) {
        if self.is_twice(from, to) {
            self.dispatch(from, to, "message", payload.clone());
        }
        self.dispatch(from, to, "message", payload);
    }

    /// Whether what is sent now comes twice.
    fn is_twice(&self, from: NodeId, to: NodeId) -> bool {
        let mut state = self.state.lock();
        let per_mille = state.links.config(from, to).duplicate_per_mille;
        let is_twice = state.chance.below(1000) < u64::from(per_mille);
        state.counters.duplicated += u64::from(is_twice);
        is_twice
    }

    /// Sends what nobody waits for an answer to.
    fn dispatch(&self, from: NodeId, to: NodeId, what: &'static str, payload: Bytes) {
        if let Ok(departure) = self.depart(from, to, what, &payload) {
            let flight = Flight { network: self.clone(), departure };
            self.spawn(async move { flight.deliver(payload).await });
        }
    }

    /// Changes how many messages may be under way at once.
    pub fn set_in_flight_max(&self, in_flight_max: usize) {
        self.state.lock().in_flight_max = in_flight_max;
    }

    /// What became of messages so far.
    #[must_use]
    pub fn counters(&self) -> NetworkCounters {
        self.state.lock().counters
    }

    /// Takes a message in, unless it cannot be sent.
    pub(super) fn depart(
        &self,
        from: NodeId,
        to: NodeId,
        what: &'static str,
        payload: &[u8],
    ) -> Result<Departure, String> {
        let mut state = self.state.lock();
        // The task of a dead node runs on to its next await.
        if what != "reply" && state.endpoints.get(&from).is_some_and(|it| !it.node.is_alive()) {
            return Err("the sender is dead".to_owned());
        }
        if state.in_flight >= state.in_flight_max {
            return Err(format!("{} messages are under way", state.in_flight));
        }
        let link = state.links.config(from, to);
        let spread_micros = link.latency_max.saturating_sub(link.latency_min).as_micros();
        let spread_micros = u64::try_from(spread_micros).unwrap_or(u64::MAX - 1);
        let spread = Duration::from_micros(state.chance.below(spread_micros + 1));
        let extra = state.links.extra(from, to);
        state.counters.late += u64::from(!extra.is_zero());
        let latency = link.latency_min + spread + extra;
        let is_lost = state.chance.below(1000) < u64::from(link.loss_per_mille);
        let is_cut = state.links.is_cut(from, to);
        let (arrived, tail) = oneshot::channel();
        let previous = state.tails.insert((from, to), tail).filter(|_| link.is_ordered);
        state.in_flight += 1;
        state.counters.sent += 1;
        let number = state.counters.sent;
        drop(state);
        let (bytes, sum) = (payload.len(), crc32c::crc32c(payload));
        self.trace.record(format_args!("m{number} {from} -> {to} {what}, {bytes} B {sum:08x}"));
        let due = Instant::now() + latency;
        Ok(Departure { number, from, to, due, is_lost, is_cut, previous, arrived: Some(arrived) })
    }

    /// Runs a flight: not as a task of the node that sent it.
    #[expect(clippy::disallowed_methods, reason = "a message must outlive its sender")]
    fn spawn(&self, flight: impl Future<Output = ()> + Send + 'static) {
        let harness = Arc::clone(&self.harness);
        drop(tokio::spawn(async move { harness.run(flight).await }));
    }
}

impl State {
    /// Who answers at `to`, if it lives.
    pub(super) fn endpoint(&self, to: NodeId) -> Option<Endpoint> {
        self.endpoints.get(&to).filter(|endpoint| endpoint.node.is_alive()).cloned()
    }
}

impl fmt::Debug for SimNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimNetwork").field("counters", &self.counters()).finish_non_exhaustive()
    }
}
