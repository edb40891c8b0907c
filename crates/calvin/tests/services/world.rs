//! A cluster of production services: the sequencer, each shard and the clients
//! on a node of their own, each with its own reply gate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_calvin::sequencer::Watermarks;
use quorate_calvin::shard::ShardMachine;
use quorate_calvin::{
    Client, ClientConfig, ExecuteError, GroupLog, GroupMachine as _, NodeServices, ReplyGate,
    SequencerCommand, SequencerReplica, ServiceConfig, Session, ShardMap, ShardReplica, Submission,
};
use quorate_types::env::{Clock, Rng, SplitMix};
use quorate_types::fault::Canary;
use quorate_types::runtime::{self, Runtime};
use quorate_types::{Blob, ClientId, Epoch, NodeId, ShardId};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use super::log::MemLog;
use super::wires::{CLIENTS, End, SEQUENCER, Wires, node_of};
use crate::support::checker::{Observed, Operation};
use crate::support::procedures::{Op, Service};
use crate::support::store::MemStore;

/// Long enough, on the clock that stands still while anyone has work, for
/// everything that is not held back to end.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// Requests are remembered for longer than any test lasts.
const RETENTION_MILLIS: u64 = 3_600_000;

/// Chance from a seed for everything that is spawned, and perhaps a bug.
struct Seeded(Mutex<SplitMix>, Option<Canary>);

impl Runtime for Seeded {
    fn spawned(&self, _: AbortHandle) {}

    fn random(&self) -> u64 {
        self.0.lock().next_u64()
    }

    fn sync_delay(&self) -> Duration {
        Duration::ZERO
    }

    fn canary(&self) -> Option<Canary> {
        self.1
    }
}

/// Runs a test on one thread, on a paused clock, with its chance from a seed.
pub fn run<T>(seed: u64, test: impl Future<Output = T>) -> T {
    run_with(None, seed, test)
}

/// The same with a bug, in a build that has it.
pub fn run_with<T>(canary: Option<Canary>, seed: u64, test: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let tokio = builder.enable_time().start_paused(true).build().unwrap();
    let seeded = Arc::new(Seeded(Mutex::new(SplitMix::new(seed)), canary));
    tokio.block_on(runtime::scope(seeded, test))
}

struct PausedClock(Instant);

impl Clock for PausedClock {
    fn wall_millis(&self) -> u64 {
        1_000_000 + self.0.elapsed().as_millis() as u64
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

struct Node {
    services: Arc<NodeServices>,
    gate: Arc<ReplyGate>,
}

struct Shard {
    replica: Arc<ShardReplica>,
    log: Arc<MemLog>,
}

pub struct World {
    pub wires: Arc<Wires>,
    nodes: BTreeMap<NodeId, Node>,
    shards: BTreeMap<ShardId, Shard>,
    sequencer: Arc<MemLog>,
    client: Arc<Client>,
    history: Mutex<Vec<Operation>>,
    /// Counts the beginnings and ends of operations.
    time: Mutex<u64>,
}

impl World {
    /// Starts everything and waits until the sequencer has its map.
    pub async fn start(map: ShardMap, config: ServiceConfig, seed: u64) -> Arc<Self> {
        let wires = Wires::new(map.clone(), seed);
        let clock: Arc<dyn Clock> = Arc::new(PausedClock(Instant::now()));
        let nodes = [SEQUENCER, CLIENTS].into_iter();
        let nodes = nodes.chain(map.shards.iter().map(|entry| node_of(entry.shard)));
        let nodes: BTreeMap<NodeId, Node> =
            nodes.map(|node| (node, start_node(node, &wires, &clock, config))).collect();
        let shards = map.shards.iter().map(|entry| {
            let seeded = ShardMachine::seed(entry.range.clone(), entry.epoch);
            let store = Arc::new(MemStore::seeded(seeded));
            // Children are not run; nobody asks them anything here.
            let on_fork = Arc::new(|_| {});
            let replica =
                ShardReplica::open(entry.shard, Arc::new(Service), store, on_fork).unwrap();
            let applying = Arc::clone(&replica);
            let node = node_of(entry.shard);
            let log = MemLog::start(
                node,
                Box::new(move |entries| drop(applying.apply(entries, Blob::new()).unwrap())),
            );
            let group: Arc<dyn GroupLog> = Arc::<MemLog>::clone(&log);
            nodes[&node].services.add_shard(Arc::clone(&replica), group);
            (entry.shard, Shard { replica, log })
        });
        let shards = shards.collect();
        let (sequencer, replica) = start_sequencer(&nodes[&SEQUENCER].services, map);
        let client = Client::new(
            Arc::new(End(Arc::clone(&wires))),
            Arc::new(End(Arc::clone(&wires))),
            Arc::clone(&nodes[&CLIENTS].gate),
            ClientConfig::default(),
        );
        sequencer.until(|| replica.machine().map().is_some()).await;
        let (history, time) = Default::default();
        Arc::new(Self { wires, nodes, shards, sequencer, client, history, time })
    }

    /// Lets every reply pass at once: what a cluster without a gate does.
    pub fn open_gates(&self) {
        let everything = Watermarks { logged: Epoch(u64::MAX), ..Watermarks::default() };
        for shard in self.shards.keys() {
            self.nodes[&node_of(*shard)].gate.learn(everything);
        }
    }

    pub fn services(&self, node: NodeId) -> &NodeServices {
        &self.nodes[&node].services
    }

    pub fn session(&self) -> Session {
        self.client.session()
    }

    pub fn log(&self, shard: ShardId) -> &MemLog {
        &self.shards[&shard].log
    }

    pub fn sequencer(&self) -> &MemLog {
        &self.sequencer
    }

    pub fn cursor(&self, shard: ShardId) -> Epoch {
        self.shards[&shard].replica.machine().as_ref().unwrap().cursor()
    }

    /// Waits until a shard has logged sequenced work after `cursor`.
    pub async fn logs_after(&self, shard: ShardId, cursor: Epoch) {
        self.log(shard).until(|| self.cursor(shard) > cursor).await;
    }

    /// What is in the sequencer's log, in order.
    pub fn all_ordered(&self) -> Vec<Submission> {
        let batches = self.sequencer.entries().into_iter().filter_map(|entry| {
            match SequencerCommand::from_bytes(&entry).unwrap() {
                SequencerCommand::Batch(batch) => Some(batch.txns.0),
                SequencerCommand::Init { .. } | SequencerCommand::Change { .. } => None,
            }
        });
        batches.flatten().collect()
    }

    /// What a client has in the sequencer's log.
    pub fn ordered(&self, client: ClientId) -> Vec<Submission> {
        let mut ordered = self.all_ordered();
        ordered.retain(|submission| submission.request.client == client);
        ordered
    }

    /// A client that does these one after the other, and answers what the last
    /// one ended with.
    pub fn spawn(self: &Arc<Self>, script: Vec<Op>) -> JoinHandle<Observed> {
        self.spawn_in(Arc::new(self.session()), script)
    }

    pub fn spawn_in(
        self: &Arc<Self>,
        session: Arc<Session>,
        script: Vec<Op>,
    ) -> JoinHandle<Observed> {
        let world = Arc::clone(self);
        runtime::spawn(async move {
            let mut last = Observed::Unknown;
            for op in script {
                last = world.perform(&session, op).await;
            }
            last
        })
    }

    async fn perform(&self, session: &Session, op: Op) -> Observed {
        let call = op.call();
        let number = {
            let operation = Operation { op, watched_in: None, invoked: self.now(), returned: None };
            let mut history = self.history.lock();
            history.push(operation);
            history.len() - 1
        };
        let mut outcome = session.execute(call.clone()).await;
        while let Err(ExecuteError::Unknown(request)) = outcome {
            outcome = session.retry(request, call.clone()).await;
        }
        let observed = match outcome {
            Ok(result) => Observed::Result(result),
            // It had no effect, and has none later.
            Err(ExecuteError::Aborted(_) | ExecuteError::Refused(_)) => Observed::Aborted,
            Err(ExecuteError::Expired | ExecuteError::Unknown(_)) => Observed::Unknown,
        };
        self.history.lock()[number].returned = Some((self.now(), observed.clone()));
        observed
    }

    fn now(&self) -> u64 {
        let mut time = self.time.lock();
        *time += 1;
        *time
    }

    pub fn history(&self) -> Vec<Operation> {
        self.history.lock().clone()
    }
}

fn start_node(
    node: NodeId,
    wires: &Arc<Wires>,
    clock: &Arc<dyn Clock>,
    config: ServiceConfig,
) -> Node {
    let gate = Arc::new(ReplyGate::new());
    let services = Arc::new(NodeServices::new(
        node,
        Arc::new(End(Arc::clone(wires))),
        Arc::new(End(Arc::clone(wires))),
        Arc::clone(&gate),
        Arc::clone(clock),
        config,
    ));
    wires.connect(node, &services);
    Node { services, gate }
}

fn start_sequencer(services: &NodeServices, map: ShardMap) -> (Arc<MemLog>, Arc<SequencerReplica>) {
    let replica = SequencerReplica::open(Arc::new(MemStore::default()), 0).unwrap();
    let applying = Arc::clone(&replica);
    let log = MemLog::start(
        SEQUENCER,
        Box::new(move |entries| drop(applying.apply(entries, Blob::new()).unwrap())),
    );
    let initial_map = Arc::new(move || Some((map.clone(), RETENTION_MILLIS)));
    let group: Arc<dyn GroupLog> = Arc::<MemLog>::clone(&log);
    services.set_sequencer(Arc::clone(&replica), group, initial_map);
    (log, replica)
}

/// Whether a client ends although something is held back.
pub async fn ends(client: &mut JoinHandle<Observed>) -> bool {
    tokio::time::timeout(PATIENCE, client).await.is_ok()
}
