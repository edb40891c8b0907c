//! Putting a node together: every layer can be replaced through its port.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use quorate_calvin::kv::KeyValue;
use quorate_calvin::{Client, NodeServices, Peers, Procedures, ReplyGate, Router, WirePeers};
use quorate_crdt::{Limits, Origin, Registry, RegistryConfig};
use quorate_engine::{Engine, RedbConfig, RedbEngine};
use quorate_gossip::{Driver, Inbound, Setup, TcpConfig, Transport};
use quorate_meta::{IdentityFile, Membership, MembershipConfig, MetadataClient, NodeSpec};
use quorate_migration::{Executor, MigrationStateTable, SharedJournal, TableConfig};
use quorate_placement::{
    CheckedProposer, LexicographicPolicy, PlacementPolicy, Scheduler, SchedulerHandle,
};
use quorate_raft::admin::AdminClient;
use quorate_raft::tcp::{Mesh, MeshConfig};
use quorate_raft::{ChannelTransport, DurableLog, Host, LogConfig, LogEngine, LogMedium, Network};
use quorate_types::disk::{DeferredDisk, DirectoryDisk, Disk};
use quorate_types::env::{Clock, SystemClock};
use quorate_types::hello::Protocol;
use quorate_types::{Blob, runtime, watch};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::config::NodeConfig;
use crate::directory::{Directory, Places, candidates};
use crate::error::NodeError;
use crate::gossip::report;
use crate::hosting::Hosting;
use crate::listen::{Book, Door};
use crate::moves::{GroupControl, MetadataRows};
use crate::network::{Introduce, NodePeers, Switch, channel};
use crate::node::{Node, NodeInner};
use crate::placing::Placing;
use crate::projection;

/// The engine's file in the node's directory.
pub(crate) const ENGINE_FILE: &str = "engine.redb";
/// What the names of the log's files begin with.
pub(crate) const LOG: &str = "log";

/// The ways to other nodes.
enum Links {
    Tcp(TcpListener),
    Other(Arc<dyn Network>, Arc<dyn Transport>, mpsc::Receiver<Inbound>),
}

/// The ways to other nodes, with what comes in over them.
struct Ways {
    network: Arc<dyn Network>,
    gossip: Option<(Arc<dyn Transport>, mpsc::Receiver<Inbound>)>,
    tcp: Option<(Mesh, TcpListener, Book)>,
}

impl Links {
    fn open(self, directory: &Arc<Directory>, introduce: &Introduce) -> Ways {
        match self {
            Self::Other(network, transport, inbound) => {
                Ways { network, gossip: Some((transport, inbound)), tcp: None }
            }
            Self::Tcp(socket) => {
                let hello = Arc::clone(introduce);
                let book = Book { directory: Arc::clone(directory), introduce: Arc::clone(&hello) };
                let mesh = Mesh::new(MeshConfig::default(), move || hello(), book.clone());
                let network = Arc::new(mesh.clone());
                Ways { network, gossip: None, tcp: Some((mesh, socket, book)) }
            }
        }
    }
}

/// What is not the default.
#[derive(Default)]
struct Replaced {
    disk: Option<Arc<dyn Disk>>,
    engine: Option<Arc<dyn Engine>>,
    log: Option<Arc<dyn LogEngine>>,
    procedures: Option<Arc<dyn Procedures>>,
    policy: Option<Arc<dyn PlacementPolicy>>,
    clock: Option<Arc<dyn Clock>>,
    links: Option<Links>,
}

/// Puts a [`Node`] together. What is not replaced is the default.
pub struct NodeBuilder {
    config: NodeConfig,
    replaced: Replaced,
}

impl NodeBuilder {
    pub(crate) fn new(config: NodeConfig) -> Self {
        Self { config, replaced: Replaced::default() }
    }

    /// Replaces the directory by another disk.
    #[must_use]
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.replaced.disk = Some(disk);
        self
    }

    /// Replaces the storage engine.
    #[must_use]
    pub fn engine(mut self, engine: Arc<dyn Engine>) -> Self {
        self.replaced.engine = Some(engine);
        self
    }

    /// Replaces the Raft log's storage.
    #[must_use]
    pub fn log(mut self, log: Arc<dyn LogEngine>) -> Self {
        self.replaced.log = Some(log);
        self
    }

    /// Sets the transaction procedures; [`KeyValue`] unless replaced.
    #[must_use]
    pub fn procedures(mut self, procedures: Arc<dyn Procedures>) -> Self {
        self.replaced.procedures = Some(procedures);
        self
    }

    /// Replaces the placement policy.
    #[must_use]
    pub fn placement(mut self, policy: Arc<dyn PlacementPolicy>) -> Self {
        self.replaced.policy = Some(policy);
        self
    }

    /// Replaces the clocks.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.replaced.clock = Some(clock);
        self
    }

    /// Uses a listener that is already bound, for instance to a port that the
    /// operating system chose.
    #[must_use]
    pub fn listener(mut self, listener: TcpListener) -> Self {
        self.replaced.links = Some(Links::Tcp(listener));
        self
    }

    /// Replaces TCP: by a network whose requests go to [`Node::service`] on the
    /// other side, and gossip's transport with what comes in over it.
    #[must_use]
    pub fn network(
        mut self,
        network: Arc<dyn Network>,
        gossip: Arc<dyn Transport>,
        inbound: mpsc::Receiver<Inbound>,
    ) -> Self {
        self.replaced.links = Some(Links::Other(network, gossip, inbound));
        self
    }

    /// Starts the node. It serves once [`Node::serving`] returns.
    ///
    /// # Errors
    /// [`NodeError`], with what to do about it; nothing that the directory
    /// held was changed.
    pub async fn start(self) -> Result<Node, NodeError> {
        let Self { config, mut replaced } = self;
        config.validate()?;
        // Before a directory is made for a node that cannot run here.
        let (links, address) = listen(replaced.links.take(), &config.address).await?;
        let disk = match replaced.disk.take() {
            Some(disk) => disk,
            None => Arc::new(DirectoryDisk::open(&config.directory).map_err(NodeError::Disk)?),
        };
        let identity = Arc::new(IdentityFile::open(&*disk, config.node)?);
        Parts { config, disk, identity, links, address, replaced }.assemble().await
    }
}

async fn listen(given: Option<Links>, address: &str) -> Result<(Links, String), NodeError> {
    let failed = |source| NodeError::Listen { address: address.to_owned(), source };
    let listener = match given {
        Some(Links::Tcp(listener)) => listener,
        Some(other) => return Ok((other, address.to_owned())),
        None => TcpListener::bind(address).await.map_err(failed)?,
    };
    let bound = listener.local_addr().map_err(failed)?;
    // A port that was chosen by the system is only known now.
    let shown = if address.ends_with(":0") { bound.to_string() } else { address.to_owned() };
    Ok((Links::Tcp(listener), shown))
}

struct Parts {
    config: NodeConfig,
    disk: Arc<dyn Disk>,
    identity: Arc<IdentityFile>,
    links: Links,
    address: String,
    replaced: Replaced,
}

/// What a node keeps on its disk.
struct Stores {
    log: Arc<dyn LogEngine>,
    engine: Arc<dyn Engine>,
    table: MigrationStateTable,
}

impl Stores {
    /// Opens the stores of a node that is welcome in its cluster, save those
    /// that are given. Only when all are sound is any changed and this life
    /// counted.
    fn open(
        disk: Arc<dyn Disk>,
        identity: &IdentityFile,
        medium: LogMedium,
        log: Option<Arc<dyn LogEngine>>,
        engine: Option<Arc<dyn Engine>>,
    ) -> Result<Self, NodeError> {
        let log_failed = |error| NodeError::store(LOG, &error);
        let found = log.is_none().then(|| DurableLog::find(&*disk, LOG));
        let found = found.transpose().map_err(log_failed)?.flatten();
        let own = [found.as_deref(), engine.is_none().then_some(ENGINE_FILE)];
        identity.claim(&*disk, own.into_iter().flatten())?;
        let deferred = Arc::new(DeferredDisk::over(disk));
        let (disk, owner) = (&*deferred, Some(identity.owner()));
        let log = match log {
            Some(log) => log,
            None => {
                let config = LogConfig { medium, owner, ..LogConfig::default() };
                let opened = DurableLog::open(Arc::<DeferredDisk>::clone(&deferred), LOG, config);
                Arc::new(opened.map_err(log_failed)?)
            }
        };
        let engine = match engine {
            Some(engine) => engine,
            None => {
                let config = RedbConfig { owner, ..RedbConfig::default() };
                let opened = RedbEngine::open(disk, ENGINE_FILE, config);
                Arc::new(opened.map_err(|error| NodeError::store(ENGINE_FILE, &error))?)
            }
        };
        let table = MigrationStateTable::open(disk, TableConfig::default())
            .map_err(|error| NodeError::store(&TableConfig::default().file, &error))?;
        deferred.land().map_err(NodeError::Disk)?;
        identity.begin()?;
        Ok(Self { log, engine, table })
    }
}

impl Parts {
    async fn assemble(self) -> Result<Node, NodeError> {
        let node = self.config.node;
        let clock = self.replaced.clock.unwrap_or_else(SystemClock::shared);
        let (who, address) = (self.identity.identity(), self.address);
        let introduce: Introduce = {
            let (identity, address) = (Arc::clone(&self.identity), Blob::from(address.as_str()));
            Arc::new(move || identity.identity().hello(Protocol::Mesh, address.clone()))
        };
        let registry = Arc::new(Mutex::new(Registry::new(RegistryConfig {
            origin: Origin { node, incarnation: who.incarnation },
            high_water_millis: who.clock_millis,
            limits: Limits::default(),
        })));
        let mut addresses: BTreeMap<_, _> = self.config.initial_cluster.iter().cloned().collect();
        addresses.insert(node, address.clone());
        let known = Arc::new(quorate_meta::Directory::new(node, addresses));
        let places = Places { known: Arc::clone(&known), registry: Arc::clone(&registry) };
        let directory = Arc::new(Directory::new(node, places));
        let Ways { network, gossip, tcp } = self.links.open(&directory, &introduce);
        let peers = Arc::new(NodePeers {
            network: Arc::clone(&network),
            directory: Arc::clone(&directory),
            introduce: Arc::clone(&introduce),
        });
        let membership = MembershipConfig {
            own: NodeSpec::new(node, who.disk, address.clone(), self.config.labels.clone()),
            initial: self.config.initial(),
            join: self.config.join.clone(),
        };
        membership.ask_around(&*peers).await?;
        let (log, engine) = (self.replaced.log, self.replaced.engine);
        let Stores { log, engine, table } =
            Stores::open(Arc::clone(&self.disk), &self.identity, self.config.log, log, engine)?;
        let calls = Arc::new(WirePeers::new(node, Arc::<NodePeers>::clone(&peers)));
        let gate = Arc::new(ReplyGate::new());
        let services = Arc::new(NodeServices::new(
            node,
            Arc::<WirePeers>::clone(&calls) as Arc<dyn Peers>,
            Arc::<Directory>::clone(&directory) as Arc<dyn Router>,
            Arc::clone(&gate),
            Arc::clone(&clock),
            self.config.services,
        ));
        calls.connect(&services);
        let transport = |channel| ChannelTransport::new(Arc::clone(&network), channel);
        let raft_transport = Arc::new(transport(channel::RAFT));
        let host = Host::open(self.config.raft.clone(), log, raft_transport)
            .map_err(|error| NodeError::layer("raft", error))?;
        let asked = Arc::clone(&directory);
        let groups = AdminClient::new(
            node,
            host.clone(),
            Arc::new(transport(channel::ADMIN)),
            move |group| candidates(&asked, group),
        );
        let metadata = Arc::new(MetadataClient::new(known, peers));
        let (failure, failures) = watch::channel(None);
        let hosting = Arc::new_cyclic(|this| Hosting {
            node,
            host: host.clone(),
            engine: Arc::clone(&engine),
            procedures: self.replaced.procedures.unwrap_or_else(|| Arc::new(KeyValue)),
            services: Arc::clone(&services),
            directory: Arc::clone(&directory),
            metadata: Arc::clone(&metadata),
            proposal_deadline: self.config.proposal_deadline,
            retention: self.config.retention,
            forked: Mutex::default(),
            wake: Notify::new(),
            failure: failure.clone(),
            this: Weak::clone(this),
        });
        let home = Arc::downgrade(&hosting);
        host.belong_to(home);
        let membership = Arc::new(Membership::new(
            membership,
            Arc::clone(&metadata),
            Arc::clone(&self.identity),
            Arc::<Hosting>::clone(&hosting) as Arc<dyn quorate_meta::Host>,
        ));
        let setup = Setup {
            hello: introduce(),
            config: self.config.gossip.clone(),
            tcp: TcpConfig::default(),
            state: Arc::clone(&registry),
            clock: Arc::clone(&clock),
        };
        let gossip = match gossip {
            Some((transport, inbound)) => Driver::start_over(setup, transport, inbound),
            None => Driver::start(setup),
        };
        let gossip = Arc::new(gossip.map_err(|error| NodeError::layer("gossip", error))?);
        let (authority, authorities) = watch::channel(None);
        let inner = Arc::new(NodeInner {
            node,
            address,
            clock: Arc::clone(&clock),
            disk: self.disk,
            table: Mutex::new(table),
            identity: self.identity,
            engine,
            host: host.clone(),
            registry,
            directory: Arc::clone(&directory),
            calls: Arc::clone(&calls),
            services,
            gate: Arc::clone(&gate),
            metadata,
            membership,
            hosting: Arc::clone(&hosting),
            gossip: Arc::clone(&gossip),
            load_meter: Mutex::default(),
            groups,
            authority,
            executor: Mutex::new(None),
            config: self.config,
        });
        let switch = Arc::new(Switch(Arc::downgrade(&inner)));
        let mesh = tcp.map(|(mesh, socket, book)| {
            mesh.listen(socket, Arc::<Switch>::clone(&switch), Arc::new(Door { book, gossip }));
            mesh
        });
        inner.reopen().await?;
        *inner.executor.lock() = Some(inner.migrate(authorities));
        let policy = self.replaced.policy.unwrap_or_else(|| Arc::<LexicographicPolicy>::default());
        let scheduler = inner.schedule(policy)?;
        inner.gossip.join(&inner.membership.seeds());
        let tasks = inner.work(&failure);
        let (alive, ended) = oneshot::channel();
        drop(runtime::spawn(end_with(ended, host)));
        let client = Client::new(calls, directory, gate, inner.config.client);
        let scheduler = Mutex::new(scheduler);
        Ok(Node { inner, client, tasks, scheduler, failures, switch, mesh, _alive: alive })
    }
}

impl NodeInner {
    /// Starts the executor, which migrates while this node has the authority.
    fn migrate(self: &Arc<Self>, authorities: watch::Receiver<Option<u64>>) -> Executor {
        let rows = Arc::new(MetadataRows(Arc::clone(&self.metadata)));
        Executor::spawn(
            Arc::new(SharedJournal::new(rows)),
            Arc::new(GroupControl(Arc::downgrade(self))),
            authorities,
            quorate_migration::Config::new(self.node, Arc::clone(&self.clock)),
        )
    }

    /// Starts the placement's scheduler, unless it is turned off.
    fn schedule(
        self: &Arc<Self>,
        policy: Arc<dyn PlacementPolicy>,
    ) -> Result<Option<SchedulerHandle>, NodeError> {
        let Some(config) = self.config.scheduler.clone() else { return Ok(None) };
        let placing = Arc::new(Placing::new(Arc::downgrade(self)));
        let proposer = Arc::new(CheckedProposer::new(Arc::clone(&placing)));
        let scheduler = Scheduler::spawn(placing, proposer, policy, config);
        scheduler.map(Some).map_err(|error| NodeError::layer("placement", error))
    }

    /// Starts what a node does for as long as it lives.
    fn work(self: &Arc<Self>, failure: &watch::Sender<Option<Arc<NodeError>>>) -> Vec<AbortHandle> {
        let this = Arc::downgrade(self);
        let coordinator = Arc::clone(&self.metadata);
        let effects = Weak::clone(&this);
        let (member, refused) = (Arc::clone(self), failure.clone());
        let tasks = [
            runtime::spawn(Hosting::run(Arc::downgrade(&self.hosting))),
            runtime::spawn(async move { coordinator.coordinate(effects).await }),
            runtime::spawn(report(Weak::clone(&this))),
            runtime::spawn(projection::project(this, failure.clone())),
            runtime::spawn(async move {
                match member.membership.become_member().await {
                    Ok(cluster) => member.gossip.set_cluster(cluster),
                    Err(error) => refused.send(Some(Arc::new(error.into()))),
                }
            }),
        ];
        tasks.iter().map(tokio::task::JoinHandle::abort_handle).collect()
    }
}

/// Stops the replicas once the node is gone. They hold their files, and only
/// this lets go of them: a replica's own tasks keep each other alive.
async fn end_with(node: oneshot::Receiver<Infallible>, host: Host) {
    // An error is the only answer there can be: the sender was dropped.
    let _ = node.await;
    if let Err(error) = host.shutdown().await {
        tracing::debug!(%error, "the log was closed before or cannot be");
    }
}
