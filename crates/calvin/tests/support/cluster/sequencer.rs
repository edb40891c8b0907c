//! The sequencer's replicas and what `SequencerService` does around its cores.

use bytes::Bytes;
use quorate_calvin::sequencer::{
    NotOrdered, SequencerEvent, SequencerLeader, SequencerLimits, SequencerMachine,
};
use quorate_calvin::{
    MapChange, PeerMessage, Reply, SequencerCommand, ShardMap, Submission, WriteSet,
};
use quorate_types::{Blob, ClientId, Epoch, ShardId};

use super::log::GroupLog;
use super::{Around, CallId, NODES, Out};
use crate::support::store::MemStore;

const BATCHES_IN_FLIGHT_MAX: usize = 2;
const OFFERED_MAX: usize = 4;

#[derive(Clone, Debug)]
pub struct Role {
    pub term: u64,
    leader: SequencerLeader,
    in_flight: usize,
}

#[derive(Clone)]
pub struct Replica {
    pub store: MemStore,
    pub machine: SequencerMachine,
    pub applied: u64,
    pub role: Option<Role>,
    waiters: Vec<(CallId, (ClientId, u64))>,
}

pub struct Applied {
    pub index: u64,
    pub digest: u64,
    pub events: Vec<(u64, Vec<SequencerEvent>)>,
}

#[derive(Clone)]
pub struct SequencerGroup {
    pub log: GroupLog,
    pub replicas: [Replica; NODES],
    limits: SequencerLimits,
}

impl SequencerGroup {
    pub fn new(
        map: ShardMap,
        retention_millis: u64,
        limits: SequencerLimits,
        history_max: usize,
    ) -> Self {
        let replicas = std::array::from_fn(|_| {
            let store = MemStore::new(Default::default(), 0, history_max);
            let machine = SequencerMachine::load(&store, 0).unwrap();
            Replica { store, machine, applied: 0, role: None, waiters: Vec::new() }
        });
        let mut log = GroupLog::new(0, 0);
        log.propose(0, 1, SequencerCommand::Init { map, retention_millis }.to_bytes());
        log.commit();
        Self { log, replicas, limits }
    }

    fn reload(&mut self, node: usize) {
        let replica = &mut self.replicas[node];
        replica.applied = replica.store.index();
        replica.machine = SequencerMachine::load(&replica.store, replica.applied).unwrap();
    }

    pub fn restart(&mut self, node: usize, lost_commits: usize) {
        let replica = &mut self.replicas[node];
        replica.role = None;
        replica.waiters.clear();
        replica.store.roll_back(lost_commits);
        self.reload(node);
    }

    /// Replaces a replica by a copy of the other's rows.
    pub fn install(&mut self, node: usize, from: usize, history_max: usize) {
        let (rows, index) = (self.replicas[from].store.rows(), self.replicas[from].store.index());
        self.replicas[node].store = MemStore::new(rows, index, history_max);
        self.reload(node);
    }

    pub fn follow(&mut self, around: &Around<'_>, node: usize, outs: &mut Vec<Out>) {
        let leads = self.log.leader == node && self.replicas[node].applied >= self.log.term_start();
        let term = leads.then_some(self.log.term);
        let limits = self.limits;
        let replica = &mut self.replicas[node];
        if replica.role.as_ref().map(|role| role.term) == term {
            return;
        }
        if replica.role.take().is_some() {
            let waiting = replica.waiters.drain(..);
            outs.extend(waiting.map(|(call, _)| Out::Reply(call, Reply::Unknown)));
        }
        if let Some(term) = term {
            let leader = SequencerLeader::new(&replica.machine, limits, around.now);
            replica.role = Some(Role { term, leader, in_flight: 0 });
            self.publish(node, outs);
        }
    }

    pub fn can_apply(&self, node: usize) -> bool {
        self.replicas[node].applied < self.log.committed()
    }

    pub fn apply(
        &mut self,
        around: &Around<'_>,
        node: usize,
        max: u64,
        outs: &mut Vec<Out>,
    ) -> Applied {
        let replica = &mut self.replicas[node];
        let last = self.log.committed().min(replica.applied + max);
        let mut writes = WriteSet::default();
        let mut events = Vec::new();
        for index in replica.applied + 1..=last {
            let entry = self.log.entry(index);
            let command = entry.command.as_deref();
            let found = replica.machine.apply(&mut writes, index, command).unwrap();
            let is_batch = command.is_some_and(|command| {
                matches!(SequencerCommand::from_bytes(command).unwrap(), SequencerCommand::Batch(_))
            });
            if let Some(role) = replica.role.as_mut().filter(|role| role.term == entry.term)
                && is_batch
            {
                role.in_flight = role.in_flight.saturating_sub(1);
            }
            events.push((index, found));
        }
        replica.machine.finish(&mut writes);
        replica.store.commit_at(last, writes);
        replica.applied = last;
        let digest = replica.store.digest();
        for event in events.iter().flat_map(|(_, events)| events) {
            self.handle_event(around, node, event, outs);
        }
        self.flush(around, node);
        self.publish(node, outs);
        Applied { index: last, digest, events }
    }

    fn handle_event(
        &mut self,
        around: &Around<'_>,
        node: usize,
        event: &SequencerEvent,
        outs: &mut Vec<Out>,
    ) {
        let (request, reply) = match event {
            SequencerEvent::Ordered { request, txn, home } => {
                (request, Reply::Ordered { txn: *txn, home: *home })
            }
            SequencerEvent::Refused { request, reason: NotOrdered::Expired } => {
                (request, Reply::Expired)
            }
            SequencerEvent::Refused { request, .. } => (request, Reply::Busy(Blob::new())),
            SequencerEvent::Sliced { epoch, shards } => {
                let replica = &mut self.replicas[node];
                if let Some(role) = replica.role.as_mut() {
                    role.leader.catch_up(&replica.machine, around.now);
                    shards.iter().for_each(|shard| self.offer(node, *shard, *epoch, outs));
                }
                return;
            }
            // Nobody waits for these; the oracle holds them against the map.
            SequencerEvent::Changed { .. } => return,
        };
        let key = request.key();
        for (call, _) in self.replicas[node].waiters.extract_if(.., |(_, waits)| *waits == key) {
            outs.push(Out::Reply(call, reply.clone()));
        }
    }

    fn offer(&self, node: usize, shard: ShardId, from: Epoch, outs: &mut Vec<Out>) {
        let message = self.slices(node, shard, Epoch(from.0 - 1));
        outs.push(Out::ToShard(shard, message));
    }

    /// Slices of a shard after its cursor, as a message to it.
    pub fn slices(&self, node: usize, shard: ShardId, after: Epoch) -> PeerMessage {
        let machine = &self.replicas[node].machine;
        let slices = machine.slices_after(shard, after, OFFERED_MAX).cloned().collect();
        PeerMessage::Slices { to: shard, slices }
    }

    fn publish(&self, node: usize, outs: &mut Vec<Out>) {
        let replica = &self.replicas[node];
        if let Some(role) = &replica.role {
            outs.push(Out::Marks(node, role.leader.watermarks(&replica.machine)));
        }
    }

    fn flush(&mut self, around: &Around<'_>, node: usize) {
        let replica = &mut self.replicas[node];
        let Some(role) = replica.role.as_mut() else { return };
        while role.in_flight < BATCHES_IN_FLIGHT_MAX {
            let time_millis = around.wall_millis[node];
            let batch = role.leader.next_batch(&replica.machine, around.now, time_millis, 7);
            let Some(batch) = batch else { return };
            role.in_flight += 1;
            self.log.propose(node, role.term, SequencerCommand::Batch(batch).to_bytes());
        }
    }

    /// Logs an empty batch, as an idle sequencer does now and then.
    pub fn idle(&mut self, around: &Around<'_>, node: usize) {
        let replica = &mut self.replicas[node];
        let Some(role) = replica.role.as_mut().filter(|role| role.in_flight == 0) else { return };
        let batch = role.leader.idle_batch(&replica.machine, around.wall_millis[node]);
        role.in_flight += 1;
        self.log.propose(node, role.term, SequencerCommand::Batch(batch).to_bytes());
    }

    pub fn tick(&mut self, around: &Around<'_>, node: usize, outs: &mut Vec<Out>) {
        let Some(role) = &self.replicas[node].role else { return };
        let unlogged: Vec<_> = role.leader.unlogged_shards().collect();
        for (shard, epoch) in unlogged {
            self.offer(node, shard, epoch, outs);
        }
        self.flush(around, node);
        self.publish(node, outs);
    }

    pub fn reported(
        &mut self,
        node: usize,
        shard: ShardId,
        cursor: Epoch,
        done: Epoch,
        outs: &mut Vec<Out>,
    ) {
        let replica = &mut self.replicas[node];
        if let Some(role) = replica.role.as_mut() {
            role.leader.reported(&replica.machine, shard, cursor, done);
            self.publish(node, outs);
        }
    }

    pub fn submit(
        &mut self,
        around: &Around<'_>,
        node: usize,
        call: CallId,
        submission: Submission,
        outs: &mut Vec<Out>,
    ) {
        let leader = self.log.leader;
        let replica = &mut self.replicas[node];
        let Some(role) = replica.role.as_mut() else {
            let leader = Some(quorate_types::NodeId(leader as u64));
            outs.push(Out::Reply(call, Reply::NotLeader(leader)));
            return;
        };
        let request = submission.request;
        if let Some((txn, home)) = replica.machine.lookup(&request) {
            outs.push(Out::Reply(call, Reply::Ordered { txn, home }));
            return;
        }
        if role.leader.submit(&replica.machine, submission, around.now).is_err() {
            outs.push(Out::Reply(call, Reply::Busy(Blob::new())));
            return;
        }
        replica.waiters.push((call, request.key()));
        self.flush(around, node);
    }

    /// Asks the leader to sequence a map change.
    pub fn change(&mut self, around: &Around<'_>, change: MapChange) {
        let (node, term) = (self.log.leader, self.log.term);
        let time_millis = around.wall_millis[node];
        let command = SequencerCommand::Change { change, time_millis };
        self.log.propose(node, term, command.to_bytes());
    }

    /// The present leader's proposals are refused: its batches will not be in
    /// the log.
    pub fn refuse_proposals(&mut self, outs: &mut Vec<Out>) {
        let replica = &mut self.replicas[self.log.leader];
        let is_batch = |command: &Bytes| {
            matches!(SequencerCommand::from_bytes(command).unwrap(), SequencerCommand::Batch(_))
        };
        let lost = std::mem::take(&mut self.log.proposed);
        if let Some(role) = replica.role.as_mut() {
            role.in_flight -= lost.iter().filter(|command| is_batch(command)).count();
        }
        let waiting = replica.waiters.drain(..);
        outs.extend(waiting.map(|(call, _)| Out::Reply(call, Reply::Unknown)));
    }

    pub fn waiting(&self, node: usize) -> usize {
        self.replicas[node].waiters.len()
    }

    pub fn describe(&self, node: usize) -> String {
        let replica = &self.replicas[node];
        format!(
            "{} {:x} {:?} {:?}",
            replica.applied,
            replica.store.digest(),
            replica.role,
            replica.waiters
        )
    }
}
