//! Removals: when they are forgotten, and that they stay removals.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::{
    LIMITS, PLENTY_BYTES, acknowledge_all, delta, live, make_members, pull, put, remove, replica,
    settle,
};
use quorate_crdt::{CrdtError, DeltaMap, Origin};
use quorate_types::NodeId;

const AGE_MILLIS: u64 = 1_000;

/// Three members that all hold `k`, which the first then removes at 10.
fn removed_by_the_first() -> Vec<DeltaMap> {
    let mut replicas: Vec<DeltaMap> = (1..=3).map(replica).collect();
    make_members(&mut replicas);
    put(&mut replicas[1], "k", "v", 1);
    settle(&mut replicas);
    remove(&mut replicas[0], "k", 10);
    replicas
}

/// The same, with the removal known to all and collected by the first two.
/// The third was away from before the removal and is no longer waited for.
fn collected_while_the_third_was_away() -> Vec<DeltaMap> {
    let mut replicas = removed_by_the_first();
    let away = replicas.pop().unwrap();
    settle(&mut replicas);
    for replica in &mut replicas {
        replica.forget_member(away.origin().node);
    }
    acknowledge_all(&mut replicas);
    for replica in &mut replicas {
        assert_eq!(replica.collect(10 + AGE_MILLIS, AGE_MILLIS).tombstones, 1);
    }
    replicas.push(away);
    replicas
}

#[test]
fn tombstone_not_collected_early() {
    let mut replicas = removed_by_the_first();
    let collected = |map: &mut DeltaMap, now| map.collect(now, AGE_MILLIS).tombstones;

    acknowledge_all(&mut replicas);
    assert_eq!(collected(&mut replicas[0], 5_000), 0, "nobody else has seen it");

    settle(&mut replicas[..2]);
    acknowledge_all(&mut replicas);
    assert_eq!(collected(&mut replicas[0], 5_000), 0, "the third has not seen it");

    settle(&mut replicas);
    assert_eq!(collected(&mut replicas[0], 5_000), 0, "the third has not said so");

    acknowledge_all(&mut replicas);
    assert_eq!(collected(&mut replicas[0], 10 + AGE_MILLIS - 1), 0, "it is too young");
    assert_eq!(collected(&mut replicas[0], 10 + AGE_MILLIS), 1);
    assert!(replicas[0].is_empty());
}

#[test]
fn nothing_is_collected_before_members_are_known() {
    let mut alone = replica(1);
    remove(&mut alone, "k", 1);
    assert_eq!(alone.collect(u64::MAX, 0).tombstones, 0);
    alone.retain_members([NodeId(1)]);
    assert_eq!(alone.collect(u64::MAX, 0).tombstones, 1);
}

#[test]
fn an_acknowledgement_ahead_of_us_waits_until_we_caught_up() {
    let (mut a, mut b) = (replica(1), replica(2));
    a.retain_members([NodeId(1), NodeId(2)]);
    remove(&mut a, "k", 10);
    // b wrote an older value before it saw the removal. We have not seen that
    // write: it could still be on its way and find no tombstone.
    put(&mut b, "k", "older", 5);
    let in_flight = delta(&b, &a).unwrap();
    pull(&mut b, &a, PLENTY_BYTES);
    a.acknowledge(NodeId(2), b.vector().clone());
    assert_eq!(a.collect(5_000, AGE_MILLIS).tombstones, 0);
    a.merge(&in_flight).unwrap();
    assert_eq!(a.collect(5_000, AGE_MILLIS).tombstones, 1);
    a.merge(&in_flight).unwrap();
    assert!(a.get(b"k").is_none());
}

#[test]
fn a_restarted_member_has_seen_less() {
    let mut replicas = removed_by_the_first();
    settle(&mut replicas);
    acknowledge_all(&mut replicas);
    let restarted = DeltaMap::new(Origin::new(NodeId(3), 2), LIMITS);
    replicas[0].acknowledge(NodeId(3), restarted.vector().clone());
    assert_eq!(replicas[0].collect(5_000, AGE_MILLIS).tombstones, 0);
}

#[test]
fn collecting_does_not_tell_replicas_apart() {
    let mut replicas = removed_by_the_first();
    settle(&mut replicas);
    acknowledge_all(&mut replicas);
    replicas[0].collect(5_000, AGE_MILLIS);
    assert_ne!(replicas[0].len(), replicas[1].len());
    assert_eq!(replicas[0].root(), replicas[1].root());
}

#[test]
fn equal_roots_acknowledge() {
    let mut replicas = removed_by_the_first();
    settle(&mut replicas);
    let root = replicas[1].root();
    for node in [2, 3] {
        assert!(replicas[0].acknowledge_root(NodeId(node), root));
    }
    assert_eq!(replicas[0].collect(5_000, AGE_MILLIS).tombstones, 1);
    assert!(!replicas[0].acknowledge_root(NodeId(2), root.wrapping_add(1)));
}

#[test]
fn no_resurrection_after_gc() {
    let mut replicas = collected_while_the_third_was_away();
    let away = replicas[2].clone();
    assert!(away.get(b"k").is_some());
    assert!(matches!(replicas[0].delta(away.vector(), PLENTY_BYTES), Err(CrdtError::BehindCut)));
    settle(&mut replicas);
    assert!(replicas.iter().all(|replica| live(replica).is_empty()));
}

#[test]
fn no_resurrection_through_a_third_party() {
    let mut replicas = collected_while_the_third_was_away();
    // A newcomer hears of the removed key first, from the one that was away.
    let mut newcomer = replica(4);
    pull(&mut newcomer, &replicas[2], PLENTY_BYTES);
    assert!(newcomer.get(b"k").is_some());
    replicas.push(newcomer);
    settle(&mut replicas);
    assert!(replicas.iter().all(|replica| live(replica).is_empty()));
}

#[test]
fn what_the_absent_wrote_since_survives() {
    let mut replicas = collected_while_the_third_was_away();
    put(&mut replicas[2], "k", "older", 5);
    put(&mut replicas[2], "new", "kept", 20);
    settle(&mut replicas);
    for replica in &replicas {
        assert_eq!(live(replica), [("new".into(), "kept".into())]);
    }
}

#[test]
fn two_sides_that_collected_apart_agree_again() {
    let mut replicas: Vec<DeltaMap> = (1..=2).map(replica).collect();
    for key in ["a1", "b1", "c1"] {
        put(&mut replicas[0], key, "v", 1);
    }
    settle(&mut replicas);
    for (side, key) in [(0, "a1"), (1, "b1")] {
        remove(&mut replicas[side], key, 10);
        let own = replicas[side].origin().node;
        replicas[side].retain_members([own]);
        assert_eq!(replicas[side].collect(5_000, AGE_MILLIS).tombstones, 1);
    }
    settle(&mut replicas);
    for replica in &replicas {
        assert_eq!(live(replica), [("c1".into(), "v".into())]);
    }
}

#[test]
fn a_reset_in_chunks_takes_over_the_context_at_its_end() {
    let mut replicas = collected_while_the_third_was_away();
    for index in 0..12 {
        put(&mut replicas[0], &format!("n{index:02}"), "0123456789abcdef", 20);
    }
    let budget = replicas[0].reset_bytes_needed();
    let source = replicas[0].clone();
    let target = &mut replicas[2];
    let context = target.vector().clone();

    let first = source.novelty(&target.summary(), budget).unwrap().unwrap();
    assert!(target.merge_novelty(&first).unwrap().more);
    assert_eq!(*target.vector(), context, "not before the last chunk");

    let answers = pull(target, &source, budget);
    assert!(answers > 2, "{answers} answers");
    assert_eq!(target.root(), source.root());
    assert!(target.get(b"k").is_none());
}

#[test]
fn a_reset_survives_changes_between_its_chunks() {
    let mut replicas = collected_while_the_third_was_away();
    for index in 0..12 {
        put(&mut replicas[0], &format!("n{index:02}"), "0123456789abcdef", 20);
    }
    let budget = replicas[0].reset_bytes_needed();
    let (mut source, mut target) = (replicas[0].clone(), replicas[2].clone());
    for millis in 30..60 {
        let Some(novelty) = source.novelty(&target.summary(), budget).unwrap() else { break };
        target.merge_novelty(&novelty).unwrap();
        if millis < 40 {
            put(&mut source, &format!("n{:02}", millis % 12), "changed", 2 * millis);
            remove(&mut source, &format!("n{:02}", millis * 7 % 12), 2 * millis + 1);
        }
    }
    pull(&mut target, &source, PLENTY_BYTES);
    assert_eq!(live(&target), live(&source));
}

#[test]
fn what_a_reset_leaves_is_covered_even_if_its_sender_died() {
    let mut replicas = collected_while_the_third_was_away();
    for index in 0..12 {
        put(&mut replicas[0], &format!("n{index:02}"), "0123456789abcdef", 20);
    }
    let budget = replicas[0].reset_bytes_needed();
    let (mut source, mut target) = (replicas[0].clone(), replicas[2].clone());
    let is_covered = |target: &DeltaMap| {
        let entries = (0..12).filter_map(|index| target.entry(format!("n{index:02}").as_bytes()));
        entries.into_iter().all(|entry| target.vector().covers(entry.dot))
    };
    loop {
        let next = source.novelty(&target.summary(), budget).unwrap().unwrap();
        let is_over = !target.merge_novelty(&next).unwrap().more;
        assert!(is_covered(&target));
        if is_over {
            break;
        }
        // Told by the last chunk, and by a delta that may never be sent.
        let millis = 40 + source.vector().get(source.origin());
        remove(&mut source, "n11", millis);
    }
    assert!(target.get(b"n00").is_some());
}

#[test]
fn a_reset_whose_sender_died_is_given_up() {
    let mut replicas = collected_while_the_third_was_away();
    for replica in &mut replicas[..2] {
        for index in 0..12 {
            put(replica, &format!("n{index:02}"), "0123456789abcdef", 20);
        }
    }
    let budget = replicas[0].reset_bytes_needed();
    let first = replicas[0].novelty(&replicas[2].summary(), budget).unwrap().unwrap();
    replicas[2].merge_novelty(&first).unwrap();
    let waits = replicas[1].novelty(&replicas[2].summary(), PLENTY_BYTES).unwrap();
    assert_eq!(waits, None);

    replicas[2].collect(0, AGE_MILLIS);
    replicas[2].collect(0, AGE_MILLIS);
    let (other, target) = (replicas[1].clone(), &mut replicas[2]);
    pull(target, &other, budget.max(other.reset_bytes_needed()));
    assert!(target.get(b"k").is_none() && target.get(b"n00").is_some());
}

#[test]
fn a_reset_brings_the_floor_along() {
    let mut replicas = collected_while_the_third_was_away();
    settle(&mut replicas);
    let floor = replicas[2].newest_stamp(&"k".into()).unwrap();
    assert_eq!(floor.hlc.millis, 10);
}

#[test]
fn origins_of_earlier_lives_are_forgotten() {
    let mut replicas: Vec<DeltaMap> = vec![replica(1)];
    replicas.extend((1..=30).map(|life| DeltaMap::new(Origin::new(NodeId(2), life), LIMITS)));
    let mut a = replicas.remove(0);
    a.retain_members([NodeId(1), NodeId(2)]);
    for (index, life) in replicas.iter_mut().enumerate() {
        put(life, "load", "v", index as u64 + 1);
        pull(&mut a, life, PLENTY_BYTES);
    }
    let mut pair = [a, replicas.pop().unwrap()];
    settle(&mut pair);
    make_members(&mut pair);
    let known = pair[0].vector().len();
    for now in (0..10).map(|round| round * AGE_MILLIS) {
        settle(&mut pair);
        acknowledge_all(&mut pair);
        for replica in &mut pair {
            replica.collect(now, AGE_MILLIS);
        }
    }
    settle(&mut pair);
    assert_eq!(known, 30);
    assert_eq!(pair[0].vector().len(), 1);
    assert_eq!(pair[0].root(), pair[1].root());
    assert_eq!(live(&pair[0]).len(), 1);
}

#[test]
fn a_faded_origin_still_acknowledges() {
    let (mut a, mut b, mut gone) = (replica(1), replica(2), replica(3));
    remove(&mut gone, "k", 10);
    pull(&mut a, &gone, PLENTY_BYTES);
    pull(&mut b, &gone, PLENTY_BYTES);
    b.retain_members([NodeId(2)]);
    b.collect(5_000, AGE_MILLIS);
    assert_eq!(b.collect(5_000 + AGE_MILLIS, AGE_MILLIS).origins, 1);
    assert!(b.vector().is_empty());

    a.retain_members([NodeId(2)]);
    a.acknowledge(NodeId(2), b.summary().acknowledgement());
    assert_eq!(a.collect(5_000, AGE_MILLIS).tombstones, 1);
}

#[test]
fn a_reset_does_not_bring_a_faded_origin_back_into_the_cut() {
    let (mut a, mut b, mut gone) = (replica(1), replica(2), replica(3));
    remove(&mut gone, "k", 10);
    pull(&mut a, &gone, PLENTY_BYTES);
    pull(&mut b, &gone, PLENTY_BYTES);
    for (map, own) in [(&mut a, 1), (&mut b, 2)] {
        map.retain_members([NodeId(own)]);
        assert_eq!(map.collect(5_000, AGE_MILLIS).tombstones, 1);
    }
    assert_eq!(b.collect(5_000 + AGE_MILLIS, AGE_MILLIS).origins, 1);
    b.merge_reset(&a.reset_chunk(&"".into(), PLENTY_BYTES).unwrap()).unwrap();
    let newcomer = replica(4);
    assert!(b.delta(newcomer.vector(), PLENTY_BYTES).unwrap().is_none());
}
