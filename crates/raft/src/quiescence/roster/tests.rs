#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use quorate_types::{GroupId, NodeId, ReplicaId, Seq};
use tokio::time::Instant;

use super::{Company, Doubt, Roster, Silence};
use crate::quiescence::wire::{Beat, Claim, Claims};

const PATIENCE: Duration = Duration::from_secs(1);
const BEAT: Duration = Duration::from_millis(200);
const TERM: u64 = 5;
const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

fn company(with: &[NodeId]) -> Company {
    let with: std::collections::BTreeSet<NodeId> = with.iter().copied().collect();
    Company { term: TERM, voters: with.clone(), with, voters_needed: 1 }
}

/// A leader of a group on A, and B and C that follow.
struct Three {
    now: Instant,
    a: Roster,
    b: Roster,
    c: Roster,
    /// Leaders that were told to wake by what a beat was answered.
    alone: Vec<GroupId>,
}

impl Three {
    fn resting(groups: &[u64]) -> Self {
        let now = Instant::now();
        let roster = || Roster::new(PATIENCE, BEAT);
        let mut three = Self { now, a: roster(), b: roster(), c: roster(), alone: Vec::new() };
        for &group in groups {
            let group = GroupId(group);
            three.a.ask(group, TERM);
            assert!(three.b.follow(group, TERM, ReplicaId(1), A, now));
            assert!(three.c.follow(group, TERM, ReplicaId(1), A, now));
            assert!(three.a.lead(group, company(&[B, C]), now));
        }
        three.look();
        three
    }

    fn look(&mut self) -> [Silence; 3] {
        [self.a.look(self.now), self.b.look(self.now), self.c.look(self.now)]
    }

    /// A round of beats from A; says who doubts at B. C hears them if `c_hears`.
    fn beat(&mut self, c_hears: bool) -> Vec<GroupId> {
        self.now += BEAT;
        let mut doubting = Vec::new();
        for (node, beat) in self.a.beats() {
            let there = if node == B { &mut self.b } else { &mut self.c };
            if node == B || c_hears {
                let (heard, doubts) = there.hear(A, &beat, self.now);
                self.alone.extend(self.a.answered(node, &heard, self.now));
                if node == B {
                    doubting.extend(doubts.iter().map(|doubt| doubt.group));
                }
            }
        }
        doubting
    }
}

#[test]
fn while_beats_come_everybody_rests() {
    let mut three = Three::resting(&[1, 2, 3]);
    for _ in 0..50 {
        assert_eq!(three.beat(true), []);
        assert_eq!(three.look(), [Silence::default(), Silence::default(), Silence::default()]);
    }
    assert!(three.b.believes(GroupId(1), three.now));
    assert_eq!([three.a.len(), three.b.len(), three.c.len()], [3, 3, 3]);
}

#[test]
fn whoever_hears_no_beats_doubts_once() {
    let mut three = Three::resting(&[1, 2]);
    let mut doubts = Vec::new();
    for _ in 0..10 {
        three.beat(false);
        let [_, b, c] = three.look();
        assert_eq!(b, Silence::default());
        doubts.extend(c.doubts);
    }
    let groups: Vec<GroupId> = doubts.iter().map(|doubt| doubt.group).collect();
    assert_eq!(groups, [GroupId(1), GroupId(2)]);
    let from_a = |doubt: &Doubt| doubt.leader == ReplicaId(1) && doubt.under == A && !doubt.asks;
    assert!(doubts.iter().all(from_a));
    assert!(!three.c.believes(GroupId(1), three.now));
    assert!(three.c.doubts(GroupId(1), doubts[0].turn));
    three.c.wake(GroupId(1));
    assert!(!three.c.doubts(GroupId(1), doubts[0].turn), "it heard its leader");
    assert!(three.c.follow(GroupId(1), TERM, ReplicaId(1), A, three.now));
    let again = three.c.doubt(GroupId(1)).unwrap();
    assert!(again.turn > doubts[1].turn, "and may doubt anew");
}

#[test]
fn a_leader_wakes_when_too_few_answer() {
    let mut three = Three::resting(&[1]);
    let mut alone = Vec::new();
    for _ in 0..10 {
        three.beat(false);
        alone.extend(three.look()[0].alone.clone());
    }
    assert_eq!(alone, [], "B and the leader are two of three");
    assert!(three.a.beats().iter().all(|(node, _)| *node == B), "C is not counted on");
    for _ in 0..10 {
        three.now += BEAT;
        alone.extend(three.a.look(three.now).alone);
    }
    assert_eq!(alone, [GroupId(1)]);
}

#[test]
fn what_is_not_claimed_doubts_and_the_rest_does_not() {
    let mut three = Three::resting(&[1, 2, 3]);
    // The leader of 2 stops; nobody tells B.
    assert!(three.a.wake(GroupId(2)));
    assert_eq!(three.beat(true), [], "the sums differ, and B asks for names");
    assert_eq!(three.beat(true), [GroupId(2)]);
    for _ in 0..10 {
        assert_eq!(three.beat(true), []);
        three.look();
    }
    assert!(three.b.believes(GroupId(1), three.now) && three.b.believes(GroupId(3), three.now));
}

#[test]
fn a_group_that_is_only_just_asked_to_rest_is_named() {
    let mut three = Three::resting(&[1]);
    three.a.ask(GroupId(2), TERM);
    assert!(three.b.follow(GroupId(2), TERM, ReplicaId(1), A, three.now));
    three.beat(true);
    assert_eq!(three.beat(true), [], "B has agreed, the leader does not know it yet");
    assert!(three.a.lead(GroupId(2), company(&[B, C]), three.now));
    assert_eq!(three.beat(true), []);
}

#[test]
fn who_is_claimed_and_does_not_rest_is_not_counted_on() {
    let mut three = Three::resting(&[1, 2]);
    three.b.wake(GroupId(1));
    for _ in 0..10 {
        assert_eq!(three.beat(true), []);
        three.look();
    }
    assert!(three.b.believes(GroupId(2), three.now));
    assert_eq!(three.alone, [], "C is enough");
    assert_eq!(three.a.company(GroupId(1)).unwrap(), &[C].into());
    assert!(three.a.beats().iter().all(|(_, beat)| beat.names.is_none()), "all agree again");
    three.c.wake(GroupId(1));
    three.beat(true);
    three.beat(true);
    assert_eq!(three.alone, [GroupId(1)]);
}

#[test]
fn a_rumour_is_no_reason_to_stop_believing() {
    let mut three = Three::resting(&[1]);
    let doubt = three.b.doubt(GroupId(1)).unwrap();
    assert!(doubt.asks && three.b.believes(GroupId(1), three.now));
    assert!(three.b.doubt(GroupId(1)).is_none(), "nor is a second one");
    assert!(three.b.believes(GroupId(1), three.now));
    assert!(three.b.wake(GroupId(1)));
    assert!(!three.b.believes(GroupId(1), three.now));
}

#[test]
fn a_claim_of_another_term_is_none() {
    let mut three = Three::resting(&[1]);
    let other = Claim { group: GroupId(1), term: TERM + 1 };
    let mut claims = Claims::default();
    claims.add(other);
    let (heard, doubts) = three.b.hear(A, &Beat { claims, names: None }, three.now);
    assert!(!heard.agrees && heard.awake.is_empty() && doubts.is_empty());
    let named = Beat { claims, names: Some(Seq(vec![other])) };
    assert_eq!(three.b.hear(A, &named, three.now).1.len(), 1);
}

#[test]
fn a_node_that_slept_itself_blames_nobody() {
    let mut three = Three::resting(&[1]);
    three.beat(true);
    three.look();
    three.now += PATIENCE * 20;
    assert_eq!(three.look(), [Silence::default(), Silence::default(), Silence::default()]);
    let mut found = 0;
    for _ in 0..10 {
        three.now += BEAT;
        found += three.b.look(three.now).doubts.len();
    }
    assert_eq!(found, 1, "silence that lasts is silence");
}

#[test]
fn a_node_that_always_looks_late_finds_silence_all_the_same() {
    let mut three = Three::resting(&[1]);
    let mut found = 0;
    for _ in 0..10 {
        three.now += PATIENCE * 2;
        found += three.b.look(three.now).doubts.len();
    }
    assert_eq!(found, 1);
}

#[test]
fn who_was_woken_while_it_asked_does_not_rest() {
    let now = Instant::now();
    let mut roster = Roster::new(PATIENCE, BEAT);
    roster.ask(GroupId(1), TERM);
    assert!(roster.wake(GroupId(1)));
    assert!(!roster.lead(GroupId(1), company(&[B, C]), now));
    roster.ask(GroupId(1), TERM + 1);
    assert!(!roster.lead(GroupId(1), company(&[B, C]), now), "an answer to an earlier question");
    assert!(roster.beats().is_empty());
}

#[test]
fn one_that_rests_otherwise_does_not_follow() {
    let now = Instant::now();
    let mut roster = Roster::new(PATIENCE, BEAT);
    assert!(roster.follow(GroupId(1), TERM, ReplicaId(1), A, now));
    assert!(roster.follow(GroupId(1), TERM, ReplicaId(1), A, now), "asked twice");
    assert!(!roster.follow(GroupId(1), TERM, ReplicaId(2), B, now));
    roster.doubt(GroupId(1)).unwrap();
    assert!(!roster.follow(GroupId(1), TERM, ReplicaId(1), A, now));
    assert!(roster.doubt(GroupId(1)).is_none());
}
