//! A node: all layers put together.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_calvin::{Client, NodeServices, ReplyGate, Router, Session};
use quorate_crdt::Registry;
use quorate_engine::Engine;
use quorate_gossip::Driver;
use quorate_meta::{IdentityFile, Membership, MetadataClient};
use quorate_migration::Executor;
use quorate_placement::SchedulerHandle;
use quorate_raft::tcp::Service;
use quorate_raft::{Group, Host, RaftError};
use quorate_types::env::Clock;
use quorate_types::runtime::BoxFuture;
use quorate_types::{
    Blob, ClusterId, Epoch, GroupId, KeyRange, MigrationId, NodeId, ReplicaId, Seq, watch,
};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::builder::NodeBuilder;
use crate::config::NodeConfig;
use crate::control::{
    Control, ControlReply, ControlRequest, GroupChange, GroupProgress, MemberProgress, WireFence,
};
use crate::directory::Directory;
use crate::error::NodeError;
use crate::gossip::LoadMeter;
use crate::hosting::Hosting;
use crate::listen::Listener;
use crate::moves::Fences;
use crate::network::{NodePeers, Switch};

/// Everything a running node consists of.
pub(crate) struct NodeInner {
    pub(crate) node: NodeId,
    pub(crate) address: String,
    pub(crate) config: NodeConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) identity: Arc<IdentityFile>,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) host: Host,
    pub(crate) registry: Arc<Mutex<Registry>>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) peers: Arc<NodePeers>,
    pub(crate) services: Arc<NodeServices>,
    pub(crate) gate: Arc<ReplyGate>,
    pub(crate) metadata: Arc<MetadataClient>,
    pub(crate) membership: Arc<Membership>,
    pub(crate) hosting: Arc<Hosting>,
    pub(crate) gossip: Arc<Driver>,
    pub(crate) load_meter: LoadMeter,
    pub(crate) fences: Fences,
    pub(crate) authority: watch::Sender<Option<u64>>,
    pub(crate) cluster: watch::Sender<Option<ClusterId>>,
    pub(crate) executor: Mutex<Option<Executor>>,
    pub(crate) this: Weak<NodeInner>,
}

impl NodeInner {
    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        self.identity.identity().cluster
    }

    /// Persists the hybrid clock's mark before timestamps beyond it are used.
    pub(crate) fn keep_clock(&self, high_water_millis: u64) {
        if let Err(error) = self.identity.keep_clock(high_water_millis) {
            tracing::error!(%error, "the clock's mark cannot be kept");
        }
    }

    /// Runs the replicas that earlier lives of this node had.
    pub(crate) async fn reopen(&self) -> Result<(), NodeError> {
        for (group, replica) in self.host.log().groups() {
            self.hosting.open(group, replica).await?;
        }
        Ok(())
    }

    /// Makes it known to gossip and in handshakes that the node is a member.
    pub(crate) fn adopt(&self, cluster: ClusterId) {
        self.gossip.set_cluster(cluster);
        self.cluster.send(Some(cluster));
    }

    pub(crate) fn wake_executor(&self) {
        if let Some(executor) = self.executor.lock().as_ref() {
            executor.wake();
        }
    }

    pub(crate) fn cancel_migration(&self, id: MigrationId) {
        if let Some(executor) = self.executor.lock().as_ref() {
            executor.cancel(id);
        }
    }

    /// Does what a group's leader is asked to do, if this node leads it.
    pub(crate) async fn lead(
        &self,
        group: GroupId,
        change: GroupChange,
        fence: Option<WireFence>,
    ) -> ControlReply {
        let Some(raft) = self.host.group(group) else { return ControlReply::NotLeader(None) };
        let leadership = *raft.leadership().borrow();
        if !leadership.leading {
            return ControlReply::NotLeader(leadership.leader);
        }
        if fence.is_some_and(|fence| !self.fences.admits(fence)) {
            return ControlReply::Refused("a later attempt of the migration has acted".into());
        }
        let outcome = match change {
            GroupChange::Progress => return progress(&raft).await,
            GroupChange::Transfer(to) => return transfer(&raft, to).await,
            GroupChange::AddLearner(replica, node) => raft.add_learner(replica, node).await,
            GroupChange::RemoveLearner(replica) => raft.remove_learner(replica).await,
            GroupChange::Voters(add, remove) => {
                let now = raft.status().voters.into_iter().map(|(replica, _)| replica);
                let kept = now.filter(|replica| Some(*replica) != remove);
                raft.set_voters(kept.chain(add).collect()).await
            }
        };
        reply(outcome.map(|()| 0))
    }

    pub(crate) async fn destroy(&self, group: GroupId, replica: ReplicaId) -> ControlReply {
        match self.hosting.destroy(group, replica).await {
            Ok(()) => ControlReply::Done(0),
            Err(error) => ControlReply::Unavailable(error.to_string().as_str().into()),
        }
    }

    /// Whether this node can route any command.
    fn is_serving(&self) -> bool {
        let routes = self.directory.overlapping(&KeyRange::all());
        let mut end = Some(Blob::new());
        for route in &routes {
            if end.as_ref() != Some(&route.range.start) {
                return false;
            }
            end.clone_from(&route.range.end);
        }
        // Requests are dated by the watermark: without one they would be born
        // before everything that is remembered.
        let is_dated = self.gate.known().logged > Epoch(0);
        !routes.is_empty() && end.is_none() && is_dated && self.cluster().is_some()
    }
}

fn reply(outcome: Result<u64, RaftError>) -> ControlReply {
    match outcome {
        Ok(value) => ControlReply::Done(value),
        Err(RaftError::NotLeader { leader }) => ControlReply::NotLeader(leader),
        Err(RaftError::Refused(reason)) => ControlReply::Refused(reason.as_str().into()),
        Err(error) => ControlReply::Unavailable(error.to_string().as_str().into()),
    }
}

/// A group's progress, after a round that confirmed the leadership.
async fn progress(raft: &Group) -> ControlReply {
    if raft.read_index().await.is_err() {
        return ControlReply::Unavailable("leadership could not be confirmed".into());
    }
    let status = raft.status();
    let last_log = status.last_log.unwrap_or_default();
    let member = |(replica, _): &(ReplicaId, NodeId), is_voter| {
        let is_self = *replica == status.replica;
        MemberProgress {
            replica: *replica,
            is_voter,
            matched: match status.matched.get(replica) {
                _ if is_self => last_log,
                matched => matched.copied().unwrap_or_default(),
            },
            is_fresh: is_self || status.fresh.contains(replica),
        }
    };
    let voters = status.voters.iter().map(|voter| member(voter, true));
    let learners = status.learners.iter().map(|learner| member(learner, false));
    ControlReply::Progress(GroupProgress {
        leader: status.replica,
        last_log,
        members: voters.chain(learners).collect(),
        outgoing: status.outgoing.map(|voters| voters.into_iter().collect::<Seq<_>>()),
    })
}

/// Transfers the leadership and measures how long nobody led.
async fn transfer(raft: &Group, to: ReplicaId) -> ControlReply {
    let started = tokio::time::Instant::now();
    let term = raft.leadership().borrow().term;
    if let Err(error) = raft.transfer_leader(to).await {
        return reply(Err(error));
    }
    let mut leadership = raft.leadership();
    let elected = leadership.wait_for(|now| now.term > term && now.leader.is_some());
    match tokio::time::timeout(Duration::from_secs(5), elected).await {
        Ok(Ok(_)) => {
            let pause = started.elapsed().as_micros();
            ControlReply::Done(u64::try_from(pause).unwrap_or(u64::MAX).max(1))
        }
        Ok(Err(_)) | Err(_) => ControlReply::Unavailable("no leader was elected in time".into()),
    }
}

impl Control for NodeInner {
    fn handle(&self, request: ControlRequest) -> BoxFuture<ControlReply> {
        let this = Weak::clone(&self.this);
        Box::pin(async move {
            let Some(inner) = this.upgrade() else {
                return ControlReply::Unavailable("the node is stopping".into());
            };
            match request {
                ControlRequest::Group { group, change, fence } => {
                    inner.lead(group, change, fence).await
                }
                ControlRequest::Destroy { group, replica } => inner.destroy(group, replica).await,
                ControlRequest::MiddleKey(shard) => {
                    ControlReply::Key(inner.engine.middle_key(shard).ok().flatten())
                }
            }
        })
    }

    fn membership(&self) -> Arc<Membership> {
        Arc::clone(&self.membership)
    }
}

/// A running node. Dropping it ends it at once, as a crash would;
/// [`Node::shutdown`] says goodbye first.
pub struct Node {
    pub(crate) inner: Arc<NodeInner>,
    pub(crate) client: Arc<Client>,
    pub(crate) tasks: Vec<AbortHandle>,
    pub(crate) scheduler: Option<SchedulerHandle>,
    pub(crate) membership: watch::Receiver<Option<Arc<NodeError>>>,
    pub(crate) switch: Arc<Switch>,
    pub(crate) listener: Option<Arc<Listener>>,
    /// Ends the replicas when it is dropped with the node.
    pub(crate) _alive: oneshot::Sender<Infallible>,
}

impl Node {
    /// Begins to put a node together.
    #[must_use]
    pub fn builder(config: NodeConfig) -> NodeBuilder {
        NodeBuilder::new(config)
    }

    /// The node's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.inner.node
    }

    /// Where it listens for other nodes.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.inner.address
    }

    /// Opens a session that runs transactions.
    #[must_use]
    pub fn session(&self) -> Session {
        self.client.session()
    }

    /// Opens a session whose unknown outcomes are never resolved.
    #[must_use]
    pub fn forgetful_session(&self) -> Session {
        self.client.forgetful_session()
    }

    /// What answers other nodes, for a [`NodeBuilder::network`] to bring their
    /// requests to.
    #[must_use]
    pub fn service(&self) -> Arc<dyn Service> {
        Arc::<Switch>::clone(&self.switch)
    }

    /// The client core that sessions share.
    #[must_use]
    pub const fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Whether the node can answer commands now.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.inner.is_serving()
    }

    /// Waits until the node serves.
    ///
    /// # Errors
    /// [`NodeError::Refused`] when the cluster does not take the node.
    pub async fn serving(&self) -> Result<(), Arc<NodeError>> {
        const LOOK_EVERY: Duration = Duration::from_millis(20);
        loop {
            if let Some(error) = self.membership.borrow().clone() {
                return Err(error);
            }
            if self.is_serving() {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Why the node could not become or stay a member, if so.
    #[must_use]
    pub fn failure(&self) -> Option<Arc<NodeError>> {
        self.membership.borrow().clone()
    }

    /// Leaves gracefully: tells the others, flushes the engine, ends.
    ///
    /// # Errors
    /// When the engine or the log could not be flushed; nothing acknowledged
    /// is lost by that.
    pub async fn shutdown(mut self) -> Result<(), NodeError> {
        if let Some(scheduler) = self.scheduler.take() {
            scheduler.stop().await;
        }
        let executor = self.inner.executor.lock().take();
        if let Some(executor) = executor {
            executor.stop().await;
        }
        self.inner.gossip.leave().await;
        self.inner.host.shutdown().await.map_err(|error| NodeError::layer("raft", error))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        if let Some(listener) = &self.listener {
            listener.close();
        }
        self.inner.gossip.shutdown();
    }
}

/// The addresses of the founding nodes.
pub(crate) fn known_addresses(config: &NodeConfig) -> BTreeMap<NodeId, String> {
    config.initial_cluster.iter().cloned().collect()
}
