//! Fuzz target: a core that is told anything by anybody, at any pace.

use bytes::Bytes;
use quorate_testkit::fuzz::{Choices, Corpus};
use quorate_types::anti_entropy::StateError;
use quorate_types::env::SplitMix;

use super::probe::PROBES_MAX;
use super::*;
use crate::wire::{
    Ack, Delta, FRAME_BYTES_MAX, Ping, PingRequest, Relay, Root, Stage, Vector, wire_bytes,
};

const ME: NodeId = NodeId(1);
/// Who may speak, or be spoken of; this node is among them.
const NODES: u64 = 12;
/// As many as there are, so that nobody has to be forgotten for another.
const ROOMY: usize = 16;
/// Fewer than there are.
const TIGHT: usize = 4;
const MINUTE: Duration = Duration::from_secs(60);

/// A state that says what its deltas tell it to say.
#[derive(Default)]
struct Puppet {
    root: u128,
    vector_bytes: usize,
    members: Vec<NodeId>,
}

impl State for Puppet {
    fn root(&self) -> u128 {
        self.root
    }

    fn vector(&self) -> Bytes {
        vec![7; self.vector_bytes].into()
    }

    fn delta(&self, since: &[u8], budget_bytes: usize) -> Option<Bytes> {
        match since.first()? % 4 {
            0 => None,
            1 => Some(vec![1; budget_bytes].into()),
            // Too large for a frame: the state does not keep to its budget.
            2 => Some(vec![1; FRAME_BYTES_MAX as usize].into()),
            _ => Some(Bytes::from_static(b"news")),
        }
    }

    fn merge(&mut self, _from: NodeId, delta: &[u8]) -> Result<bool, StateError> {
        match delta.first() {
            None | Some(0..0x40) => Err(StateError::Malformed("fuzz".to_owned())),
            Some(0x40..0x80) => Ok(false),
            Some(&root) => {
                self.root = u128::from(root);
                self.vector_bytes = if root == 0xFF { FRAME_BYTES_MAX as usize } else { 30 };
                Ok(true)
            }
        }
    }

    fn acknowledge(&mut self, _from: NodeId, _vector: &[u8]) {}

    fn members(&mut self, others: &[NodeId]) {
        self.members = others.to_vec();
    }
}

struct World<'a> {
    core: Core<Puppet>,
    now: Duration,
    choices: Choices<'a>,
    members_max: usize,
    /// Frames of the core's, to be answered.
    sent: Vec<Transmit>,
    answers: u32,
}

impl<'a> World<'a> {
    fn new(input: &'a [u8]) -> Self {
        let mut choices = Choices::new(input);
        let members_max = if choices.flag() { ROOMY } else { TIGHT };
        let config = Config { members_max, seeds_max: 2, ..Config::default() };
        let identity = Identity { node: ME, address: address(ME.0), incarnation: 100 };
        let now = Duration::from_secs(5);
        let rng = Box::new(SplitMix::new(u64::from(choices.byte())));
        let core = Core::new(identity, config, Puppet::default(), rng, now).unwrap();
        Self { core, now, choices, members_max, sent: Vec::new(), answers: 0 }
    }

    fn step(&mut self) {
        match self.choices.below(12) {
            0 | 1 => self.connect(),
            2 => {
                let node = self.node();
                let event = if self.choices.flag() {
                    Connection::Closed(node)
                } else {
                    Connection::Unreachable(node)
                };
                self.core.handle_connection(event, self.now);
            }
            3..=5 => {
                let message = self.message();
                self.deliver(message.to_frame(), lane_of(&message));
            }
            6 => {
                let kind = self.choices.byte() % 12;
                let payload = Bytes::copy_from_slice(self.choices.bytes(60));
                let frame = Frame { kind, version: 1, payload };
                let lane = if self.choices.flag() { Lane::Control } else { Lane::Bulk };
                self.deliver(frame, lane);
            }
            7 => self.answer(),
            8 | 9 => self.tick(),
            10 => self.poll(),
            _ => match self.choices.below(8) {
                0 => self.core.leave(self.now),
                1 => self.core.join(&[address(2), address(3), String::new()], self.now),
                _ => self.core.state_changed(self.now),
            },
        }
    }

    fn node(&mut self) -> NodeId {
        NodeId(1 + self.choices.below(NODES as usize) as u64)
    }

    /// Mostly near what is known of somebody, sometimes absurd.
    fn incarnation(&mut self, node: NodeId) -> u64 {
        let known = self.core.table.get(node).map_or(self.core.me.incarnation, |m| m.incarnation);
        match self.choices.below(8) {
            0 => self.choices.edge(),
            1 => known.saturating_sub(1),
            2 | 3 => known.saturating_add(1),
            _ => known,
        }
    }

    fn connect(&mut self) {
        let node = self.node();
        let incarnation = self.incarnation(node);
        let address = match self.choices.below(16) {
            0 => String::new(),
            1 => "x".repeat(300),
            2 => "moved:1".to_owned(),
            _ => address(node.0),
        };
        let seed = self.choices.flag().then(|| self::address(2));
        let event = Connection::Established { node, address, incarnation, seed };
        self.core.handle_connection(event, self.now);
    }

    fn record(&mut self) -> Record {
        let node = self.node();
        let statuses = [Status::Alive, Status::Suspect, Status::Dead, Status::Left];
        let status = *self.choices.pick(&statuses).unwrap();
        let elsewhere = self.choices.below(8) == 0;
        Record {
            node,
            address: if elsewhere { "elsewhere:1".into() } else { Blob::from(&*address(node.0)) },
            incarnation: self.incarnation(node),
            status,
            accuser: self.node(),
        }
    }

    fn records(&mut self) -> Seq<Record> {
        (0..self.choices.below(4)).map(|_| self.record()).collect()
    }

    fn message(&mut self) -> Message {
        let seq = u64::from(self.choices.byte());
        match self.choices.below(9) {
            0 => Message::Ping(Ping {
                seq,
                incarnation: self.incarnation(ME),
                health: self.choices.byte(),
                records: self.records(),
            }),
            1 => Message::Ack(Ack {
                seq,
                incarnation: self.incarnation(ME),
                health: self.choices.byte(),
                root: Root(seq.into()),
                view: seq,
                records: self.records(),
            }),
            2 => Message::PingRequest(PingRequest { seq, target: self.node() }),
            3 => Message::Relay(Relay { seq, reached: self.choices.flag() }),
            4 => Message::Rumours(Rumours { records: self.records() }),
            5 => Message::Join(Join { incarnation: self.incarnation(ME) }),
            6 => Message::Members(Members { records: self.records(), reply: self.choices.flag() }),
            7 => {
                let stages = [Stage::Open, Stage::Answer, Stage::More, Stage::Settled];
                let stage = *self.choices.pick(&stages).unwrap();
                Message::Vector(Vector { stage, vector: self.choices.bytes(4).into() })
            }
            _ => Message::Delta(Delta { delta: self.choices.bytes(4).into() }),
        }
    }

    fn deliver(&mut self, frame: Frame, lane: Lane) {
        let from = self.node();
        self.core.handle_frame(from, lane, &frame, self.now);
    }

    /// Answers a probe as its receiver, or as a helper would.
    fn answer(&mut self) {
        let Some(transmit) = self.choices.pick(&self.sent).cloned() else { return };
        let Destination::Node { node, .. } = transmit.to else { return };
        let incarnation = self.incarnation(node);
        let answer = match Message::from_frame(&transmit.frame).unwrap() {
            Message::Ping(Ping { seq, .. }) => Message::Ack(Ack {
                seq,
                incarnation,
                health: 0,
                root: Root(self.choices.byte().into()),
                view: 0,
                records: self.records(),
            }),
            Message::PingRequest(PingRequest { seq, .. }) => {
                Message::Relay(Relay { seq, reached: self.choices.flag() })
            }
            _ => Message::Join(Join { incarnation }),
        };
        self.answers += 1;
        self.core.handle_frame(node, Lane::Control, &answer.to_frame(), self.now);
    }

    fn tick(&mut self) {
        match self.choices.below(6) {
            0 => {
                let pause = Duration::from_millis(self.choices.byte().into());
                self.fire(self.now + pause);
            }
            // Stopped for long, or so long that the dead are forgotten.
            1 => {
                let pause = Duration::from_secs(1 << (self.choices.byte() % 18));
                self.fire(self.now + pause);
            }
            2 => self.fire(self.now.max(self.core.poll_timeout().min(self.now + MINUTE))),
            // Left alone for up to ten seconds: long enough to die.
            _ => {
                let end = self.now + Duration::from_millis(40 * u64::from(self.choices.byte()));
                while self.core.poll_timeout() <= end {
                    self.fire(self.now.max(self.core.poll_timeout()));
                    self.poll();
                }
                self.now = end;
            }
        }
    }

    fn fire(&mut self, now: Duration) {
        self.now = now;
        self.core.handle_timer(now);
        let next = self.core.poll_timeout();
        assert!(next > now, "what is due was done: {next:?} at {now:?}");
    }

    fn poll(&mut self) {
        self.sent.clear();
        while let Some(transmit) = self.core.poll_transmit() {
            self.assert_sendable(&transmit);
            self.sent.push(transmit);
        }
        while self.core.poll_event().is_some() {}
    }

    fn assert_sendable(&self, transmit: &Transmit) {
        let message = Message::from_frame(&transmit.frame).expect("others can read it");
        assert_eq!(transmit.lane, lane_of(&message));
        assert!(wire_bytes(&transmit.frame) <= FRAME_BYTES_MAX as usize + 10);
        if let Destination::Node { node, address } = &transmit.to {
            assert_ne!(*node, ME);
            assert!(wire::address_fits(address));
        }
    }

    /// Who is known, in which life, and how it fares.
    fn known(&self) -> BTreeMap<NodeId, (u64, Status)> {
        let table = self.core.table.iter();
        table.map(|member| (member.node, (member.incarnation, member.status))).collect()
    }

    fn assert_bounds(&self) {
        let core = &self.core;
        let known = self.known();
        assert!(known.len() <= self.members_max && !known.contains_key(&ME));
        assert_eq!(core.table.active_nodes().len(), core.table.active_count());
        for node in core.suspicions.keys() {
            assert_eq!(known[node].1, Status::Suspect, "{node}");
        }
        assert!(core.probes.len() <= PROBES_MAX);
        assert!(core.rumours.len() <= NODES as usize, "one rumour per node");
        assert!(core.exchanges.len() <= NODES as usize, "one exchange per node");
        assert!(core.transmits.len() <= TRANSMITS_MAX && core.events.len() <= EVENTS_MAX);
        assert!(core.seeds.len() <= core.config.seeds_max);
        assert!(core.health.score() <= core.config.health_max);
        let awaited = known.iter().filter(|(_, (_, status))| *status != Status::Left);
        assert!(core.state.members.iter().eq(awaited.map(|(node, _)| node)));
    }
}

fn address(node: u64) -> String {
    format!("node-{node}:7000")
}

#[test]
fn whatever_is_said_the_dead_stay_dead_and_nothing_grows() {
    let (mut worlds, mut deaths, mut returns, mut answers) = (0, 0, 0, 0);
    quorate_testkit::fuzz!(Corpus::random(800), |input| {
        let mut world = World::new(input);
        while !world.choices.is_spent() {
            let (before, own_before) = (world.known(), world.core.incarnation());
            world.step();
            world.assert_bounds();
            assert!(world.core.incarnation() >= own_before);
            if world.members_max == TIGHT {
                // Who was forgotten may come back as it was.
                continue;
            }
            for (node, after) in world.known() {
                let before = before.get(&node).copied().unwrap_or((0, Status::Alive));
                assert!(after >= before, "{node}: {before:?} became {after:?}");
                deaths += u32::from(before.1 < Status::Dead && after.1 == Status::Dead);
                returns += u32::from(before.1 == Status::Dead && after.1 == Status::Alive);
            }
        }
        world.poll();
        worlds += 1;
        answers += world.answers;
    });
    // The rules above are worth little where nobody dies and nobody answers.
    if worlds > 1_000 {
        assert!(deaths > 300 && returns > 30, "{deaths} deaths, {returns} returns");
        assert!(answers > 300, "{answers} answers to probes");
    }
}
