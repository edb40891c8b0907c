use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_types::runtime::BoxFuture;
use quorate_types::{GroupId, NodeId, ReplicaId, planted, sometimes, watch};
use tokio::sync::Semaphore;

use crate::admin::Fences;
use crate::config::{GroupClass, HostConfig};
use crate::consensus::applier::{Applier, Progress};
use crate::consensus::network::Links;
use crate::consensus::probe::Probe;
use crate::consensus::storage::GroupLog;
use crate::consensus::types::RaftOf;
use crate::consensus::wire::{Message, Refusal, Reply};
use crate::deadlines::Deadlines;
use crate::error::RaftError;
use crate::group::{Counters, Group, GroupStatus, Parts};
use crate::heartbeats::{Haste, Heartbeats, answer_all};
use crate::inbox;
use crate::log::{LogEngine, LogError, LogState, LogStats, Vote};
use crate::machine::{MachineError, StateMachine};
use crate::nodes::{NODE_CALL, NodeCall};
use crate::quiescence::{Arrival, Groups, Quiescence, Resting};
use crate::snapshots::{Feeding, Sending};
use crate::transport::Transport;

/// What an entry holds besides a command, at most.
const ENTRY_OVERHEAD_BYTES: usize = 1 << 10;

/// A replica to be run.
pub struct GroupSpec {
    /// The group.
    pub group: GroupId,
    /// This node's replica of it: never used before anywhere, or the one that
    /// the log of this node holds.
    pub replica: ReplicaId,
    /// Decides the timings.
    pub class: GroupClass,
    /// The machine, as far as it had come.
    pub machine: Box<dyn StateMachine>,
}

/// Counters of a host since it was opened, and what it holds at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HostMetrics {
    /// Groups that run.
    pub groups: u64,
    /// Those of them that rest, because nobody uses them.
    pub groups_resting: u64,
    /// Proposals that are under way.
    pub proposals_open: u64,
    /// Entries that the longest log of a replica here holds.
    pub log_entries_longest: u64,
    /// Snapshots that are being sent; while they are installed they are not.
    pub snapshots_sending: u64,
    /// Snapshots that are being received.
    pub snapshots_receiving: u64,
    /// The durable log's counters; entries divided by commits is how well
    /// the disk's syncs are shared.
    pub log: LogStats,
    /// Elections that a replica of this node won.
    pub elections_won: u64,
    /// Proposals that were admitted.
    pub proposals: u64,
    /// Proposals that were refused before admission.
    pub proposals_refused: u64,
    /// Reads that asked for confirmation.
    pub reads: u64,
    /// Rounds of confirmation; fewer than reads when reads shared them.
    pub read_rounds: u64,
    /// Heartbeats of groups, to each follower.
    pub heartbeats: u64,
    /// Messages that carried them; fewer than heartbeats when they travelled together.
    pub heartbeat_messages: u64,
    /// Flushes of a machine, asked for in order to purge a log.
    pub flushes: u64,
    /// Bytes of snapshots that other nodes have taken.
    pub snapshot_bytes_sent: u64,
    /// Bytes of snapshots that were taken here.
    pub snapshot_bytes_received: u64,
    /// Snapshots from here that others have installed.
    pub snapshots_sent: u64,
    /// How often one went on where it had broken off.
    pub snapshots_resumed: u64,
    /// Snapshots that others began to take from here, and have not installed.
    pub snapshots_failed: u64,
    /// Chunks that were sent once more, because they were lost or damaged.
    pub snapshot_chunks_repeated: u64,
    /// Chunks that came here damaged, and were not taken.
    pub snapshot_chunks_damaged: u64,
}

/// Whoever gave a host its replicas (port): has their machines' rows, and uses
/// their groups.
pub trait Home: Send + Sync + 'static {
    /// A replica is about to be destroyed: stops using its group.
    fn close(&self, group: GroupId);

    /// A replica is gone and never comes back: removes what its machine stored.
    /// Called again after an interruption, then perhaps with nothing left.
    ///
    /// # Errors
    /// When it could not be removed.
    fn erase(&self, group: GroupId) -> BoxFuture<Result<(), MachineError>>;
}

/// All replicas of a node. Clones share it.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    config: Arc<HostConfig>,
    log: Arc<dyn LogEngine>,
    transport: Arc<dyn Transport>,
    groups: Arc<Groups>,
    quiescence: Arc<Quiescence>,
    heartbeats: Arc<Heartbeats>,
    /// Groups that are being created or removed.
    in_transition: Mutex<BTreeSet<GroupId>>,
    sending: Arc<Sending>,
    receiving: Arc<Semaphore>,
    counters: Arc<Counters>,
    deadlines: Arc<Deadlines>,
    fences: Fences,
    home: OnceLock<Weak<dyn Home>>,
    is_closed: AtomicBool,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("groups", &self.inner.groups.read().len()).finish()
    }
}

/// Keeps a group from being created or removed twice at the same time.
struct Transition {
    host: Arc<Inner>,
    group: GroupId,
}

impl Drop for Transition {
    fn drop(&mut self) {
        self.host.in_transition.lock().remove(&self.group);
    }
}

/// The right to create a replica. While it is held nobody else creates,
/// removes or destroys one of its group: whoever holds it prepares the
/// machine's rows, reads them, creates the replica and hands its group to who
/// uses it, and none of that meets the end of an earlier replica.
pub struct Reservation {
    host: Host,
    replica: ReplicaId,
    transition: Transition,
}

impl Reservation {
    /// The group.
    #[must_use]
    pub const fn group(&self) -> GroupId {
        self.transition.group
    }

    /// Runs the replica: recovers what the log and the machine hold, and joins
    /// its peers.
    ///
    /// # Errors
    /// [`RaftError`]; nothing runs then.
    pub async fn create(
        &mut self,
        class: GroupClass,
        machine: Box<dyn StateMachine>,
    ) -> Result<Group, RaftError> {
        let (group, replica) = (self.group(), self.replica);
        self.host.run(GroupSpec { group, replica, class, machine }).await
    }
}

impl Host {
    /// Opens a host over a log and a transport. Runs no group yet.
    ///
    /// # Errors
    /// [`RaftError::Config`]
    pub fn open(
        config: HostConfig,
        log: Arc<dyn LogEngine>,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, RaftError> {
        config.validate().map_err(RaftError::Config)?;
        for class in GroupClass::ALL {
            config.timing(class).validate().map_err(RaftError::Config)?;
            config.raft(class).map_err(|error| RaftError::Config(error.to_string()))?;
        }
        let (command, entry) = (config.command_bytes_max, log.entry_bytes_max());
        if command.saturating_add(ENTRY_OVERHEAD_BYTES) > entry {
            return Err(RaftError::Config(format!(
                "command_bytes_max is {command}, and the log takes entries of {entry} bytes: \
                 configure larger segments, or smaller commands"
            )));
        }
        let groups = Arc::default();
        let counters: Arc<Counters> = Arc::default();
        let heartbeats = Heartbeats::new(&config, Arc::clone(&transport), Arc::clone(&counters));
        let heartbeats = Arc::new(heartbeats);
        let quiescence = Quiescence::start(&config, Arc::clone(&transport), &heartbeats, &groups);
        let inner = Arc::new(Inner {
            sending: Arc::new(Sending::new(&config)),
            receiving: Arc::new(Semaphore::new(config.snapshots_receiving_max.max(1))),
            config: Arc::new(config),
            log,
            transport,
            groups,
            quiescence,
            heartbeats,
            in_transition: Mutex::default(),
            counters,
            deadlines: Arc::new(Deadlines::start()),
            fences: Fences::default(),
            home: OnceLock::new(),
            is_closed: AtomicBool::new(false),
        });
        drop(quorate_types::runtime::spawn(reap_stagings(Arc::downgrade(&inner))));
        Ok(Self { inner })
    }

    /// Runs a replica: [`Self::reserve`] and [`Reservation::create`] in one.
    ///
    /// # Errors
    /// [`RaftError`]; nothing runs then.
    pub async fn create(&self, spec: GroupSpec) -> Result<Group, RaftError> {
        let _reservation = self.reserve(spec.group, spec.replica)?;
        self.run(spec).await
    }

    /// Reserves a group for a replica that is to be created.
    ///
    /// # Errors
    /// [`RaftError::Exists`] while a replica of the group runs here, or one is
    /// coming or going; [`RaftError::Log`] when the id was destroyed before, an
    /// earlier replica has yet to be, or the log has no room; [`RaftError::Closed`]. Each is how
    /// things are at the moment, and no damage.
    pub fn reserve(&self, group: GroupId, replica: ReplicaId) -> Result<Reservation, RaftError> {
        let is_running = || self.inner.groups.read().contains_key(&group);
        // Asked first without standing in anybody's way.
        if is_running() {
            return Err(RaftError::Exists(group));
        }
        let transition = self.inner.begin_transition(group)?;
        if is_running() {
            return Err(RaftError::Exists(group));
        }
        if self.inner.log.is_tombstoned(group, replica) {
            tracing::debug!(%group, %replica, "not created: it was destroyed before");
            return Err(LogError::Tombstoned { group, replica }.into());
        }
        let mut stored = self.inner.log.groups().into_iter();
        if let Some((_, owner)) = stored.find(|&(id, owner)| id == group && owner != replica) {
            tracing::debug!(%group, %replica, %owner, "not created: an earlier one is there");
            return Err(LogError::Occupied { group, owner }.into());
        }
        if let Err(error) = self.inner.log.room_for(group) {
            tracing::error!(%group, %replica, %error, "not created");
            return Err(error.into());
        }
        Ok(Reservation { host: self.clone(), replica, transition })
    }

    /// Runs what was reserved.
    async fn run(&self, spec: GroupSpec) -> Result<Group, RaftError> {
        let GroupSpec { group, replica, class, machine } = spec;
        if self.group(group).is_some() {
            return Err(RaftError::Exists(group));
        }
        let state = self.inner.log.admit(group, replica).await?;
        // Whoever never voted was never led, and has promised nobody anything.
        let is_bound = self.inner.config.lease_reads && state.vote.is_some();
        let lease = self.inner.config.timing(class).lease();
        let bound_for = if is_bound { lease } else { Duration::ZERO };
        let progress = Arc::new(Progress::new());
        let mut applier = Applier::recover(group, machine, Arc::clone(&progress))?;
        self.inner.align(group, replica, state, &applier).await?;
        if planted!(AppliedTwice) && class == GroupClass::Shard {
            let repeated = applier.repeat(&*self.inner.log).await;
            repeated.map_err(|error| RaftError::Halted(error.to_string()))?;
        }

        let machine = applier.machine();
        let probe = Arc::new(Probe::new(self.inner.config.timing(class)));
        let feeding = Arc::new(Feeding::default());
        let haste = Arc::default();
        let links = self.inner.links(group, replica, class, &probe, &feeding, &haste);
        let raft = self.inner.start_raft(links, class, !is_bound, &progress, applier)?.await?;
        probe.follow(raft.metrics());
        let config = Arc::clone(&self.inner.config);
        let counters = Arc::clone(&self.inner.counters);
        let house = Arc::clone(&self.inner.quiescence);
        let resting = Resting::new(house, group, raft.clone(), bound_for);
        let parts = Parts {
            group,
            replica,
            class,
            config,
            raft,
            machine,
            progress,
            counters,
            deadlines: Arc::clone(&self.inner.deadlines),
            probe,
            resting: Arc::new(resting),
            feeding,
            heartbeats: Arc::clone(&self.inner.heartbeats),
            haste,
            log: Arc::clone(&self.inner.log),
        };
        let running = Group::start(parts);
        self.inner.groups.write().insert(group, running.clone());
        if self.inner.is_closed.load(Ordering::Acquire) {
            running.shutdown().await;
            return Err(RaftError::Closed);
        }
        Ok(running)
    }

    /// The group's replica, if it runs here.
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<Group> {
        self.inner.groups.read().get(&group).cloned()
    }

    /// All replicas that run here.
    #[must_use]
    pub fn groups(&self) -> Vec<Group> {
        self.inner.groups.read().values().cloned().collect()
    }

    /// How they all are now.
    #[must_use]
    pub fn statuses(&self) -> Vec<GroupStatus> {
        self.groups().iter().map(Group::status).collect()
    }

    /// Whether the host was shut down: nothing that goes wrong from then on is
    /// damage.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.is_closed.load(Ordering::Acquire)
    }

    pub(crate) fn fences(&self) -> &Fences {
        &self.inner.fences
    }

    /// The durable log of this host.
    #[must_use]
    pub fn log(&self) -> &Arc<dyn LogEngine> {
        &self.inner.log
    }

    /// Stops the group's replica, forgets its log, and leaves a tombstone: its
    /// id is refused on this node for ever. The machine is dropped; what it
    /// stored is for its owner to remove.
    ///
    /// # Errors
    /// [`RaftError::UnknownGroup`] when neither a replica runs nor a log exists.
    pub async fn remove(&self, group: GroupId) -> Result<(), RaftError> {
        let _transition = self.inner.begin_transition(group)?;
        self.forget(group).await
    }

    async fn forget(&self, group: GroupId) -> Result<(), RaftError> {
        let running = self.inner.groups.write().remove(&group);
        let replica = match &running {
            Some(running) => Some(running.replica()),
            None => {
                let stored = self.inner.log.groups();
                stored.into_iter().find(|&(id, _)| id == group).map(|(_, replica)| replica)
            }
        };
        let replica = replica.ok_or(RaftError::UnknownGroup(group))?;
        if let Some(running) = running {
            running.shutdown().await;
        }
        Ok(self.inner.log.forget(group, replica).await?)
    }

    /// Tells the host whom its replicas belong to, once: [`Self::destroy`] asks
    /// for its help. The host does not keep it alive, as it may keep the host.
    pub fn belong_to(&self, home: Weak<dyn Home>) {
        self.inner.home.get_or_init(|| home);
    }

    /// Destroys a replica for good: its group is used no more, its id leaves a
    /// tombstone, then its rows go. Repeating it finishes what was interrupted
    /// and changes nothing more; a later replica of the group is left alone.
    ///
    /// # Errors
    /// [`RaftError::Refused`] while the host belongs to nobody, otherwise what
    /// went wrong; it may have happened in part.
    pub async fn destroy(&self, group: GroupId, replica: ReplicaId) -> Result<(), RaftError> {
        let home = self.inner.home.get().and_then(Weak::upgrade);
        let nobody = || RaftError::Refused("nobody owns the replicas here".to_owned());
        let home = home.ok_or_else(nobody)?;
        // Over all of it: a later replica that began in between would lose its rows.
        let _transition = self.inner.begin_transition(group)?;
        let stored = self.inner.log.groups();
        if stored.iter().any(|(id, later)| *id == group && *later != replica) {
            return Ok(());
        }
        home.close(group);
        match self.forget(group).await {
            Ok(()) => {}
            // Begun already, perhaps by a removal that was interrupted, or whose
            // tombstone could not be written: only what the log says once more
            // is durable. Rows that went before it would leave a log without
            // its state, and a node that cannot start.
            Err(RaftError::UnknownGroup(_)) => self.inner.log.forget(group, replica).await?,
            Err(error) => return Err(error),
        }
        Ok(home.erase(group).await?)
    }

    /// Answers a message that the transport carried here from `from`. A
    /// refusal (unknown group, another replica, a removed one) is an answer
    /// too, for the peer to understand.
    ///
    /// Work begins when the future is first polled; polling the futures of one
    /// lane in the order of arrival keeps the order of the log.
    ///
    /// # Errors
    /// [`RaftError::Malformed`] when `payload` is not a message.
    pub fn handle(&self, from: NodeId, payload: Bytes) -> BoxFuture<Result<Bytes, RaftError>> {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            if payload.first() == Some(&NODE_CALL) {
                return match NodeCall::from_bytes(&payload) {
                    Ok(call) => Ok(inner.answer_node(from, call).await.to_bytes()),
                    Err(error) => Err(RaftError::Malformed(error.to_string())),
                };
            }
            match Message::from_bytes(&payload) {
                Ok(message) => Ok(inner.answer(from, message, None).await.to_bytes()),
                Err(error) => Err(RaftError::Malformed(error.to_string())),
            }
        })
    }

    /// Counters since the host was opened.
    #[must_use]
    pub fn metrics(&self) -> HostMetrics {
        let counters = &self.inner.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (config, groups) = (&self.inner.config, self.groups());
        let room = config.snapshots_receiving_max.max(1);
        let received = room.saturating_sub(self.inner.receiving.available_permits());
        HostMetrics {
            groups: groups.len() as u64,
            groups_resting: self.inner.quiescence.resting(),
            proposals_open: groups.iter().map(Group::proposals_open).sum(),
            log_entries_longest: groups.iter().map(Group::log_entries).max().unwrap_or_default(),
            snapshots_sending: self.inner.sending.under_way(),
            snapshots_receiving: received as u64,
            log: self.inner.log.stats(),
            elections_won: read(&counters.elections_won),
            proposals: read(&counters.proposals),
            proposals_refused: read(&counters.proposals_refused),
            reads: read(&counters.reads),
            read_rounds: read(&counters.read_rounds),
            heartbeats: read(&counters.heartbeats),
            heartbeat_messages: read(&counters.heartbeat_messages),
            flushes: read(&counters.flushes),
            snapshot_bytes_sent: read(&counters.snapshot_bytes_sent),
            snapshot_bytes_received: read(&counters.snapshot_bytes_received),
            snapshots_sent: read(&counters.snapshots_sent),
            snapshots_resumed: read(&counters.snapshots_resumed),
            snapshots_failed: read(&counters.snapshots_failed),
            snapshot_chunks_repeated: read(&counters.snapshot_chunks_repeated),
            snapshot_chunks_damaged: read(&counters.snapshot_chunks_damaged),
        }
    }

    /// Stops all replicas and drops their machines, then closes the log.
    ///
    /// # Errors
    /// When the log could not make everything durable.
    pub async fn shutdown(&self) -> Result<(), RaftError> {
        self.inner.is_closed.store(true, Ordering::Release);
        let groups = std::mem::take(&mut *self.inner.groups.write());
        futures_util::future::join_all(groups.values().map(Group::shutdown)).await;
        Ok(self.inner.log.close().await?)
    }
}

impl Inner {
    fn begin_transition(self: &Arc<Self>, group: GroupId) -> Result<Transition, RaftError> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(RaftError::Closed);
        }
        if !self.in_transition.lock().insert(group) {
            return Err(RaftError::Exists(group));
        }
        Ok(Transition { host: Arc::clone(self), group })
    }

    /// Brings the log to where the machine is. A machine may be ahead of its
    /// log: it was seeded, or the node crashed between the installation of a
    /// snapshot and the purge behind it. It must never be behind what was
    /// purged.
    async fn align(
        &self,
        group: GroupId,
        replica: ReplicaId,
        state: LogState,
        applier: &Applier,
    ) -> Result<(), RaftError> {
        let applied = applier.position();
        if let Some(purged) = state.purged
            && applied.is_none_or(|applied| applied.index < purged.index)
        {
            let applied = applied.map(|applied| applied.index);
            return Err(RaftError::StateLost { group, purged: purged.index, applied });
        }
        let Some(applied) = applied else { return Ok(()) };
        if state.last.is_some_and(|last| last.index >= applied.index) {
            return Ok(());
        }
        sometimes!("a machine is ahead of its log");
        if state.vote.is_none() {
            let vote = Vote { term: applied.term, candidate: replica, committed: false };
            self.log.save_vote(group, vote).await?;
        }
        Ok(self.log.purge(group, applied).await?)
    }

    fn links(
        &self,
        group: GroupId,
        replica: ReplicaId,
        class: GroupClass,
        probe: &Arc<Probe>,
        feeding: &Arc<Feeding>,
        haste: &Arc<Haste>,
    ) -> Links {
        Links {
            group,
            replica,
            transport: Arc::clone(&self.transport),
            config: Arc::clone(&self.config),
            append_deadline: self.config.timing(class).lease(),
            probe: Arc::clone(probe),
            heartbeats: Arc::clone(&self.heartbeats),
            haste: Arc::clone(haste),
            sending: Arc::clone(&self.sending),
            feeding: Arc::clone(feeding),
            end: watch::channel(0).0,
            counters: Arc::clone(&self.counters),
        }
    }

    /// In a box that no future makes: so openraft's code is compiled with this crate, and
    /// not with each program that waits for it.
    fn start_raft(
        &self,
        links: Links,
        class: GroupClass,
        ticks: bool,
        progress: &Progress,
        applier: Applier,
    ) -> Result<BoxFuture<Result<RaftOf, RaftError>>, RaftError> {
        let config = self.config.raft(class);
        let config = config.map_err(|error| RaftError::Config(error.to_string()))?;
        let config = openraft::Config { enable_tick: ticks, ..config };
        let log = GroupLog {
            engine: Arc::clone(&self.log),
            group: links.group,
            durable_index: Arc::clone(&progress.durable_index),
            end: links.end.clone(),
        };
        let raft = RaftOf::new(links.replica.0, Arc::new(config), links, log, applier);
        Ok(Box::pin(async { raft.await.map_err(|fatal| RaftError::Halted(fatal.to_string())) }))
    }

    /// Answers another node.
    async fn answer_node(&self, from: NodeId, call: NodeCall) -> Reply {
        match call {
            NodeCall::Beat(beat) => Reply::BeatHeard(self.quiescence.hear(from, &beat)),
            NodeCall::Lull(lulls) => Reply::Lulled(self.quiescence.lulled(from, &lulls)),
            NodeCall::Heartbeats(together) => {
                let timings = GroupClass::ALL.map(|class| self.config.timing(class));
                let longest = timings.into_iter().map(|timing| timing.heartbeat).max();
                let receive = |message: &Bytes| {
                    let message = Message::from_bytes(message).ok()?;
                    let group = self.groups.read().get(&message.group).cloned()?;
                    Some(group.resting().arrival())
                };
                let answer = async |message: Bytes, arrival| match Message::from_bytes(&message) {
                    Ok(message) if message.is_heartbeat() => {
                        self.answer(from, message, arrival).await
                    }
                    Ok(_) | Err(_) => Reply::Refused(Refusal::Malformed),
                };
                answer_all(together, longest.unwrap_or_default(), receive, answer).await
            }
        }
    }

    /// Answers a replica's message, which came now or at another moment.
    async fn answer(&self, from: NodeId, message: Message<'_>, arrival: Option<Arrival>) -> Reply {
        let running = self.groups.read().get(&message.group).cloned();
        let refusal = match &running {
            Some(group) if group.replica() == message.to => {
                let arrival = arrival.unwrap_or_else(|| group.resting().arrival());
                return inbox::answer(group, &self.receiving, message.body, arrival).await;
            }
            _ if self.log.is_tombstoned(message.group, message.to) => {
                sometimes!("a replica that is gone is called");
                Refusal::Tombstoned
            }
            Some(group) => Refusal::OtherReplica(group.replica()),
            None => Refusal::UnknownGroup,
        };
        tracing::debug!(%from, group = %message.group, to = %message.to, %refusal, "refused");
        Reply::Refused(refusal)
    }
}

/// Drops half-received snapshots whose senders are gone, for as long as the
/// host lives.
async fn reap_stagings(host: Weak<Inner>) {
    loop {
        let idle_max = match host.upgrade() {
            None => return,
            Some(host) => {
                let idle_max = host.config.snapshot_staging_idle_max;
                for group in host.groups.read().values() {
                    group.staging().reap(idle_max);
                }
                idle_max
            }
        };
        tokio::time::sleep(idle_max / 2).await;
    }
}
