//! Who is there, and what to believe about it.
//!
//! Claims are ordered by (incarnation, status) and only ever move a member
//! up in that order, so that views converge and an incarnation that died
//! stays dead. Beyond plain SWIM two rules keep a single liar, or a single
//! confused node, from doing harm:
//!
//! - *Everybody decides for himself.* A rumour that an active member is dead
//!   or gone opens (or confirms) a suspicion here; only this node's own
//!   suspicion, not refuted in time, makes it so. Only the member itself is
//!   believed at once when it says that it leaves.
//! - *Absurd incarnations are not believed*, see [`weigh`], and a member's new
//!   address only in its own handshake: whoever hearsay moves elsewhere could
//!   not be reached any more to contradict.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_types::NodeId;
use quorate_types::env::Rng;

use super::Core;
use super::suspicion::Suspicion;
use crate::member::{Event, Member, Status};
use crate::wire::Record;
use quorate_types::anti_entropy::State;

/// The highest incarnation that is believed from hearsay: 2^47 ms since 1970
/// is the year 6429. The owner may go on above it, so that whatever hearsay
/// claims can still be outranked.
pub(crate) const RUMOURED_INCARNATION_MAX: u64 = 1 << 47;
/// The highest incarnation believed from its owner: 2^47 refutations more.
const OWNED_INCARNATION_MAX: u64 = 1 << 48;
/// The largest step that is believed from hearsay: two years in milliseconds.
/// Larger ones, a node returning after longer, are asked for at the source.
const RUMOURED_STEP_MAX: u64 = 1 << 36;

/// Who says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// The member itself, introducing itself on a connection.
    Handshake,
    /// The member itself, in a frame.
    FirstHand,
    /// Another one.
    Rumour(NodeId),
}

impl Source {
    const fn is_owner(self) -> bool {
        matches!(self, Self::Handshake | Self::FirstHand)
    }
}

/// What to do with a claimed incarnation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Weight {
    Believe,
    /// Possible, but the member itself must say it.
    Ask,
    Refuse,
}

/// Weighs a claim about a member of which `known` is the incarnation on
/// record.
pub(crate) fn weigh(claimed: u64, known: Option<u64>, source: Source) -> Weight {
    if claimed > OWNED_INCARNATION_MAX {
        return Weight::Refuse;
    }
    let step = claimed.saturating_sub(known.unwrap_or(claimed));
    let old_news = known.is_some_and(|known| claimed <= known);
    let modest = claimed <= RUMOURED_INCARNATION_MAX && step <= RUMOURED_STEP_MAX;
    if source.is_owner() || old_news || modest { Weight::Believe } else { Weight::Ask }
}

struct Entry {
    member: Member,
    since: Duration,
}

/// The other nodes. Bounded; gone ones make room for new ones.
pub(crate) struct Table {
    entries: BTreeMap<NodeId, Entry>,
    /// The active ones in the order in which they are probed. New ones enter
    /// at random places, and the order then stays: a reshuffle every round
    /// would stretch the worst gap between two probes to nearly two rounds.
    ring: Vec<NodeId>,
    cursor: usize,
    members_max: usize,
}

impl Table {
    pub(crate) const fn new(members_max: usize) -> Self {
        Self { entries: BTreeMap::new(), ring: Vec::new(), cursor: 0, members_max }
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<&Member> {
        self.entries.get(&node).map(|entry| &entry.member)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.entries.values().map(|entry| &entry.member)
    }

    pub(crate) fn is_active(&self, node: NodeId) -> bool {
        self.get(node).is_some_and(|member| member.status.is_active())
    }

    pub(crate) const fn active_count(&self) -> usize {
        self.ring.len()
    }

    pub(crate) fn active_nodes(&self) -> Vec<NodeId> {
        self.nodes(Status::is_active)
    }

    pub(crate) fn nodes(&self, wanted: impl Fn(Status) -> bool) -> Vec<NodeId> {
        self.iter().filter(|member| wanted(member.status)).map(|member| member.node).collect()
    }

    /// Enters or replaces a member; false when there is no room.
    pub(crate) fn put(&mut self, member: Member, now: Duration, rng: &mut dyn Rng) -> bool {
        let node = member.node;
        let active = member.status.is_active();
        let was_active = self.is_active(node);
        if !self.entries.contains_key(&node) && !self.make_room() {
            return false;
        }
        self.entries.insert(node, Entry { member, since: now });
        match (was_active, active) {
            (false, true) => self.enter_ring(node, rng),
            (true, false) => self.leave_ring(node),
            _ => {}
        }
        true
    }

    pub(crate) fn set_health(&mut self, node: NodeId, health: u8) {
        if let Some(entry) = self.entries.get_mut(&node) {
            entry.member.health = health;
        }
    }

    /// Drops those that have been gone since before `horizon`; says whom.
    pub(crate) fn forget_before(&mut self, horizon: Duration) -> Vec<NodeId> {
        let expired = |entry: &Entry| !entry.member.status.is_active() && entry.since < horizon;
        let forgotten: Vec<NodeId> = self
            .entries
            .values()
            .filter(|entry| expired(entry))
            .map(|entry| entry.member.node)
            .collect();
        for node in &forgotten {
            self.entries.remove(node);
        }
        forgotten
    }

    /// The next member whose turn it is to be probed.
    pub(crate) fn next_in_ring(&mut self) -> Option<NodeId> {
        if self.cursor >= self.ring.len() {
            self.cursor = 0;
        }
        let node = self.ring.get(self.cursor).copied()?;
        self.cursor += 1;
        Some(node)
    }

    /// Up to `count` different active members that are `wanted`.
    pub(crate) fn pick(
        &self,
        count: usize,
        rng: &mut dyn Rng,
        wanted: impl Fn(&Member) -> bool,
    ) -> Vec<NodeId> {
        let mut candidates: Vec<NodeId> = self
            .iter()
            .filter(|member| member.status.is_active() && wanted(member))
            .map(|member| member.node)
            .collect();
        let mut picked = Vec::with_capacity(count.min(candidates.len()));
        while picked.len() < count && !candidates.is_empty() {
            picked.push(candidates.swap_remove(random_index(rng, candidates.len())));
        }
        picked
    }

    /// A fingerprint of who is active; equal on nodes that agree.
    pub(crate) fn fingerprint(&self, me: NodeId, my_incarnation: u64) -> u64 {
        self.iter()
            .filter(|member| member.status.is_active())
            .map(|member| mix(mix(member.node.0).wrapping_add(member.incarnation)))
            .fold(mix(mix(me.0).wrapping_add(my_incarnation)), |sum, next| sum ^ next)
    }

    fn make_room(&mut self) -> bool {
        if self.entries.len() < self.members_max {
            return true;
        }
        let oldest_gone = self
            .entries
            .values()
            .filter(|entry| !entry.member.status.is_active())
            .min_by_key(|entry| (entry.since, entry.member.node))
            .map(|entry| entry.member.node);
        oldest_gone.is_some_and(|node| self.entries.remove(&node).is_some())
    }

    fn enter_ring(&mut self, node: NodeId, rng: &mut dyn Rng) {
        let place = random_index(rng, self.ring.len() + 1);
        self.ring.insert(place, node);
        if place < self.cursor {
            self.cursor += 1;
        }
    }

    fn leave_ring(&mut self, node: NodeId) {
        if let Some(place) = self.ring.iter().position(|other| *other == node) {
            self.ring.remove(place);
            if place < self.cursor {
                self.cursor -= 1;
            }
        }
    }
}

fn random_index(rng: &mut dyn Rng, len: usize) -> usize {
    usize::try_from(rng.below(len as u64)).unwrap_or(0)
}

/// The finalizer of SplitMix64: spreads a number over all 64 bits.
const fn mix(number: u64) -> u64 {
    let z = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl<S: State> Core<S> {
    /// A member says of itself that it is alive.
    pub(super) fn hear_first_hand(
        &mut self,
        node: NodeId,
        incarnation: u64,
        address: Option<String>,
    ) {
        let source = if address.is_some() { Source::Handshake } else { Source::FirstHand };
        let known_address = || self.table.get(node).map(|member| member.address.clone());
        let Some(address) = address.or_else(known_address) else { return };
        let record = Record {
            node,
            address: address.as_str().into(),
            incarnation,
            status: Status::Alive,
            accuser: node,
        };
        self.hear(&record, source);
    }

    /// A member introduced itself from an address other than the one on
    /// record. Where it is now it knows best, under whichever incarnation; an
    /// outdated one it will be reminded of there.
    pub(super) fn hear_address(&mut self, node: NodeId, address: String) {
        if let Some(known) = self.table.get(node).filter(|known| known.address != address) {
            let moved = Member { address, ..known.clone() };
            self.put(moved);
        }
    }

    /// Takes a claim for what it is worth.
    pub(super) fn hear(&mut self, record: &Record, source: Source) {
        if record.node == self.me.node {
            self.hear_about_self(record);
            return;
        }
        let known = self.table.get(record.node).cloned();
        match weigh(record.incarnation, known.as_ref().map(|known| known.incarnation), source) {
            Weight::Believe => {}
            Weight::Ask => return self.probe_promptly(record.node),
            Weight::Refuse => {
                self.stats.claims_refused += 1;
                return;
            }
        }
        let mut record = record.clone();
        if let Some(known) = known.as_ref().filter(|_| source != Source::Handshake) {
            if record.address() != Some(&known.address) && record.status == Status::Alive {
                return self.probe_promptly(record.node);
            }
            record.address = known.address.as_str().into();
        }
        let record = &record;
        match known {
            None => self.hear_of_stranger(record, source),
            Some(known) if record.incarnation > known.incarnation => {
                self.hear_newer(record, &known, source);
            }
            Some(known) if record.incarnation == known.incarnation => {
                self.hear_same(record, &known, source);
            }
            Some(_) => {}
        }
    }

    /// Only the owner raises its incarnation: above any claim that it is not
    /// well, and above its own past.
    fn hear_about_self(&mut self, record: &Record) {
        let contradicts = record.incarnation > self.me.incarnation
            || (record.incarnation == self.me.incarnation && record.status != Status::Alive);
        if !contradicts {
            return;
        }
        if record.incarnation > self.me.incarnation.max(RUMOURED_INCARNATION_MAX) {
            // Nobody believes this of us, so there is nothing to outrank.
            self.stats.claims_refused += 1;
            return;
        }
        if record.incarnation == self.me.incarnation {
            self.health.worsen();
        }
        self.me.incarnation = record.incarnation + 1;
        self.announce_self();
    }

    fn hear_of_stranger(&mut self, record: &Record, source: Source) {
        // Gone before we ever met: not worth remembering.
        if !record.status.is_active() {
            return;
        }
        self.renew(record, None);
        if record.status == Status::Suspect {
            self.accuse(record.node, accuser_of(record, source), Status::Dead);
        }
    }

    fn hear_newer(&mut self, record: &Record, known: &Member, source: Source) {
        match (record.status, known.status.is_active()) {
            (Status::Alive, _) => self.renew(record, Some(known)),
            (Status::Left, true) if source.is_owner() => {
                self.renew(record, Some(known));
                self.depart(record.node, Status::Left);
            }
            (status, true) => {
                self.renew(record, Some(known));
                self.accuse(record.node, accuser_of(record, source), verdict(status));
            }
            // It must have lived after the death we know of; whether it still
            // does it has to say itself.
            (Status::Suspect, false) => self.probe_promptly(record.node),
            (Status::Dead | Status::Left, false) => {
                let incarnation = record.incarnation;
                self.put(Member { incarnation, status: record.status, ..known.clone() });
            }
        }
    }

    fn hear_same(&mut self, record: &Record, known: &Member, source: Source) {
        match (record.status, known.status) {
            (Status::Left, Status::Alive | Status::Suspect | Status::Dead) if source.is_owner() => {
                self.depart(record.node, Status::Left);
            }
            (Status::Left, Status::Dead) => self.depart(record.node, Status::Left),
            (Status::Suspect | Status::Dead | Status::Left, Status::Alive | Status::Suspect) => {
                self.accuse(record.node, accuser_of(record, source), verdict(record.status));
            }
            _ => {}
        }
    }

    /// Enters a member as alive under the claimed incarnation.
    fn renew(&mut self, record: &Record, known: Option<&Member>) {
        let Some(address) = record.address() else { return };
        let member = Member {
            node: record.node,
            address: address.to_owned(),
            incarnation: record.incarnation,
            status: Status::Alive,
            health: known.map_or(0, |known| known.health),
        };
        if !self.put(member.clone()) {
            self.stats.members_refused += 1;
            return;
        }
        self.suspicions.remove(&member.node);
        // A restarted node may have lost what it once acknowledged.
        self.exchanges.forget(member.node);
        let told = Record { status: Status::Alive, accuser: record.node, ..record.clone() };
        self.spread(told);
        self.tell(match known.map(|known| known.status) {
            None => Event::Up(member),
            Some(Status::Alive | Status::Suspect) => Event::Renewed(member),
            Some(Status::Dead | Status::Left) => Event::Rejoined(member),
        });
    }

    /// Opens or confirms the suspicion against an active member.
    pub(super) fn accuse(&mut self, node: NodeId, accuser: NodeId, verdict: Status) {
        let Some(member) = self.table.get(node).cloned() else { return };
        // Made-up accusers must not shorten the time to refute.
        let known_accuser = accuser == self.me.node || self.table.is_active(accuser);
        if !known_accuser || (accuser == node && verdict == Status::Dead) {
            return;
        }
        let active = self.table.active_count() + 1;
        let news = match self.suspicions.get_mut(&node) {
            Some(suspicion) => suspicion.confirm(accuser, verdict),
            None => {
                let suspicion = Suspicion::new(&self.config, active, accuser, verdict, self.now);
                self.suspicions.insert(node, suspicion);
                true
            }
        };
        if member.status == Status::Alive {
            let suspect = Member { status: Status::Suspect, ..member.clone() };
            self.put(suspect.clone());
            self.tell(Event::Suspect(suspect));
        }
        if news {
            let status = if verdict == Status::Left { verdict } else { Status::Suspect };
            let record = Record { status, accuser, ..self.record_of(&member) };
            self.spread(record);
            // Ask it ourselves: it learns of the suspicion, and either it
            // refutes or we become one more independent accuser.
            self.probe_promptly(node);
        }
    }

    pub(super) fn expire_suspicions(&mut self) {
        let now = self.now;
        let due: Vec<(NodeId, Status)> = self
            .suspicions
            .iter()
            .filter(|(_, suspicion)| suspicion.deadline() <= now)
            .map(|(node, suspicion)| (*node, suspicion.verdict()))
            .collect();
        for (node, verdict) in due {
            self.depart(node, verdict);
        }
    }

    /// Gives a member up as dead or departed.
    fn depart(&mut self, node: NodeId, status: Status) {
        self.suspicions.remove(&node);
        self.exchanges.forget(node);
        let Some(member) = self.table.get(node).cloned() else { return };
        let member = Member { status, ..member };
        self.put(member.clone());
        let record = self.record_of(&member);
        self.spread(record);
        self.tell(match status {
            Status::Left => Event::Left(member),
            _ => Event::Dead(member),
        });
    }

    pub(super) fn forget_the_gone(&mut self) {
        let horizon = self.now.saturating_sub(self.config.forget_after);
        let forgotten = self.table.forget_before(horizon);
        self.exchanges.retain(|node| self.table.get(node).is_some());
        if !forgotten.is_empty() {
            self.steer_state();
        }
    }

    fn put(&mut self, member: Member) -> bool {
        let known_before = self.table.get(member.node).map(|known| known.status);
        let status = member.status;
        let entered = self.table.put(member, self.now, self.rng.as_mut());
        let left = |status: Option<Status>| status.is_none_or(|status| status == Status::Left);
        if entered && left(known_before) != left(Some(status)) {
            self.steer_state();
        }
        entered
    }

    /// Tells the state for whom its tombstones have to wait.
    fn steer_state(&mut self) {
        let others = self.table.nodes(|status| status != Status::Left);
        self.state.members(&others);
    }
}

/// The one whose word it is; a relayed claim carries its first accuser.
const fn accuser_of(record: &Record, source: Source) -> NodeId {
    match (record.status, source) {
        (Status::Suspect, _) | (_, Source::Handshake | Source::FirstHand) => record.accuser,
        (_, Source::Rumour(from)) => from,
    }
}

/// What becomes of the member if it does not object.
const fn verdict(claimed: Status) -> Status {
    match claimed {
        Status::Left => Status::Left,
        _ => Status::Dead,
    }
}
