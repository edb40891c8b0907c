//! A shard's replica and the service that its leader offers.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use quorate_types::env::Clock;
use quorate_types::{
    Blob, ClientId, Epoch, KeyRange, NodeId, RequestId, ShardId, TxnId, buggify, planted, runtime,
    sometimes,
};

use super::gauges::Gauges;
use super::leadership::{lost, while_leading};
use super::node::ServiceConfig;
use super::waiters::Waiters;
use crate::command::{Direct, Fence, Member, ShardCommand, Slice};
use crate::limits::{CALL_BYTES_MAX, KEY_BYTES_MAX, RANGES_MAX};
use crate::ports::{
    Destination, GroupLog, GroupMachine, Leadership, Peers, ProposeError, ReadIndex, Router,
};
use crate::procedure::{Call, Footprint, Procedures};
use crate::reply_gate::ReplyGate;
use crate::shard::{
    Event, Feeder, FenceOutcome, Halt, LeaderOutput, ReadOutcome, Refusal, ShardLeader,
    ShardMachine, Verdict,
};
use crate::store::{Store, WriteSet};
use crate::wire::{Execute, PeerMessage, Reply, Request};

/// Keys in one page at the most.
const KEYS_PAGE_MAX: usize = 4_096;
/// Epochs by which a request's birth may lie beyond all that this leader has
/// heard of. At a thousand batches a second it is deaf for a quarter of an hour
/// before it refuses an honest request, and has stopped to serve long before.
const BIRTH_AHEAD_MAX: u64 = 1 << 20;
/// To whom claims to have been made later than now.
pub(super) const UNBORN: &str = "the request is dated later than any epoch that was";

/// A child that was split off a shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forked {
    /// The child.
    pub child: ShardId,
    /// Its replicas: on the nodes of its parent's.
    pub members: Vec<Member>,
    /// Whether this replica leads the parent. Its node had best lead the child
    /// at once: the keys that left wait for somebody to.
    pub leads: bool,
}

/// Called on every replica when a child was split off, after the commit.
pub type OnFork = Arc<dyn Fn(Forked) + Send + Sync>;

/// The replicated part: the machine over its store. The raft host drives it.
pub struct ShardReplica {
    shard: ShardId,
    procedures: Arc<dyn Procedures>,
    store: Arc<dyn Store>,
    machine: RwLock<Option<ShardMachine>>,
    service: OnceLock<Weak<ShardService>>,
    on_fork: OnFork,
}

impl ShardReplica {
    /// Opens the replica from its store; a joined replica is empty until a
    /// snapshot fills it.
    ///
    /// # Errors
    /// [`Halt`] when a row cannot be read.
    pub fn open(
        shard: ShardId,
        procedures: Arc<dyn Procedures>,
        store: Arc<dyn Store>,
        on_fork: OnFork,
    ) -> Result<Arc<Self>, Halt> {
        let machine = ShardMachine::load(shard, Arc::clone(&procedures), &*store)?;
        Ok(Arc::new(Self {
            shard,
            procedures,
            store,
            machine: RwLock::new(machine),
            service: OnceLock::new(),
            on_fork,
        }))
    }

    /// The machine as of now; `None` while the replica is empty.
    pub fn machine(&self) -> RwLockReadGuard<'_, Option<ShardMachine>> {
        self.machine.read()
    }
}

impl GroupMachine for ShardReplica {
    type Halt = Halt;

    fn apply(&self, entries: &[(u64, Option<&[u8]>)], host_row: Blob) -> Result<Vec<Bytes>, Halt> {
        let Some((last, _)) = entries.last() else { return Ok(Vec::new()) };
        let mut writes = WriteSet::default();
        let mut events = Vec::new();
        {
            let mut machine = self.machine.write();
            let missing = Halt::Invariant {
                shard: self.shard,
                what: "an empty replica is filled by a snapshot before it applies entries",
            };
            let machine = machine.as_mut().ok_or(missing)?;
            for (index, command) in entries {
                if let Some(command) = command {
                    events.extend(machine.apply(&*self.store, &mut writes, *index, command)?);
                }
            }
            machine.finish(&mut writes);
            self.store.commit(*last, host_row, writes)?;
        }
        let service = self.service.get().and_then(Weak::upgrade);
        for event in &events {
            if let Event::Forked { child, members } = event {
                let leads = service.as_ref().is_some_and(|service| service.leadership().leads);
                (self.on_fork)(Forked { child: *child, members: members.clone(), leads });
            }
        }
        if let Some(service) = service {
            service.handle_events(&events);
        }
        Ok(no_outcomes(entries.len()))
    }

    /// A late read must not see new rows with the old cursor.
    fn unload(&self) {
        *self.machine.write() = None;
    }

    fn reload(&self, _applied: u64) -> Result<(), Halt> {
        let loaded = ShardMachine::load(self.shard, Arc::clone(&self.procedures), &*self.store)?;
        *self.machine.write() = loaded;
        Ok(())
    }
}

/// Transactions answer their clients, not their proposals.
pub(super) fn no_outcomes(entries: usize) -> Vec<Bytes> {
    vec![Bytes::new(); entries]
}

/// What a waiter for a request is told.
#[derive(Clone, Debug)]
enum Decision {
    Verdict(Verdict, Epoch),
    Refused(Refusal, Epoch),
    /// There was one, and nobody knows it any more.
    Gone,
}

/// The leader's role, while this replica leads.
struct Role {
    term: u64,
    leader: ShardLeader,
    feeder: Feeder,
    is_pulling: bool,
    reported: (Epoch, Epoch),
}

/// What a shard's leader does: admit, feed, exchange inputs, answer.
pub struct ShardService {
    shard: ShardId,
    replica: Arc<ShardReplica>,
    log: Arc<dyn GroupLog>,
    peers: Arc<dyn Peers>,
    router: Arc<dyn Router>,
    gate: Arc<ReplyGate>,
    clock: Arc<dyn Clock>,
    config: ServiceConfig,
    role: Mutex<Option<Role>>,
    decisions: Waiters<(ClientId, u64), Decision>,
    fences: Waiters<(ClientId, u64), (FenceOutcome, Epoch)>,
    this: Weak<Self>,
}

/// What a service is made of besides its replica.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) node: NodeId,
    pub(super) peers: Arc<dyn Peers>,
    pub(super) router: Arc<dyn Router>,
    pub(super) gate: Arc<ReplyGate>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) config: ServiceConfig,
}

impl ShardService {
    /// Starts the service of a replica; it ends with its group's log.
    pub(super) fn start(
        replica: Arc<ShardReplica>,
        log: Arc<dyn GroupLog>,
        around: Surroundings,
    ) -> Arc<Self> {
        let service = Arc::new_cyclic(|this| Self {
            shard: replica.shard,
            replica: Arc::clone(&replica),
            log,
            peers: around.peers,
            router: around.router,
            gate: around.gate,
            clock: around.clock,
            config: around.config,
            role: Mutex::new(None),
            decisions: Waiters::new(around.config.waiters_max),
            fences: Waiters::new(around.config.waiters_max),
            this: Weak::clone(this),
        });
        // A replica has one service for life; a second start would be a bug of
        // the host and is harmless.
        let _ = replica.service.set(Arc::downgrade(&service));
        drop(runtime::spawn(Self::drive(Arc::downgrade(&service), service.log.leadership())));
        service
    }

    /// The shard.
    #[must_use]
    pub const fn shard(&self) -> ShardId {
        self.shard
    }

    /// The replica.
    #[must_use]
    pub const fn replica(&self) -> &Arc<ShardReplica> {
        &self.replica
    }

    /// Who leads, as this replica sees it.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        *self.log.leadership().borrow()
    }

    /// Adds what this service holds at the moment.
    pub(super) fn measure(&self, gauges: &mut Gauges) {
        gauges.waiting += self.decisions.len() + self.fences.len();
        let machine = self.replica.machine();
        let role = self.role.lock();
        let Some(machine) = machine.as_ref() else { return };
        gauges.pending += machine.pending_count();
        gauges.locking += machine.locking_count();
        gauges.contributions += machine.outbox_count();
        if let Some(role) = role.as_ref() {
            gauges.collecting += role.leader.collecting_count();
            gauges.slices_waiting += role.feeder.waiting_count(machine.cursor());
        }
    }

    async fn drive(this: Weak<Self>, mut leadership: quorate_types::watch::Receiver<Leadership>) {
        loop {
            let Some(service) = this.upgrade() else { return };
            service.follow(*leadership.borrow_and_update());
            service.tick();
            let pause = service.config.tick;
            drop(service);
            let is_closed = tokio::select! {
                biased;
                changed = leadership.changed() => changed.is_err(),
                () = tokio::time::sleep(pause) => false,
            };
            if is_closed {
                if let Some(service) = this.upgrade() {
                    service.follow(Leadership::default());
                }
                return;
            }
        }
    }

    /// Takes the role up or lays it down. Waiters of an ended term learn
    /// nothing from it (rule 11).
    ///
    /// Lock order, here and everywhere in this file: machine, then role; and
    /// nothing is sent while either is held, so that a message may be
    /// delivered to this node by a plain call.
    fn follow(&self, now: Leadership) {
        let machine = self.replica.machine();
        let mut role = self.role.lock();
        if role.as_ref().map(|role| role.term) == now.leads.then_some(now.term) {
            return;
        }
        *role = None;
        self.decisions.fail_all();
        self.fences.fail_all();
        if !now.leads {
            return;
        }
        if let Some(machine) = machine.as_ref() {
            *role = Some(Role {
                term: now.term,
                leader: ShardLeader::new(machine, self.clock.monotonic()),
                feeder: Feeder::default(),
                is_pulling: false,
                reported: (Epoch::default(), Epoch::default()),
            });
            self.pull(role.as_mut(), machine.cursor());
        }
    }

    fn tick(&self) {
        self.decisions.sweep();
        self.fences.sweep();
        {
            let machine = self.replica.machine();
            let mut role = self.role.lock();
            let (Some(machine), Some(role)) = (machine.as_ref(), role.as_mut()) else { return };
            role.leader.tick(machine, self.clock.monotonic());
            role.reported = (Epoch::default(), Epoch::default());
            self.propose_floors(machine);
        }
        self.pump();
    }

    /// A shard that gets no slices learns of floors this way, so that its
    /// request memory does not grow for ever.
    fn propose_floors(&self, machine: &ShardMachine) {
        let (floors, own) = (self.gate.known().floors, machine.floors());
        let is_due = (floors.expired > own.expired && machine.remembered_count() > 0)
            || (floors.done > own.done && machine.outbox_count() > 0);
        if is_due {
            self.propose(ShardCommand::Floor(floors));
        }
    }

    /// Acts on what an applied entry brought about.
    fn handle_events(&self, events: &[Event]) {
        for event in events {
            match event {
                Event::Decided { request, verdict, position } => {
                    let decision = Decision::Verdict(verdict.clone(), *position);
                    self.decisions.answer(&request.key(), decision);
                }
                Event::Refused { request, refusal, position } => {
                    self.decisions.answer(&request.key(), Decision::Refused(*refusal, *position));
                }
                Event::Fenced { request, outcome, position } => {
                    self.fences.answer(&request.key(), (outcome.clone(), *position));
                }
                Event::Granted { .. }
                | Event::Finished(_)
                | Event::Accepted(_)
                | Event::Forked { .. } => {}
            }
        }
        let concerns_leader = |event: &Event| {
            matches!(event, Event::Granted { .. } | Event::Finished(_) | Event::Accepted(_))
        };
        if !events.iter().any(concerns_leader) {
            return;
        }
        {
            let machine = self.replica.machine();
            let mut role = self.role.lock();
            let (Some(machine), Some(role)) = (machine.as_ref(), role.as_mut()) else { return };
            let now = self.clock.monotonic();
            for event in events {
                if let Event::Granted { txn, needed_by } = event {
                    role.leader.granted(machine, *txn, needed_by, now);
                }
            }
        }
        self.pump();
    }

    /// Carries out what the leader's cores want.
    fn pump(&self) {
        let (report, outputs, slices) = {
            let machine = self.replica.machine();
            let mut role = self.role.lock();
            let (Some(machine), Some(role)) = (machine.as_ref(), role.as_mut()) else { return };
            let progress = (machine.cursor(), machine.done());
            let is_news = std::mem::replace(&mut role.reported, progress) != progress;
            let (cursor, done) = progress;
            let report = PeerMessage::Report { shard: self.shard, cursor, done };
            if role.feeder.has_gap(machine.cursor()) {
                self.pull(Some(role), machine.cursor());
            }
            let slices = role.feeder.next(machine.cursor());
            (is_news.then_some(report), role.leader.take_outputs(), slices)
        };
        if let Some(report) = report
            && !buggify!("calvin loses a report of progress")
        {
            self.peers.send(Destination::Sequencer, report);
        }
        if let Some(slices) = slices {
            self.propose_slices(slices);
        }
        for output in outputs {
            match output {
                LeaderOutput::Contribute { to, txn, contribution } => {
                    let from = self.shard;
                    let message = PeerMessage::Contribute { to, from, txn, contribution };
                    self.peers.send(Destination::Shard(to), message);
                }
                LeaderOutput::Ask { to, txn } => {
                    let message = PeerMessage::Ask { to, from: self.shard, txn };
                    self.peers.send(Destination::Shard(to), message);
                }
                LeaderOutput::Propose(command) => self.propose(command),
                LeaderOutput::Answer { request, verdict, position } => {
                    self.decisions.answer(&request.key(), Decision::Verdict(verdict, position));
                }
                LeaderOutput::Gone { request } => {
                    self.decisions.answer(&request.key(), Decision::Gone);
                }
            }
        }
    }

    fn propose(&self, command: ShardCommand) {
        let proposal = self.log.propose(command.to_bytes());
        // Lost proposals are repeated by the leader's timers.
        drop(runtime::spawn(async move { drop(proposal.await) }));
    }

    fn propose_slices(&self, slices: Vec<Slice>) {
        let proposal = self.log.propose(ShardCommand::Slices(slices.into()).to_bytes());
        let this = Weak::clone(&self.this);
        drop(runtime::spawn(async move {
            let outcome = proposal.await;
            let Some(service) = this.upgrade() else { return };
            if let Some(role) = service.role.lock().as_mut() {
                role.feeder.landed();
            }
            if outcome.is_ok() {
                service.pump();
            }
        }));
    }

    /// Fetches the slices after the cursor from whichever sequencer replica
    /// answers.
    fn pull(&self, role: Option<&mut Role>, cursor: Epoch) {
        let Some(role) = role.filter(|role| !role.is_pulling) else { return };
        role.is_pulling = true;
        let term = role.term;
        let this = Weak::clone(&self.this);
        let (peers, route) = (Arc::clone(&self.peers), self.router.sequencer());
        let (shard, deadline) = (self.shard, self.config.call_deadline);
        drop(runtime::spawn(async move {
            let mut slices = Vec::new();
            for node in route.leader.into_iter().chain(route.voters) {
                let request = Request::Slices { shard, after: cursor };
                if let Ok(Reply::Slices(found)) = peers.call(node, request, deadline).await {
                    slices = found.0;
                    break;
                }
            }
            if let Some(service) = this.upgrade() {
                service.pulled(term, slices);
            }
        }));
    }

    /// Takes in what a pull of a term brought.
    fn pulled(&self, term: u64, slices: Vec<Slice>) {
        if !slices.is_empty() {
            self.offer(slices);
        }
        // The pull ends only here, so that its answer asks for no other. Slices
        // that do not continue the chain are all that a leader gets which was
        // deposed and does not know it: those in between are done and forgotten.
        // An answer of this very node would bring the next at once, for ever.
        if let Some(role) = self.role.lock().as_mut().filter(|role| role.term == term) {
            role.is_pulling = false;
        }
    }

    fn offer(&self, slices: Vec<Slice>) {
        {
            let machine = self.replica.machine();
            let mut role = self.role.lock();
            let (Some(machine), Some(role)) = (machine.as_ref(), role.as_mut()) else { return };
            role.feeder.offer(machine.cursor(), slices);
        }
        self.pump();
    }

    /// Handles a one-way message for this shard.
    pub(super) fn handle(&self, message: PeerMessage) {
        match message {
            PeerMessage::Slices { slices, .. } => self.offer(slices.0),
            PeerMessage::Contribute { from, txn, contribution, .. } => {
                self.with_leader(|leader, machine, now| {
                    leader.contributed(machine, txn, from, contribution, now);
                });
            }
            PeerMessage::Ask { from, txn, .. } => {
                self.with_leader(|leader, machine, _| leader.asked(machine, txn, from));
            }
            PeerMessage::Report { .. } | PeerMessage::Watermarks { .. } => {}
        }
    }

    fn with_leader(&self, act: impl FnOnce(&mut ShardLeader, &ShardMachine, Duration)) {
        {
            let machine = self.replica.machine();
            let mut role = self.role.lock();
            let (Some(machine), Some(role)) = (machine.as_ref(), role.as_mut()) else { return };
            act(&mut role.leader, machine, self.clock.monotonic());
        }
        self.pump();
    }

    /// Runs a single-shard transaction (rules 5 and 12).
    pub(super) async fn execute(&self, execute: Execute) -> Reply {
        let leadership = self.log.leadership();
        let now = *leadership.borrow();
        if !now.leads {
            return Reply::NotLeader(now.leader);
        }
        if execute.call.footprint.is_read_only() {
            if let Err(reply) = check_size(&execute.call) {
                return reply;
            }
            // `None`: it must be logged.
            if let Some(reply) = self.read(&leadership, now.term, &execute).await {
                return reply;
            }
        }
        if let Err(reply) = self.admit(&execute) {
            return reply;
        }
        let early = early_footprint(&execute.call);
        let request = execute.request;
        let Some(decision) = self.decisions.register(request.key()) else {
            return busy("too many requests wait at this shard");
        };
        let direct = Direct {
            request,
            epoch: execute.epoch,
            time_millis: self.clock.wall_millis(),
            seed: runtime::random(),
            call: execute.call,
        };
        match self.log.propose(ShardCommand::Direct(direct).to_bytes()).await {
            Ok(()) => {}
            Err(ProposeError::NotLeader(leader)) => return Reply::NotLeader(leader),
            Err(ProposeError::Refused(reason)) => return Reply::Busy(Blob::from(reason.as_str())),
            Err(ProposeError::Unknown) => return Reply::Unknown,
        }
        if let Some(footprint) = early {
            return self.settle_early(&leadership, now.term, decision, &footprint).await;
        }
        self.settle(&leadership, now.term, decision).await
    }

    /// Refuses before admission what the machine would refuse after it, and
    /// what exceeds a limit.
    fn admit(&self, execute: &Execute) -> Result<(), Reply> {
        let machine = self.replica.machine();
        let Some(machine) = machine.as_ref() else { return Err(Reply::NotLeader(None)) };
        if machine.lookup(&execute.request).is_some() {
            return Ok(()); // A retry finds its result in the log's order.
        }
        check_size(&execute.call)?;
        if execute.epoch != machine.epoch() || !machine.owns(&execute.call.footprint) {
            return Err(Reply::Moved);
        }
        self.check_birth(&execute.request, machine)?;
        if machine.pending_count() >= self.config.pending_max {
            return Err(busy("too many transactions wait in this shard's gate"));
        }
        if machine.remembered_count() >= self.config.remembered_max {
            return Err(busy("this shard remembers too many unacknowledged requests"));
        }
        Ok(())
    }

    /// Refuses a request whose row would outlast every floor. A shard does not
    /// know how far the sequencer is, and must not have to ask: so this is
    /// decided before the log, by what its leader has heard, with room for
    /// what it has not.
    fn check_birth(&self, request: &RequestId, machine: &ShardMachine) -> Result<(), Reply> {
        let known = self.gate.known().logged.max(machine.cursor());
        let is_born = request.birth.0 <= known.0.saturating_add(BIRTH_AHEAD_MAX);
        if is_born { Ok(()) } else { Err(busy(UNBORN)) }
    }

    /// An unlogged read; `None` when it must be logged.
    async fn read(
        &self,
        leadership: &quorate_types::watch::Receiver<Leadership>,
        term: u64,
        execute: &Execute,
    ) -> Option<Reply> {
        let read_index = if planted!(ReadWithoutIndex) {
            Ok(ReadIndex { term, index: 0 })
        } else {
            self.log.read_index().await
        };
        let confirmed = match read_index {
            Ok(confirmed) => confirmed,
            Err(leader) => return Some(Reply::NotLeader(leader)),
        };
        if !self.log.applied(confirmed.index).await {
            return Some(Reply::Unknown);
        }
        let outcome = {
            let machine = self.replica.machine();
            let still = *leadership.borrow();
            if !still.leads || still.term != confirmed.term || still.term != term {
                return Some(Reply::NotLeader(still.leader));
            }
            let Some(machine) = machine.as_ref() else { return Some(Reply::NotLeader(None)) };
            let now_millis = self.clock.wall_millis();
            machine.read(&*self.replica.store, &execute.call, execute.epoch, now_millis)
        };
        match outcome {
            Ok(ReadOutcome::Answer { verdict, position }) => {
                if planted!(EarlyReply) {
                    return Some(Reply::Verdict(verdict));
                }
                Some(self.release(leadership, term, position, Reply::Verdict(verdict)).await)
            }
            Ok(ReadOutcome::MustBeLogged) => {
                sometimes!("a read must be logged");
                None
            }
            Ok(ReadOutcome::Moved) => Some(Reply::Moved),
            Err(halt) => {
                tracing::error!(%halt, "a read failed");
                Some(Reply::Unknown)
            }
        }
    }

    /// The one door through which a reply that tells of the state leaves: once
    /// the watermark covers its position (invariant v), and only in the term
    /// in which it was asked for.
    async fn release(
        &self,
        leadership: &quorate_types::watch::Receiver<Leadership>,
        term: u64,
        position: Epoch,
        reply: Reply,
    ) -> Reply {
        let passed = while_leading(leadership, term, self.gate.pass(position)).await;
        if passed.is_none() {
            return Reply::Unknown;
        }
        debug_assert!(
            self.gate.covers(position),
            "invariant v: no reply leaves before L covers its position"
        );
        reply
    }

    /// Waits for a decision and for the watermark to cover it.
    async fn settle(
        &self,
        leadership: &quorate_types::watch::Receiver<Leadership>,
        term: u64,
        decision: tokio::sync::oneshot::Receiver<Decision>,
    ) -> Reply {
        let Some(Ok(decision)) = while_leading(leadership, term, decision).await else {
            return Reply::Unknown;
        };
        let (reply, position) = match decision {
            Decision::Verdict(Verdict::Poisoned, position) => (Reply::Poisoned, position),
            Decision::Verdict(verdict, position) => (Reply::Verdict(verdict), position),
            // They tell of the map and of our memory, not of the state.
            Decision::Refused(Refusal::Moved, _) => return Reply::Moved,
            Decision::Gone => return Reply::Gone,
            Decision::Refused(Refusal::Expired, position) => (Reply::Expired, position),
            Decision::Refused(Refusal::Poisoned, position) => (Reply::Poisoned, position),
        };
        self.release(leadership, term, position, reply).await
    }

    /// The same, except that the reply waits for a part of its position only.
    async fn settle_early(
        &self,
        leadership: &quorate_types::watch::Receiver<Leadership>,
        term: u64,
        decision: tokio::sync::oneshot::Receiver<Decision>,
        footprint: &Footprint,
    ) -> Reply {
        let decision = while_leading(leadership, term, decision).await;
        let Some(Ok(Decision::Verdict(verdict @ (Verdict::Done(_) | Verdict::Aborted(_)), _))) =
            decision
        else {
            return Reply::Unknown;
        };
        let position =
            self.replica.machine().as_ref().map(|machine| machine.last_writer(footprint));
        self.release(leadership, term, position.unwrap_or_default(), Reply::Verdict(verdict)).await
    }

    /// Tells the decision of an ordered transaction whose home is here.
    pub(super) async fn await_decision(&self, request: RequestId, txn: TxnId) -> Reply {
        let leadership = self.log.leadership();
        let now = *leadership.borrow();
        if !now.leads {
            return Reply::NotLeader(now.leader);
        }
        let Some(decision) = self.decisions.register(request.key()) else {
            return busy("too many requests wait at this shard");
        };
        // Registered first, looked up second: no decision falls between.
        let known = {
            let machine = self.replica.machine();
            let Some(machine) = machine.as_ref() else { return Reply::NotLeader(None) };
            match machine.lookup(&request) {
                Some(FenceOutcome::Decided(verdict)) => {
                    Some(Decision::Verdict(verdict, machine.cursor()))
                }
                None if txn.epoch <= machine.done() && machine.answers(txn).is_none() => {
                    sometimes!("an answer is gone");
                    return Reply::Gone;
                }
                _ => None,
            }
        };
        match known {
            Some(decision) => self.decisions.answer(&request.key(), decision),
            None => {
                self.with_leader(|leader, machine, now| leader.awaited(machine, txn, now));
            }
        }
        self.settle(&leadership, now.term, decision).await
    }

    /// Resolves a request at its old home (rule 15).
    pub(super) async fn fence(&self, request: RequestId, home: Blob) -> Reply {
        let leadership = self.log.leadership();
        let now = *leadership.borrow();
        if !now.leads {
            return Reply::NotLeader(now.leader);
        }
        if let Some(machine) = self.replica.machine().as_ref()
            && machine.lookup(&request).is_none()
            && let Err(refused) = self.check_birth(&request, machine)
        {
            return refused;
        }
        let (Some(fence), Some(decision)) =
            (self.fences.register(request.key()), self.decisions.register(request.key()))
        else {
            return busy("too many requests wait at this shard");
        };
        let command = ShardCommand::Fence(Fence { request, home });
        match self.log.propose(command.to_bytes()).await {
            Ok(()) => {}
            Err(ProposeError::NotLeader(leader)) => return Reply::NotLeader(leader),
            Err(ProposeError::Refused(reason)) => return Reply::Busy(Blob::from(reason.as_str())),
            Err(ProposeError::Unknown) => return Reply::Unknown,
        }
        let (mut decision, mut until) = (decision, leadership.clone());
        let outcome = tokio::select! {
            biased;
            fenced = fence => fenced.ok(),
            refused = &mut decision => return match refused {
                Ok(Decision::Refused(Refusal::Moved, _)) => Reply::Moved,
                _ => Reply::Unknown, // Ask again; the row is there now.
            },
            () = lost(&mut until, now.term) => None,
        };
        let (reply, position) = match outcome {
            Some((FenceOutcome::Pending, _)) => {
                return self.settle(&leadership, now.term, decision).await;
            }
            Some((FenceOutcome::Decided(verdict), position)) => (Reply::Verdict(verdict), position),
            Some((FenceOutcome::Poisoned, position)) => (Reply::Poisoned, position),
            Some((FenceOutcome::Expired, position)) => (Reply::Expired, position),
            None => return Reply::Unknown,
        };
        self.release(&leadership, now.term, position, reply).await
    }

    /// Lists live keys as this leader has applied them, without asking the
    /// others: the one weak read.
    pub(super) fn keys(&self, from: Blob, limit: u32) -> Reply {
        let now = self.leadership();
        let machine = self.replica.machine();
        let Some(machine) = machine.as_ref().filter(|_| now.leads) else {
            return Reply::NotLeader(now.leader);
        };
        if !machine.range().contains(&from) {
            return Reply::Moved;
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).clamp(1, KEYS_PAGE_MAX);
        match machine.keys(&*self.replica.store, from, limit) {
            Ok((keys, next)) => Reply::Keys(keys.into(), next),
            Err(halt) => {
                tracing::error!(%halt, "keys cannot be listed");
                Reply::Unknown
            }
        }
    }

    /// The middle of the data as this replica has applied it: a split may be
    /// anywhere, so whoever has the data can tell.
    pub(super) fn middle_key(&self) -> Reply {
        if self.replica.machine().is_none() {
            return Reply::NotLeader(None); // There is no data yet.
        }
        match self.replica.store.middle_key() {
            Ok(key) => Reply::MiddleKey(key),
            Err(error) => {
                tracing::error!(%error, shard = %self.shard(), "the middle cannot be found");
                Reply::Unknown
            }
        }
    }

    /// The shard's keys as this replica knows them.
    #[must_use]
    pub fn range(&self) -> Option<KeyRange> {
        self.replica.machine().as_ref().map(|machine| machine.range().clone())
    }
}

/// The footprint of a call whose reply a planted bug lets leave early.
fn early_footprint(call: &Call) -> Option<Footprint> {
    let footprint = &call.footprint;
    let is_blind = footprint.reads.is_empty() && footprint.ranges.is_empty();
    if planted!(EarlyReplyChain) || (planted!(EarlyReplyBlind) && is_blind) {
        return Some(footprint.clone());
    }
    None
}

/// Refuses before admission what no entry or row could hold.
pub(super) fn check_size(call: &Call) -> Result<(), Reply> {
    let footprint = &call.footprint;
    let mut keys = footprint.reads.iter().chain(&footprint.writes);
    let is_too_large = call.payload_bytes() > CALL_BYTES_MAX
        || footprint.ranges.len() > RANGES_MAX
        || keys.any(|key| key.len() > KEY_BYTES_MAX);
    if is_too_large { Err(Reply::TooLarge) } else { Ok(()) }
}

pub(super) fn busy(reason: &'static str) -> Reply {
    Reply::Busy(Blob::from_static(reason.as_bytes()))
}
