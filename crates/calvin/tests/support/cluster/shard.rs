//! One shard's replicas and what `ShardService` does around the pure cores,
//! without tasks: inputs come in, [`Out`]s go out.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_calvin::shard::{
    Event, Feeder, FenceOutcome, LeaderOutput, ReadOutcome, Refusal, ShardLeader, ShardMachine,
    Verdict,
};
use quorate_calvin::{
    Direct, Execute, Fence, Footprint, PeerMessage, Reply, ShardCommand, WriteSet,
};
use quorate_types::{Blob, ClientId, Epoch, RequestId, Seq, ShardId, TxnId};

use super::log::GroupLog;
use super::{Around, CallId, GateRule, NODES, Out};
use crate::support::procedures::Service;
use crate::support::store::{Forked, MemStore, Rows};

/// What kind of reply waits for the watermark; only the broken variants of
/// the gate tell them apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Direct,
    Read,
    Sequenced,
    Stored,
}

#[derive(Clone, Debug)]
enum Awaits {
    /// The decision of a direct command or read with this footprint.
    Direct(Footprint),
    /// The decision of a sequenced transaction.
    Sequenced,
    /// The outcome of a fence.
    Fence,
}

#[derive(Clone, Debug)]
struct Waiter {
    call: CallId,
    request: (ClientId, u64),
    awaits: Awaits,
}

/// A reply that waits for the watermark.
#[derive(Clone, Debug)]
struct Passing {
    call: CallId,
    reply: Reply,
    /// What the variant of the gate waits for.
    waits_for: Epoch,
    /// What rule 11 says to wait for.
    position: Epoch,
}

#[derive(Clone, Debug)]
struct PendingRead {
    call: CallId,
    execute: Execute,
    index: u64,
    term: u64,
}

#[derive(Clone, Debug)]
pub struct Role {
    pub term: u64,
    leader: ShardLeader,
    feeder: Feeder,
    is_pulling: bool,
    reported: (Epoch, Epoch),
}

#[derive(Clone)]
pub struct Replica {
    pub store: MemStore,
    /// Empty until a fork or a snapshot fills it.
    pub machine: Option<ShardMachine>,
    pub applied: u64,
    pub role: Option<Role>,
    waiters: Vec<Waiter>,
    passing: Vec<Passing>,
    reads: Vec<PendingRead>,
    /// By key, the last sequenced transaction that wrote it; what the broken
    /// gate "wait only if you saw a sequenced effect" goes by.
    seen: BTreeMap<Blob, Epoch>,
}

impl Replica {
    fn empty() -> Self {
        Self {
            store: MemStore::default(),
            machine: None,
            applied: 0,
            role: None,
            waiters: Vec::new(),
            passing: Vec::new(),
            reads: Vec::new(),
            seen: BTreeMap::new(),
        }
    }
}

/// What applying brought about, for the model's own checks.
pub struct Applied {
    pub index: u64,
    pub digest: u64,
    pub events: Vec<(u64, Vec<Event>)>,
    pub forked: Vec<Forked>,
}

#[derive(Clone)]
pub struct ShardGroup {
    pub shard: ShardId,
    pub log: GroupLog,
    pub replicas: [Replica; NODES],
}

impl ShardGroup {
    /// A group whose replicas are empty; its log starts behind `base`.
    pub fn new(shard: ShardId, base: u64, leader: usize) -> Self {
        let replicas = std::array::from_fn(|_| Replica::empty());
        Self { shard, log: GroupLog::new(base, leader), replicas }
    }

    /// Gives a replica its rows, by seed, fork or snapshot.
    pub fn fill(&mut self, node: usize, rows: Rows, index: u64, history_max: usize) {
        let replica = &mut self.replicas[node];
        replica.store = MemStore::new(rows, index, history_max);
        self.reload(node);
    }

    fn reload(&mut self, node: usize) {
        let shard = self.shard;
        let replica = &mut self.replicas[node];
        replica.applied = replica.store.index();
        replica.machine = ShardMachine::load(shard, Arc::new(Service), &replica.store).unwrap();
        replica.seen.clear();
    }

    /// The process restarts: the store may have lost its last commits, and
    /// everything volatile is gone.
    pub fn restart(&mut self, node: usize, lost_commits: usize) {
        let replica = &mut self.replicas[node];
        replica.role = None;
        replica.waiters.clear();
        replica.passing.clear();
        replica.reads.clear();
        replica.store.roll_back(lost_commits);
        self.reload(node);
    }

    /// The replica learns who leads: a deposed leader lays its role down and
    /// fails everyone who waits; a new one takes it up once it has applied
    /// the first entry of its term.
    pub fn follow(&mut self, around: &Around<'_>, node: usize, outs: &mut Vec<Out>) {
        let leads = self.log.leader == node && self.replicas[node].applied >= self.log.term_start();
        let term = leads.then_some(self.log.term);
        let replica = &mut self.replicas[node];
        if replica.role.as_ref().map(|role| role.term) == term {
            return;
        }
        if replica.role.take().is_some() && !around.keeps_waiters {
            self.fail_waiters(node, outs);
        }
        let replica = &mut self.replicas[node];
        let (Some(term), Some(machine)) = (term, replica.machine.as_ref()) else { return };
        replica.role = Some(Role {
            term,
            leader: ShardLeader::new(machine, around.now),
            feeder: Feeder::default(),
            is_pulling: true,
            reported: (Epoch(0), Epoch(0)),
        });
        outs.push(Out::Pull { shard: self.shard, node, after: machine.cursor() });
        self.pump(around, node, outs);
    }

    fn fail_waiters(&mut self, node: usize, outs: &mut Vec<Out>) {
        let replica = &mut self.replicas[node];
        let waiting = replica.waiters.drain(..).map(|waiter| waiter.call);
        let passing = replica.passing.drain(..).map(|passing| passing.call);
        let reads = replica.reads.drain(..).map(|read| read.call);
        outs.extend(
            waiting.chain(passing).chain(reads).map(|call| Out::Reply(call, Reply::Unknown)),
        );
    }

    /// Whether an applicable entry waits.
    pub fn can_apply(&self, node: usize) -> bool {
        let replica = &self.replicas[node];
        replica.machine.is_some() && replica.applied < self.log.committed()
    }

    /// Applies up to `max` entries in one commit.
    pub fn apply(
        &mut self,
        around: &Around<'_>,
        node: usize,
        max: u64,
        outs: &mut Vec<Out>,
    ) -> Applied {
        let replica = &mut self.replicas[node];
        let machine = replica.machine.as_mut().expect("only filled replicas apply");
        let last = self.log.committed().min(replica.applied + max);
        let mut writes = WriteSet::default();
        let mut events = Vec::new();
        let mut landed = false;
        for index in replica.applied + 1..=last {
            let entry = self.log.entry(index);
            let Some(command) = &entry.command else { continue };
            let found = machine.apply(&replica.store, &mut writes, index, command).unwrap();
            events.push((index, found));
            let is_own = replica.role.as_ref().is_some_and(|role| role.term == entry.term);
            let is_slices =
                matches!(ShardCommand::from_bytes(command).unwrap(), ShardCommand::Slices(_));
            landed |= is_own && is_slices;
        }
        machine.finish(&mut writes);
        replica.store.commit_at(last, writes);
        replica.applied = last;
        let digest = replica.store.digest();
        let forked = replica.store.take_forked();
        for event in events.iter().flat_map(|(_, events)| events) {
            self.handle_event(around, node, event, outs);
        }
        if landed && let Some(role) = self.replicas[node].role.as_mut() {
            role.feeder.landed();
        }
        self.pump(around, node, outs);
        Applied { index: last, digest, events, forked }
    }

    fn handle_event(
        &mut self,
        around: &Around<'_>,
        node: usize,
        event: &Event,
        outs: &mut Vec<Out>,
    ) {
        match event {
            Event::Decided { request, verdict, position } => {
                self.decided(around, node, request, &verdict_reply(verdict), *position);
            }
            Event::Refused { request, refusal, position } => match refusal {
                Refusal::Moved => self.moved(node, request, outs),
                Refusal::Expired => {
                    self.decided(around, node, request, &Reply::Expired, *position);
                }
                Refusal::Poisoned => {
                    self.decided(around, node, request, &Reply::Poisoned, *position);
                }
            },
            Event::Fenced { request, outcome, position } => {
                self.fenced(around, node, request, outcome, *position);
            }
            Event::Granted { txn, needed_by } => {
                let replica = &mut self.replicas[node];
                if let (Some(machine), Some(role)) = (&replica.machine, &mut replica.role) {
                    role.leader.granted(machine, *txn, needed_by, around.now);
                }
            }
            Event::Finished(txn) => {
                let footprint = around.footprints.get(txn).cloned().unwrap_or_default();
                let replica = &mut self.replicas[node];
                for key in footprint.writes.0 {
                    replica.seen.insert(key, txn.epoch);
                }
            }
            Event::Accepted(_) | Event::Forked { .. } => {}
        }
        self.pass(around, node, outs);
    }

    /// A decision answers everyone who waits for it, through the gate.
    fn decided(
        &mut self,
        around: &Around<'_>,
        node: usize,
        request: &RequestId,
        reply: &Reply,
        position: Epoch,
    ) {
        let replica = &mut self.replicas[node];
        let key = request.key();
        let (answered, rest): (Vec<_>, Vec<_>) =
            replica.waiters.drain(..).partition(|waiter| waiter.request == key);
        replica.waiters = rest;
        for waiter in answered {
            let (kind, footprint) = match waiter.awaits {
                Awaits::Direct(footprint) => (Kind::Direct, footprint),
                Awaits::Sequenced => (Kind::Sequenced, Footprint::default()),
                // Asked again, the fence finds the row.
                Awaits::Fence => (Kind::Stored, Footprint::default()),
            };
            let waits_for = gated(around.gate, kind, &footprint, &replica.seen, position);
            let reply = reply.clone();
            replica.passing.push(Passing { call: waiter.call, reply, waits_for, position });
        }
    }

    fn moved(&mut self, node: usize, request: &RequestId, outs: &mut Vec<Out>) {
        let key = request.key();
        let waiters = &mut self.replicas[node].waiters;
        for waiter in waiters.extract_if(.., |waiter| waiter.request == key) {
            outs.push(Out::Reply(waiter.call, Reply::Moved));
        }
    }

    fn fenced(
        &mut self,
        around: &Around<'_>,
        node: usize,
        request: &RequestId,
        outcome: &FenceOutcome,
        position: Epoch,
    ) {
        let reply = match outcome {
            FenceOutcome::Pending => return, // Its decision answers the fence.
            FenceOutcome::Decided(verdict) => verdict_reply(verdict),
            FenceOutcome::Poisoned => Reply::Poisoned,
            FenceOutcome::Expired => Reply::Expired,
        };
        self.decided(around, node, request, &reply, position);
    }

    /// Lets replies leave that the node's watermark covers.
    pub fn pass(&mut self, around: &Around<'_>, node: usize, outs: &mut Vec<Out>) {
        let logged = around.marks[node].logged;
        let passing = &mut self.replicas[node].passing;
        for passed in passing.extract_if(.., |passing| passing.waits_for <= logged) {
            if around.gate == GateRule::Full {
                assert!(logged >= passed.position, "invariant v: a reply left before L");
            }
            outs.push(Out::Reply(passed.call, passed.reply));
        }
    }

    /// Carries out what the leader's cores want.
    fn pump(&mut self, around: &Around<'_>, node: usize, outs: &mut Vec<Out>) {
        let shard = self.shard;
        let replica = &mut self.replicas[node];
        let (Some(machine), Some(role)) = (&replica.machine, &mut replica.role) else { return };
        let progress = (machine.cursor(), machine.done());
        if std::mem::replace(&mut role.reported, progress) != progress {
            let (cursor, done) = progress;
            outs.push(Out::ToSequencer(PeerMessage::Report { shard, cursor, done }));
        }
        if role.feeder.has_gap(machine.cursor()) && !role.is_pulling {
            role.is_pulling = true;
            outs.push(Out::Pull { shard, node, after: machine.cursor() });
        }
        let term = role.term;
        if let Some(slices) = role.feeder.next(machine.cursor()) {
            let command = ShardCommand::Slices(slices.into()).to_bytes();
            if !self.log.propose(node, term, command) {
                role.feeder.landed();
            }
        }
        let mut answers = Vec::new();
        for output in role.leader.take_outputs() {
            match output {
                LeaderOutput::Contribute { to, txn, contribution } => {
                    let message = PeerMessage::Contribute { to, from: shard, txn, contribution };
                    outs.push(Out::ToShard(to, message));
                }
                LeaderOutput::Ask { to, txn } => {
                    outs.push(Out::ToShard(to, PeerMessage::Ask { to, from: shard, txn }));
                }
                LeaderOutput::Propose(command) => {
                    self.log.propose(node, term, command.to_bytes());
                }
                LeaderOutput::Answer { request, verdict, position } => {
                    answers.push((request, verdict_reply(&verdict), position));
                }
                // It tells nothing of the state, so no watermark is waited for.
                LeaderOutput::Gone { request } => {
                    answers.push((request, Reply::Gone, Epoch(0)));
                }
            }
        }
        for (request, reply, position) in answers {
            self.decided(around, node, &request, &reply, position);
        }
        self.pass(around, node, outs);
    }

    pub fn tick(&mut self, around: &Around<'_>, node: usize, outs: &mut Vec<Out>) {
        let replica = &mut self.replicas[node];
        let (Some(machine), Some(role)) = (&replica.machine, &mut replica.role) else { return };
        role.leader.tick(machine, around.now);
        role.reported = (Epoch(0), Epoch(0));
        role.is_pulling = false; // The call's deadline.
        let floors = around.marks[node].floors;
        if floors.expired > machine.floors().expired && machine.remembered_count() > 0 {
            let term = role.term;
            self.log.propose(node, term, ShardCommand::Floor(floors).to_bytes());
        }
        self.pump(around, node, outs);
    }

    /// The present leader's proposals are refused, for instance by a full
    /// queue: none of them is or will be in the log.
    pub fn refuse_proposals(&mut self, outs: &mut Vec<Out>) {
        let node = self.log.leader;
        for command in std::mem::take(&mut self.log.proposed) {
            match ShardCommand::from_bytes(&command).unwrap() {
                ShardCommand::Direct(Direct { request, .. })
                | ShardCommand::Fence(Fence { request, .. }) => {
                    let key = request.key();
                    let waiters = &mut self.replicas[node].waiters;
                    for waiter in waiters.extract_if(.., |waiter| waiter.request == key) {
                        outs.push(Out::Reply(waiter.call, Reply::Unknown));
                    }
                }
                ShardCommand::Slices(_) => {
                    if let Some(role) = self.replicas[node].role.as_mut() {
                        role.feeder.landed();
                    }
                }
                ShardCommand::Inputs(_) | ShardCommand::Floor(_) => {}
            }
        }
    }

    pub fn handle(
        &mut self,
        around: &Around<'_>,
        node: usize,
        message: PeerMessage,
        outs: &mut Vec<Out>,
    ) {
        let replica = &mut self.replicas[node];
        let (Some(machine), Some(role)) = (&replica.machine, &mut replica.role) else { return };
        match message {
            PeerMessage::Slices { slices, .. } => role.feeder.offer(machine.cursor(), slices),
            PeerMessage::Contribute { from, txn, contribution, .. } => {
                role.leader.contributed(machine, txn, from, contribution, around.now);
            }
            PeerMessage::Ask { from, txn, .. } => role.leader.asked(machine, txn, from),
            PeerMessage::Report { .. } | PeerMessage::Watermarks { .. } => {}
        }
        self.pump(around, node, outs);
    }

    pub fn pulled(
        &mut self,
        around: &Around<'_>,
        node: usize,
        slices: Seq<quorate_calvin::Slice>,
        outs: &mut Vec<Out>,
    ) {
        if let Some(role) = self.replicas[node].role.as_mut() {
            role.is_pulling = false;
        }
        let to = self.shard;
        self.handle(around, node, PeerMessage::Slices { to, slices }, outs);
    }

    /// `ShardService::execute`.
    pub fn execute(
        &mut self,
        around: &Around<'_>,
        node: usize,
        call: CallId,
        execute: Execute,
        outs: &mut Vec<Out>,
    ) {
        let leader = self.log.leader;
        let (committed, now_leads) = (self.log.committed(), (self.log.leader, self.log.term));
        let replica = &mut self.replicas[node];
        let Some(role) = &replica.role else {
            outs.push(Out::Reply(call, not_leader(leader)));
            return;
        };
        if execute.call.footprint.is_read_only() {
            if (node, role.term) != now_leads {
                outs.push(Out::Reply(call, not_leader(leader)));
                return;
            }
            let term = role.term;
            replica.reads.push(PendingRead { call, execute, index: committed, term });
            return;
        }
        self.log_direct(around, node, call, execute, outs);
    }

    fn log_direct(
        &mut self,
        around: &Around<'_>,
        node: usize,
        call: CallId,
        execute: Execute,
        outs: &mut Vec<Out>,
    ) {
        let Execute { epoch, request, call: what, .. } = execute;
        let replica = &mut self.replicas[node];
        let (Some(machine), Some(role)) = (&replica.machine, &replica.role) else { return };
        let is_ours = epoch == machine.epoch() && machine.owns(&what.footprint);
        if machine.lookup(&request).is_none() && !is_ours {
            outs.push(Out::Reply(call, Reply::Moved));
            return;
        }
        let awaits = Awaits::Direct(what.footprint.clone());
        replica.waiters.push(Waiter { call, request: request.key(), awaits });
        let direct =
            Direct { request, epoch, time_millis: around.wall_millis[node], seed: 0, call: what };
        let term = role.term;
        self.log.propose(node, term, ShardCommand::Direct(direct).to_bytes());
    }

    /// Answers the reads whose index is applied.
    pub fn serve_reads(&mut self, around: &Around<'_>, node: usize, outs: &mut Vec<Out>) {
        let applied = self.replicas[node].applied;
        let due: Vec<PendingRead> =
            self.replicas[node].reads.extract_if(.., |read| read.index <= applied).collect();
        for PendingRead { call, execute, term, .. } in due {
            let replica = &mut self.replicas[node];
            let is_leader = replica.role.as_ref().is_some_and(|role| role.term == term);
            let Some(machine) = replica.machine.as_ref().filter(|_| is_leader) else {
                outs.push(Out::Reply(call, Reply::Unknown));
                continue;
            };
            let now_millis = around.wall_millis[node];
            match machine.read(&replica.store, &execute.call, execute.epoch, now_millis).unwrap() {
                ReadOutcome::Answer { verdict, position } => {
                    let reply = Reply::Verdict(verdict);
                    let footprint = &execute.call.footprint;
                    let waits_for =
                        gated(around.gate, Kind::Read, footprint, &replica.seen, position);
                    replica.passing.push(Passing { call, reply, waits_for, position });
                }
                ReadOutcome::Moved => outs.push(Out::Reply(call, Reply::Moved)),
                ReadOutcome::MustBeLogged => self.log_direct(around, node, call, execute, outs),
            }
        }
        self.pass(around, node, outs);
    }

    /// `ShardService::await_decision`.
    pub fn await_decision(
        &mut self,
        around: &Around<'_>,
        node: usize,
        call: CallId,
        (request, txn): (RequestId, TxnId),
        outs: &mut Vec<Out>,
    ) {
        let leader = self.log.leader;
        let replica = &mut self.replicas[node];
        let (Some(machine), Some(role)) = (&replica.machine, &mut replica.role) else {
            outs.push(Out::Reply(call, not_leader(leader)));
            return;
        };
        let known = machine.lookup(&request);
        if let Some(FenceOutcome::Decided(verdict)) = known {
            let position = machine.cursor();
            let nothing = Footprint::default();
            let waits_for = gated(around.gate, Kind::Stored, &nothing, &replica.seen, position);
            let reply = verdict_reply(&verdict);
            replica.passing.push(Passing { call, reply, waits_for, position });
            self.pass(around, node, outs);
            return;
        }
        let is_past = txn.epoch <= machine.floors().done && machine.answers(txn).is_none();
        if known.is_none() && is_past {
            outs.push(Out::Reply(call, Reply::Gone));
            return;
        }
        let awaits = Awaits::Sequenced;
        replica.waiters.push(Waiter { call, request: request.key(), awaits });
        role.leader.awaited(machine, txn, around.now);
        self.pump(around, node, outs);
    }

    /// `ShardService::fence`.
    pub fn fence(
        &mut self,
        node: usize,
        call: CallId,
        request: RequestId,
        home: Blob,
        outs: &mut Vec<Out>,
    ) {
        let leader = self.log.leader;
        let replica = &mut self.replicas[node];
        let Some(role) = &replica.role else {
            outs.push(Out::Reply(call, not_leader(leader)));
            return;
        };
        replica.waiters.push(Waiter { call, request: request.key(), awaits: Awaits::Fence });
        let term = role.term;
        self.log.propose(node, term, ShardCommand::Fence(Fence { request, home }).to_bytes());
    }

    /// Requests that wait at a replica, and reads.
    pub fn waiting(&self, node: usize) -> usize {
        let replica = &self.replicas[node];
        replica.waiters.len() + replica.passing.len() + replica.reads.len()
    }

    pub fn has_reads(&self, node: usize) -> bool {
        !self.replicas[node].reads.is_empty()
    }

    /// Everything that decides what may happen next, as text.
    pub fn describe(&self, node: usize) -> String {
        let replica = &self.replicas[node];
        format!(
            "{} {:x} {:?} {:?} {:?} {:?}",
            replica.applied,
            replica.store.digest(),
            replica.role,
            replica.waiters,
            replica.passing,
            replica.reads
        )
    }
}

fn not_leader(leader: usize) -> Reply {
    Reply::NotLeader(Some(quorate_types::NodeId(leader as u64)))
}

fn verdict_reply(verdict: &Verdict) -> Reply {
    match verdict {
        Verdict::Poisoned => Reply::Poisoned,
        verdict => Reply::Verdict(verdict.clone()),
    }
}

/// What a reply waits for under a variant of rule 11.
fn gated(
    rule: GateRule,
    kind: Kind,
    footprint: &Footprint,
    seen: &BTreeMap<Blob, Epoch>,
    position: Epoch,
) -> Epoch {
    let is_ungated = match rule {
        GateRule::Full => false,
        GateRule::Off => true,
        GateRule::VerdictsUngated => kind == Kind::Sequenced,
        GateRule::ReadsUngated => kind == Kind::Read,
        GateRule::StoredUngated => kind == Kind::Stored,
        GateRule::OnlyIfObserved if kind == Kind::Direct || kind == Kind::Read => {
            let keys = footprint.reads.iter().chain(&footprint.writes);
            return keys.filter_map(|key| seen.get(key)).copied().max().unwrap_or_default();
        }
        GateRule::OnlyIfObserved => false,
    };
    if is_ungated { Epoch(0) } else { position }
}
