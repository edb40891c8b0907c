//! The protocol: inputs and `now` go in, frames and events come out. No
//! socket, no clock, no chance of its own (laws 2 and 3).
//!
//! The rooms: [`members`] holds the table and the rules of belief,
//! [`suspicion`] the time a member has to refute, [`probe`] the failure
//! detector, [`rumours`] what is still to be told, [`sync`] the anti-entropy
//! of the state.

mod members;
mod probe;
mod rumours;
mod suspicion;
mod sync;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use quorate_types::env::Rng;
use quorate_types::frame::Frame;
use quorate_types::{Blob, NodeId, Seq};

use self::members::{Source, Table};
use self::probe::{Health, Probes};
use self::rumours::RumourQueue;
use self::suspicion::Suspicion;
use self::sync::Exchanges;
use crate::config::Config;
use crate::error::GossipError;
use crate::member::{Event, Member, Status};
use crate::transport::{Connection, Destination, Lane, Transmit};
use crate::wire::{self, Join, Members, Message, RECORDS_MAX, Record, Rumours};
use quorate_types::anti_entropy::State;

/// Frames that wait to be polled: several rounds to every member of the
/// largest table.
const TRANSMITS_MAX: usize = 8192;
/// Events that wait to be polled; beyond it the oldest go.
const EVENTS_MAX: usize = 4096;
/// Records that ride on a probe.
const PIGGYBACK_RECORDS_MAX: usize = 8;
/// Records in a frame of rumours.
const RUMOUR_RECORDS_MAX: usize = 64;

/// Who this node is to the others.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// Where it listens, as others shall dial it.
    pub address: String,
    /// Higher than in every earlier life: a persisted boot counter, or the
    /// milliseconds since 1970. Should it not be (a clock set back), the node
    /// outranks its past as soon as somebody reminds it of it.
    pub incarnation: u64,
}

/// Counts of what was dropped instead of being trusted or queued.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames that were no message, or came from no member.
    pub frames_refused: u64,
    /// Claims with an incarnation that nobody can have reached.
    pub claims_refused: u64,
    /// Nodes that found the table full.
    pub members_refused: u64,
    /// Frames dropped because nobody polled them.
    pub transmits_dropped: u64,
    /// Events dropped because nobody polled them.
    pub events_dropped: u64,
    /// Vectors or deltas too large for a frame.
    pub oversized: u64,
    /// Times this node found that it had stood still.
    pub stalls: u64,
}

struct Me {
    node: NodeId,
    address: String,
    incarnation: u64,
    left: bool,
}

/// Absolute times of the periodic work. They always lie ahead of the last
/// `handle_timer`, so that a late call can tell how late it is.
struct Timers {
    probe: Duration,
    gossip: Duration,
    dead: Duration,
    seeds: Duration,
    /// Not before this time is another whole view sent unasked.
    exchange: Duration,
}

impl Timers {
    fn postpone(&mut self, by: Duration) {
        for timer in [&mut self.probe, &mut self.gossip, &mut self.dead, &mut self.seeds] {
            *timer += by;
        }
    }
}

/// One node's part in the gossip.
pub struct Core<S> {
    config: Config,
    me: Me,
    state: S,
    rng: Box<dyn Rng>,
    now: Duration,
    table: Table,
    suspicions: BTreeMap<NodeId, Suspicion>,
    probes: Probes,
    health: Health,
    rumours: RumourQueue,
    exchanges: Exchanges,
    /// The node each seed address turned out to be.
    seeds: BTreeMap<String, Option<NodeId>>,
    timers: Timers,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    stats: Stats,
}

impl<S: State> Core<S> {
    /// A node that knows nobody yet.
    ///
    /// # Errors
    /// [`GossipError`] for an identity that others would not take or a
    /// configuration that contradicts itself.
    pub fn new(
        identity: Identity,
        config: Config,
        state: S,
        mut rng: Box<dyn Rng>,
        now: Duration,
    ) -> Result<Self, GossipError> {
        config.check()?;
        if !wire::address_fits(&identity.address) {
            return Err(GossipError::Address(identity.address.len()));
        }
        if identity.incarnation > members::RUMOURED_INCARNATION_MAX {
            return Err(GossipError::Incarnation(identity.incarnation));
        }
        let health = Health::new(config.health_max);
        let first_probe = jittered(config.probe_interval, rng.as_mut());
        let timers = Timers {
            probe: now + first_probe,
            gossip: now,
            dead: now + jittered(config.dead_probe_interval, rng.as_mut()),
            seeds: now + jittered(config.seed_interval, rng.as_mut()),
            exchange: now,
        };
        let Identity { node, address, incarnation } = identity;
        Ok(Self {
            me: Me { node, address, incarnation, left: false },
            state,
            rng,
            now,
            table: Table::new(config.members_max),
            suspicions: BTreeMap::new(),
            probes: Probes::default(),
            health,
            rumours: RumourQueue::default(),
            exchanges: Exchanges::default(),
            seeds: BTreeMap::new(),
            timers,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            stats: Stats::default(),
            config,
        })
    }

    /// Calls the nodes at these addresses, now and for as long as they are
    /// not members. A node that had left comes back.
    pub fn join(&mut self, seeds: &[String], now: Duration) {
        self.observe(now);
        for seed in seeds {
            let room = self.seeds.len() < self.config.seeds_max;
            if room && wire::address_fits(seed) && *seed != self.me.address {
                self.seeds.entry(seed.clone()).or_insert(None);
            }
        }
        if std::mem::take(&mut self.me.left) {
            self.me.incarnation += 1;
            self.timers.probe = now + self.config.probe_interval;
            self.timers.dead = now + self.config.dead_probe_interval;
            self.announce_self();
        }
        self.timers.seeds = now + self.config.seed_interval;
        self.call_seeds();
    }

    /// Says goodbye to every active member. Afterwards the node is silent.
    pub fn leave(&mut self, now: Duration) {
        self.observe(now);
        if std::mem::replace(&mut self.me.left, true) {
            return;
        }
        let goodbye = Message::Rumours(Rumours { records: Seq(vec![self.my_record()]) });
        for member in self.table.active_nodes() {
            self.send(member, Lane::Control, &goodbye);
        }
        self.suspicions.clear();
        self.probes = Probes::default();
        self.rumours = RumourQueue::default();
        self.exchanges = Exchanges::default();
    }

    /// Tells that the state was changed by its owner.
    pub fn state_changed(&mut self, now: Duration) {
        self.observe(now);
        if !self.me.left {
            self.exchanges.changed(None, now);
        }
    }

    /// Takes a frame that arrived on a connection with `from`.
    pub fn handle_frame(&mut self, from: NodeId, lane: Lane, frame: &Frame, now: Duration) {
        self.observe(now);
        if self.me.left {
            return;
        }
        let Ok(message) = Message::from_frame(frame) else {
            self.stats.frames_refused += 1;
            return;
        };
        // Strangers are those the table had no room for, or impostors: both
        // a peer with our own id and one that never introduced itself.
        if lane != lane_of(&message) || self.table.get(from).is_none() {
            self.stats.frames_refused += 1;
            return;
        }
        match message {
            Message::Ping(ping) => self.on_ping(from, ping),
            Message::Ack(ack) => self.on_ack(from, ack),
            Message::PingRequest(request) => self.on_ping_request(from, &request),
            Message::Relay(relay) => self.on_relay(from, &relay),
            Message::Rumours(rumours) => self.hear_all(from, &rumours.records),
            Message::Join(join) => self.on_join(from, &join),
            Message::Members(members) => self.on_members(from, &members),
            Message::Vector(vector) => self.on_vector(from, vector),
            Message::Delta(delta) => self.on_delta(from, &delta),
        }
    }

    /// Takes news of a connection. What a peer claims in its handshake counts
    /// as its own word: a liveness hint that its incarnation must support.
    pub fn handle_connection(&mut self, event: Connection, now: Duration) {
        self.observe(now);
        if self.me.left {
            return;
        }
        match event {
            Connection::Established { node, address, incarnation, seed } => {
                if let Some(entry) = seed.and_then(|seed| self.seeds.get_mut(&seed)) {
                    *entry = Some(node);
                }
                if wire::address_fits(&address) {
                    self.hear_first_hand(node, incarnation, Some(address.clone()));
                    self.hear_address(node, address);
                }
            }
            // A process that dies resets its connections: worth a look.
            Connection::Closed(node) => self.probe_promptly(node),
            Connection::Unreachable(node) => self.on_unreachable(node),
        }
    }

    /// Does what is due. To be called at [`Core::poll_timeout`].
    pub fn handle_timer(&mut self, now: Duration) {
        self.observe(now);
        if self.me.left {
            return;
        }
        self.expire_probes();
        self.expire_suspicions();
        if now >= self.timers.probe {
            self.tick_probes();
        }
        if now >= self.timers.dead {
            self.tick_dead();
        }
        if now >= self.timers.seeds {
            self.timers.seeds = now + self.config.seed_interval;
            self.call_seeds();
        }
        self.tick_state();
        if now >= self.timers.gossip && !self.rumours.is_empty() {
            self.tick_rumours();
        }
    }

    /// The next frame to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next event to tell.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Core::handle_timer`] wants to be called, on the clock of `now`.
    #[must_use]
    pub fn poll_timeout(&self) -> Duration {
        if self.me.left {
            return Duration::MAX;
        }
        let periodic = self.timers.probe.min(self.timers.dead).min(self.timers.seeds);
        let rumours = (!self.rumours.is_empty()).then_some(self.timers.gossip);
        let suspicions = self.suspicions.values().map(Suspicion::deadline).min();
        [rumours, suspicions, self.probes.deadline(), self.exchanges.deadline()]
            .into_iter()
            .flatten()
            .fold(periodic, Duration::min)
    }

    /// The membership as this node sees it, itself included, by node id.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let mut members: Vec<Member> = self.table.iter().cloned().collect();
        let me = Member {
            node: self.me.node,
            address: self.me.address.clone(),
            incarnation: self.me.incarnation,
            status: if self.me.left { Status::Left } else { Status::Alive },
            health: self.health.score(),
        };
        let place = members.partition_point(|member| member.node < me.node);
        members.insert(place, me);
        members
    }

    /// This node's present incarnation: the one it started with and one more
    /// for every refutation.
    #[must_use]
    pub const fn incarnation(&self) -> u64 {
        self.me.incarnation
    }

    /// What was dropped so far.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// The state.
    pub const fn state(&self) -> &S {
        &self.state
    }

    /// The state, to be changed by its owner; [`Core::state_changed`] follows.
    pub const fn state_mut(&mut self) -> &mut S {
        &mut self.state
    }

    /// Time passes. If a timer should have fired long ago, this node stood
    /// still (stopped, swapped out, starved): others were as silent to it as
    /// it was deaf, so the lost time is given back to them.
    fn observe(&mut self, now: Duration) {
        let late = now.saturating_sub(self.poll_timeout());
        if late > self.config.stall_tolerance {
            self.stats.stalls += 1;
            self.health.worsen();
            self.probes.postpone(late);
            self.suspicions.values_mut().for_each(|suspicion| suspicion.postpone(late));
            self.exchanges.postpone(late);
            self.timers.postpone(late);
        }
        self.now = self.now.max(now);
    }

    fn on_join(&mut self, from: NodeId, join: &Join) {
        self.hear_first_hand(from, join.incarnation, None);
        self.send_view(from, false);
    }

    fn on_members(&mut self, from: NodeId, members: &Members) {
        self.hear_all(from, &members.records);
        if members.reply {
            self.send_view(from, false);
        }
    }

    fn hear_all(&mut self, from: NodeId, records: &[Record]) {
        for record in records {
            let source = if record.node == from { Source::FirstHand } else { Source::Rumour(from) };
            self.hear(record, source);
        }
    }

    /// Sends everything this node knows of everybody.
    fn send_view(&mut self, to: NodeId, reply: bool) {
        let mut records = vec![self.my_record()];
        records.extend(self.table.iter().map(|member| self.record_of(member)));
        let parts = records.len().div_ceil(RECORDS_MAX);
        for (part, records) in records.chunks(RECORDS_MAX).enumerate() {
            // Only the last part asks, so that one view is answered by one.
            let reply = reply && part + 1 == parts;
            let message = Message::Members(Members { records: Seq(records.to_vec()), reply });
            self.send(to, Lane::Control, &message);
        }
    }

    fn call_seeds(&mut self) {
        let join = Message::Join(Join { incarnation: self.me.incarnation }).to_frame();
        let absent: Vec<String> = self
            .seeds
            .iter()
            .filter(|(_, node)| {
                !node.is_some_and(|node| node == self.me.node || self.table.is_active(node))
            })
            .map(|(address, _)| address.clone())
            .collect();
        for address in absent {
            self.transmit(Destination::Seed(address), Lane::Control, join.clone());
        }
    }

    fn tick_rumours(&mut self) {
        self.timers.gossip = self.now + self.config.gossip_interval;
        let peers = self.table.pick(self.config.gossip_fanout, self.rng.as_mut(), |_| true);
        if peers.is_empty() {
            // Nobody to tell; whoever joins gets the whole view.
            self.rumours = RumourQueue::default();
        }
        for peer in peers {
            let records = self.take_rumours(RUMOUR_RECORDS_MAX);
            if records.is_empty() {
                return;
            }
            let message = Message::Rumours(Rumours { records: Seq(records) });
            self.send(peer, Lane::Control, &message);
        }
    }

    fn take_rumours(&mut self, count: usize) -> Vec<Record> {
        let doublings = (self.table.active_count() + 2).ilog2();
        self.rumours.take(count, self.config.retransmit_factor.saturating_mul(doublings).max(1))
    }

    fn spread(&mut self, record: Record) {
        if self.rumours.is_empty() {
            self.timers.gossip = self.timers.gossip.max(self.now);
        }
        self.rumours.push(record);
    }

    fn announce_self(&mut self) {
        let record = self.my_record();
        self.spread(record);
    }

    fn my_record(&self) -> Record {
        Record {
            node: self.me.node,
            address: Blob::from(self.me.address.as_str()),
            incarnation: self.me.incarnation,
            status: if self.me.left { Status::Left } else { Status::Alive },
            accuser: self.me.node,
        }
    }

    fn record_of(&self, member: &Member) -> Record {
        Record {
            node: member.node,
            address: Blob::from(member.address.as_str()),
            incarnation: member.incarnation,
            status: member.status,
            accuser: self.me.node,
        }
    }

    fn send(&mut self, to: NodeId, lane: Lane, message: &Message) {
        let Some(member) = self.table.get(to) else { return };
        let destination = Destination::Node { node: to, address: member.address.clone() };
        self.transmit(destination, lane, message.to_frame());
    }

    fn transmit(&mut self, to: Destination, lane: Lane, frame: Frame) {
        let transmit = Transmit { to, lane, frame };
        if self.transmits.len() >= TRANSMITS_MAX {
            self.stats.transmits_dropped += 1;
            let rumour = self.transmits.iter().position(Transmit::is_rumour);
            match rumour {
                _ if transmit.is_rumour() => return,
                Some(place) => drop(self.transmits.remove(place)),
                None => drop(self.transmits.pop_front()),
            }
        }
        self.transmits.push_back(transmit);
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() >= EVENTS_MAX {
            self.stats.events_dropped += 1;
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

/// Vectors and deltas have a lane of their own; nothing else may use it.
const fn lane_of(message: &Message) -> Lane {
    match message {
        Message::Vector(_) | Message::Delta(_) => Lane::Bulk,
        _ => Lane::Control,
    }
}

/// `period` ±10 %, so that nodes started together do not stay in step.
fn jittered(period: Duration, rng: &mut dyn Rng) -> Duration {
    let percent = u32::try_from(rng.below(21)).unwrap_or(0) + 90;
    period.saturating_mul(percent) / 100
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
