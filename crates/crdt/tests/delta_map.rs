//! What a delta holds, how it is merged, and what is refused.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::{LIMITS, PLENTY_BYTES, at, delta, live, pull, put, remove, replica, settle};
use quorate_crdt::{Change, CrdtError, Delta, DeltaMap, Origin, Put, Run, Stamp, VersionVector};
use quorate_types::{Blob, NodeId};

fn tight_budget() -> usize {
    DeltaMap::delta_bytes_needed(&LIMITS)
}

#[test]
fn lww_tie_converges() {
    let (mut a, mut b) = (replica(1), replica(2));
    let same = at(5, 9);
    common::written(a.put("k".into(), "left".into(), 1, same).unwrap());
    common::written(b.put("k".into(), "right".into(), 1, same).unwrap());
    let mut replicas = [a, b];
    settle(&mut replicas);
    assert_eq!(live(&replicas[0]), live(&replicas[1]));
}

#[test]
fn a_delta_holds_novelty_only() {
    let (mut a, mut b) = (replica(1), replica(2));
    put(&mut a, "old", "1", 1);
    pull(&mut b, &a, PLENTY_BYTES);
    put(&mut a, "new", "2", 2);
    let delta = delta(&a, &b).unwrap();
    let keys: Vec<&Blob> =
        delta.runs.iter().flat_map(|run| run.changes.iter().map(|change| &change.key)).collect();
    assert_eq!(keys, [&Blob::from("new")]);
}

#[test]
fn a_delta_is_smaller_than_the_state() {
    let (mut a, mut b) = (replica(1), replica(2));
    for index in 0..50 {
        put(&mut a, &format!("k{index}"), "some value", 1);
    }
    pull(&mut b, &a, PLENTY_BYTES);
    put(&mut a, "k7", "another", 2);
    let (small, whole) = (delta(&a, &b).unwrap(), delta(&a, &replica(3)).unwrap());
    assert!(small.encode().len() < 64, "{} bytes for one change", small.encode().len());
    assert!(small.encode().len() * 20 < whole.encode().len());
}

#[test]
fn what_was_overwritten_is_not_sent() {
    let mut a = replica(1);
    for millis in 1..=30 {
        put(&mut a, "k", "v", millis);
    }
    let delta = delta(&a, &replica(2)).unwrap();
    assert_eq!(delta.runs[0].changes.len(), 1);
    assert_eq!(delta.runs[0].to, 30);
}

#[test]
fn equal_replicas_have_nothing_to_tell() {
    let (mut a, mut b) = (replica(1), replica(2));
    put(&mut a, "k", "v", 1);
    pull(&mut b, &a, PLENTY_BYTES);
    assert_eq!(a.root(), b.root());
    assert_eq!(delta(&a, &b), None);
    assert_eq!(delta(&b, &a), None);
}

#[test]
fn a_truncated_delta_advances_gap_free_prefixes() {
    let (mut a, mut b) = (replica(1), replica(2));
    for index in 0..8 {
        put(&mut a, &format!("k{index}"), "0123456789abcdef", index);
    }
    let part = a.delta(b.vector(), tight_budget()).unwrap().unwrap();
    assert!(part.more && part.encode().len() <= tight_budget());
    b.merge(&part).unwrap();
    let seen = b.vector().get(a.origin());
    assert!((1..8).contains(&seen));
    assert_eq!(live(&b).len() as u64, seen);
    pull(&mut b, &a, tight_budget());
    assert_eq!(live(&a), live(&b));
}

#[test]
fn a_busy_origin_does_not_starve_the_others() {
    let mut hub = replica(1);
    let mut quiet = replica(3);
    put(&mut quiet, "quiet", "v", 1);
    pull(&mut hub, &quiet, PLENTY_BYTES);
    let mut reader = replica(4);
    for millis in 1..=20 {
        put(&mut hub, "busy1", "0123456789abcdef", millis);
        put(&mut hub, "busy2", "0123456789abcdef", millis);
        let part = hub.delta(reader.vector(), tight_budget()).unwrap().unwrap();
        reader.merge(&part).unwrap();
    }
    assert!(reader.get(b"quiet").is_some());
}

#[test]
fn a_gap_is_reported_and_changes_nothing() {
    let (mut a, mut b) = (replica(1), replica(2));
    put(&mut a, "k1", "v", 1);
    let seen_one = a.vector().clone();
    put(&mut a, "k2", "v", 2);
    let second = a.delta(&seen_one, PLENTY_BYTES).unwrap().unwrap();
    let outcome = b.merge(&second).unwrap();
    assert_eq!(outcome.gaps, [a.origin()]);
    assert!(b.is_empty() && b.vector().is_empty());
}

#[test]
fn merging_twice_is_merging_once() {
    let (mut a, mut b) = (replica(1), replica(2));
    put(&mut a, "k", "v", 1);
    let delta = delta(&a, &b).unwrap();
    assert_eq!(b.merge(&delta).unwrap().changed, [Blob::from("k")]);
    let root = b.root();
    let again = b.merge(&delta).unwrap();
    assert!(again.changed.is_empty() && again.stale == 1);
    assert_eq!(b.root(), root);
}

#[test]
fn a_merge_never_judges_by_time() {
    let (mut a, mut b) = (replica(1), replica(2));
    put(&mut a, "k", "far future", u64::MAX - 1);
    let outcome = b.merge(&delta(&a, &b).unwrap()).unwrap();
    assert_eq!(outcome.latest.millis, u64::MAX - 1);
    assert!(b.get(b"k").is_some());
}

#[test]
fn stale_fence_is_refused_and_said() {
    let mut a = replica(1);
    common::written(a.put("k".into(), "v".into(), 5, at(1, 1)).unwrap());
    let refused = a.put("k".into(), "w".into(), 4, at(99, 1)).unwrap();
    assert_eq!(refused, Put::Stale { current: Stamp::new(5, at(1, 1)) });
    assert_eq!(a.get(b"k"), Some(&Blob::from("v")));
}

#[test]
fn version_zero_writes_leave_no_phantom() {
    let mut a = replica(1);
    let root = a.root();
    common::written(a.put("k".into(), "v".into(), 0, at(0, 1)).unwrap());
    assert_eq!(a.get(b"k"), Some(&Blob::from("v")));
    assert_ne!(a.root(), root);
    let refused = a.put("k".into(), "v".into(), 0, at(0, 1)).unwrap();
    assert!(matches!(refused, Put::Stale { .. }));
    assert_eq!(a.vector().get(a.origin()), 1);
}

#[test]
fn a_write_must_exceed_the_removals_of_its_keyspace() {
    let mut a = replica(1);
    common::written(a.remove("ka".into(), 7, at(1, 1)).unwrap());
    let same_space = a.put("kb".into(), "v".into(), 6, at(2, 1)).unwrap();
    assert!(matches!(same_space, Put::Stale { current } if current.fence == 7));
    let other_space = a.put("xb".into(), "v".into(), 6, at(2, 1)).unwrap();
    assert!(matches!(other_space, Put::Written(_)));
}

#[test]
fn restarted_origin_does_not_reuse_dots() {
    let (mut first_life, mut peer) = (replica(1), replica(2));
    put(&mut first_life, "k1", "before", 1);
    put(&mut first_life, "k2", "before", 1);
    pull(&mut peer, &first_life, PLENTY_BYTES);

    let mut second_life = DeltaMap::new(Origin::new(NodeId(1), 2), LIMITS);
    put(&mut second_life, "k1", "after", 2);
    let mut replicas = [second_life, peer];
    settle(&mut replicas);
    for replica in &replicas {
        assert_eq!(replica.get(b"k1"), Some(&Blob::from("after")));
        assert_eq!(replica.get(b"k2"), Some(&Blob::from("before")));
    }
}

#[test]
fn an_incarnation_used_twice_is_found_out() {
    let (mut first_life, mut peer) = (replica(1), replica(2));
    put(&mut first_life, "k1", "before", 1);
    pull(&mut peer, &first_life, PLENTY_BYTES);

    let mut forgetful = replica(1);
    let claimed = forgetful.merge(&delta(&peer, &forgetful).unwrap());
    assert!(matches!(claimed, Err(CrdtError::OwnOriginAhead { claimed: 1, known: 0, .. })));
    assert!(forgetful.is_empty());

    forgetful.renew(2).unwrap();
    put(&mut forgetful, "k2", "after", 2);
    let mut replicas = [forgetful, peer];
    settle(&mut replicas);
    assert_eq!(live(&replicas[0]).len(), 2);
    assert!(matches!(replicas[0].renew(2), Err(CrdtError::IncarnationNotNew { .. })));
}

#[test]
fn equal_versions_with_different_data_are_repaired() {
    let (mut a, mut b) = (replica(1), replica(1));
    put(&mut a, "k1", "one", 1);
    put(&mut b, "k2", "two", 1);
    let (mut x, mut y) = (replica(2), replica(3));
    pull(&mut x, &a, PLENTY_BYTES);
    pull(&mut y, &b, PLENTY_BYTES);
    assert_eq!(x.vector(), y.vector());
    assert_ne!(x.root(), y.root());

    let mut replicas = [x, y];
    settle(&mut replicas);
    assert_eq!(live(&replicas[0]), live(&replicas[1]));
    assert_eq!(live(&replicas[0]).len(), 2);
}

#[test]
fn limits_are_refused_before_anything_changes() {
    let mut a = replica(1);
    let too_long = a.put("123456789".into(), Blob::new(), 0, at(1, 1));
    assert!(matches!(too_long, Err(CrdtError::TooLarge { what: "key bytes", .. })));
    let too_big = a.put("k".into(), vec![0; 17].into(), 0, at(1, 1));
    assert!(matches!(too_big, Err(CrdtError::TooLarge { what: "value bytes", .. })));
    let nameless = a.put(Blob::new(), Blob::new(), 0, at(1, 1));
    assert!(matches!(nameless, Err(CrdtError::Malformed(_))));
    for index in 0..LIMITS.entries_max {
        put(&mut a, &format!("k{index}"), "v", 1);
    }
    let too_many = a.put("more".into(), Blob::new(), 0, at(2, 1));
    assert!(matches!(too_many, Err(CrdtError::TooLarge { what: "entries", .. })));
    put(&mut a, "k0", "still written", 3);
    assert_eq!(a.vector().get(a.origin()), LIMITS.entries_max as u64 + 1);
}

#[test]
fn a_merge_takes_what_writers_at_the_limit_made() {
    let (mut a, mut b) = (replica(1), replica(2));
    for index in 0..LIMITS.entries_max {
        put(&mut a, &format!("a{index}"), "v", 1);
        put(&mut b, &format!("b{index}"), "v", 1);
    }
    pull(&mut a, &b, PLENTY_BYTES);
    assert_eq!(a.len(), 2 * LIMITS.entries_max);
    let mut c = replica(3);
    put(&mut c, "c", "v", 1);
    let over = a.merge(&delta(&c, &a).unwrap());
    assert!(matches!(over, Err(CrdtError::TooLarge { what: "entries", .. })));
}

#[test]
fn a_budget_that_could_stall_is_refused_at_once() {
    let a = replica(1);
    let refused = a.delta(&VersionVector::new(), tight_budget() - 1);
    assert!(matches!(refused, Err(CrdtError::BudgetTooSmall { .. })));
    let needed = a.reset_bytes_needed();
    let refused = a.reset_chunk(&Blob::new(), needed - 1);
    assert!(matches!(refused, Err(CrdtError::BudgetTooSmall { .. })));
}

#[test]
fn malformed_deltas_are_refused_whole() {
    let origin = |node| Origin::new(NodeId(node), 1);
    let change = |sequence| Change {
        sequence,
        stamp: Stamp::new(0, at(1, 1)),
        key: "k".into(),
        value: Some("v".into()),
    };
    let run = |node, from, to, changes: Vec<u64>| Run {
        origin: origin(node),
        from,
        to,
        changes: changes.into_iter().map(change).collect(),
    };
    let hostile = [
        vec![run(1, 0, 0, vec![])],
        vec![run(1, 5, 4, vec![])],
        vec![run(1, 0, 2, vec![3])],
        vec![run(1, 1, 2, vec![1])],
        vec![run(1, 0, 3, vec![2, 2])],
        vec![run(2, 0, 1, vec![1]), run(1, 0, 1, vec![1])],
        vec![run(1, 0, 1, vec![1]), run(1, 0, 1, vec![1])],
    ];
    for runs in hostile {
        let mut map = replica(9);
        let delta = Delta { runs: runs.into(), more: false };
        assert!(matches!(map.merge(&delta), Err(CrdtError::Malformed(_))), "{delta:?}");
        assert!(map.is_empty() && map.vector().is_empty());
    }
}

#[test]
fn removal_spreads_like_a_write() {
    let (mut a, mut b) = (replica(1), replica(2));
    put(&mut a, "k", "v", 1);
    pull(&mut b, &a, PLENTY_BYTES);
    remove(&mut b, "k", 2);
    pull(&mut a, &b, PLENTY_BYTES);
    assert!(a.get(b"k").is_none() && a.entry(b"k").unwrap().is_tombstone());
    assert_eq!(a.root(), b.root());
}
