//! Rosters of several nodes under any weather: messages late, twice or lost,
//! nodes restarted, stopped for a while, and cut off. What is around them (offices,
//! elections, heartbeats) is the least that can be; each seed is a history.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_types::env::{Rng, SplitMix};
use quorate_types::{GroupId, NodeId, ReplicaId};
use tokio::time::Instant;

use super::{Company, Doubt, Rest, Roster};
use crate::quiescence::wire::{Beat, Claim, Claims, Heard};

const HISTORIES: u64 = 300;
/// What may happen to a history, and then what it needs to come to rest.
const STORM_STEPS: u64 = 400;
const CALM_STEPS: u64 = 200;
const STILL_STEPS: u64 = 100;

const STEP: Duration = Duration::from_millis(100);
const BEAT: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(1);
/// Of an awake follower with its leader, at least, and of one that doubts.
const ELECTION: Duration = Duration::from_millis(1_500);
const DOUBTING: Duration = Duration::from_millis(500);

/// What nodes say to each other.
#[derive(Clone, Debug)]
enum Message {
    /// With what the sender claims, by name.
    Beat(Beat, BTreeSet<Claim>),
    Heard(Heard),
    Lull(Claim),
    Lulled(Claim, bool),
    Heartbeat(Claim),
    Wake(GroupId),
}

/// A leader that waits for answers.
struct Asking {
    since: Instant,
    agreed: BTreeSet<NodeId>,
}

struct Node {
    roster: Roster,
    /// It stands still until then.
    stopped: Instant,
    terms: BTreeMap<GroupId, u64>,
    /// The terms that it leads in, as far as it knows.
    offices: BTreeMap<GroupId, u64>,
    asking: BTreeMap<GroupId, Asking>,
    /// When it was used, or heard its leader.
    active: BTreeMap<GroupId, Instant>,
    doubts: Vec<(Instant, Doubt)>,
    /// When the last beat and the last answer of each node came.
    beaten: BTreeMap<NodeId, Instant>,
    answered: BTreeMap<NodeId, Instant>,
    looked: Instant,
}

impl Node {
    fn new(now: Instant, terms: BTreeMap<GroupId, u64>) -> Self {
        Self {
            roster: Roster::new(PATIENCE, BEAT),
            stopped: now,
            active: terms.keys().map(|group| (*group, now)).collect(),
            terms,
            offices: BTreeMap::new(),
            asking: BTreeMap::new(),
            doubts: Vec::new(),
            beaten: BTreeMap::new(),
            answered: BTreeMap::new(),
            looked: now,
        }
    }

    /// What rests at a node on this one's word, as far as this one knows.
    fn claims(&self, at: NodeId) -> BTreeSet<Claim> {
        let rests = self.roster.rests.iter().filter_map(|(group, rest)| match rest {
            Rest::Leads(company) if company.with.contains(&at) => {
                Some(Claim { group: *group, term: company.term })
            }
            _ => None,
        });
        rests.collect()
    }

    /// What rests here on a node's word.
    fn trusts(&self, of: NodeId) -> BTreeSet<Claim> {
        let rests = self.roster.rests.iter().filter_map(|(group, rest)| match rest {
            Rest::Follows { term, under, .. } if *under == of => {
                Some(Claim { group: *group, term: *term })
            }
            _ => None,
        });
        rests.collect()
    }

    fn wakes(&mut self, group: GroupId, now: Instant) {
        self.roster.wake(group);
        self.asking.remove(&group);
        self.active.insert(group, now);
    }

    /// Hears of a term, in which somebody else may lead.
    fn learns(&mut self, claim: Claim, now: Instant) -> bool {
        let term = self.terms.get_mut(&claim.group).unwrap();
        if claim.term < *term {
            return false;
        }
        let is_newer = claim.term > *term;
        *term = claim.term;
        if is_newer && self.offices.remove(&claim.group).is_some() {
            self.wakes(claim.group, now);
        }
        true
    }
}

/// What the sums say is what is so.
fn books_balance(node: &Node) {
    let sum = |claims: BTreeSet<Claim>| {
        let mut sum = Claims::default();
        claims.into_iter().for_each(|claim| sum.add(claim));
        sum
    };
    for (other, peer) in &node.roster.peers {
        assert_eq!(peer.claimed, sum(node.claims(*other)), "what {other} is told");
        assert_eq!(peer.trusted, sum(node.trusts(*other)), "what is believed of {other}");
    }
    for rest in node.roster.rests.values() {
        let kept = |other: &NodeId| node.roster.peers.contains_key(other);
        match rest {
            Rest::Leads(company) => assert!(company.with.iter().all(kept), "{company:?}"),
            Rest::Follows { under, .. } => assert!(kept(under), "nobody keeps the word of {under}"),
            Rest::Asking { .. } | Rest::Doubts { .. } => {}
        }
    }
}

struct World {
    chance: SplitMix,
    now: Instant,
    nodes: BTreeMap<NodeId, Node>,
    groups: BTreeMap<GroupId, BTreeSet<NodeId>>,
    /// On their way: when they arrive, from whom, to whom.
    mail: Vec<(Instant, NodeId, NodeId, Message)>,
    /// Nobody hears this one, nor does it hear anybody.
    cut_off: Option<NodeId>,
    is_stormy: bool,
    is_used: bool,
    rested: u64,
    elected: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let (mut chance, now) = (SplitMix::new(seed), Instant::now());
        let ids: Vec<NodeId> = (1..=3 + chance.below(3)).map(NodeId).collect();
        let mut groups = BTreeMap::new();
        for number in 1..=1 + chance.below(6) {
            let mut members: BTreeSet<NodeId> = ids.iter().copied().collect();
            while members.len() > 3 {
                let gone = ids[usize::try_from(chance.below(ids.len() as u64)).unwrap()];
                members.remove(&gone);
            }
            groups.insert(GroupId(number), members);
        }
        let node = |id: &NodeId| {
            let mine = groups.iter().filter(|(_, members)| members.contains(id));
            (*id, Node::new(now, mine.map(|(group, _)| (*group, 0)).collect()))
        };
        let nodes = ids.iter().map(node).collect();
        let mail = Vec::new();
        let (cut_off, is_stormy, is_used, rested, elected) = (None, true, true, 0, 0);
        Self { chance, now, nodes, groups, mail, cut_off, is_stormy, is_used, rested, elected }
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.chance.below(count) == 0
    }

    fn others(&self, group: GroupId, than: NodeId) -> Vec<NodeId> {
        self.groups[&group].iter().copied().filter(|node| *node != than).collect()
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: &Message) {
        let chance = self.chance.below(if self.is_stormy { 10 } else { 1 });
        let copies = match chance {
            8..10 => 0,
            7 => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let is_late = self.is_stormy && self.one_in(10);
            let millis = self.chance.below(if is_late { 2_000 } else { 90 });
            let at = self.now + Duration::from_millis(millis);
            self.mail.push((at, from, to, message.clone()));
        }
    }

    fn send_all(&mut self, from: NodeId, group: GroupId, message: &Message) {
        for to in self.others(group, from) {
            self.send(from, to, message);
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        if self.is_stormy {
            self.befall();
        }
        self.mail.sort_by_key(|(at, ..)| *at);
        let due = self.mail.partition_point(|(at, ..)| *at <= self.now);
        for (_, from, to, message) in self.mail.drain(..due).collect::<Vec<_>>() {
            if self.cut_off.is_none_or(|it| it != from && it != to) && self.runs(to) {
                self.receive(from, to, message);
            }
        }
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            if self.runs(id) {
                self.tend(id);
            }
        }
        self.nodes.values().for_each(books_balance);
    }

    fn runs(&self, node: NodeId) -> bool {
        self.nodes[&node].stopped <= self.now
    }

    fn befall(&mut self) {
        let some = NodeId(1 + self.chance.below(self.nodes.len() as u64));
        let (now, millis) = (self.now, self.chance.below(3_000));
        match self.chance.below(60) {
            0 => {
                let node = self.nodes.get_mut(&some).unwrap();
                *node = Node::new(now, std::mem::take(&mut node.terms));
                node.stopped = now + Duration::from_millis(millis);
            }
            1 => self.nodes.get_mut(&some).unwrap().stopped = now + Duration::from_millis(millis),
            2 => self.cut_off = Some(some),
            3..6 => self.cut_off = None,
            _ => {}
        }
    }

    fn receive(&mut self, from: NodeId, to: NodeId, message: Message) {
        let now = self.now;
        let node = self.nodes.get_mut(&to).unwrap();
        match message {
            Message::Beat(beat, claimed) => {
                node.beaten.insert(from, now);
                let trusted = node.trusts(from);
                let (heard, doubts) = node.roster.hear(from, &beat, now);
                assert_eq!(heard.agrees, trusted == claimed, "{trusted:?}, {claimed:?}");
                let named: BTreeSet<Claim> = beat.names.into_iter().flat_map(|it| it.0).collect();
                assert!(heard.awake.iter().all(|claim| named.contains(claim)));
                let lost = trusted.iter().filter(|claim| !named.contains(claim));
                let lost: Vec<GroupId> = lost.map(|claim| claim.group).collect();
                let doubted = doubts.iter().all(|doubt| lost.contains(&doubt.group));
                assert!(doubted, "who is claimed rests on: {doubts:?}");
                self.doubt(to, doubts);
                self.send(to, from, &Message::Heard(heard));
            }
            Message::Heard(heard) => {
                node.answered.insert(from, now);
                for group in node.roster.answered(from, &heard, now) {
                    node.wakes(group, now);
                }
            }
            Message::Lull(claim) => {
                let is_alike = node.terms[&claim.group] == claim.term
                    && !node.offices.contains_key(&claim.group);
                let (leader, was_awake) = (ReplicaId(from.0), !node.roster.rests(claim.group));
                let agrees =
                    is_alike && node.roster.follow(claim.group, claim.term, leader, from, now);
                if agrees && was_awake {
                    // Its word counts from now on.
                    node.beaten.insert(from, now);
                }
                self.send(to, from, &Message::Lulled(claim, agrees));
            }
            Message::Lulled(claim, agrees) => {
                let others = self.others(claim.group, to);
                let node = self.nodes.get_mut(&to).unwrap();
                if node.roster.rests.get(&claim.group) != Some(&Rest::Asking { term: claim.term }) {
                    return;
                }
                let Some(asking) = node.asking.get_mut(&claim.group) else { return };
                if !agrees {
                    node.wakes(claim.group, now);
                    return;
                }
                asking.agreed.insert(from);
                if asking.agreed.len() == others.len() {
                    let with: BTreeSet<NodeId> = others.into_iter().collect();
                    let voters_needed = with.len() / 2;
                    let (term, voters) = (claim.term, with.clone());
                    node.answered.extend(with.iter().map(|other| (*other, now)));
                    let company = Company { term, with, voters, voters_needed };
                    assert!(node.roster.lead(claim.group, company, now));
                    node.asking.remove(&claim.group);
                    self.rested += 1;
                }
            }
            Message::Heartbeat(claim) => {
                if node.learns(claim, now) && !node.offices.contains_key(&claim.group) {
                    node.wakes(claim.group, now);
                }
            }
            Message::Wake(group) => {
                if node.offices.contains_key(&group) {
                    node.wakes(group, now);
                }
            }
        }
    }

    /// As hosts act on doubts.
    fn doubt(&mut self, at: NodeId, doubts: Vec<Doubt>) {
        for doubt in doubts {
            if doubt.asks {
                self.send(at, doubt.under, &Message::Wake(doubt.group));
            }
            let until = self.now + DOUBTING + Duration::from_millis(self.chance.below(500));
            self.nodes.get_mut(&at).unwrap().doubts.push((until, doubt));
        }
    }

    /// What a node does of itself.
    fn tend(&mut self, id: NodeId) {
        let now = self.now;
        let node = self.nodes.get_mut(&id).unwrap();
        if now - node.looked >= BEAT {
            let late = (now - node.looked).saturating_sub(BEAT);
            for heard in node.beaten.values_mut().chain(node.answered.values_mut()) {
                *heard = (*heard + late).min(now);
            }
            node.looked = now;
            let is_over = |since: Option<&Instant>| since.is_none_or(|it| now - *it > PATIENCE);
            let trusted: BTreeMap<GroupId, NodeId> = node
                .roster
                .rests
                .iter()
                .filter_map(|(group, rest)| match rest {
                    Rest::Follows { under, .. } => Some((*group, *under)),
                    _ => None,
                })
                .collect();
            let silence = node.roster.look(now);
            for doubt in &silence.doubts {
                assert!(is_over(node.beaten.get(&doubt.under)), "{doubt:?}: it was heard");
            }
            let silent = |under: &NodeId| is_over(node.beaten.get(under));
            let lost = trusted.iter().filter(|(_, under)| silent(under)).map(|(group, _)| *group);
            let doubting: Vec<GroupId> = silence.doubts.iter().map(|doubt| doubt.group).collect();
            assert_eq!(doubting, lost.collect::<Vec<_>>(), "whom nobody vouches for any more");
            for group in silence.alone {
                node.wakes(group, now);
            }
            for rest in node.roster.rests.values() {
                let Rest::Leads(company) = rest else { continue };
                assert!(company.voters.len() >= company.voters_needed, "it rests alone");
                let fresh = |other: &NodeId| !is_over(node.answered.get(other));
                assert!(company.with.iter().all(fresh), "it counts on the silent: {company:?}");
            }
            let beats = node.roster.beats();
            let beats = beats.into_iter().map(|(to, beat)| (to, beat, node.claims(to)));
            let beats: Vec<_> = beats.collect();
            self.doubt(id, silence.doubts);
            for (to, beat, claims) in beats {
                self.send(id, to, &Message::Beat(beat, claims));
            }
            self.lead(id);
        }
        self.stand(id);
    }

    /// Heartbeats of leaders that are awake, which come to rest when unused.
    fn lead(&mut self, id: NodeId) {
        let now = self.now;
        let offices = self.nodes[&id].offices.clone();
        for (group, term) in offices {
            let claim = Claim { group, term };
            let is_used = self.is_used && self.one_in(30);
            let node = self.nodes.get_mut(&id).unwrap();
            if is_used {
                node.wakes(group, now);
            }
            if node.asking.get(&group).is_some_and(|asking| now - asking.since > BEAT * 2) {
                node.wakes(group, now);
            }
            if node.roster.rests(group) {
                continue;
            }
            if now - node.active[&group] > BEAT * 3 {
                node.roster.ask(group, term);
                let asking = Asking { since: now, agreed: BTreeSet::new() };
                node.asking.insert(group, asking);
                self.send_all(id, group, &Message::Lull(claim));
            } else {
                self.send_all(id, group, &Message::Heartbeat(claim));
            }
        }
    }

    /// Elections: of who doubted in vain, and of who is awake and hears nobody.
    fn stand(&mut self, id: NodeId) {
        let now = self.now;
        let node = self.nodes.get_mut(&id).unwrap();
        let (over, on): (Vec<_>, Vec<_>) = node.doubts.drain(..).partition(|(at, _)| *at <= now);
        node.doubts = on;
        let mut candidates: Vec<GroupId> = Vec::new();
        for (_, doubt) in over {
            if node.roster.doubts(doubt.group, doubt.turn) {
                node.wakes(doubt.group, now);
                candidates.push(doubt.group);
            }
        }
        let groups: Vec<GroupId> = node.terms.keys().copied().collect();
        for group in groups {
            let node = &self.nodes[&id];
            let patience = ELECTION + Duration::from_millis(self.chance.below(1_000));
            let is_idle = !node.roster.rests(group) && !node.offices.contains_key(&group);
            if is_idle && now - node.active[&group] > patience {
                candidates.push(group);
            }
        }
        for group in candidates {
            self.elect(group, id);
        }
    }

    fn elect(&mut self, group: GroupId, candidate: NodeId) {
        let now = self.now;
        self.nodes.get_mut(&candidate).unwrap().active.insert(group, now);
        let term = self.nodes[&candidate].terms[&group] + 1;
        let claim = Claim { group, term };
        let mut granted = Vec::new();
        for voter in self.others(group, candidate) {
            let is_lost = self.cut_off.is_some_and(|it| it == voter || it == candidate);
            if is_lost || !self.runs(voter) || (self.is_stormy && self.one_in(5)) {
                continue;
            }
            let node = self.nodes.get_mut(&voter).unwrap();
            let leads = node.offices.contains_key(&group);
            let hears = leads || now - node.active[&group] < ELECTION;
            let refuses = match node.roster.rests(group) {
                true => node.roster.believes(group, now),
                false => hears,
            };
            if node.roster.rests(group) {
                let doubts = node.roster.doubt(group);
                if leads {
                    node.wakes(group, now);
                }
                self.doubt(voter, doubts.into_iter().collect());
            }
            if !refuses && self.nodes[&voter].terms[&group] < term {
                granted.push(voter);
            }
        }
        if granted.len() < self.others(group, candidate).len() / 2 {
            return;
        }
        for voter in granted.into_iter().chain([candidate]) {
            let node = self.nodes.get_mut(&voter).unwrap();
            node.learns(claim, now);
            node.wakes(group, now);
        }
        self.nodes.get_mut(&candidate).unwrap().offices.insert(group, term);
        self.elected += 1;
        self.send_all(candidate, group, &Message::Heartbeat(claim));
    }

    /// All of a group rest, on the word of one that leads them.
    fn is_at_rest(&self, group: GroupId) -> bool {
        let leader = self.groups[&group]
            .iter()
            .find(|node| matches!(self.nodes[node].roster.rests.get(&group), Some(Rest::Leads(_))));
        leader.is_some_and(|leader| {
            let claimed = |other: &NodeId| self.nodes[leader].claims(*other);
            let trusted = |other: &NodeId| self.nodes[other].trusts(*leader);
            let mut others = self.others(group, *leader).into_iter();
            others.all(|other| {
                let is_it = |claim: &&Claim| claim.group == group;
                let claimed = claimed(&other).iter().find(is_it).copied();
                claimed.is_some() && claimed == trusted(&other).iter().find(is_it).copied()
            })
        })
    }
}

#[test]
fn rosters_agree_whatever_befalls_them_and_all_groups_find_their_leader_again() {
    let (mut rested, mut elected) = (0, 0);
    for seed in 0..HISTORIES {
        let mut world = World::new(seed);
        (0..STORM_STEPS).for_each(|_| world.step());
        (world.is_stormy, world.is_used, world.cut_off) = (false, false, None);
        (0..CALM_STEPS).for_each(|_| world.step());
        for group in world.groups.keys() {
            assert!(world.is_at_rest(*group), "seed {seed}: {group} found no rest");
        }
        let before = (world.rested, world.elected);
        (0..STILL_STEPS).for_each(|_| world.step());
        assert_eq!((world.rested, world.elected), before, "seed {seed}: somebody woke");
        assert!(world.groups.keys().all(|group| world.is_at_rest(*group)), "seed {seed}");
        rested += world.rested;
        elected += world.elected;
    }
    let many = HISTORIES * 5;
    assert!(rested > many && elected > many, "{rested} rests, {elected} elections");
}
