//! A sequencer replica and the service that its leader offers.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use quorate_types::{Blob, ClientId, Epoch, NodeId, ShardId, TxnId, buggify, runtime};
use tokio::sync::Notify;

use super::gauges::Gauges;
use super::leadership::while_leading;
use super::shard::{Surroundings, UNBORN, busy, check_size, no_outcomes};
use super::waiters::Waiters;
use crate::command::{
    MapChange, Misfit, SequencerBatch, SequencerCommand, ShardMap, Slice, Submission, within_budget,
};
use crate::ports::{Destination, GroupLog, GroupMachine, Leadership, ProposeError};
use crate::sequencer::{
    NotOrdered, SequencerEvent, SequencerHalt, SequencerLeader, SequencerMachine,
};
use crate::store::{Store, WriteSet};
use crate::wire::{PeerMessage, Reply};

/// Yields the first map, once the metadata has one, and how long requests are
/// remembered.
pub type InitialMap = Arc<dyn Fn() -> Option<(ShardMap, u64)> + Send + Sync>;

/// Batches in the log but not applied yet. Two keep the disk busy while one is
/// prepared; more would only make the batches smaller.
const BATCHES_IN_FLIGHT_MAX: usize = 2;
/// Slices offered to a shard at a time.
const OFFERED_MAX: usize = 256;
/// An idle sequencer logs an empty batch this often, so that floors move.
const IDLE_BATCH_EVERY: Duration = Duration::from_secs(10);

/// The replicated part: the machine over its store. The raft host drives it.
pub struct SequencerReplica {
    store: Arc<dyn Store>,
    machine: RwLock<SequencerMachine>,
    service: OnceLock<Weak<SequencerService>>,
}

impl SequencerReplica {
    /// Opens the replica from its store; `applied` is the log index its rows
    /// reflect.
    ///
    /// # Errors
    /// [`SequencerHalt`] when a row cannot be read.
    pub fn open(store: Arc<dyn Store>, applied: u64) -> Result<Arc<Self>, SequencerHalt> {
        let machine = RwLock::new(SequencerMachine::load(&*store, applied)?);
        Ok(Arc::new(Self { store, machine, service: OnceLock::new() }))
    }

    /// The machine as of now.
    pub fn machine(&self) -> RwLockReadGuard<'_, SequencerMachine> {
        self.machine.read()
    }
}

impl GroupMachine for SequencerReplica {
    type Halt = SequencerHalt;

    fn apply(
        &self,
        entries: &[(u64, Option<&[u8]>)],
        host_row: Blob,
    ) -> Result<Vec<Bytes>, SequencerHalt> {
        let Some((last, _)) = entries.last() else { return Ok(Vec::new()) };
        let mut writes = WriteSet::default();
        let mut events = Vec::new();
        {
            let mut machine = self.machine.write();
            for (index, command) in entries {
                events.extend(machine.apply(&mut writes, *index, *command)?);
            }
            machine.finish(&mut writes);
            self.store.commit(*last, host_row, writes)?;
        }
        if let Some(service) = self.service.get().and_then(Weak::upgrade) {
            service.handle_events(&events);
        }
        Ok(no_outcomes(entries.len()))
    }

    fn reload(&self, applied: u64) -> Result<(), SequencerHalt> {
        let loaded = SequencerMachine::load(&*self.store, applied)?;
        *self.machine.write() = loaded;
        Ok(())
    }
}

/// What a waiter for a submission is told.
#[derive(Clone, Debug)]
enum Placed {
    Ordered(TxnId, ShardId),
    Refused(NotOrdered),
    /// The batch is not in the log.
    NotLogged,
    /// The batch may be in the log.
    Unknown,
}

struct Role {
    term: u64,
    leader: SequencerLeader,
    in_flight: usize,
    batched_at: Duration,
    is_initializing: bool,
}

/// What the sequencer's leader does: admit, batch, offer slices, keep L and C.
pub struct SequencerService {
    replica: Arc<SequencerReplica>,
    log: Arc<dyn GroupLog>,
    around: Surroundings,
    initial_map: InitialMap,
    role: Mutex<Option<Role>>,
    placements: Waiters<(ClientId, u64), Placed>,
    /// By child and map version: a change for the same version that comes
    /// first in the log answers nobody but whoever asked for it.
    changes: Waiters<(ShardId, u64), Result<Epoch, Misfit>>,
    work: Notify,
    this: Weak<Self>,
}

impl SequencerService {
    pub(super) fn start(
        replica: Arc<SequencerReplica>,
        log: Arc<dyn GroupLog>,
        around: Surroundings,
        initial_map: InitialMap,
    ) -> Arc<Self> {
        let service = Arc::new_cyclic(|this| Self {
            replica: Arc::clone(&replica),
            log,
            initial_map,
            role: Mutex::new(None),
            placements: Waiters::new(around.config.waiters_max),
            changes: Waiters::new(around.config.waiters_max),
            work: Notify::new(),
            this: Weak::clone(this),
            around,
        });
        // A replica has one service for life; a second start would be a bug of
        // the host and is harmless.
        let _ = replica.service.set(Arc::downgrade(&service));
        drop(runtime::spawn(Self::drive(Arc::downgrade(&service), service.log.leadership())));
        service
    }

    /// The replica.
    #[must_use]
    pub const fn replica(&self) -> &Arc<SequencerReplica> {
        &self.replica
    }

    /// Who leads, as this replica sees it.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        *self.log.leadership().borrow()
    }

    /// Adds what this service holds at the moment.
    pub(super) fn measure(&self, gauges: &mut Gauges) {
        gauges.waiting += self.placements.len() + self.changes.len();
        gauges.queued += self.role.lock().as_ref().map_or(0, |role| role.leader.queued_count());
        gauges.slices_kept += self.replica.machine().slice_count();
    }

    async fn drive(this: Weak<Self>, mut leadership: quorate_types::watch::Receiver<Leadership>) {
        let mut ticked_at = None;
        loop {
            let Some(service) = this.upgrade() else { return };
            service.follow(*leadership.borrow_and_update());
            let now = service.around.clock.monotonic();
            let pause = service.around.config.tick;
            if ticked_at.is_none_or(|ticked| now.saturating_sub(ticked) >= pause) {
                ticked_at = Some(now);
                service.tick(now);
            }
            service.flush_batches();
            let is_closed = tokio::select! {
                biased;
                changed = leadership.changed() => changed.is_err(),
                () = service.work.notified() => false,
                () = tokio::time::sleep(pause) => false,
            };
            if is_closed {
                service.follow(Leadership::default());
                return;
            }
        }
    }

    /// Lock order, here and everywhere in this file: machine, then role; and
    /// nothing is sent while either is held.
    fn follow(&self, now: Leadership) {
        let machine = self.replica.machine();
        let mut role = self.role.lock();
        if role.as_ref().map(|role| role.term) == now.leads.then_some(now.term) {
            return;
        }
        *role = None;
        self.placements.fail_all();
        self.changes.fail_all();
        if now.leads {
            let began = self.around.clock.monotonic();
            *role = Some(Role {
                term: now.term,
                leader: SequencerLeader::new(&machine, self.around.config.sequencer, began),
                in_flight: 0,
                batched_at: began,
                is_initializing: false,
            });
        }
    }

    /// Repeats what may have been lost: offers, watermarks, the first map.
    fn tick(&self, now: Duration) {
        self.placements.sweep();
        self.changes.sweep();
        let unlogged: Vec<(ShardId, Epoch)> = {
            let machine = self.replica.machine();
            let mut role = self.role.lock();
            let Some(role) = role.as_mut() else { return };
            if machine.map().is_none() {
                self.initialize(role);
            } else if now.saturating_sub(role.batched_at) >= IDLE_BATCH_EVERY && role.in_flight == 0
            {
                let batch = role.leader.idle_batch(&machine, self.around.clock.wall_millis());
                self.propose_batch(role, batch, now);
            }
            role.leader.unlogged_shards().collect()
        };
        for (shard, epoch) in unlogged {
            self.offer(shard, epoch);
        }
        self.publish();
    }

    fn initialize(&self, role: &mut Role) {
        let Some((map, retention_millis)) = (self.initial_map)() else { return };
        if std::mem::replace(&mut role.is_initializing, true) {
            return;
        }
        let command = SequencerCommand::Init { map, retention_millis };
        let proposal = self.log.propose(command.to_bytes());
        let this = Weak::clone(&self.this);
        drop(runtime::spawn(async move {
            drop(proposal.await);
            let Some(service) = this.upgrade() else { return };
            if let Some(role) = service.role.lock().as_mut() {
                role.is_initializing = false;
            }
        }));
    }

    fn flush_batches(&self) {
        loop {
            let machine = self.replica.machine();
            let mut role = self.role.lock();
            let Some(role) = role.as_mut() else { return };
            if role.in_flight >= BATCHES_IN_FLIGHT_MAX {
                return;
            }
            let (now, time_millis) =
                (self.around.clock.monotonic(), self.around.clock.wall_millis());
            match role.leader.next_batch(&machine, now, time_millis, runtime::random()) {
                Some(batch) => self.propose_batch(role, batch, now),
                None => return,
            }
        }
    }

    fn propose_batch(&self, role: &mut Role, batch: SequencerBatch, now: Duration) {
        role.in_flight += 1;
        role.batched_at = now;
        let requests: Vec<_> = batch.txns.iter().map(|txn| txn.request.key()).collect();
        let proposal = self.log.propose(SequencerCommand::Batch(batch).to_bytes());
        let this = Weak::clone(&self.this);
        drop(runtime::spawn(async move {
            let outcome = proposal.await;
            let Some(service) = this.upgrade() else { return };
            let lost = match outcome {
                Ok(()) => None,
                Err(ProposeError::NotLeader(_) | ProposeError::Refused(_)) => {
                    Some(Placed::NotLogged)
                }
                Err(ProposeError::Unknown) => Some(Placed::Unknown),
            };
            if let Some(lost) = lost {
                requests.iter().for_each(|key| service.placements.answer(key, lost.clone()));
            }
            if let Some(role) = service.role.lock().as_mut() {
                role.in_flight = role.in_flight.saturating_sub(1);
            }
            service.work.notify_one();
        }));
    }

    fn handle_events(&self, events: &[SequencerEvent]) {
        let mut sliced = Vec::new();
        {
            let machine = self.replica.machine();
            if let Some(role) = self.role.lock().as_mut() {
                role.leader.catch_up(&machine, self.around.clock.monotonic());
            }
        }
        for event in events {
            match event {
                SequencerEvent::Ordered { request, txn, home } => {
                    self.placements.answer(&request.key(), Placed::Ordered(*txn, *home));
                }
                SequencerEvent::Refused { request, reason } => {
                    self.placements.answer(&request.key(), Placed::Refused(*reason));
                }
                SequencerEvent::Changed { version, child, outcome } => {
                    self.changes.answer(&(*child, *version), *outcome);
                }
                SequencerEvent::Sliced { epoch, shards } => sliced.push((*epoch, shards.clone())),
            }
        }
        if self.role.lock().is_none() {
            return;
        }
        for (epoch, shards) in sliced {
            for shard in shards {
                self.offer(shard, epoch);
            }
        }
        // An epoch without work for anyone moves L at once.
        self.publish();
    }

    /// Pushes a shard's slices from an epoch on; a lost push is repeated.
    fn offer(&self, shard: ShardId, from: Epoch) {
        let before = Epoch(from.0.saturating_sub(1));
        let slices: Vec<Slice> = {
            let machine = self.replica.machine();
            within_budget(machine.slices_after(shard, before, OFFERED_MAX)).cloned().collect()
        };
        if !slices.is_empty() && !buggify!("calvin loses a push of slices") {
            let message = PeerMessage::Slices { to: shard, slices: slices.into() };
            self.around.peers.send(Destination::Shard(shard), message);
        }
    }

    /// Tells everyone how far the order is.
    fn publish(&self) {
        let marks = {
            let machine = self.replica.machine();
            let role = self.role.lock();
            let Some(role) = role.as_ref() else { return };
            role.leader.watermarks(&machine)
        };
        let message = PeerMessage::Watermarks { leader: self.around.node, marks };
        self.around.gate.learn(marks);
        self.around.peers.send(Destination::Everyone, message);
    }

    /// A shard's leader reports its progress.
    pub(super) fn reported(&self, shard: ShardId, cursor: Epoch, done: Epoch) {
        let is_news = {
            let machine = self.replica.machine();
            let mut role = self.role.lock();
            let Some(role) = role.as_mut() else { return };
            let before = role.leader.watermarks(&machine);
            role.leader.reported(&machine, shard, cursor, done);
            role.leader.watermarks(&machine) != before
        };
        if is_news {
            self.publish();
        }
    }

    /// The slices of a shard after its cursor, from applied state.
    pub(super) fn slices(&self, shard: ShardId, after: Epoch) -> Reply {
        let machine = self.replica.machine();
        let slices = within_budget(machine.slices_after(shard, after, OFFERED_MAX));
        Reply::Slices(slices.cloned().collect())
    }

    /// Orders a transaction (rules 1 and 2).
    pub(super) async fn submit(&self, submission: Submission) -> Reply {
        let leadership = self.log.leadership();
        let now = *leadership.borrow();
        if !now.leads {
            return Reply::NotLeader(now.leader);
        }
        let request = submission.request;
        if let Err(refused) = check_size(&submission.call) {
            return refused;
        }
        if let Some((txn, home)) = self.replica.machine().lookup(&request) {
            return Reply::Ordered { txn, home };
        }
        let Some(placed) = self.placements.register(request.key()) else {
            return busy("too many submissions wait at the sequencer");
        };
        let admitted = {
            let machine = self.replica.machine();
            match self.role.lock().as_mut() {
                Some(role) => {
                    role.leader.submit(&machine, submission, self.around.clock.monotonic())
                }
                None => return Reply::NotLeader(None),
            }
        };
        if let Err(refused) = admitted {
            return Reply::Busy(Blob::from(refused.to_string().as_str()));
        }
        self.work.notify_one();
        match while_leading(&leadership, now.term, placed).await {
            Some(Ok(Placed::Ordered(txn, home))) => Reply::Ordered { txn, home },
            Some(Ok(Placed::Refused(NotOrdered::Expired))) => Reply::Expired,
            Some(Ok(Placed::Refused(NotOrdered::Unborn))) => busy(UNBORN),
            Some(Ok(Placed::Refused(NotOrdered::Empty))) => busy("the call touches nothing"),
            Some(Ok(Placed::Refused(NotOrdered::NoMap))) => busy("the sequencer has no map yet"),
            Some(Ok(Placed::Refused(NotOrdered::TooWide))) => Reply::TooLarge,
            Some(Ok(Placed::Refused(NotOrdered::Crowded))) => busy("the batch is full"),
            Some(Ok(Placed::NotLogged)) => busy("the batch was not logged"),
            Some(Ok(Placed::Unknown) | Err(_)) | None => Reply::Unknown,
        }
    }

    /// Sequences a map change and tells its epoch. Asking again for a change
    /// that is in force answers that it does not fit; the caller reads the
    /// map to tell, which alone says what is in force.
    pub(super) async fn change(&self, change: MapChange) -> Reply {
        let leadership = self.log.leadership();
        let now = *leadership.borrow();
        if !now.leads {
            return Reply::NotLeader(now.leader);
        }
        if !change.has_fitting_members() {
            // Neither is anything of it to be logged, large as it may be.
            return Reply::NotChanged(Blob::from(Misfit::Members.to_string().as_str()));
        }
        let Some(outcome) = self.changes.register((change.child, change.version)) else {
            return busy("too many map changes wait at the sequencer");
        };
        let time_millis = self.around.clock.wall_millis();
        let command = SequencerCommand::Change { change, time_millis };
        match self.log.propose(command.to_bytes()).await {
            Ok(()) => {}
            Err(ProposeError::NotLeader(leader)) => return Reply::NotLeader(leader),
            Err(ProposeError::Refused(reason)) => return Reply::Busy(Blob::from(reason.as_str())),
            Err(ProposeError::Unknown) => return Reply::Unknown,
        }
        match while_leading(&leadership, now.term, outcome).await {
            Some(Ok(Ok(epoch))) => Reply::Changed(epoch),
            Some(Ok(Err(misfit))) => Reply::NotChanged(Blob::from(misfit.to_string().as_str())),
            Some(Err(_)) | None => Reply::Unknown,
        }
    }

    /// The map, if this replica leads: then it has applied every change that
    /// was ever acknowledged.
    pub(super) fn map(&self) -> Reply {
        let now = *self.log.leadership().borrow();
        match self.replica.machine().map() {
            Some(map) if now.leads => Reply::Map(map.clone()),
            _ if now.leads => busy("the sequencer has no map yet"),
            _ => Reply::NotLeader(now.leader),
        }
    }

    /// The node that runs this service.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.around.node
    }
}
