//! A cluster of cores on one virtual clock. Everything that happens follows
//! from the seed.
#![allow(dead_code)]

pub(crate) mod cells;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_gossip::{
    Config, Connection, Core, Destination, Event, Identity, Lane, Member, Status, Transmit,
};
use quorate_types::NodeId;
use quorate_types::env::{Rng, SplitMix};
use quorate_types::frame::Frame;

use self::cells::Cells;

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn address(node: u64) -> String {
    format!("node-{node}:7000")
}

/// What is on its way to a node.
#[derive(Clone)]
enum Arrival {
    Frame { from: u64, life: u64, lane: Lane, frame: Frame, seed: Option<String> },
    Connection(Connection),
}

pub(crate) struct Node {
    pub(crate) core: Core<Cells>,
    /// The incarnation it started with: the one its handshakes carry.
    life: u64,
    running: bool,
    stopped: bool,
    held: Vec<Arrival>,
    introduced: BTreeSet<(u64, u64)>,
}

/// What a node told at what time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) at: Duration,
    pub(crate) observer: u64,
    pub(crate) event: Event,
}

pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) nodes: BTreeMap<u64, Node>,
    pub(crate) log: Vec<Line>,
    /// Every frame sent, as text: the trace of a run.
    pub(crate) sent: Vec<String>,
    pub(crate) sent_bytes: u64,
    pub(crate) loss_percent: u64,
    pub(crate) delay_millis: (u64, u64),
    /// Nodes of different sides do not hear each other.
    sides: BTreeMap<u64, u8>,
    arrivals: BTreeMap<(Duration, u64), (u64, Arrival)>,
    sequence: u64,
    rng: SplitMix,
    pub(crate) delivered: Vec<(u64, u64, Lane, Frame)>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: secs(1),
            nodes: BTreeMap::new(),
            log: Vec::new(),
            sent: Vec::new(),
            sent_bytes: 0,
            loss_percent: 0,
            delay_millis: (1, 5),
            sides: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            sequence: 0,
            rng: SplitMix::new(seed),
            delivered: Vec::new(),
        }
    }

    /// Nodes 1 to `count`, joined through node 1 and all seeing all.
    pub(crate) fn formed(seed: u64, count: u64) -> Self {
        let mut world = Self::new(seed);
        for node in 1..=count {
            world.start(node, 1);
        }
        let formed = world.run_until(secs(20), |world| world.all_alive());
        assert!(formed, "seed {seed}: {count} nodes did not form a cluster");
        world.run_for(secs(3));
        world
    }

    pub(crate) fn start(&mut self, node: u64, incarnation: u64) {
        let identity = Identity { node: NodeId(node), address: address(node), incarnation };
        let rng = Box::new(SplitMix::new(self.rng.next_u64()));
        let state = Cells::new(node, incarnation);
        let core = Core::new(identity, Config::default(), state, rng, self.now).unwrap();
        let fresh = Node {
            core,
            life: incarnation,
            running: true,
            stopped: false,
            held: Vec::new(),
            introduced: BTreeSet::new(),
        };
        self.nodes.insert(node, fresh);
        self.act(node, |core, now| core.join(&[address(1), address(2)], now));
    }

    /// Lets the owner of a node do something and takes what comes of it.
    pub(crate) fn act(&mut self, node: u64, act: impl FnOnce(&mut Core<Cells>, Duration)) {
        let now = self.now;
        act(&mut self.nodes.get_mut(&node).unwrap().core, now);
        self.collect(node);
    }

    pub(crate) fn write(&mut self, node: u64, value: u64) {
        self.act(node, |core, now| {
            core.state_mut().write(value);
            core.state_changed(now);
        });
    }

    /// The machine is gone: nobody answers, not even its kernel.
    pub(crate) fn vanish(&mut self, node: u64) {
        self.nodes.get_mut(&node).unwrap().running = false;
    }

    /// The process is gone: its kernel resets what it was connected to.
    pub(crate) fn kill(&mut self, node: u64) {
        self.vanish(node);
        for peer in self.ids() {
            let closed = Arrival::Connection(Connection::Closed(NodeId(node)));
            self.schedule(millis(1), peer, closed);
        }
    }

    /// SIGSTOP: frames pile up, time passes it by.
    pub(crate) fn stop(&mut self, node: u64) {
        self.nodes.get_mut(&node).unwrap().stopped = true;
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self, node: u64) {
        let woken = self.nodes.get_mut(&node).unwrap();
        woken.stopped = false;
        for arrival in std::mem::take(&mut woken.held) {
            self.arrive(node, arrival);
        }
    }

    pub(crate) fn split(&mut self, side: impl Fn(u64) -> u8) {
        self.sides = self.ids().into_iter().map(|node| (node, side(node))).collect();
    }

    pub(crate) fn heal(&mut self) {
        self.sides.clear();
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Runs until `done` or for `time`; says whether it is done.
    pub(crate) fn run_until(&mut self, time: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + time;
        loop {
            if done(self) {
                return true;
            }
            let arrival = self.arrivals.first_key_value().map(|(key, _)| key.0);
            let timer = self
                .nodes
                .iter()
                .filter(|(_, node)| node.running && !node.stopped)
                .map(|(id, node)| (node.core.poll_timeout(), *id))
                .min();
            let next = arrival.into_iter().chain(timer.map(|timer| timer.0)).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return done(self);
            };
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let (_, (to, arrival)) = self.arrivals.pop_first().unwrap();
                self.arrive(to, arrival);
            } else if let Some((_, node)) = timer {
                self.act(node, Core::handle_timer);
            }
        }
    }

    pub(crate) fn deliver(&mut self, to: u64, from: u64, lane: Lane, frame: Frame) {
        let life = self.nodes[&from].life;
        self.arrive(to, Arrival::Frame { from, life, lane, frame, seed: None });
    }

    fn arrive(&mut self, to: u64, arrival: Arrival) {
        let now = self.now;
        let node = self.nodes.get_mut(&to).unwrap();
        if !node.running {
            return;
        }
        if node.stopped {
            node.held.push(arrival);
            return;
        }
        match arrival {
            Arrival::Connection(event) => node.core.handle_connection(event, now),
            Arrival::Frame { from, life, lane, frame, seed } => {
                if node.introduced.insert((from, life)) {
                    node.core.handle_connection(introduction(from, life, None), now);
                    let own = introduction(to, node.life, seed);
                    self.schedule(millis(1), from, Arrival::Connection(own));
                }
                let node = self.nodes.get_mut(&to).unwrap();
                node.core.handle_frame(NodeId(from), lane, &frame, now);
                self.delivered.push((to, from, lane, frame));
            }
        }
        self.collect(to);
    }

    fn collect(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).unwrap();
        let mut transmits = Vec::new();
        while let Some(transmit) = node.core.poll_transmit() {
            transmits.push(transmit);
        }
        while let Some(event) = node.core.poll_event() {
            self.log.push(Line { at: self.now, observer: id, event });
        }
        for transmit in transmits {
            self.carry(id, transmit);
        }
    }

    fn carry(&mut self, from: u64, transmit: Transmit) {
        let Transmit { to, lane, frame } = transmit;
        let (address, seed) = match &to {
            Destination::Node { address, .. } => (address.clone(), None),
            Destination::Seed(address) => (address.clone(), Some(address.clone())),
        };
        self.sent_bytes += frame.payload.len() as u64 + 10;
        self.sent.push(format!("{:?} {from} {to:?} {lane:?} {frame:?}", self.now));
        let target = self.ids().into_iter().find(|node| self::address(*node) == address);
        let Some(target) = target else { return };
        if self.sides.get(&from) != self.sides.get(&target) {
            return;
        }
        if self.rng.below(100) < self.loss_percent {
            return;
        }
        let (min, max) = self.delay_millis;
        let delay = millis(min + self.rng.below(max - min + 1));
        let life = self.nodes[&from].life;
        self.schedule(delay, target, Arrival::Frame { from, life, lane, frame, seed });
    }

    fn schedule(&mut self, delay: Duration, to: u64, arrival: Arrival) {
        self.sequence += 1;
        self.arrivals.insert((self.now + delay, self.sequence), (to, arrival));
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn running(&self) -> Vec<u64> {
        let running = |(id, node): (&u64, &Node)| (node.running && !node.stopped).then_some(*id);
        self.nodes.iter().filter_map(running).collect()
    }

    pub(crate) fn seen(&self, observer: u64, node: u64) -> Option<Member> {
        let members = self.nodes[&observer].core.members();
        members.into_iter().find(|member| member.node == NodeId(node))
    }

    /// Whether every running node other than itself sees `node` so.
    pub(crate) fn all_see(&self, node: u64, status: Status) -> bool {
        self.running()
            .into_iter()
            .filter(|observer| *observer != node)
            .all(|observer| self.seen(observer, node).is_some_and(|seen| seen.status == status))
    }

    pub(crate) fn all_alive(&self) -> bool {
        self.running().into_iter().all(|node| self.all_see(node, Status::Alive))
    }

    pub(crate) fn deaths(&self) -> Vec<&Line> {
        self.log.iter().filter(|line| matches!(line.event, Event::Dead(_))).collect()
    }

    pub(crate) fn converged(&self) -> bool {
        let mut roots = self.running().into_iter().map(|node| self.nodes[&node].core.state().sum());
        let first = roots.next();
        roots.all(|root| Some(root) == first)
    }

    /// An incarnation once dead or departed at an observer never comes back
    /// there, and no incarnation ever falls.
    pub(crate) fn assert_order(&self) {
        let mut seen: BTreeMap<(u64, u64, NodeId), (u64, Status)> = BTreeMap::new();
        for Line { observer, event, at } in &self.log {
            let (Event::Up(member)
            | Event::Suspect(member)
            | Event::Renewed(member)
            | Event::Dead(member)
            | Event::Left(member)
            | Event::Rejoined(member)) = event
            else {
                continue;
            };
            let life = self.nodes[observer].life;
            let now = (member.incarnation, member.status);
            if let Some(before) = seen.insert((*observer, life, member.node), now) {
                assert!(before < now, "{at:?}: {observer} saw {before:?} become {now:?}");
            }
        }
    }
}

pub(crate) fn introduction(node: u64, incarnation: u64, seed: Option<String>) -> Connection {
    Connection::Established { node: NodeId(node), address: address(node), incarnation, seed }
}
