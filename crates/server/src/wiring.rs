//! The service's ports over a node of the cluster.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quorate::{ExecuteError, Node, NodeConfig, NodeError, Session};
use quorate_calvin::Call;
use quorate_meta::ZONE_LABEL;
use quorate_types::runtime::{self, BoxFuture};
use quorate_types::{Blob, NodeId, ShardId};
use tokio::sync::Semaphore;

use crate::admin::{
    self, ADMIN_LABEL, Admin, AdminError, AdminFuture, DrainStatus, GATEWAY_LABEL, MigrationInfo,
    MoveRequest, NodeInfo, Operation, ShardInfo, SplitRequest, StatusInfo, TransferRequest,
};
use crate::backend::{Backend, BackendError, BackendInfo, KeyPage};
use crate::cli::{self, Membership, NodeResult, StartConfig};
use crate::commands::{SLOTS, partition_key, slot_start};
use crate::procedures::RedisProcedures;
use crate::raft_metrics;
use crate::serve::{Doors, listen};

/// Sessions that the connections share. One session acknowledges its requests
/// in order, so a slow one holds back what the shards may forget; several keep
/// that small.
const SESSIONS: usize = 32;

/// Runs a node until it is told to stop.
///
/// # Errors
/// When the node cannot start or cannot go on, or the cluster refuses it; the
/// text says what to do.
pub async fn start(config: StartConfig) -> NodeResult {
    let stop = cli::stop_signal(config.exit_with_parent)?;
    let doors = Doors::open(&config.serve).await?;
    let gateway = doors.gateway_address()?.to_string();
    let mut node_config = node_config(&config);
    let addresses =
        [(GATEWAY_LABEL, gateway.clone()), (ADMIN_LABEL, doors.admin_address()?.to_string())];
    node_config.labels.extend(addresses.map(|(name, value)| (name.to_owned(), value)));
    let mut builder = Node::builder(node_config).procedures(Arc::new(RedisProcedures));
    if config.listen != config.addr {
        builder = builder.listener(listen("other nodes", config.listen).await?);
    }
    let mut stopped = stop.clone();
    let node = tokio::select! {
        biased;
        started = builder.start() => Arc::new(started?),
        _ = stopped.wait_for(|stop| *stop) => return Ok(()),
    };
    let service = Arc::new(Service::new(Arc::clone(&node), gateway));
    let backend: Arc<dyn Backend> = Arc::<Service>::clone(&service);
    let serving = doors.serve(backend, service, stop.clone());
    tokio::select! {
        biased;
        refused = failure(&node) => Err(refused.into()),
        served = serving => {
            served?;
            Ok(node.shutdown().await?)
        }
    }
}

/// Resolves when the node cannot go on: the cluster does not take it, or a
/// replica has halted.
async fn failure(node: &Node) -> Arc<NodeError> {
    loop {
        if let Some(error) = node.failure() {
            return error;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

fn node_config(config: &StartConfig) -> NodeConfig {
    let mut node = NodeConfig::new(config.node, &config.dir);
    node.address = config.addr.to_string();
    node.shards = config.shards;
    node.replicas = config.replicas;
    node.log = config.log.medium();
    config.tune(&mut node.raft);
    node.labels.extend(config.zone.clone().map(|zone| (ZONE_LABEL.to_owned(), zone)));
    node.split_keys = (1..config.shards)
        .filter_map(|cut| {
            let slot = u64::from(cut) * u64::from(SLOTS) / u64::from(config.shards);
            Some(slot_start(u16::try_from(slot).ok()?).to_vec())
        })
        .collect();
    match &config.membership {
        Membership::Initial(members) => {
            node.initial_cluster =
                members.iter().map(|(id, address)| (*id, address.to_string())).collect();
        }
        Membership::Join(members) => {
            node.join = members.iter().map(ToString::to_string).collect();
        }
    }
    node
}

/// The node behind both doors.
struct Service {
    node: Arc<Node>,
    sessions: Vec<Arc<Session>>,
    turn: AtomicUsize,
    gateway: String,
    /// One look at the stored rows at a time: a look reads them all.
    looks: Arc<Semaphore>,
}

impl Service {
    fn new(node: Arc<Node>, gateway: String) -> Self {
        let sessions = (0..SESSIONS).map(|_| Arc::new(node.forgetful_session())).collect();
        let looks = Arc::new(Semaphore::new(1));
        Self { node, sessions, turn: AtomicUsize::new(0), gateway, looks }
    }

    fn session(&self) -> Option<Arc<Session>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.sessions.get(turn % SESSIONS).cloned()
    }
}

fn backend_error(error: ExecuteError) -> BackendError {
    match error {
        ExecuteError::Refused(reason) => BackendError::Refused(reason),
        ExecuteError::Aborted(reason) => BackendError::Aborted(reason),
        ExecuteError::Expired | ExecuteError::Unknown(_) => BackendError::Unknown,
    }
}

impl Backend for Service {
    fn execute(&self, call: Call) -> BoxFuture<Result<Blob, BackendError>> {
        let session = self.session();
        Box::pin(async move {
            let session = session.ok_or(BackendError::Unknown)?;
            session.execute(call).await.map_err(backend_error)
        })
    }

    fn scan_keys(&self, from: Blob, limit: usize) -> BoxFuture<Result<KeyPage, BackendError>> {
        let client = Arc::clone(self.node.client());
        Box::pin(async move {
            let limit = u32::try_from(limit).unwrap_or(u32::MAX);
            let (keys, next) = client.keys(from, limit).await.map_err(backend_error)?;
            Ok(KeyPage { keys, next })
        })
    }

    fn serving(&self) -> bool {
        self.node.is_serving()
    }

    fn info(&self) -> BackendInfo {
        let view = self.node.view();
        BackendInfo {
            node: self.node.id().0,
            cluster: self.node.cluster().map(|id| id.to_string()).unwrap_or_default(),
            gateway: self.gateway.clone(),
            nodes: count(view.nodes().count()),
            shards: count(view.shards().len()),
        }
    }
}

fn count(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

fn admin_error(error: quorate::AdminError) -> AdminError {
    match error {
        quorate::AdminError::NotFound(what) => AdminError::NotFound(what),
        quorate::AdminError::Refused(reason) => AdminError::Refused(reason),
        quorate::AdminError::Unavailable(reason) => AdminError::Unavailable(reason),
    }
}

impl Service {
    fn nodes(&self) -> Vec<NodeInfo> {
        let node = &self.node;
        admin::nodes(&node.view(), &node.liveness(), &node.loads())
    }

    fn shards(node: &Node) -> Result<Vec<ShardInfo>, AdminError> {
        let view = node.view();
        let describe = |shard| {
            let hash = node.state_hash(shard).map_err(admin_error)?;
            Ok(admin::shard(&view, shard, node.shard_leader(shard), hash))
        };
        let shards = view.shards().map(|(shard, _)| describe(shard));
        shards.filter_map(Result::transpose).collect()
    }

    fn status(&self) -> StatusInfo {
        let nodes = self.nodes();
        let (metadata, sequencer) = self.node.system_leaders();
        let view = self.node.view();
        StatusInfo {
            cluster: self.node.cluster().map(|id| id.to_string()).unwrap_or_default(),
            node: self.node.id().0,
            serving: self.node.is_serving(),
            reason: self.readiness().err(),
            metadata_leader: metadata.map(|node| node.0),
            sequencer_leader: sequencer.map(|node| node.0),
            map_version: view.version(),
            nodes: count(nodes.len()),
            nodes_alive: count(nodes.iter().filter(|node| node.state == "alive").count()),
            shards: count(view.shards().len()),
            shards_led: count(admin::shards_led(&self.node.liveness(), &self.node.loads())),
            migrations: count(view.running_operators().count()),
        }
    }
}

/// Runs a blocking look at the stored rows away from the connections.
fn look<T: Send + 'static>(
    node: Arc<Node>,
    looks: Arc<Semaphore>,
    work: impl FnOnce(&Node) -> Result<T, AdminError> + Send + 'static,
) -> AdminFuture<T> {
    Box::pin(async move {
        let turn = looks.acquire_owned().await;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        runtime::thread("admin-look", async move {
            // Nobody waits any more when the receiver is gone.
            let _ = sender.send(work(&node));
            drop(turn);
        })
        .map_err(|error| AdminError::Unavailable(error.to_string()))?;
        receiver.await.map_err(|_| AdminError::Unavailable("the look was cut off".into()))?
    })
}

impl Admin for Service {
    fn readiness(&self) -> Result<(), String> {
        self.node.readiness()
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        let (marks, held) = self.node.transactions();
        let (raft, groups) = self.node.raft_metrics();
        for (name, value) in held.named() {
            let _ = writeln!(text, "# TYPE quorate_{name} gauge\nquorate_{name} {value}");
        }
        let gauges = [
            ("quorate_watermark_logged", marks.logged.0),
            ("quorate_watermark_done", marks.done.0),
            ("quorate_dedup_floor", marks.floors.expired.0),
            ("quorate_map_version", self.node.view().version()),
            ("quorate_corrupt_rows", count(self.node.corrupt_rows())),
            ("quorate_serving", u64::from(self.node.is_serving())),
        ];
        for (name, value) in gauges {
            let _ = writeln!(text, "# TYPE {name} gauge\n{name} {value}");
        }
        raft_metrics::write(&mut text, &raft, &groups);
        text
    }

    fn status(&self) -> AdminFuture<StatusInfo> {
        let status = Self::status(self);
        Box::pin(async move { Ok(status) })
    }

    fn nodes(&self) -> AdminFuture<Vec<NodeInfo>> {
        let nodes = Self::nodes(self);
        Box::pin(async move { Ok(nodes) })
    }

    fn shards(&self) -> AdminFuture<Vec<ShardInfo>> {
        look(Arc::clone(&self.node), Arc::clone(&self.looks), Self::shards)
    }

    fn migrations(&self) -> AdminFuture<Vec<MigrationInfo>> {
        let migrations = admin::migrations(&self.node.view(), &self.node.migrations());
        Box::pin(async move { Ok(migrations) })
    }

    fn transfer(&self, shard: u64, request: TransferRequest) -> AdminFuture<Operation> {
        let node = Arc::clone(&self.node);
        Box::pin(async move {
            let to = NodeId(request.to);
            node.transfer_leader(ShardId(shard), to).await.map_err(admin_error)?;
            Ok(Operation { migration: None, message: format!("node {} leads", request.to) })
        })
    }

    fn move_replica(&self, shard: u64, request: MoveRequest) -> AdminFuture<Operation> {
        let node = Arc::clone(&self.node);
        Box::pin(async move {
            let (from, to) = (NodeId(request.from), NodeId(request.to));
            let id = node.move_replica(ShardId(shard), from, to).await.map_err(admin_error)?;
            let message = format!("moving shard {shard} from {} to {}", request.from, request.to);
            Ok(Operation { migration: Some(id.to_string()), message })
        })
    }

    fn split(&self, shard: u64, request: SplitRequest) -> AdminFuture<Operation> {
        let node = Arc::clone(&self.node);
        Box::pin(async move {
            let at = request.key.map(|key| partition_key(key.as_bytes()));
            let id = node.split_shard(ShardId(shard), at).await.map_err(admin_error)?;
            let message = format!("splitting shard {shard}");
            Ok(Operation { migration: Some(id.to_string()), message })
        })
    }

    fn drain(&self, node: u64) -> AdminFuture<DrainStatus> {
        let inner = Arc::clone(&self.node);
        Box::pin(async move {
            admin::check_drain(&inner.view(), NodeId(node))?;
            inner.drain_node(NodeId(node)).await.map_err(admin_error)?;
            let replicas_left = count(inner.view().replicas_on(NodeId(node)).count());
            Ok(DrainStatus { node, replicas_left })
        })
    }
}
