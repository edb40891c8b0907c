//! The planted bugs do what their names say. Only in a build that has them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::{acknowledge_all, exchange, live, make_members, put, remove, replica, settle};
use quorate_crdt::{DeltaMap, Origin};
use quorate_testkit::canary::with;
use quorate_types::NodeId;
use quorate_types::fault::Canary;

/// A replica that heard of a write, and the writer, which has forgotten it
/// and written something else at the same instant.
fn two_values_of_one_stamp() -> [DeltaMap; 2] {
    let mut replicas = [replica(1), replica(2)];
    put(&mut replicas[0], "k", "before", 10);
    exchange(&mut replicas);
    replicas[0] = DeltaMap::new(Origin::new(NodeId(1), 2), common::LIMITS);
    put(&mut replicas[0], "k", "after", 10);
    (0..5).for_each(|_| exchange(&mut replicas));
    replicas
}

#[test]
fn of_two_values_of_one_stamp_each_replica_keeps_its_own() {
    let [one, other] = two_values_of_one_stamp();
    assert_eq!(one.root(), other.root());
    let [one, other] = with(Canary::TieKeptLocal, two_values_of_one_stamp);
    assert_ne!(one.root(), other.root());
    assert_ne!(live(&one), live(&other));
}

/// How many tombstones a replica collects that only two of three have seen,
/// and whether the key is back once all have talked.
fn removal_that_one_missed() -> (usize, bool) {
    let mut replicas: Vec<DeltaMap> = (1..=3).map(replica).collect();
    make_members(&mut replicas);
    put(&mut replicas[1], "k", "v", 1);
    settle(&mut replicas);
    remove(&mut replicas[0], "k", 10);
    settle(&mut replicas[..2]);
    acknowledge_all(&mut replicas);
    let collected = replicas[..2].iter_mut().map(|map| map.collect(5_000, 1_000).tombstones).sum();
    (0..5).for_each(|_| exchange(&mut replicas));
    (collected, replicas.iter().any(|map| map.get(b"k").is_some()))
}

#[test]
fn a_tombstone_collected_early_brings_its_key_back() {
    assert_eq!(removal_that_one_missed(), (0, false));
    assert_eq!(with(Canary::TombstoneCollectedEarly, removal_that_one_missed), (2, true));
}
