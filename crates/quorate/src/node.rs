//! A node: all layers put together.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_calvin::{Client, NodeServices, ReplyGate, Session, WirePeers};
use quorate_crdt::Registry;
use quorate_engine::Engine;
use quorate_gossip::Driver;
use quorate_meta::{IdentityFile, Membership, MetadataClient};
use quorate_migration::{Executor, MigrationStateTable};
use quorate_placement::{RateMeter, SchedulerHandle};
use quorate_raft::Host;
use quorate_raft::admin::AdminClient;
use quorate_raft::tcp::{Mesh, Service};
use quorate_types::disk::Disk;
use quorate_types::env::Clock;
use quorate_types::{ClusterId, Epoch, NodeId, watch};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::builder::NodeBuilder;
use crate::config::NodeConfig;
use crate::directory::Directory;
use crate::error::NodeError;
use crate::hosting::Hosting;
use crate::network::Switch;

/// Without watermarks for so long the sequencer is gone, or this node is cut
/// off; an election takes a second or two.
const WATERMARK_AGE_MAX: Duration = Duration::from_secs(5);

/// Everything a running node consists of.
pub(crate) struct NodeInner {
    pub(crate) node: NodeId,
    pub(crate) address: String,
    pub(crate) config: NodeConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) table: Mutex<MigrationStateTable>,
    pub(crate) identity: Arc<IdentityFile>,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) host: Host,
    pub(crate) registry: Arc<Mutex<Registry>>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) calls: Arc<WirePeers>,
    pub(crate) services: Arc<NodeServices>,
    pub(crate) gate: Arc<ReplyGate>,
    pub(crate) metadata: Arc<MetadataClient>,
    pub(crate) membership: Arc<Membership>,
    pub(crate) hosting: Arc<Hosting>,
    pub(crate) gossip: Arc<Driver>,
    pub(crate) load_meter: Mutex<RateMeter>,
    pub(crate) groups: AdminClient,
    pub(crate) authority: watch::Sender<Option<u64>>,
    pub(crate) executor: Mutex<Option<Executor>>,
}

impl NodeInner {
    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        self.identity.identity().cluster
    }

    /// Runs the replicas that earlier lives of this node had.
    pub(crate) async fn reopen(&self) -> Result<(), NodeError> {
        for (group, replica) in self.host.log().groups() {
            self.hosting.open(group, replica).await?;
        }
        Ok(())
    }

    pub(crate) fn tell_executor(&self, word: impl FnOnce(&Executor)) {
        if let Some(executor) = self.executor.lock().as_ref() {
            word(executor);
        }
    }

    /// Whether this node can route any command, and can expect an answer: the
    /// watermarks, without which no reply leaves, keep coming.
    fn readiness(&self) -> Result<(), &'static str> {
        if self.cluster().is_none() {
            return Err("the node is no member yet: are the other founders, or those to join, up?");
        }
        if !self.directory.is_complete() {
            return Err("the node does not know yet where every key is");
        }
        // Requests are dated by the watermark: without one they would be born
        // before everything that is remembered.
        let is_dated = self.gate.known().logged > Epoch(0);
        match self.services.watermark_age().filter(|_| is_dated) {
            None => Err("the node has not heard of the sequencer yet"),
            Some(age) if age > WATERMARK_AGE_MAX => {
                Err("the sequencer has no majority, or this node is cut off from it")
            }
            Some(_) => Ok(()),
        }
    }
}

/// A running node. Dropping it ends it at once, as a crash would;
/// [`Node::shutdown`] says goodbye first.
pub struct Node {
    pub(crate) inner: Arc<NodeInner>,
    pub(crate) client: Arc<Client>,
    pub(crate) tasks: Vec<AbortHandle>,
    pub(crate) scheduler: Mutex<Option<SchedulerHandle>>,
    pub(crate) failures: watch::Receiver<Option<Arc<NodeError>>>,
    pub(crate) switch: Arc<Switch>,
    pub(crate) mesh: Option<Mesh>,
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
        self.readiness().is_ok()
    }

    /// Whether the node can answer commands now.
    ///
    /// # Errors
    /// Why not, in words for an operator.
    pub fn readiness(&self) -> Result<(), String> {
        match self.failure() {
            Some(error) => Err(error.to_string()),
            None => self.inner.readiness().map_err(str::to_owned),
        }
    }

    /// Waits until the node serves.
    ///
    /// # Errors
    /// What [`Node::failure`] tells, for instance [`NodeError::Refused`] when
    /// the cluster does not take the node.
    pub async fn serving(&self) -> Result<(), Arc<NodeError>> {
        const LOOK_EVERY: Duration = Duration::from_millis(20);
        loop {
            if let Some(error) = self.failure() {
                return Err(error);
            }
            if self.is_serving() {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Why the node could not become a member or cannot go on, if so: then it
    /// is to be stopped.
    #[must_use]
    pub fn failure(&self) -> Option<Arc<NodeError>> {
        self.failures.borrow().clone()
    }

    /// Leaves gracefully: tells the others, stops replicas, closes the stores.
    ///
    /// # Errors
    /// When a store could not be closed; nothing acknowledged is lost by that.
    pub async fn shutdown(&self) -> Result<(), NodeError> {
        let scheduler = self.scheduler.lock().take();
        if let Some(scheduler) = scheduler {
            scheduler.stop().await;
        }
        let executor = self.inner.executor.lock().take();
        if let Some(executor) = executor {
            executor.stop().await;
        }
        self.inner.gossip.leave().await;
        let stopped = self.inner.host.shutdown().await;
        self.inner.engine.close().await.map_err(|error| NodeError::layer("engine", error))?;
        stopped.map_err(|error| NodeError::layer("raft", error))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        if let Some(mesh) = &self.mesh {
            mesh.shutdown();
        }
        self.inner.gossip.shutdown();
    }
}
