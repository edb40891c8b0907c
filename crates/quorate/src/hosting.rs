//! Which replicas this node runs: the metadata says so, the engine remembers,
//! and a reconciliation loop makes it so.

use std::fmt::Display;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_calvin::shard::ShardMachine;
use quorate_calvin::{
    Destination, Forked, MapShard, NodeServices, OnFork, Procedures, Router, SequencerReplica,
    ShardMap, ShardReplica,
};
use quorate_engine::{Engine, Mutation};
use quorate_meta::{
    Birth, BoxError, ClusterView, METADATA_GROUP, MetadataClient, RegistryMachine, Replica,
    shard_group, shard_of,
};
use quorate_raft::{
    Group, GroupClass, Home, Host, MachineError, RaftError, RaftLog, Reservation, SEED_INDEX,
    StateMachine, seeded_host_row,
};
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, GroupId, KeyRange, NodeId, ReplicaId, ShardId, watch};
use tokio::sync::Notify;

use crate::directory::Directory;
use crate::error::NodeError;
use crate::machine::{EngineMachine, halt};
use crate::metadata::MetadataGroup;
use crate::storage::{EngineStore, HOST_ROW_KEY, METADATA_SPACE, SEQUENCER_SPACE};

/// How often the loop looks without being woken.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What the loop works with.
pub(crate) struct Hosting {
    pub(crate) node: NodeId,
    pub(crate) host: Host,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) procedures: Arc<dyn Procedures>,
    pub(crate) services: Arc<NodeServices>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) metadata: Arc<MetadataClient>,
    pub(crate) proposal_deadline: Duration,
    pub(crate) retention: Duration,
    pub(crate) forked: Mutex<Vec<Forked>>,
    pub(crate) wake: Notify,
    pub(crate) failure: watch::Sender<Option<Arc<NodeError>>>,
    pub(crate) this: Weak<Hosting>,
}

impl Hosting {
    /// Runs until the node is dropped.
    pub(crate) async fn run(this: Weak<Self>) {
        let Some(mut views) = this.upgrade().map(|hosting| hosting.directory.views()) else {
            return;
        };
        loop {
            let Some(hosting) = this.upgrade() else { return };
            hosting.reconcile().await;
            tokio::select! {
                biased;
                _ = views.changed() => {}
                () = hosting.wake.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Creates what is missing and removes what is retired.
    async fn reconcile(&self) {
        let forked = std::mem::take(&mut *self.forked.lock());
        for Forked { child, members, leads } in forked {
            let child = shard_group(child);
            if let Some(own) = members.iter().find(|member| member.node == self.node) {
                self.begin(self.host.reserve(child, own.replica)).await;
            }
            if leads && let Some(child) = self.host.group(child) {
                child.campaign();
            }
        }
        let view = self.directory.view();
        for (group, replica) in view.replicas_on(self.node) {
            let reserved = self.host.reserve(group, replica.id);
            if reserved.is_ok() && self.prepare(&view, group, replica) {
                self.begin(reserved).await;
            }
        }
        for group in self.host.groups() {
            let status = group.status();
            if view.is_retired(status.group, status.replica) {
                let destroyed = self.host.destroy(status.group, status.replica).await;
                self.logged(status.group, destroyed);
            } else if let Some(reason) = status.halted {
                self.fail(status.group, reason);
            } else {
                let is_stranger = |learner| view.is_retired(status.group, learner);
                self.logged(status.group, group.remove_strangers(is_stranger).await);
            }
        }
    }

    /// Opens a replica that this node is to have. One that cannot be opened is
    /// as bad as one that has halted: nobody may count on it. One that runs,
    /// or is just coming or going, is looked at again.
    async fn begin(&self, reserved: Result<Reservation, RaftError>) {
        let Ok(mut reserved) = reserved else { return };
        if let Err(error) = self.run_replica(&mut reserved).await
            && !self.host.is_closed()
        {
            self.fail(reserved.group(), error.to_string());
        }
    }

    fn fail(&self, group: GroupId, reason: String) {
        self.failure.send(Some(Arc::new(NodeError::Halted { group, reason })));
    }

    fn logged(&self, group: GroupId, outcome: Result<(), impl Display>) {
        if let Err(error) = outcome {
            tracing::error!(%group, %error, "a replica could not be brought in line");
        }
    }

    /// Makes the engine ready for a replica; false while it must wait.
    fn prepare(&self, view: &ClusterView, group: GroupId, replica: &Replica) -> bool {
        let space = space_of(group);
        if self.exists(space) {
            return true;
        }
        match view.birth(group, replica) {
            None => false,
            Some(Birth::Seeded(first)) => {
                let is_shard = shard_of(group).is_some();
                let rows = is_shard.then(|| ShardMachine::seed(first.range.clone(), first.epoch));
                self.seed(space, first.range, &first.members, rows.unwrap_or_default())
            }
            Some(Birth::Forked { parent, at }) => match self.engine.range(parent) {
                Ok(Some(range)) => !range.contains(&at),
                Ok(None) => {
                    let parent = shard_group(parent);
                    view.replicas_on(self.node).all(|(group, _)| group != parent)
                }
                Err(_) => false,
            },
            Some(Birth::Joined) if shard_of(group).is_none() => {
                self.created(self.engine.create(space, KeyRange::all(), 0, Vec::new()))
            }
            Some(Birth::Joined) => true,
        }
    }

    fn seed(
        &self,
        space: ShardId,
        range: KeyRange,
        members: &[(ReplicaId, NodeId)],
        rows: Vec<(Blob, Blob)>,
    ) -> bool {
        let host_row = Mutation::put(HOST_ROW_KEY, Blob(seeded_host_row(members)));
        let rows = rows.into_iter().map(|(key, row)| Mutation::put(key, row));
        let system = rows.chain([host_row]).collect();
        self.created(self.engine.create(space, range, SEED_INDEX, system))
    }

    fn created(&self, outcome: Result<bool, quorate_engine::EngineError>) -> bool {
        outcome.inspect_err(|error| tracing::error!(%error, "the engine failed")).is_ok()
    }

    fn exists(&self, shard: ShardId) -> bool {
        matches!(self.engine.range(shard), Ok(Some(_)))
    }

    /// Opens a replica and starts serving it, unless it runs already.
    pub(crate) async fn open(&self, group: GroupId, replica: ReplicaId) -> Result<(), NodeError> {
        match self.host.reserve(group, replica) {
            Ok(mut reserved) => self.run_replica(&mut reserved).await,
            Err(_) => Ok(()),
        }
    }

    async fn run_replica(&self, reserved: &mut Reservation) -> Result<(), NodeError> {
        match shard_of(reserved.group()) {
            Some(shard) => self.run_shard(reserved, shard).await,
            None if reserved.group() == METADATA_GROUP => self.run_metadata(reserved).await,
            None => self.run_sequencer(reserved).await,
        }
    }

    async fn create(
        &self,
        reserved: &mut Reservation,
        class: GroupClass,
        machine: Box<dyn StateMachine>,
    ) -> Result<Group, NodeError> {
        let space = space_of(reserved.group());
        let failed = |error| NodeError::layer("engine", error);
        let is_there = self.engine.range(space).map_err(failed)?.is_some();
        if is_there && self.engine.durable(space).map_err(failed)?.is_none() {
            // The log is about to say durably where this state begins.
            self.engine.flush(space).await.map_err(failed)?;
        }
        let created = reserved.create(class, machine).await;
        created.map_err(|error| NodeError::layer("raft", error))
    }

    async fn run_shard(&self, reserved: &mut Reservation, shard: ShardId) -> Result<(), NodeError> {
        let store = EngineStore { engine: Arc::clone(&self.engine), shard };
        let core = ShardReplica::open(
            shard,
            Arc::clone(&self.procedures),
            Arc::new(store.clone()),
            self.on_fork(),
        )
        .map_err(|error| NodeError::layer("calvin", error))?;
        let machine = Box::new(EngineMachine::new(store, Arc::clone(&core)));
        let raft = self.create(reserved, GroupClass::Shard, machine).await?;
        self.follow(Destination::Shard(shard), &raft);
        let log = Arc::new(RaftLog::new(raft, self.proposal_deadline));
        self.services.add_shard(core, log);
        Ok(())
    }

    async fn run_sequencer(&self, reserved: &mut Reservation) -> Result<(), NodeError> {
        let store = EngineStore { engine: Arc::clone(&self.engine), shard: SEQUENCER_SPACE };
        let applied = self.engine.applied(SEQUENCER_SPACE).ok().flatten().unwrap_or_default();
        let core = SequencerReplica::open(Arc::new(store.clone()), applied)
            .map_err(|error| NodeError::layer("calvin", error))?;
        let machine = Box::new(EngineMachine::new(store, Arc::clone(&core)));
        let raft = self.create(reserved, GroupClass::Sequencer, machine).await?;
        self.follow(Destination::Sequencer, &raft);
        let log = Arc::new(RaftLog::new(raft, self.proposal_deadline));
        let directory = Arc::clone(&self.directory);
        let retention_millis = u64::try_from(self.retention.as_millis()).unwrap_or(u64::MAX);
        let first_map = move || {
            let view = directory.view();
            let shards = view.shards_in_key_order().map(|(shard, found)| MapShard {
                shard,
                range: found.range.clone(),
                epoch: found.epoch,
            });
            ShardMap::first(shards).map(|map| (map, retention_millis))
        };
        self.services.set_sequencer(core, log, Arc::new(first_map));
        Ok(())
    }

    async fn run_metadata(&self, reserved: &mut Reservation) -> Result<(), NodeError> {
        // Changes nothing where it was created before.
        let created = self.engine.create(METADATA_SPACE, KeyRange::all(), 0, Vec::new());
        created.map_err(|error| NodeError::layer("engine", error))?;
        let store = EngineStore { engine: Arc::clone(&self.engine), shard: METADATA_SPACE };
        let directory = Arc::clone(&self.directory);
        let on_change = Box::new(move |view: &ClusterView| directory.learn_view(view));
        let core = RegistryMachine::open(Box::new(store.clone()), on_change)
            .map_err(|error| NodeError::layer("metadata", error))?;
        let machine = Box::new(EngineMachine::new(store, core));
        let raft = self.create(reserved, GroupClass::Metadata, machine).await?;
        let directory = Arc::clone(&self.directory);
        raft.on_leader(move |leader| directory.learn_leader(leader));
        self.metadata.set_replica(Some(Arc::new(MetadataGroup(raft))));
        Ok(())
    }

    /// Lets what Raft knows of a group's leader steer messages.
    fn follow(&self, destination: Destination, raft: &Group) {
        let directory = Arc::clone(&self.directory);
        raft.on_leader(move |leader| {
            if leader.is_some() {
                directory.learned(destination, leader);
            }
        });
    }

    fn on_fork(&self) -> OnFork {
        let this = Weak::clone(&self.this);
        Arc::new(move |forked| {
            if let Some(hosting) = this.upgrade() {
                hosting.forked.lock().push(forked);
                hosting.wake.notify_one();
            }
        })
    }
}

impl Home for Hosting {
    fn close(&self, group: GroupId) {
        match shard_of(group) {
            Some(shard) => self.services.remove_shard(shard),
            None if group == METADATA_GROUP => self.metadata.set_replica(None),
            None => self.services.remove_sequencer(),
        }
    }

    fn erase(&self, group: GroupId) -> BoxFuture<Result<(), MachineError>> {
        let engine = Arc::clone(&self.engine);
        Box::pin(async move { engine.remove(space_of(group)).await.map_err(halt) })
    }
}

impl quorate_meta::Host for Hosting {
    fn open_metadata(&self, replica: ReplicaId) -> BoxFuture<Result<(), BoxError>> {
        let this = Weak::clone(&self.this);
        Box::pin(async move {
            let hosting = this.upgrade().ok_or("the node is stopping")?;
            Ok(hosting.open(METADATA_GROUP, replica).await?)
        })
    }
}

/// Where a group's rows live in the engine.
fn space_of(group: GroupId) -> ShardId {
    match shard_of(group) {
        Some(shard) => shard,
        None if group == METADATA_GROUP => METADATA_SPACE,
        None => SEQUENCER_SPACE,
    }
}
