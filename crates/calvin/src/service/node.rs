//! A node's switchboard: which replica a message or request is for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use quorate_types::env::Clock;
use quorate_types::{Blob, KeyRange, NodeId, ShardId};

use super::gauges::Gauges;
use super::sequencer::{InitialMap, SequencerReplica, SequencerService};
use super::shard::{ShardReplica, ShardService, Surroundings};
use crate::ports::{Destination, GroupLog, Peers, Router};
use crate::reply_gate::ReplyGate;
use crate::sequencer::SequencerLimits;
use crate::wire::{PeerMessage, Reply, Request};

/// How long another node may look for the middle of a shard: it reads all of it.
const MIDDLE_KEY_DEADLINE: Duration = Duration::from_secs(3);

/// Limits and intervals of the services.
#[derive(Clone, Copy, Debug)]
pub struct ServiceConfig {
    /// Requests that may wait at one shard or at the sequencer.
    pub waiters_max: usize,
    /// Transactions that may wait in one shard's gate before new direct
    /// commands are refused.
    pub pending_max: usize,
    /// Requests a shard remembers before new ones are refused.
    pub remembered_max: usize,
    /// How often lost messages are repeated.
    pub tick: Duration,
    /// How long a call between nodes may take.
    pub call_deadline: Duration,
    /// The sequencer's own limits.
    pub sequencer: SequencerLimits,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            waiters_max: 65_536,
            pending_max: 16_384,
            remembered_max: 1_048_576,
            tick: Duration::from_millis(200),
            call_deadline: Duration::from_secs(2),
            sequencer: SequencerLimits::default(),
        }
    }
}

/// All transaction services of one node.
pub struct NodeServices {
    around: Surroundings,
    shards: RwLock<BTreeMap<ShardId, Arc<ShardService>>>,
    sequencer: RwLock<Option<Arc<SequencerService>>>,
    /// When the sequencer's leader was last heard, by the monotonic clock.
    heard_at: Mutex<Option<Duration>>,
}

impl NodeServices {
    /// A node without replicas yet.
    #[must_use]
    pub fn new(
        node: NodeId,
        peers: Arc<dyn Peers>,
        router: Arc<dyn Router>,
        gate: Arc<ReplyGate>,
        clock: Arc<dyn Clock>,
        config: ServiceConfig,
    ) -> Self {
        let around = Surroundings { node, peers, router, gate, clock, config };
        Self {
            around,
            shards: RwLock::default(),
            sequencer: RwLock::default(),
            heard_at: Mutex::default(),
        }
    }

    /// Starts serving a shard replica.
    pub fn add_shard(&self, replica: Arc<ShardReplica>, log: Arc<dyn GroupLog>) {
        let service = ShardService::start(replica, log, self.around.clone());
        self.shards.write().insert(service.shard(), service);
    }

    /// Stops serving a shard.
    pub fn remove_shard(&self, shard: ShardId) {
        self.shards.write().remove(&shard);
    }

    /// Starts serving the sequencer replica.
    pub fn set_sequencer(
        &self,
        replica: Arc<SequencerReplica>,
        log: Arc<dyn GroupLog>,
        initial_map: InitialMap,
    ) {
        let service = SequencerService::start(replica, log, self.around.clone(), initial_map);
        *self.sequencer.write() = Some(service);
    }

    /// Stops serving the sequencer.
    pub fn remove_sequencer(&self) {
        *self.sequencer.write() = None;
    }

    /// How long ago the sequencer's leader told the watermarks; it repeats
    /// them every [`ServiceConfig::tick`]. `None` before the first time.
    #[must_use]
    pub fn watermark_age(&self) -> Option<Duration> {
        let now = self.around.clock.monotonic();
        self.heard_at.lock().map(|heard| now.saturating_sub(heard))
    }

    /// How much the services hold at the moment.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let mut gauges = Gauges::default();
        self.shards().iter().for_each(|shard| shard.measure(&mut gauges));
        if let Some(sequencer) = self.sequencer() {
            sequencer.measure(&mut gauges);
        }
        gauges
    }

    /// A shard's service, if the node has a replica.
    #[must_use]
    pub fn shard(&self, shard: ShardId) -> Option<Arc<ShardService>> {
        self.shards.read().get(&shard).cloned()
    }

    /// The services of all shards here, ascending.
    #[must_use]
    pub fn shards(&self) -> Vec<Arc<ShardService>> {
        self.shards.read().values().cloned().collect()
    }

    /// The sequencer's service, if the node has a replica.
    #[must_use]
    pub fn sequencer(&self) -> Option<Arc<SequencerService>> {
        self.sequencer.read().clone()
    }

    /// A short key in the middle of a shard's data: by this node's replica, or
    /// else by the first that tells of those a route names. `None` when there
    /// are fewer than two rows, or nobody can tell.
    pub async fn middle_key(&self, shard: ShardId) -> Option<Blob> {
        if let Some(own) = self.shard(shard)
            && let Reply::MiddleKey(key) = own.middle_key()
        {
            return key;
        }
        let Surroundings { node, peers, router, .. } = &self.around;
        let routes = router.overlapping(&KeyRange::all());
        let route = routes.into_iter().find(|route| route.shard == shard)?;
        for other in route.voters.into_iter().filter(|voter| voter != node) {
            let asked = peers.call(other, Request::MiddleKey(shard), MIDDLE_KEY_DEADLINE);
            if let Ok(Reply::MiddleKey(Some(key))) = asked.await {
                return Some(key);
            }
        }
        None
    }

    /// Handles a one-way message.
    pub fn handle(&self, message: PeerMessage) {
        match message {
            PeerMessage::Contribute { to, .. }
            | PeerMessage::Ask { to, .. }
            | PeerMessage::Slices { to, .. } => {
                if let Some(shard) = self.shard(to) {
                    shard.handle(message);
                }
            }
            PeerMessage::Report { shard, cursor, done } => {
                if let Some(sequencer) = self.sequencer() {
                    sequencer.reported(shard, cursor, done);
                }
            }
            PeerMessage::Watermarks { leader, marks } => {
                *self.heard_at.lock() = Some(self.around.clock.monotonic());
                self.around.router.learned(Destination::Sequencer, Some(leader));
                self.around.gate.learn(marks);
            }
        }
    }

    /// Handles a request to its reply.
    pub async fn serve(&self, request: Request) -> Reply {
        match request {
            Request::Execute(execute) => match self.shard(execute.shard) {
                Some(shard) => shard.execute(execute).await,
                None => Reply::NotLeader(None),
            },
            Request::Await { shard, request, txn } => match self.shard(shard) {
                Some(shard) => shard.await_decision(request, txn).await,
                None => Reply::NotLeader(None),
            },
            Request::Fence { shard, request, home } => match self.shard(shard) {
                Some(shard) => shard.fence(request, home).await,
                None => Reply::NotLeader(None),
            },
            Request::Keys { shard, from, limit } => match self.shard(shard) {
                Some(shard) => shard.keys(from, limit),
                None => Reply::NotLeader(None),
            },
            Request::MiddleKey(shard) => match self.shard(shard) {
                Some(shard) => shard.middle_key(),
                None => Reply::NotLeader(None),
            },
            Request::Submit(submission) => match self.sequencer() {
                Some(sequencer) => sequencer.submit(submission).await,
                None => Reply::NotLeader(None),
            },
            Request::Change(change) => match self.sequencer() {
                Some(sequencer) => sequencer.change(change).await,
                None => Reply::NotLeader(None),
            },
            Request::Map => match self.sequencer() {
                Some(sequencer) => sequencer.map(),
                None => Reply::NotLeader(None),
            },
            Request::Slices { shard, after } => match self.sequencer() {
                Some(sequencer) => sequencer.slices(shard, after),
                None => Reply::NotLeader(None),
            },
        }
    }
}
