use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{
    ChangeMembershipError, ClientWriteError, Fatal, ForwardToLeader, RaftError as CoreError,
};
use openraft::metrics::RaftServerMetrics;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{ChangeMembers, LinearizerOption, RaftMetrics, ServerState};
use parking_lot::Mutex;
use quorate_types::group_log::ReadIndex;
use quorate_types::{GroupId, NodeId, ReplicaId, buggify, sometimes, watch};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::config::{GroupClass, HostConfig, Timing};
use crate::consensus::applier::{Applied, Progress, SharedMachine};
use crate::consensus::probe::Probe;
use crate::consensus::types::{Command, Member, RaftOf, RaftVoteOf, TypeConfig};
use crate::deadlines::{self, Deadlines};
use crate::error::{ProposeError, RaftError, ReadError, Refused};
use crate::heartbeats::{Haste, Heartbeats};
use crate::log::LogEngine;
use crate::purging::{Purging, Reach, Waits};
use crate::quiescence::Resting;
use crate::reads::{Confirmer, ReadReply};
use crate::room::Room;
use crate::snapshots::{Feeding, StagingSlot};

/// A follower whose confirmed log lacks more than this is no target for a
/// transfer: it would have to catch up while nobody leads.
const TRANSFER_LAG_ENTRIES_MAX: u64 = 256;

/// What became of a proposal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposed {
    /// The index of its entry.
    pub index: u64,
    /// The term of its entry.
    pub term: u64,
    /// What the machine answered.
    pub outcome: Bytes,
}

/// Who leads, as far as this replica knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Leadership {
    /// The term this replica is in.
    pub term: u64,
    /// Where the leader of the term lives.
    pub leader: Option<NodeId>,
    /// Whether this replica is the established leader of `term`. Another one
    /// may lead a later term already; only a commit or a
    /// [`read_index`](Group::read_index) proves the contrary.
    pub leading: bool,
    /// Whether this replica has applied an entry of `term`: a leader then
    /// knows all that was committed before it.
    pub noop_applied: bool,
}

/// A replica's view of its group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// This replica.
    pub replica: ReplicaId,
    /// The term it is in.
    pub term: u64,
    /// The leader and its node, if known.
    pub leader: Option<(ReplicaId, NodeId)>,
    /// Whether this replica is the established leader.
    pub leading: bool,
    /// The last index in the log.
    pub last_log: Option<u64>,
    /// The last index this replica knows to be committed.
    pub committed: Option<u64>,
    /// The last applied index.
    pub applied: Option<u64>,
    /// The index up to which the log is purged.
    pub purged: Option<u64>,
    /// Who votes; during a change, who votes before or after it.
    pub voters: Vec<(ReplicaId, NodeId)>,
    /// Who receives the log without voting.
    pub learners: Vec<(ReplicaId, NodeId)>,
    /// On a leader, the index up to which each other replica's log is known
    /// to match; absent replicas have not confirmed anything yet.
    pub matched: BTreeMap<ReplicaId, u64>,
    /// On a leader, the other replicas that answered it within a
    /// [lease](crate::Timing::lease), or that rest with it, or did until just now,
    /// on nodes that answer.
    pub fresh: BTreeSet<ReplicaId>,
    /// The voters that are being left, while the membership is joint.
    pub outgoing: Option<BTreeSet<ReplicaId>>,
    /// Bytes that have come of a snapshot that it is being sent.
    pub snapshot_bytes: Option<u64>,
    /// Whether it rests, because nobody uses the group.
    pub resting: bool,
    /// Why the replica has halted, if it has.
    pub halted: Option<String>,
}

/// Counters shared by all groups of a host.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) elections_won: AtomicU64,
    pub(crate) proposals: AtomicU64,
    pub(crate) proposals_refused: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) read_rounds: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) snapshot_bytes_sent: AtomicU64,
    pub(crate) snapshot_bytes_received: AtomicU64,
    pub(crate) heartbeats: AtomicU64,
    pub(crate) heartbeat_messages: AtomicU64,
    pub(crate) snapshots_sent: AtomicU64,
    pub(crate) snapshots_resumed: AtomicU64,
    pub(crate) snapshots_failed: AtomicU64,
    pub(crate) snapshot_chunks_repeated: AtomicU64,
    pub(crate) snapshot_chunks_damaged: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

type Metrics = WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>;

/// One replica of one group on this node. Clones share it.
#[derive(Clone)]
pub struct Group {
    inner: Arc<Inner>,
}

struct Inner {
    group: GroupId,
    replica: ReplicaId,
    timing: Timing,
    config: Arc<HostConfig>,
    raft: RaftOf,
    machine: SharedMachine,
    progress: Arc<Progress>,
    leadership: watch::Receiver<Leadership>,
    applied: watch::Receiver<Applied>,
    proposals: Room,
    reads: mpsc::Sender<ReadReply>,
    resting: Arc<Resting>,
    probe: Arc<Probe>,
    staging: StagingSlot,
    counters: Arc<Counters>,
    deadlines: Arc<Deadlines>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.inner.group, self.inner.replica)
    }
}

/// What a group is made of.
pub(crate) struct Parts {
    pub(crate) group: GroupId,
    pub(crate) replica: ReplicaId,
    pub(crate) class: GroupClass,
    pub(crate) config: Arc<HostConfig>,
    pub(crate) raft: RaftOf,
    pub(crate) machine: SharedMachine,
    pub(crate) progress: Arc<Progress>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) deadlines: Arc<Deadlines>,
    pub(crate) probe: Arc<Probe>,
    pub(crate) resting: Arc<Resting>,
    pub(crate) feeding: Arc<Feeding>,
    pub(crate) heartbeats: Arc<Heartbeats>,
    pub(crate) haste: Arc<Haste>,
    pub(crate) log: Arc<dyn LogEngine>,
}

impl Group {
    pub(crate) fn start(parts: Parts) -> Self {
        let Parts { group, replica, class, config, raft, machine, progress, .. } = parts;
        let Parts { counters, deadlines, probe, resting, feeding, .. } = parts;
        let Parts { heartbeats, haste, log, .. } = parts;
        let (leadership_out, leadership) = watch::channel(Leadership::default());
        let (reads, read_queue) = mpsc::channel(config.reads_pending_max.max(1));
        let observer = Observer {
            group,
            replica,
            raft: raft.clone(),
            progress: Arc::clone(&progress),
            leadership: leadership_out,
            counters: Arc::clone(&counters),
            resting: Arc::clone(&resting),
            purging: Purging::new(config.purge_after_entries, config.purge_keeps_entries)
                .of(group)
                .pausing(config.purge_pause)
                .waiting(Waits {
                    entries: config.purge_waits_entries,
                    bytes: config.purge_waits_bytes,
                }),
            log,
            feeding,
        };
        // What may be relied on is less than what followers keep.
        let lease = config.timing(class).lease() * 9 / 10;
        let trusted = if config.lease_reads { lease } else { Duration::ZERO };
        let option = LinearizerOption::new(Some(trusted), true);
        let confirmer = Confirmer {
            raft: raft.clone(),
            option,
            heartbeats,
            haste,
            counters: Arc::clone(&counters),
        };
        let tasks = vec![
            quorate_types::runtime::spawn(observer.run()).abort_handle(),
            quorate_types::runtime::spawn(confirmer.run(read_queue)).abort_handle(),
        ];
        let inner = Inner {
            group,
            replica,
            timing: config.timing(class),
            proposals: Room::of(config.proposals_pending_max.max(1)),
            config,
            raft,
            machine,
            applied: progress.applied.subscribe(),
            progress,
            leadership,
            reads,
            resting,
            probe,
            staging: StagingSlot::default(),
            counters,
            deadlines,
            tasks: Mutex::new(tasks),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The group's id.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.inner.group
    }

    /// This replica's id.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        self.inner.replica
    }

    pub(crate) fn raft(&self) -> &RaftOf {
        &self.inner.raft
    }

    pub(crate) fn machine(&self) -> &SharedMachine {
        &self.inner.machine
    }

    pub(crate) fn resting(&self) -> &Resting {
        &self.inner.resting
    }

    pub(crate) fn probe(&self) -> &Probe {
        &self.inner.probe
    }

    pub(crate) fn timing(&self) -> Timing {
        self.inner.timing
    }

    /// Proposals under way.
    pub(crate) fn proposals_open(&self) -> u64 {
        self.inner.proposals.taken() as u64
    }

    /// Entries that the log holds here.
    pub(crate) fn log_entries(&self) -> u64 {
        let metrics = self.metrics();
        // Indices begin at 0 until something is purged.
        let end = metrics.last_log_index.map_or(0, |last| last + 1);
        end.saturating_sub(metrics.purged.map_or(0, |purged| purged.index + 1))
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    pub(crate) fn config(&self) -> &HostConfig {
        &self.inner.config
    }

    pub(crate) fn staging(&self) -> &StagingSlot {
        &self.inner.staging
    }

    pub(crate) fn metrics(&self) -> RaftMetrics<TypeConfig> {
        self.inner.raft.metrics().borrow_watched().clone()
    }

    /// Stops the replica and releases its machine.
    pub(crate) async fn shutdown(&self) {
        self.inner.progress.stop();
        self.inner.resting.retire();
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(group = %self.inner.group, %error, "the replica's task failed");
        }
        for task in self.inner.tasks.lock().drain(..) {
            task.abort();
        }
        self.inner.staging.clear().await;
        self.inner.machine.release().await;
    }

    /// Proposes a command and waits until it is applied here.
    ///
    /// Dropping the future does not withdraw the command.
    ///
    /// # Errors
    /// [`ProposeError`], which says whether the command can be in the log.
    pub async fn propose(
        &self,
        command: Bytes,
        deadline: Duration,
    ) -> Result<Proposed, ProposeError> {
        let counters = &self.inner.counters;
        let refuse = |reason| {
            count(&counters.proposals_refused);
            Err(ProposeError::Refused(reason))
        };
        let limit = self.inner.config.command_bytes_max;
        if command.len() > limit {
            return refuse(Refused::TooLarge { bytes: command.len(), limit });
        }
        if self.inner.progress.is_stopped() {
            return refuse(Refused::Halted);
        }
        let Some(_seat) = self.inner.proposals.enter() else {
            return refuse(Refused::Busy);
        };
        if buggify!("raft has no room for a proposal") {
            return refuse(Refused::Busy);
        }
        count(&counters.proposals);
        let now = Instant::now();
        let until = deadlines::after(deadline);
        if !self.is_up(now) && tokio::time::timeout_at(until, self.rise()).await.is_err() {
            // It rested, and has not found its quorum yet.
            return Err(ProposeError::NotLeader { leader: None });
        }
        let write = self.inner.raft.client_write(Command::new(&command));
        // It is a part of what a connection read, perhaps.
        drop(command);
        match self.inner.deadlines.bound(until, write).await {
            None => Err(ProposeError::Unknown),
            Some(Ok(written)) => Ok(Proposed {
                index: written.log_id.index,
                term: written.log_id.leader_id.term,
                outcome: written.data.0,
            }),
            Some(Err(CoreError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                Err(ProposeError::NotLeader { leader: self.forward(&forward) })
            }
            Some(Err(_)) => Err(ProposeError::Unknown),
        }
    }

    /// Where to go instead; nowhere when the leader is this very replica,
    /// which just cannot prove it at the moment.
    fn forward(&self, forward: &ForwardToLeader<TypeConfig>) -> Option<NodeId> {
        forward_of(forward, self.inner.replica)
    }

    /// Confirms with a quorum that this replica leads, and returns the index
    /// that a linearizable read must have [applied](Self::wait_applied). One
    /// round of heartbeats serves every read that waits when it begins. With
    /// [`lease_reads`](crate::HostConfig::lease_reads) the last one serves those
    /// that come a little later, too.
    ///
    /// # Errors
    /// [`ReadError`]; trying again is always safe.
    pub async fn read_index(&self) -> Result<ReadIndex, ReadError> {
        count(&self.inner.counters.reads);
        self.rise_to_read().await
    }

    /// A round of heartbeats, shared with whoever waits for one, if it takes one.
    pub(crate) async fn confirm_leadership(&self) -> Result<ReadIndex, ReadError> {
        let (reply, confirmed) = oneshot::channel();
        self.inner.reads.try_send(reply).map_err(|_| ReadError::Unavailable)?;
        confirmed.await.unwrap_or(Err(ReadError::Unavailable))
    }

    /// The last applied index; 0 before anything was applied.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.inner.applied.borrow().position.map_or(0, |position| position.index)
    }

    /// Waits until `index` is applied here.
    ///
    /// # Errors
    /// [`RaftError::Halted`] or [`RaftError::Closed`] when it never will be.
    pub async fn wait_applied(&self, index: u64) -> Result<(), RaftError> {
        let mut applied = self.inner.applied.clone();
        let reached = |applied: &Applied| applied.position.is_some_and(|at| at.index >= index);
        let state = applied
            .wait_for(|applied| reached(applied) || applied.is_stopped)
            .await
            .map_err(|watch::Closed| RaftError::Closed)?;
        if reached(&state) {
            return Ok(());
        }
        Err(self.inner.progress.halted().map_or(RaftError::Closed, RaftError::Halted))
    }

    /// Who leads, and every change of it.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// Calls `learn` with the leader, where known, at every change of who leads
    /// from now on, until the replica stops.
    pub fn on_leader(&self, learn: impl Fn(Option<NodeId>) + Send + Sync + 'static) {
        let mut leadership = self.leadership();
        drop(quorate_types::runtime::spawn(async move {
            while leadership.changed().await.is_ok() {
                learn(leadership.borrow_and_update().leader);
            }
        }));
    }

    /// A view of the group as of now.
    #[must_use]
    pub fn status(&self) -> GroupStatus {
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        let place = |replica: u64| {
            let node = membership.get_node(&replica).map(|member| member.node_id())?;
            Some((ReplicaId(replica), node))
        };
        let matched = metrics.replication.iter().flatten();
        GroupStatus {
            group: self.inner.group,
            replica: self.inner.replica,
            term: metrics.vote.leader_id.term,
            leader: metrics.current_leader.and_then(place),
            leading: is_leading(&metrics, self.inner.replica),
            last_log: metrics.last_log_index,
            committed: metrics.local_committed.map(|at| at.index),
            applied: self.inner.applied.borrow().position.map(|at| at.index),
            purged: metrics.purged.map(|at| at.index),
            voters: membership.voter_ids().filter_map(place).collect(),
            learners: membership.learner_ids().filter_map(place).collect(),
            matched: matched
                .filter_map(|(&replica, at)| Some((ReplicaId(replica), at.as_ref()?.index)))
                .collect(),
            fresh: self.fresh(&metrics),
            snapshot_bytes: self.inner.staging.bytes(),
            resting: !self.inner.resting.is_awake(),
            outgoing: match membership.get_joint_config().as_slice() {
                [outgoing, _] => Some(outgoing.iter().copied().map(ReplicaId).collect()),
                _ => None,
            },
            halted: self.inner.progress.halted(),
        }
    }

    fn fresh(&self, metrics: &RaftMetrics<TypeConfig>) -> BTreeSet<ReplicaId> {
        let replicas = metrics.heartbeat.iter().flat_map(BTreeMap::keys);
        let is_fresh = |replica: &&u64| self.is_fresh(metrics, **replica);
        replicas.filter(is_fresh).map(|replica| ReplicaId(*replica)).collect()
    }

    /// Whether a replica answered lately, or its node did for it while they rested.
    fn is_fresh(&self, metrics: &RaftMetrics<TypeConfig>, replica: u64) -> bool {
        if silence(metrics, replica).is_some_and(|age| age <= self.inner.timing.lease()) {
            return true;
        }
        let node = metrics.membership_config.get_node(&replica).map(|member| member.node_id());
        node.is_some_and(|node| self.company().is_some_and(|company| company.contains(&node)))
    }

    /// Forms the group from its first members. Only for a group that was not
    /// [seeded](crate::seeded_host_row), on one member, once.
    ///
    /// # Errors
    /// [`RaftError::Refused`] when the group was formed already.
    pub async fn initialize(&self, members: &[(ReplicaId, NodeId)]) -> Result<(), RaftError> {
        let members: BTreeMap<u64, Member> =
            members.iter().map(|&(replica, node)| (replica.0, node.into())).collect();
        match self.bounded(self.inner.raft.initialize(members)).await? {
            Ok(()) => Ok(()),
            Err(CoreError::APIError(error)) => Err(RaftError::Refused(error.to_string())),
            Err(CoreError::Fatal(fatal)) => Err(self.fatal(&fatal)),
        }
    }

    /// Adds a replica that receives the log and does not vote. Returns when
    /// that is committed, not when the learner has caught up.
    ///
    /// # Errors
    /// [`RaftError`]
    pub async fn add_learner(&self, replica: ReplicaId, node: NodeId) -> Result<(), RaftError> {
        self.change(self.inner.raft.add_learner(replica.0, node.into(), false)).await
    }

    /// Removes a learner.
    ///
    /// # Errors
    /// [`RaftError`]
    pub async fn remove_learner(&self, replica: ReplicaId) -> Result<(), RaftError> {
        let removal = ChangeMembers::RemoveNodes(BTreeSet::from([replica.0]));
        self.change(self.inner.raft.change_membership(removal, true)).await
    }

    /// Removes the learners that `is_stranger` names, if this replica leads. A
    /// coordinator that was deposed may have added them late: fences are only
    /// in the memory of the leader that saw them.
    ///
    /// # Errors
    /// As for [`Self::remove_learner`]; the learners after the one that failed
    /// are still there.
    pub async fn remove_strangers(
        &self,
        is_stranger: impl Fn(ReplicaId) -> bool,
    ) -> Result<(), RaftError> {
        if !self.leadership().borrow().leading {
            return Ok(());
        }
        for (learner, _) in self.status().learners {
            if is_stranger(learner) {
                self.remove_learner(learner).await?;
            }
        }
        Ok(())
    }

    /// Makes exactly `voters` vote, through a joint configuration. New ones
    /// must be learners before; former ones leave the group altogether.
    ///
    /// # Errors
    /// [`RaftError`]. After [`RaftError::Unknown`] the change may be half way;
    /// asking for the same voters again completes it.
    pub async fn set_voters(&self, voters: BTreeSet<ReplicaId>) -> Result<(), RaftError> {
        let voters: BTreeSet<u64> = voters.into_iter().map(|replica| replica.0).collect();
        self.change(self.inner.raft.change_membership(voters, false)).await
    }

    /// Stands for election now, in the background: for a group that just came
    /// into being, where its owner knows who had best lead it. A pre-vote goes
    /// first, so that a leader in office is not disturbed. It is repeated until
    /// enough replicas have come into being to grant it, or others would stand
    /// anyway; the election that follows is left to itself.
    pub fn campaign(&self) {
        let group = self.clone();
        drop(quorate_types::runtime::spawn(async move {
            tokio::time::sleep(group.inner.resting.still_bound_for()).await;
            let timing = group.inner.timing;
            let patience = timing.election_min.saturating_sub(timing.lease());
            let until = tokio::time::Instant::now() + patience;
            let mut leadership = group.leadership();
            let Ok(began) = group.term().await else { return };
            while tokio::time::Instant::now() < until
                && group.term().await.is_ok_and(|term| term == began)
                && group.inner.raft.trigger().elect(true).await.is_ok()
            {
                let led = leadership.wait_for(|now| now.leader.is_some());
                if tokio::time::timeout(timing.heartbeat / 4, led).await.is_ok() {
                    return;
                }
            }
        }));
    }

    /// The term as the replica's task has it, after all that it was told
    /// before. Metrics may be of before it began.
    async fn term(&self) -> Result<u64, RaftError> {
        let term = self.inner.raft.with_raft_state(|state| state.vote_ref().leader_id.term);
        term.await.map_err(|fatal| self.fatal(&fatal))
    }

    /// Hands leadership to another voter and waits until this replica has let
    /// go. Refused unless the target answered lately and has nearly all of the
    /// log: handing over to a dead one would stop writes until an election.
    ///
    /// # Errors
    /// [`RaftError::NotReady`] for such a target, [`RaftError::Refused`] for one
    /// that does not vote; [`RaftError::Unknown`] when this replica still leads
    /// after two election timeouts.
    pub async fn transfer_leader(&self, to: ReplicaId) -> Result<(), RaftError> {
        let rested = !self.inner.resting.is_awake();
        self.rise().await;
        if rested {
            self.wait_heard(to).await;
        }
        let metrics = self.metrics();
        if !is_leading(&metrics, self.inner.replica) {
            let leader = leader_node(&metrics);
            return Err(RaftError::NotLeader { leader });
        }
        if to == self.inner.replica {
            return Ok(());
        }
        self.judge_successor(&metrics, to)?;
        let term = metrics.vote.leader_id.term;
        let triggered = self.inner.raft.trigger().transfer_leader(to.0).await;
        triggered.map_err(|fatal| self.fatal(&fatal))?;
        let mut leadership = self.leadership();
        let released = leadership.wait_for(|now| !now.leading || now.term > term);
        match tokio::time::timeout(self.inner.timing.election_max * 2, released).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(watch::Closed)) => Err(RaftError::Closed),
            Err(_) => Err(RaftError::Unknown),
        }
    }

    /// Waits until a replica has answered a leader that just woke; not for long.
    async fn wait_heard(&self, replica: ReplicaId) {
        let lease = self.inner.timing.lease();
        let mut metrics = self.inner.raft.metrics();
        let is_heard = |metrics: &RaftMetrics<TypeConfig>| {
            silence(metrics, replica.0).is_some_and(|silence| silence <= lease)
        };
        let heard = async {
            while !is_heard(&metrics.borrow_and_update()) && metrics.changed().await.is_ok() {}
        };
        drop(tokio::time::timeout(self.inner.timing.heartbeat * 2, heard).await);
    }

    fn judge_successor(
        &self,
        metrics: &RaftMetrics<TypeConfig>,
        to: ReplicaId,
    ) -> Result<(), RaftError> {
        let mut voters = metrics.membership_config.voter_ids();
        if !voters.any(|voter| voter == to.0) {
            return Err(RaftError::Refused(format!("{to} does not vote")));
        }
        if silence(metrics, to.0).is_none_or(|silence| silence > self.inner.timing.lease()) {
            return Err(RaftError::NotReady(format!("{to} has not answered lately")));
        }
        let matched =
            metrics.replication.as_ref().and_then(|all| all.get(&to.0).copied().flatten());
        let next = |index: Option<u64>| index.map_or(0, |index| index + 1);
        let lag = next(metrics.last_log_index).saturating_sub(next(matched.map(|at| at.index)));
        if lag > TRANSFER_LAG_ENTRIES_MAX {
            return Err(RaftError::NotReady(format!("{to} lacks {lag} entries")));
        }
        Ok(())
    }

    async fn bounded<T>(&self, work: impl Future<Output = T>) -> Result<T, RaftError> {
        let deadline = self.inner.config.membership_deadline;
        tokio::time::timeout(deadline, work).await.map_err(|_| RaftError::Unknown)
    }

    async fn change<T>(
        &self,
        change: impl Future<Output = Result<T, CoreError<TypeConfig, ClientWriteError<TypeConfig>>>>,
    ) -> Result<(), RaftError> {
        let change = async {
            self.rise().await;
            change.await
        };
        let error = match self.bounded(change).await? {
            Ok(_) => return Ok(()),
            Err(CoreError::Fatal(fatal)) => return Err(self.fatal(&fatal)),
            Err(CoreError::APIError(error)) => error,
        };
        Err(match error {
            ClientWriteError::ForwardToLeader(forward) => {
                RaftError::NotLeader { leader: self.forward(&forward) }
            }
            ClientWriteError::LogEntryDiscarded(_) => RaftError::Unknown,
            ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_)) => {
                RaftError::ChangeInProgress
            }
            other => RaftError::Refused(other.to_string()),
        })
    }

    fn fatal(&self, fatal: &Fatal<TypeConfig>) -> RaftError {
        match (self.inner.progress.halted(), fatal) {
            (Some(reason), _) => RaftError::Halted(reason),
            (None, Fatal::Stopped) => RaftError::Closed,
            (None, other) => RaftError::Halted(other.to_string()),
        }
    }
}

/// How long ago a replica last answered the leader whose metrics these are.
pub(crate) fn silence(metrics: &RaftMetrics<TypeConfig>, replica: u64) -> Option<Duration> {
    let acknowledged = metrics.heartbeat.as_ref()?.get(&replica).cloned().flatten()?;
    Some(openraft::async_runtime::Instant::elapsed(&*acknowledged))
}

pub(crate) fn is_leading(metrics: &RaftMetrics<TypeConfig>, replica: ReplicaId) -> bool {
    metrics.running_state.is_ok() && is_office(metrics.state, &metrics.vote, replica)
}

/// Whether this is the state and the vote of an established leader.
fn is_office(state: ServerState, vote: &RaftVoteOf, replica: ReplicaId) -> bool {
    state.is_leader() && vote.committed && vote.leader_id.voted_for == replica.0
}

/// Whether all metrics tell of the same office as a part of them, which is published
/// first.
fn is_of_office(metrics: &RaftMetrics<TypeConfig>, office: &RaftServerMetrics<TypeConfig>) -> bool {
    let is_over = metrics.running_state.is_err();
    is_over || (metrics.state == office.state && metrics.vote == office.vote)
}

/// Whether a replica lacks entries before an index of a leader's log.
fn lags(metrics: &RaftMetrics<TypeConfig>, next: u64) -> bool {
    let mut matched = metrics.replication.iter().flat_map(BTreeMap::values);
    matched.any(|at| at.as_ref().is_none_or(|at| at.index + 1 < next))
}

fn leader_node(metrics: &RaftMetrics<TypeConfig>) -> Option<NodeId> {
    let leader = metrics.current_leader?;
    metrics.membership_config.get_node(&leader).map(|member| member.node_id())
}

pub(crate) fn forward_of(
    forward: &ForwardToLeader<TypeConfig>,
    replica: ReplicaId,
) -> Option<NodeId> {
    if forward.leader_id == Some(replica.0) {
        return None;
    }
    forward.leader_node.map(Member::node_id)
}

/// Follows a replica: publishes who leads, and has the machine flushed and the
/// log purged when enough has been applied.
struct Observer {
    group: GroupId,
    replica: ReplicaId,
    raft: RaftOf,
    progress: Arc<Progress>,
    leadership: watch::Sender<Leadership>,
    counters: Arc<Counters>,
    resting: Arc<Resting>,
    purging: Purging,
    log: Arc<dyn LogEngine>,
    feeding: Arc<Feeding>,
}

impl Observer {
    /// Looks again when an office changes and when something was applied, not
    /// whenever a counter of the replica's does: that is many times for each entry.
    async fn run(mut self) {
        let mut metrics = self.raft.metrics();
        let mut office = self.raft.server_metrics();
        let mut applied = self.progress.applied.subscribe();
        loop {
            // Who hears of it looks at all metrics, which follow in a moment.
            let held = loop {
                let held = office.borrow_and_update().clone();
                if is_of_office(&metrics.borrow_watched(), &held)
                    || metrics.changed().await.is_err()
                {
                    break held;
                }
            };
            let now = *applied.borrow_and_update();
            self.publish(&held, now);
            let ask_again_at = self.purge_if_due(&metrics, now).await;
            let is_running = tokio::select! {
                biased;
                changed = office.changed() => changed.is_ok(),
                changed = applied.changed() => changed.is_ok(),
                () = wait_until(ask_again_at) => true,
            };
            if !is_running {
                break;
            }
        }
        if let Err(fatal) = &metrics.borrow_watched().running_state
            && !matches!(fatal, Fatal::Stopped)
        {
            self.progress.halt(self.group, fatal.to_string());
        }
        self.progress.stop();
        self.resting.retire();
        self.leadership.modify(|now| {
            (now.leading, now.leader) = (false, None);
            true
        });
    }

    fn publish(&self, office: &RaftServerMetrics<TypeConfig>, applied: Applied) {
        let term = office.vote.leader_id.term;
        let membership = &office.membership_config;
        let leader = office.current_leader.and_then(|leader| membership.get_node(&leader));
        let now = Leadership {
            term,
            leader: leader.map(|member| member.node_id()),
            leading: is_office(office.state, &office.vote, self.replica) && !applied.is_stopped,
            noop_applied: applied.position.is_some_and(|position| position.term == term),
        };
        self.resting.learn(now);
        self.leadership.modify(|before| {
            let is_lost_election = before.term > 0 && before.leader.is_none() && term > before.term;
            sometimes!("an election ends without a leader", is_lost_election);
            if now.leading && !(before.leading && before.term == term) {
                let configs = membership.membership().get_joint_config().len();
                sometimes!("a leader is elected in a joint membership", configs > 1);
                count(&self.counters.elections_won);
                self.resting.note_use();
            }
            std::mem::replace(before, now) != now
        });
    }

    /// Has the log purged if it is time, and says when to look again even if
    /// nothing happens.
    async fn purge_if_due(&mut self, metrics: &Metrics, applied: Applied) -> Option<Instant> {
        let next = |index: Option<u64>| index.map_or(0, |index| index + 1);
        let mut log = {
            let metrics = metrics.borrow_watched();
            Reach {
                applied: next(applied.position.map(|at| at.index)),
                flushed: next(metrics.snapshot.map(|at| at.index)),
                purged: next(metrics.purged.map(|at| at.index)),
                bytes: None,
            }
        };
        let now = Instant::now();
        self.purging.learn(log, now);
        if self.purging.is_long(log) {
            log.bytes = self.log.payload_bytes(self.group);
        }
        if let Some(before) = self.purging.gives_up(log)
            && is_leading(&metrics.borrow_watched(), self.replica)
        {
            self.feeding.give_up(before);
        }
        let is_short = !self.purging.is_long(log);
        let is_waited_for =
            self.feeding.is_any() || is_short && lags(&metrics.borrow_watched(), log.applied);
        let waits_until = is_waited_for.then(|| self.purging.waits_until(log, now));
        let waits_until = waits_until.flatten();
        let mut is_due = waits_until.is_none() && self.purging.is_due(log, now);
        if buggify!("raft purges its log early") {
            is_due = log.applied > log.purged;
        }
        if is_due {
            let is_lagging = || lags(&metrics.borrow_watched(), log.applied);
            sometimes!("a log is purged while a follower lags", is_lagging());
            self.purging.is_asked_for(log, now);
            count(&self.counters.flushes);
            if let Err(error) = self.raft.trigger().snapshot().await {
                tracing::debug!(group = %self.group, %error, "no flush: the replica has stopped");
            }
        }
        waits_until.or_else(|| self.purging.ask_again_at(log))
    }
}

async fn wait_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
