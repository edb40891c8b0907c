//! The failure detector: a direct probe, then indirect ones through peers,
//! then suspicion; and Lifeguard's opinion of this node's own health.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_types::{NodeId, Seq};

use super::{Core, PIGGYBACK_RECORDS_MAX, jittered};
use crate::member::Status;
use crate::transport::Lane;
use crate::wire::{Ack, Message, Ping, PingRequest, Record, Relay, Root, Rumours};
use quorate_types::anti_entropy::State;

/// Probes in flight, own ones and those that peers asked for. What peers ask for
/// beyond their part stays unanswered: "not reached" would let them believe that
/// it was tried, and take a member for dead that nobody has probed.
pub(super) const PROBES_MAX: usize = 512;
/// Of these, in flight on behalf of peers. The others are this node's own, which
/// needs a handful: however many peers ask, it goes on to detect failures.
const RELAYED_MAX: usize = PROBES_MAX - 64;
/// Of these, in flight on behalf of one peer. It asks once for each member that
/// it does not reach, so a peer that asks for more has lost so many at once, or
/// floods; either way the slots are not its own.
const RELAYED_PER_PEER_MAX: usize = 32;

/// Lifeguard's local health score: how much of what went wrong was probably
/// this node's own fault.
pub(crate) struct Health {
    score: u8,
    max: u8,
}

impl Health {
    pub(crate) const fn new(max: u8) -> Self {
        Self { score: 0, max }
    }

    pub(crate) const fn score(&self) -> u8 {
        self.score
    }

    pub(crate) fn worsen(&mut self) {
        self.score = self.score.saturating_add(1).min(self.max);
    }

    const fn improve(&mut self) {
        self.score = self.score.saturating_sub(1);
    }

    fn stretch(&self, time: Duration) -> Duration {
        time.saturating_mul(u32::from(self.score) + 1)
    }
}

/// Why a probe was sent.
enum Purpose {
    /// To find out; the target is an active member.
    Direct,
    /// The direct probe failed. These peers were asked and have not nacked.
    Indirect { silent: BTreeSet<NodeId>, asked: usize },
    /// To find out whether a dead member is back.
    Dead,
    /// On behalf of a peer, under its number.
    Relayed { origin: NodeId, seq: u64 },
}

struct Probe {
    target: NodeId,
    purpose: Purpose,
    deadline: Duration,
}

/// The probes in flight, by number. Numbers are drawn at random, so that
/// only who received a probe can answer it.
#[derive(Default)]
pub(crate) struct Probes {
    in_flight: BTreeMap<u64, Probe>,
}

impl Probes {
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.in_flight.values().map(|probe| probe.deadline).min()
    }

    pub(crate) fn postpone(&mut self, by: Duration) {
        self.in_flight.values_mut().for_each(|probe| probe.deadline += by);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.in_flight.len()
    }

    fn is_full(&self) -> bool {
        self.in_flight.len() >= PROBES_MAX
    }

    /// Whether a peer, or all peers together, have as many probes in flight
    /// here as they may.
    fn is_full_for(&self, peer: NodeId) -> bool {
        let origin = |probe: &Probe| match probe.purpose {
            Purpose::Relayed { origin, .. } => Some(origin),
            _ => None,
        };
        let relayed = self.in_flight.values().filter_map(origin);
        self.is_full()
            || relayed.clone().count() >= RELAYED_MAX
            || relayed.filter(|origin| *origin == peer).count() >= RELAYED_PER_PEER_MAX
    }

    /// Whether this node already awaits an answer from the target for itself.
    fn is_probing(&self, target: NodeId) -> bool {
        self.in_flight.values().any(|probe| {
            probe.target == target && !matches!(probe.purpose, Purpose::Relayed { .. })
        })
    }

    fn due(&self, now: Duration) -> Vec<u64> {
        let due = |(_, probe): &(&u64, &Probe)| probe.deadline <= now;
        self.in_flight.iter().filter(due).map(|(seq, _)| *seq).collect()
    }
}

impl<S: State> Core<S> {
    pub(super) fn tick_probes(&mut self) {
        let interval = self.health.stretch(self.config.probe_interval);
        self.timers.probe = self.now + jittered(interval, self.rng.as_mut());
        for _ in 0..self.probes_per_tick() {
            if let Some(target) = self.table.next_in_ring() {
                self.probe_promptly(target);
            }
        }
    }

    /// As many as it takes to get around within a round.
    fn probes_per_tick(&self) -> usize {
        let interval = self.config.probe_interval.as_millis();
        let round = self.config.probe_round.as_millis().max(1);
        let wanted = (self.table.active_count() as u128 * interval).div_ceil(round);
        usize::try_from(wanted).unwrap_or(usize::MAX).clamp(1, self.config.probes_per_tick_max)
    }

    /// Tries one of the dead, so that a healed partition grows together, and
    /// forgets those that have been gone too long.
    pub(super) fn tick_dead(&mut self) {
        self.timers.dead = self.now + jittered(self.config.dead_probe_interval, self.rng.as_mut());
        self.forget_the_gone();
        let dead = self.table.nodes(|status| status == Status::Dead);
        let chosen = usize::try_from(self.rng.below(dead.len() as u64)).unwrap_or(0);
        if let Some(node) = dead.get(chosen) {
            self.probe_promptly(*node);
        }
    }

    /// Probes a member out of turn, unless that is under way.
    pub(super) fn probe_promptly(&mut self, target: NodeId) {
        let Some(member) = self.table.get(target) else { return };
        if self.probes.is_full() || self.probes.is_probing(target) {
            return;
        }
        let purpose = if member.status.is_active() { Purpose::Direct } else { Purpose::Dead };
        let timeout = self.health.stretch(self.config.probe_timeout);
        self.probe(target, purpose, timeout);
    }

    fn probe(&mut self, target: NodeId, purpose: Purpose, timeout: Duration) {
        let seq = self.rng.next_u64();
        self.probes.in_flight.insert(seq, Probe { target, purpose, deadline: self.now + timeout });
        let records = Seq(self.records_for(target));
        let ping =
            Ping { seq, incarnation: self.me.incarnation, health: self.health.score(), records };
        self.send(target, Lane::Control, &Message::Ping(ping));
    }

    /// What rides on a probe: first of all what this node thinks of the
    /// receiver, if that is anything to refute.
    fn records_for(&mut self, receiver: NodeId) -> Vec<Record> {
        let complaint = self
            .table
            .get(receiver)
            .filter(|member| member.status != Status::Alive)
            .map(|member| self.record_of(member));
        let mut records = Vec::from_iter(complaint);
        records.extend(self.take_rumours(PIGGYBACK_RECORDS_MAX));
        records
    }

    pub(super) fn on_ping(&mut self, from: NodeId, ping: Ping) {
        self.hear_first_hand(from, ping.incarnation, None);
        self.table.set_health(from, ping.health);
        self.hear_all(from, &ping.records);
        let mut records = self.records_for(from);
        records.extend(self.reminder(from, ping.incarnation));
        let ack = Ack {
            seq: ping.seq,
            incarnation: self.me.incarnation,
            health: self.health.score(),
            root: Root(self.state.root()),
            view: self.view(),
            records: Seq(records),
        };
        self.send(from, Lane::Control, &Message::Ack(ack));
    }

    pub(super) fn on_ack(&mut self, from: NodeId, ack: Ack) {
        self.hear_first_hand(from, ack.incarnation, None);
        self.table.set_health(from, ack.health);
        self.hear_all(from, &ack.records);
        if let Some(record) = self.reminder(from, ack.incarnation) {
            let message = Message::Rumours(Rumours { records: Seq(vec![record]) });
            self.send(from, Lane::Control, &message);
        }
        // An ack nobody waits for any more proves nothing about the present,
        // and one nobody ever waited for less than that.
        let answered = self.probes.in_flight.get(&ack.seq).is_some_and(|p| p.target == from);
        if !answered {
            return;
        }
        match self.probes.in_flight.remove(&ack.seq).map(|probe| probe.purpose) {
            Some(Purpose::Relayed { origin, seq }) => self.relay(origin, seq, true),
            _ => self.health.improve(),
        }
        self.compare_views(from, ack.view);
        self.compare_roots(from, ack.root.0);
    }

    /// A member that knows itself under a lower incarnation than others do
    /// has to be told, or nothing it says will count.
    fn reminder(&self, node: NodeId, claimed: u64) -> Option<Record> {
        let member = self.table.get(node)?;
        let outdated = claimed < member.incarnation && member.status == Status::Alive;
        outdated.then(|| self.record_of(member))
    }

    fn view(&self) -> u64 {
        self.table.fingerprint(self.me.node, self.me.incarnation)
    }

    /// Rumours reach everybody with high probability, not always: while
    /// there are none and views still differ, whole views are exchanged.
    fn compare_views(&mut self, from: NodeId, view: u64) {
        let quiet = self.rumours.is_empty() && self.suspicions.is_empty();
        if quiet && view != self.view() && self.now >= self.timers.exchange {
            self.timers.exchange = self.now + self.config.exchange_interval;
            self.send_view(from, true);
        }
    }

    pub(super) fn on_ping_request(&mut self, from: NodeId, request: &PingRequest) {
        let known = self.table.get(request.target).is_some();
        if !known || request.target == from {
            self.relay(from, request.seq, false);
            return;
        }
        if self.probes.is_full_for(from) {
            return; // A nack would say that it was tried.
        }
        // The nack has to arrive while the origin still waits for it.
        let timeout = self.config.indirect_timeout.saturating_mul(3) / 4;
        let purpose = Purpose::Relayed { origin: from, seq: request.seq };
        self.probe(request.target, purpose, timeout);
    }

    pub(super) fn on_relay(&mut self, from: NodeId, relay: &Relay) {
        let now = self.now;
        let Some(probe) = self.probes.in_flight.get_mut(&relay.seq) else { return };
        let Purpose::Indirect { silent, .. } = &mut probe.purpose else { return };
        if !silent.remove(&from) {
            return;
        }
        if relay.reached {
            self.probes.in_flight.remove(&relay.seq);
            self.health.improve();
        } else if silent.is_empty() {
            // Everyone we asked has tried in vain.
            probe.deadline = now;
        }
    }

    /// A refused connection is an answer: no use waiting for the timeout.
    pub(super) fn on_unreachable(&mut self, node: NodeId) {
        let now = self.now;
        for probe in self.probes.in_flight.values_mut().filter(|probe| probe.target == node) {
            if !matches!(probe.purpose, Purpose::Indirect { .. }) {
                probe.deadline = now;
            }
        }
    }

    pub(super) fn expire_probes(&mut self) {
        for seq in self.probes.due(self.now) {
            let Some(probe) = self.probes.in_flight.remove(&seq) else { continue };
            match probe.purpose {
                Purpose::Direct => self.probe_indirectly(seq, probe.target),
                Purpose::Indirect { silent, asked } => {
                    self.probe_failed(probe.target, silent.len(), asked);
                }
                Purpose::Dead => {}
                Purpose::Relayed { origin, seq } => self.relay(origin, seq, false),
            }
        }
    }

    fn probe_indirectly(&mut self, seq: u64, target: NodeId) {
        let helpers = self.table.pick(self.config.indirect_probes, self.rng.as_mut(), |member| {
            member.node != target && member.status == Status::Alive
        });
        if helpers.is_empty() {
            self.probe_failed(target, 0, 0);
            return;
        }
        for helper in &helpers {
            let request = PingRequest { seq, target };
            self.send(*helper, Lane::Control, &Message::PingRequest(request));
        }
        let asked = helpers.len();
        let silent = BTreeSet::from_iter(helpers);
        let deadline = self.now + self.health.stretch(self.config.indirect_timeout);
        let purpose = Purpose::Indirect { silent, asked };
        self.probes.in_flight.insert(seq, Probe { target, purpose, deadline });
    }

    /// Nobody reached it. If helpers did not even nack, or there were none,
    /// it may well be this node that is cut off.
    fn probe_failed(&mut self, target: NodeId, silent: usize, asked: usize) {
        if silent > 0 || asked == 0 {
            self.health.worsen();
        }
        if self.table.is_active(target) {
            self.accuse(target, self.me.node, Status::Dead);
        }
    }

    fn relay(&mut self, origin: NodeId, seq: u64, reached: bool) {
        self.send(origin, Lane::Control, &Message::Relay(Relay { seq, reached }));
    }
}
