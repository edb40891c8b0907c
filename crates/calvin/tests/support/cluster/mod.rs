//! A deterministic model of a cluster around the pure cores: two nodes, each
//! with a replica of the sequencer and of every shard. Whoever drives it
//! decides every step: what is delivered, lost or doubled, what commits, who
//! applies, who leads, what restarts.

pub mod client;
pub mod log;
pub mod oracle;
pub mod sequencer;
pub mod shard;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use quorate_calvin::sequencer::{SequencerLimits, Watermarks};
use quorate_calvin::shard::ShardMachine;
use quorate_calvin::{Footprint, MapChange, Member, PeerMessage, Reply, Request, ShardMap};
use quorate_types::{Blob, Epoch, NodeId, ReplicaId, ShardEpoch, ShardId, TxnId};

use self::client::{Client, Conclusion, Step, Target};
use self::oracle::Oracle;
use self::sequencer::SequencerGroup;
use self::shard::ShardGroup;
use super::checker::{Observed, Operation};
use super::procedures::Op;
use super::store::Rows;

/// Nodes, and replicas of every group.
pub const NODES: usize = 2;
/// Log index at which a child's log begins, in place of the synthetic log
/// position that the raft host derives.
const CHILD_BASE: u64 = 10;

/// Rule 11 and the ways to get it wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GateRule {
    /// Every reply waits for its position.
    Full,
    /// None waits.
    Off,
    /// Verdicts of sequenced transactions do not wait.
    VerdictsUngated,
    /// Unlogged reads do not wait.
    ReadsUngated,
    /// Stored results do not wait.
    StoredUngated,
    /// Direct commands and reads wait for sequenced writes that they saw.
    OnlyIfObserved,
}

#[derive(Clone, Debug)]
pub struct Config {
    pub gate: GateRule,
    /// Whether clients fence before they change the way of a request (rule 15).
    pub fences: bool,
    /// Whether a deposed leader learns of it at once.
    pub notices_at_once: bool,
    /// A deposed leader keeps its waiters and answers them as it applies its
    /// successor's entries: a bug that rule 11's positions must survive.
    pub keeps_waiters: bool,
    pub retention_millis: u64,
    pub limits: SequencerLimits,
    /// Commits that a restart may lose.
    pub history_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            gate: GateRule::Full,
            fences: true,
            notices_at_once: true,
            keeps_waiters: false,
            retention_millis: u64::MAX / 2,
            limits: SequencerLimits::default(),
            history_max: 0,
        }
    }
}

/// One attempt of a client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct CallId {
    pub client: usize,
    pub attempt: u32,
}

/// What the groups see of their surroundings.
pub struct Around<'a> {
    pub now: Duration,
    pub wall_millis: [u64; NODES],
    pub marks: &'a [Watermarks; NODES],
    pub gate: GateRule,
    pub keeps_waiters: bool,
    pub footprints: &'a BTreeMap<TxnId, Footprint>,
}

/// What a group wants done.
pub enum Out {
    ToShard(ShardId, PeerMessage),
    ToSequencer(PeerMessage),
    /// The sequencer's leader at a node publishes watermarks.
    Marks(usize, Watermarks),
    Reply(CallId, Reply),
    Pull {
        shard: ShardId,
        node: usize,
        after: Epoch,
    },
}

#[derive(Clone, Debug)]
pub enum Message {
    Peer(PeerMessage),
    Request(CallId, Request),
    Reply(CallId, Reply),
    Pull { shard: ShardId, from: usize, after: Epoch },
    Pulled { slices: PeerMessage },
}

/// A message on its way to a node (a client's node does not matter).
#[derive(Clone, Debug)]
pub struct Envelope {
    pub to: usize,
    pub message: Message,
}

#[derive(Clone)]
pub struct Cluster {
    pub config: Config,
    pub sequencer: SequencerGroup,
    pub shards: BTreeMap<ShardId, ShardGroup>,
    pub marks: [Watermarks; NODES],
    pub net: Vec<Envelope>,
    pub clients: Vec<Client>,
    pub history: Vec<Operation>,
    /// By operation, those that had ended when it began.
    preceded: Vec<Vec<usize>>,
    pub oracle: Oracle,
    pub now: Duration,
    /// How far the nodes' wall clocks are apart.
    pub skew_millis: u64,
    events: u64,
}

impl Cluster {
    /// A cluster of the map's shards, all led by node 0.
    pub fn new(config: Config, map: ShardMap, scripts: Vec<Vec<Step>>) -> Self {
        let mut shards = BTreeMap::new();
        for shard in &map.shards {
            let mut group = ShardGroup::new(shard.shard, 0, 0);
            for node in 0..NODES {
                let seed = ShardMachine::seed(shard.range.clone(), shard.epoch);
                let rows = Rows { system: seed.into_iter().collect(), ..Rows::default() };
                group.fill(node, rows, 0, config.history_max);
            }
            shards.insert(shard.shard, group);
        }
        let clients = scripts
            .into_iter()
            .enumerate()
            .map(|(id, script)| Client::new(id as u128, script, map.clone(), config.fences))
            .collect();
        let sequencer =
            SequencerGroup::new(map, config.retention_millis, config.limits, config.history_max);
        Self {
            config,
            sequencer,
            shards,
            marks: Default::default(),
            net: Vec::new(),
            clients,
            history: Vec::new(),
            preceded: Vec::new(),
            oracle: Oracle::default(),
            now: Duration::from_secs(1),
            skew_millis: 0,
            events: 0,
        }
    }

    fn with_shard<T>(
        &mut self,
        shard: ShardId,
        act: impl FnOnce(&mut ShardGroup, &Around<'_>, &mut Vec<Out>) -> T,
    ) -> Option<T> {
        let mut outs = Vec::new();
        let around = Around {
            now: self.now,
            wall_millis: wall_millis(self.now, self.skew_millis),
            marks: &self.marks,
            gate: self.config.gate,
            keeps_waiters: self.config.keeps_waiters,
            footprints: &self.oracle.footprints,
        };
        let result = act(self.shards.get_mut(&shard)?, &around, &mut outs);
        self.dispatch(outs);
        Some(result)
    }

    fn with_sequencer<T>(
        &mut self,
        act: impl FnOnce(&mut SequencerGroup, &Around<'_>, &mut Vec<Out>) -> T,
    ) -> T {
        let mut outs = Vec::new();
        let around = Around {
            now: self.now,
            wall_millis: wall_millis(self.now, self.skew_millis),
            marks: &self.marks,
            gate: self.config.gate,
            keeps_waiters: self.config.keeps_waiters,
            footprints: &self.oracle.footprints,
        };
        let result = act(&mut self.sequencer, &around, &mut outs);
        self.dispatch(outs);
        result
    }

    fn send(&mut self, to: usize, message: Message) {
        self.net.push(Envelope { to, message });
    }

    /// The node that messages for a shard go to: its leader.
    fn leader_of(&self, shard: ShardId) -> usize {
        self.shards.get(&shard).map_or(0, |group| group.log.leader)
    }

    fn dispatch(&mut self, outs: Vec<Out>) {
        for out in outs {
            match out {
                Out::ToShard(shard, message) => {
                    self.send(self.leader_of(shard), Message::Peer(message));
                }
                Out::ToSequencer(message) => {
                    self.send(self.sequencer.log.leader, Message::Peer(message));
                }
                Out::Marks(from, marks) => {
                    self.oracle.check_marks(&marks);
                    let leader = NodeId(from as u64);
                    for to in 0..NODES {
                        // What changes nothing is not worth a message.
                        if self.marks[to].max(marks) != self.marks[to] {
                            let message = PeerMessage::Watermarks { leader, marks };
                            self.send(to, Message::Peer(message));
                        }
                    }
                }
                Out::Reply(call, reply) => self.send(0, Message::Reply(call, reply)),
                Out::Pull { shard, node, after } => {
                    let to = self.sequencer.log.leader;
                    self.send(to, Message::Pull { shard, from: node, after });
                }
            }
        }
    }

    /// Delivers one message.
    pub fn deliver(&mut self, place: usize) {
        let Envelope { to, message } = self.net.remove(place);
        match message {
            Message::Peer(message) => self.handle(to, message),
            Message::Request(call, request) => self.serve(to, call, request),
            Message::Reply(call, reply) => self.conclude(call, &reply),
            Message::Pull { shard, from, after } => {
                let slices = self.sequencer.slices(to, shard, after);
                self.send(from, Message::Pulled { slices });
            }
            Message::Pulled { slices } => {
                if let PeerMessage::Slices { to: shard, slices } = slices {
                    self.with_shard(shard, |group, around, outs| {
                        group.pulled(around, to, slices, outs);
                    });
                }
            }
        }
    }

    fn handle(&mut self, node: usize, message: PeerMessage) {
        match message {
            PeerMessage::Contribute { to, .. }
            | PeerMessage::Ask { to, .. }
            | PeerMessage::Slices { to, .. } => {
                self.with_shard(to, |group, around, outs| {
                    group.handle(around, node, message, outs);
                });
            }
            PeerMessage::Report { shard, cursor, done } => {
                self.with_sequencer(|sequencer, _, outs| {
                    sequencer.reported(node, shard, cursor, done, outs);
                });
            }
            PeerMessage::Watermarks { marks, .. } => self.learn(node, marks),
        }
    }

    fn learn(&mut self, node: usize, marks: Watermarks) {
        self.marks[node] = self.marks[node].max(marks);
        for shard in self.shard_ids() {
            self.with_shard(shard, |group, around, outs| group.pass(around, node, outs));
        }
    }

    fn serve(&mut self, node: usize, call: CallId, request: Request) {
        match request {
            Request::Execute(execute) => {
                self.with_shard(execute.shard, |group, around, outs| {
                    group.execute(around, node, call, execute, outs);
                });
            }
            Request::Await { shard, request, txn } => {
                self.with_shard(shard, |group, around, outs| {
                    group.await_decision(around, node, call, (request, txn), outs);
                });
            }
            Request::Fence { shard, request, home } => {
                self.with_shard(shard, |group, _, outs| {
                    group.fence(node, call, request, home, outs);
                });
            }
            Request::Submit(submission) => self.with_sequencer(|sequencer, around, outs| {
                sequencer.submit(around, node, call, submission, outs);
            }),
            // Not sent by the clients of the model.
            _ => {}
        }
    }

    /// Whether a client may begin or send something.
    pub fn can_step_client(&self, client: usize) -> bool {
        let client = &self.clients[client];
        match &client.current {
            Some(current) => !current.is_waiting,
            None => !client.script.is_empty(),
        }
    }

    /// A client begins its next operation or sends its next message.
    pub fn step_client(&mut self, number: usize) {
        if self.clients[number].current.is_none() {
            self.begin(number);
        }
        let Some((target, call, request)) = self.clients[number].next_message() else { return };
        let to = match target {
            Target::Shard(shard) => self.leader_of(shard),
            Target::Sequencer => self.sequencer.log.leader,
        };
        self.send(to, Message::Request(call, request));
    }

    fn begin(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let Some(step) = client.script.pop_front() else { return };
        let (op, watched_in) = match step {
            Step::Do(op) => (op, None),
            Step::WriteIfUnchanged { keys, value } => {
                let Some((version, watch)) = client.watched.get(&keys[0]).copied() else { return };
                (Op::WriteIf { keys: keys.into(), version, value }, Some(watch))
            }
        };
        let ended =
            self.history.iter().enumerate().filter(|(_, operation)| operation.returned.is_some());
        self.preceded.push(ended.map(|(number, _)| number).collect());
        self.events += 1;
        client.begin(&op, self.history.len(), self.marks[number % NODES].logged);
        let invoked = self.events;
        self.history.push(Operation { op, watched_in, invoked, returned: None });
    }

    fn conclude(&mut self, call: CallId, reply: &Reply) {
        let Some(client) = self.clients.get_mut(call.client) else { return };
        if !client.awaits(call) {
            return; // An answer to an attempt that was given up.
        }
        let number = client.current.as_ref().map(|current| current.number);
        match client.conclude(reply) {
            Conclusion::Ended(observed) => {
                let number = number.expect("an attempt belongs to an operation");
                self.end(call.client, number, observed);
            }
            Conclusion::Continue => {}
            Conclusion::RefreshMap => self.refresh_map(call.client),
        }
    }

    fn end(&mut self, client: usize, number: usize, observed: Observed) {
        self.events += 1;
        if let (Op::Watch(keys), Observed::Result(seen)) = (&self.history[number].op, &observed) {
            let seen = String::from_utf8_lossy(seen).into_owned();
            for (key, part) in keys.iter().zip(seen.split(',')) {
                let version = part.rsplit_once('@').unwrap().1.parse().unwrap();
                self.clients[client].watched.insert(key.clone(), (version, number));
            }
        }
        self.history[number].returned = Some((self.events, observed));
    }

    /// A client learns the map as its node's sequencer replica knows it.
    pub fn refresh_map(&mut self, client: usize) {
        let machine = &self.sequencer.replicas[client % NODES].machine;
        if let Some(map) = machine.map()
            && map.version > self.clients[client].map.version
        {
            self.clients[client].map = map.clone();
        }
    }

    pub fn shard_ids(&self) -> Vec<ShardId> {
        self.shards.keys().copied().collect()
    }

    /// A replica applies up to `max` entries at once.
    pub fn apply_shard(&mut self, shard: ShardId, node: usize, max: u64) {
        if !self.shards[&shard].can_apply(node) {
            return;
        }
        let applied =
            self.with_shard(shard, |group, around, outs| group.apply(around, node, max, outs));
        let Some(applied) = applied else { return };
        self.oracle.check_shard(shard, &applied);
        for forked in applied.forked {
            let child = forked.fork.child;
            let group = self
                .shards
                .entry(child)
                .or_insert_with(|| ShardGroup::new(child, CHILD_BASE, node));
            self.oracle.check_fork(child, &forked.rows);
            if group.replicas[node].machine.is_none() {
                group.fill(node, forked.rows, CHILD_BASE, self.config.history_max);
            }
        }
        self.follow_shard(shard, node);
    }

    pub fn apply_sequencer(&mut self, node: usize, max: u64) {
        if !self.sequencer.can_apply(node) {
            return;
        }
        let applied =
            self.with_sequencer(|sequencer, around, outs| sequencer.apply(around, node, max, outs));
        let machine = &self.sequencer.replicas[node].machine;
        self.oracle.check_sequencer(&applied, machine);
        self.follow_sequencer(node);
    }

    pub fn follow_shard(&mut self, shard: ShardId, node: usize) {
        self.with_shard(shard, |group, around, outs| group.follow(around, node, outs));
    }

    pub fn follow_sequencer(&mut self, node: usize) {
        self.with_sequencer(|sequencer, around, outs| sequencer.follow(around, node, outs));
    }

    /// Another node, or the same again, leads a shard.
    pub fn elect_shard(&mut self, shard: ShardId, leader: usize, kept: usize) {
        let Some(group) = self.shards.get_mut(&shard) else { return };
        if group.replicas[leader].machine.is_none() {
            return;
        }
        group.log.elect(leader, kept.min(group.log.proposed.len()));
        if self.config.notices_at_once {
            (0..NODES).for_each(|node| self.follow_shard(shard, node));
        }
    }

    pub fn elect_sequencer(&mut self, leader: usize, kept: usize) {
        let log = &mut self.sequencer.log;
        log.elect(leader, kept.min(log.proposed.len()));
        if self.config.notices_at_once {
            (0..NODES).for_each(|node| self.follow_sequencer(node));
        }
    }

    /// One replica's process restarts; whatever it led is led anew.
    pub fn restart_shard(&mut self, shard: ShardId, node: usize, lost: usize, leader: usize) {
        let Some(group) = self.shards.get_mut(&shard) else { return };
        if group.replicas[node].machine.is_none() {
            return;
        }
        group.restart(node, lost);
        if group.log.leader == node {
            self.elect_shard(shard, leader, 0);
        }
    }

    pub fn restart_sequencer(&mut self, node: usize, lost: usize, leader: usize) {
        self.sequencer.restart(node, lost);
        if self.sequencer.log.leader == node {
            self.elect_sequencer(leader, 0);
        }
    }

    /// A lagging or empty replica gets a copy of the other's rows.
    pub fn install_shard(&mut self, shard: ShardId, node: usize) {
        let history_max = self.config.history_max;
        let Some(group) = self.shards.get_mut(&shard) else { return };
        let other = &group.replicas[1 - node];
        if other.machine.is_some() && other.applied > group.replicas[node].applied {
            let (rows, index) = (other.store.rows(), other.store.index());
            group.restart(node, 0);
            group.fill(node, rows, index, history_max);
            if group.log.leader == node {
                self.elect_shard(shard, node, 0);
            }
        }
    }

    pub fn install_sequencer(&mut self, node: usize) {
        let history_max = self.config.history_max;
        let [a, b] = &self.sequencer.replicas;
        let applied = [a.applied, b.applied];
        if applied[1 - node] > applied[node] && self.sequencer.log.leader != node {
            self.sequencer.install(node, 1 - node, history_max);
        }
    }

    /// Asks the sequencer to split a shard. The child's id follows the map's
    /// version and the key, so that asking twice for the same change does
    /// nothing, and two changes may ask for the same version.
    pub fn split(&mut self, at: &Blob) {
        let machine = &self.sequencer.replicas[self.sequencer.log.leader].machine;
        let Some(map) = machine.map() else { return };
        let Some(parent) = map.locate(at) else { return };
        let members = (0..NODES)
            .map(|node| Member { replica: ReplicaId(node as u64), node: NodeId(node as u64) })
            .collect();
        let change = MapChange {
            version: map.version + 1,
            parent: parent.shard,
            at: at.clone(),
            child: ShardId(100 + 256 * map.version + u64::from(at.last().copied().unwrap_or(0))),
            members,
            epoch: ShardEpoch(parent.epoch.0 + 1),
        };
        self.with_sequencer(|sequencer, around, _| sequencer.change(around, change));
    }

    pub fn serve_reads(&mut self, shard: ShardId, node: usize) {
        self.with_shard(shard, |group, around, outs| group.serve_reads(around, node, outs));
    }

    /// Everyone's timers, at both nodes.
    pub fn tick(&mut self) {
        for node in 0..NODES {
            for shard in self.shard_ids() {
                self.with_shard(shard, |group, around, outs| group.tick(around, node, outs));
            }
            self.with_sequencer(|sequencer, around, outs| sequencer.tick(around, node, outs));
        }
    }

    pub fn idle_batch(&mut self) {
        let node = self.sequencer.log.leader;
        self.with_sequencer(|sequencer, around, _| sequencer.idle(around, node));
    }

    pub fn refuse_shard(&mut self, shard: ShardId) {
        self.with_shard(shard, |group, _, outs| group.refuse_proposals(outs));
    }

    pub fn refuse_sequencer(&mut self) {
        self.with_sequencer(|sequencer, _, outs| sequencer.refuse_proposals(outs));
    }

    /// Everything goes well until nothing more happens and every client has
    /// its answers. Without limit of patience it would hide a deadlock, so it
    /// has one.
    pub fn quiesce(&mut self) {
        const ROUNDS_MAX: usize = 400;
        for _ in 0..ROUNDS_MAX {
            self.settle(|_| true);
            if self.clients.iter().all(Client::is_done) && self.net.is_empty() {
                return;
            }
            // Followers catch up; lost messages and forgotten calls are
            // repeated.
            for node in 0..NODES {
                self.apply_sequencer(node, u64::MAX / 2);
                for shard in self.shard_ids() {
                    self.apply_shard(shard, node, u64::MAX / 2);
                }
            }
            for client in 0..self.clients.len() {
                self.clients[client].give_up_waiting();
                self.refresh_map(client);
                self.step_client(client);
            }
            self.now += Duration::from_millis(250);
            self.tick();
        }
        let waiting: Vec<_> = self.clients.iter().filter(|client| !client.is_done()).collect();
        panic!("no progress: {waiting:?}\n{}", self.status());
    }

    /// Steps that only help happen until none is left: leaders commit, apply
    /// and serve, messages that `deliverable` selects arrive, clients go on
    /// with what they began.
    pub fn settle(&mut self, deliverable: impl Fn(&Message) -> bool) {
        loop {
            let mut moved = false;
            for shard in self.shard_ids() {
                for node in 0..NODES {
                    self.follow_shard(shard, node);
                    if self.shards[&shard].replicas[node].machine.is_none() {
                        self.install_shard(shard, node);
                    }
                }
                let group = self.shards.get_mut(&shard).unwrap();
                let leader = group.log.leader;
                while group.log.commit() {
                    moved = true;
                }
                while self.shards[&shard].can_apply(leader) {
                    moved = true;
                    self.apply_shard(shard, leader, 1);
                }
                if self.shards[&shard].has_reads(leader) {
                    moved = true;
                    self.serve_reads(shard, leader);
                }
            }
            let leader = self.sequencer.log.leader;
            while self.sequencer.log.commit() {
                moved = true;
            }
            (0..NODES).for_each(|node| self.follow_sequencer(node));
            while self.sequencer.can_apply(leader) {
                moved = true;
                self.apply_sequencer(leader, 1);
            }
            while let Some(place) = self.net.iter().position(|it| deliverable(&it.message)) {
                moved = true;
                self.deliver(place);
            }
            for client in 0..self.clients.len() {
                let current = &self.clients[client].current;
                if current.as_ref().is_some_and(|current| !current.is_waiting) {
                    // Only replies that say "go on" are answered at once;
                    // others would spin.
                    if self.is_hopeful(client) {
                        moved = true;
                        self.step_client(client);
                    }
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// Whether sending the client's next message now can lead somewhere: its
    /// target has a leader that is in office.
    fn is_hopeful(&self, client: usize) -> bool {
        let mut probe = self.clients[client].clone();
        match probe.next_message() {
            Some((Target::Shard(shard), ..)) => self.shards.get(&shard).is_some_and(|group| {
                group.replicas[group.log.leader].role.is_some()
                    && group.replicas[group.log.leader].machine.as_ref().is_some_and(|machine| {
                        self.clients[client]
                            .map
                            .shards
                            .iter()
                            .any(|it| it.shard == shard && it.epoch == machine.epoch())
                    })
            }),
            Some((Target::Sequencer, ..)) => {
                self.sequencer.replicas[self.sequencer.log.leader].role.is_some()
            }
            None => false,
        }
    }

    /// Where each group stands, for the report of a failure.
    fn status(&self) -> String {
        let mut status = format!("marks {:?}\n", self.marks);
        for group in self.shards.values() {
            let log = &group.log;
            let (shard, committed) = (group.shard, log.committed());
            status += &format!(
                "{shard}: term {} leader {} committed {committed}\n",
                log.term, log.leader
            );
            for (node, replica) in group.replicas.iter().enumerate() {
                let (cursor, done, pending) =
                    replica.machine.as_ref().map_or_else(Default::default, |machine| {
                        (machine.cursor(), machine.done(), machine.pending_count())
                    });
                status += &format!(
                    "  {node}: applied {} leads {:?} cursor {cursor} done {done} pending {pending}\n",
                    replica.applied,
                    replica.role.as_ref().map(|role| role.term),
                );
            }
        }
        let log = &self.sequencer.log;
        status += &format!("sequencer: leader {} committed {}\n", log.leader, log.committed());
        for (node, replica) in self.sequencer.replicas.iter().enumerate() {
            let role = replica.role.as_ref().map(|role| role.term);
            status += &format!("  {node}: applied {} leads {role:?}\n", replica.applied);
        }
        status
    }

    /// Everything that decides what may happen next and how the history is
    /// judged, hashed. Times are left out; what preceded what is not.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.sequencer.log.hash(&mut hasher);
        for node in 0..NODES {
            self.sequencer.describe(node).hash(&mut hasher);
        }
        for group in self.shards.values() {
            group.log.hash(&mut hasher);
            (0..NODES).for_each(|node| group.describe(node).hash(&mut hasher));
        }
        let mut net: Vec<String> = self.net.iter().map(|it| format!("{it:?}")).collect();
        net.sort();
        net.hash(&mut hasher);
        // Operations are named by client and place in its script, since their
        // numbers depend on who began first.
        format!("{:?} {:?}", self.marks, self.clients).hash(&mut hasher);
        for (operation, preceded) in self.history.iter().zip(&self.preceded) {
            let returned = operation.returned.as_ref().map(|(_, observed)| observed);
            format!("{:?} {returned:?} {preceded:?}", operation.op).hash(&mut hasher);
        }
        hasher.finish()
    }
}

fn wall_millis(now: Duration, skew_millis: u64) -> [u64; NODES] {
    let millis = now.as_millis() as u64;
    std::array::from_fn(|node| millis + node as u64 * skew_millis)
}
