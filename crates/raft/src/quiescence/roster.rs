//! Who rests, on whose word, and for how long that word is good.

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_types::{GroupId, NodeId, ReplicaId, Seq};
use tokio::time::Instant;

use super::wire::{Beat, Claim, Claims, Heard};

/// How a replica rests. One that does not is absent from the roster.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Rest {
    /// It leads, and asks the others to rest, too.
    Asking { term: u64 },
    /// It leads, and the others rest with it.
    Leads(Company),
    /// It follows, and trusts that its leader is in office.
    Follows { term: u64, leader: ReplicaId, under: NodeId },
    /// It followed, and something makes it doubt. In a while it stands for
    /// election, unless it hears of its leader before. Until then it `believes`, or
    /// does not because there is nobody to believe any more.
    Doubts { turn: u64, believes: bool },
}

/// Who rests with a leader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Company {
    /// The leader's term.
    pub(crate) term: u64,
    /// Where the others live that rest with it.
    pub(crate) with: BTreeSet<NodeId>,
    /// Those of them that vote.
    pub(crate) voters: BTreeSet<NodeId>,
    /// How many of these make a quorum with the leader.
    pub(crate) voters_needed: usize,
}

impl Company {
    /// One rests with it no more. Whether too few do now.
    fn lost(&mut self, node: NodeId) -> bool {
        self.voters.remove(&node);
        self.voters.len() < self.voters_needed
    }
}

/// What this node and another one owe each other.
#[derive(Debug)]
struct Peer {
    /// Groups that rest there on our word.
    claimed: Claims,
    /// When a beat of ours was answered last.
    answered: Instant,
    /// Whether the peer asked which groups these are.
    asks_for_names: bool,
    /// Groups that rest here on its word.
    trusted: Claims,
    /// When its last beat came.
    heard: Instant,
}

impl Peer {
    fn new(now: Instant) -> Self {
        Self {
            claimed: Claims::default(),
            answered: now,
            asks_for_names: false,
            trusted: Claims::default(),
            heard: now,
        }
    }
}

/// A replica that begins to doubt, for the host to act on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Doubt {
    pub(crate) group: GroupId,
    /// Tells this doubt from an earlier one.
    pub(crate) turn: u64,
    /// Who is to show itself.
    pub(crate) leader: ReplicaId,
    pub(crate) under: NodeId,
    /// Whether it is worth asking.
    pub(crate) asks: bool,
}

/// Why a follower doubts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reason {
    /// Another replica does.
    Rumour,
    /// Its leader's node does not claim the group.
    Unclaimed,
    /// Its leader's node is not heard.
    Silence,
}

/// What a look at the clock leads to.
#[derive(Default, PartialEq, Eq, Debug)]
pub(crate) struct Silence {
    /// Leaders that rest with too few now, and have to wake.
    pub(crate) alone: Vec<GroupId>,
    /// Followers whose leaders' nodes are not heard any more.
    pub(crate) doubts: Vec<Doubt>,
}

/// The replicas of a node that rest.
///
/// A resting replica's timers are stopped, so something else has to notice when
/// its leader is lost. Nodes beat for all the groups they lead together: as long
/// as beats come, and the [claims](Claims) in them are what rests here on that
/// node's word, every one of these leaders is in office. Who is not among the claims,
/// or on whose leader's node silence falls, [doubts](Rest::Doubts).
#[derive(Debug)]
pub(crate) struct Roster {
    /// How long a beat, or the answer to one, is good for.
    patience: Duration,
    /// How often it is looked who is silent.
    beat: Duration,
    rests: BTreeMap<GroupId, Rest>,
    peers: BTreeMap<NodeId, Peer>,
    turns: u64,
    looked: Option<Instant>,
}

impl Roster {
    pub(crate) fn new(patience: Duration, beat: Duration) -> Self {
        let (rests, peers) = (BTreeMap::new(), BTreeMap::new());
        Self { patience, beat, rests, peers, turns: 0, looked: None }
    }

    /// Replicas that rest, those that doubt included.
    pub(crate) fn len(&self) -> usize {
        self.rests.len()
    }

    /// A leader asks the others to rest.
    pub(crate) fn ask(&mut self, group: GroupId, term: u64) {
        debug_assert!(!self.rests.contains_key(&group), "only who is awake asks");
        self.rests.insert(group, Rest::Asking { term });
    }

    /// The others rest, and so does the leader: unless it was woken meanwhile.
    pub(crate) fn lead(&mut self, group: GroupId, company: Company, now: Instant) -> bool {
        if self.rests.get(&group) != Some(&Rest::Asking { term: company.term }) {
            return false;
        }
        for &node in &company.with {
            let peer = self.peers.entry(node).or_insert_with(|| Peer::new(now));
            // It agreed just now.
            peer.answered = now;
            peer.claimed.add(Claim { group, term: company.term });
        }
        self.rests.insert(group, Rest::Leads(company));
        true
    }

    /// A follower rests on the word of its leader. Says whether it does: one that
    /// rests otherwise already does not.
    pub(crate) fn follow(
        &mut self,
        group: GroupId,
        term: u64,
        leader: ReplicaId,
        under: NodeId,
        now: Instant,
    ) -> bool {
        let rest = Rest::Follows { term, leader, under };
        if let Some(before) = self.rests.get(&group) {
            return *before == rest;
        }
        let peer = self.peers.entry(under).or_insert_with(|| Peer::new(now));
        peer.heard = now;
        peer.trusted.add(Claim { group, term });
        self.rests.insert(group, rest);
        true
    }

    /// A replica rests no more, for whatever reason. Says whether it did.
    pub(crate) fn wake(&mut self, group: GroupId) -> bool {
        let Some(rest) = self.rests.remove(&group) else { return false };
        match rest {
            Rest::Asking { .. } | Rest::Doubts { .. } => {}
            Rest::Leads(company) => {
                for node in &company.with {
                    self.revoke(*node, Claim { group, term: company.term });
                }
            }
            Rest::Follows { term, under, .. } => self.distrust(under, Claim { group, term }),
        }
        true
    }

    /// Whether a replica rests, or doubts.
    pub(crate) fn rests(&self, group: GroupId) -> bool {
        self.rests.contains_key(&group)
    }

    /// The term of a leader that rests, or is about to.
    pub(crate) fn office(&self, group: GroupId) -> Option<u64> {
        match self.rests.get(&group)? {
            Rest::Asking { term } | Rest::Leads(Company { term, .. }) => Some(*term),
            Rest::Follows { .. } | Rest::Doubts { .. } => None,
        }
    }

    /// Where the replicas live that rest with a leader.
    pub(crate) fn company(&self, group: GroupId) -> Option<&BTreeSet<NodeId>> {
        match self.rests.get(&group)? {
            Rest::Leads(company) => Some(&company.with),
            _ => None,
        }
    }

    /// Whether a resting replica has reason to believe in its leader, which may
    /// be itself: then it helps nobody else into office.
    pub(crate) fn believes(&self, group: GroupId, now: Instant) -> bool {
        match self.rests.get(&group) {
            None => false,
            Some(Rest::Doubts { believes, .. }) => *believes,
            Some(Rest::Asking { .. } | Rest::Leads(_)) => true,
            Some(Rest::Follows { under, .. }) => self
                .peers
                .get(under)
                .is_some_and(|peer| now.saturating_duration_since(peer.heard) <= self.patience),
        }
    }

    /// A follower begins to doubt, because another replica does.
    pub(crate) fn doubt(&mut self, group: GroupId) -> Option<Doubt> {
        self.doubt_for(group, Reason::Rumour)
    }

    fn doubt_for(&mut self, group: GroupId, reason: Reason) -> Option<Doubt> {
        let &Rest::Follows { term, leader, under } = self.rests.get(&group)? else { return None };
        self.distrust(under, Claim { group, term });
        self.turns += 1;
        let believes = reason == Reason::Rumour;
        self.rests.insert(group, Rest::Doubts { turn: self.turns, believes });
        let asks = reason != Reason::Silence;
        Some(Doubt { group, turn: self.turns, leader, under, asks })
    }

    /// Whether that doubt was not dispelled meanwhile.
    pub(crate) fn doubts(&self, group: GroupId, turn: u64) -> bool {
        matches!(self.rests.get(&group), Some(Rest::Doubts { turn: now, .. }) if *now == turn)
    }

    /// The beats that are due: to every node where something rests on our word.
    pub(crate) fn beats(&self) -> Vec<(NodeId, Beat)> {
        let due = self.peers.iter().filter(|(_, peer)| peer.claimed.count > 0);
        due.map(|(&node, peer)| {
            let names = peer.asks_for_names.then(|| self.claims_on(node));
            (node, Beat { claims: peer.claimed, names })
        })
        .collect()
    }

    /// By name what rests on our word at a node, or may by now.
    fn claims_on(&self, node: NodeId) -> Seq<Claim> {
        let claims = self.rests.iter().filter_map(|(&group, rest)| match rest {
            Rest::Asking { term } => Some(Claim { group, term: *term }),
            Rest::Leads(company) if company.with.contains(&node) => {
                Some(Claim { group, term: company.term })
            }
            _ => None,
        });
        claims.collect()
    }

    /// A beat of ours was answered. Says which leaders are without a quorum now:
    /// they do not count on who does not rest.
    pub(crate) fn answered(&mut self, by: NodeId, heard: &Heard, now: Instant) -> Vec<GroupId> {
        if let Some(peer) = self.peers.get_mut(&by) {
            peer.answered = now;
            peer.asks_for_names = !heard.agrees;
        }
        let mut alone = Vec::new();
        for &claim in heard.awake.iter() {
            let Some(Rest::Leads(company)) = self.rests.get_mut(&claim.group) else { continue };
            if company.term == claim.term && company.with.remove(&by) {
                if company.lost(by) {
                    alone.push(claim.group);
                }
                self.revoke(by, claim);
            }
        }
        alone
    }

    /// A beat came. Says how that fits to what rests here, and who rests here on
    /// the word of that node and is not among those it names.
    pub(crate) fn hear(&mut self, from: NodeId, beat: &Beat, now: Instant) -> (Heard, Vec<Doubt>) {
        let peer = self.peers.entry(from).or_insert_with(|| Peer::new(now));
        peer.heard = now;
        let agrees = peer.trusted == beat.claims;
        let Some(names) = &beat.names else {
            return (Heard { agrees, awake: Seq::new() }, Vec::new());
        };
        let rests = |claim: &&Claim| {
            matches!(self.rests.get(&claim.group), Some(Rest::Follows { term, under, .. })
                if *term == claim.term && *under == from)
        };
        let awake = names.iter().filter(|claim| !rests(claim)).copied().collect();
        let names: BTreeSet<Claim> = names.iter().copied().collect();
        let is_unclaimed = |(&group, rest): (&GroupId, &Rest)| match rest {
            Rest::Follows { term, under, .. } if *under == from => {
                (!names.contains(&Claim { group, term: *term })).then_some(group)
            }
            _ => None,
        };
        let unclaimed: Vec<GroupId> = self.rests.iter().filter_map(is_unclaimed).collect();
        let doubts = unclaimed.into_iter();
        let doubts = doubts.filter_map(|group| self.doubt_for(group, Reason::Unclaimed)).collect();
        (Heard { agrees, awake }, doubts)
    }

    /// Finds what silence of other nodes means. By how much a look comes late is
    /// held against nobody: so long it was this node that slept.
    pub(crate) fn look(&mut self, now: Instant) -> Silence {
        let since = self.looked.replace(now).unwrap_or(now);
        let late = now.saturating_duration_since(since).saturating_sub(self.beat);
        if !late.is_zero() {
            for peer in self.peers.values_mut() {
                peer.answered = (peer.answered + late).min(now);
                peer.heard = (peer.heard + late).min(now);
            }
        }
        let is_over = |since: Instant| now.saturating_duration_since(since) > self.patience;
        let mute: Vec<NodeId> =
            nodes(&self.peers, |peer| peer.claimed.count > 0 && is_over(peer.answered));
        let lost: Vec<NodeId> =
            nodes(&self.peers, |peer| peer.trusted.count > 0 && is_over(peer.heard));
        let mut silence = Silence::default();
        for node in mute {
            silence.alone.extend(self.part_from(node));
        }
        if !lost.is_empty() {
            let followers = self.rests.iter().filter_map(|(&group, rest)| match rest {
                Rest::Follows { under, .. } if lost.contains(under) => Some(group),
                _ => None,
            });
            let followers = followers.collect::<Vec<_>>().into_iter();
            let doubt = |group| self.doubt_for(group, Reason::Silence);
            silence.doubts = followers.filter_map(doubt).collect();
        }
        self.peers.retain(|_, peer| peer.claimed.count > 0 || peer.trusted.count > 0);
        silence
    }

    /// Counts on a node no more, and says which leaders are without a quorum then.
    fn part_from(&mut self, node: NodeId) -> Vec<GroupId> {
        let mut alone = Vec::new();
        for (&group, rest) in &mut self.rests {
            let Rest::Leads(company) = rest else { continue };
            if company.with.remove(&node) && company.lost(node) {
                alone.push(group);
            }
        }
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.claimed = Claims::default();
        }
        alone
    }

    fn revoke(&mut self, node: NodeId, claim: Claim) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.claimed.remove(claim);
        }
    }

    fn distrust(&mut self, node: NodeId, claim: Claim) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.trusted.remove(claim);
        }
    }
}

fn nodes(peers: &BTreeMap<NodeId, Peer>, is_meant: impl Fn(&Peer) -> bool) -> Vec<NodeId> {
    peers.iter().filter(|(_, peer)| is_meant(peer)).map(|(&node, _)| node).collect()
}
