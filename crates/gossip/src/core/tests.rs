//! The rules that need no network to be seen.

use std::time::Duration;

use quorate_types::NodeId;

use super::members::{RUMOURED_INCARNATION_MAX, Source, Weight, weigh};
use super::rumours::RumourQueue;
use super::suspicion::Suspicion;
use crate::config::Config;
use crate::member::Status;
use crate::wire::Record;

const ME: NodeId = NodeId(1);

fn suspicion(active: usize) -> Suspicion {
    Suspicion::new(&Config::default(), active, ME, Status::Dead, Duration::ZERO)
}

#[test]
fn suspicion_shrinks_with_each_independent_accuser_and_no_further_than_the_minimum() {
    let mut suspicion = suspicion(6);
    let mut deadlines = vec![suspicion.deadline()];
    for accuser in [2, 3, 4, 5] {
        suspicion.confirm(NodeId(accuser), Status::Dead);
        deadlines.push(suspicion.deadline());
    }
    let millis: Vec<u128> = deadlines.iter().map(Duration::as_millis).collect();
    assert_eq!(millis, [3000, 2500, 2208, 2000, 2000]);
}

#[test]
fn the_same_accuser_counts_once() {
    let mut suspicion = suspicion(6);
    assert!(!suspicion.confirm(ME, Status::Dead));
    assert_eq!(suspicion.deadline(), Duration::from_secs(3));
}

#[test]
fn two_nodes_have_nobody_to_confirm_and_do_not_wait_for_it() {
    assert_eq!(suspicion(2).deadline(), Duration::from_secs(2));
}

#[test]
fn suspicion_grows_with_the_logarithm_of_the_cluster() {
    assert!(suspicion(100).deadline() > suspicion(10).deadline());
    assert!(suspicion(1000).deadline() < suspicion(10).deadline() * 3);
}

#[test]
fn a_goodbye_outranks_a_death() {
    let mut suspicion = suspicion(6);
    suspicion.confirm(NodeId(2), Status::Left);
    suspicion.confirm(NodeId(3), Status::Dead);
    assert_eq!(suspicion.verdict(), Status::Left);
}

#[test]
fn a_restart_after_a_year_is_believed_and_an_absurd_incarnation_is_not() {
    let rumour = Source::Rumour(NodeId(9));
    let known = 1_700_000_000_000;
    let year = 365 * 24 * 3600 * 1000;
    assert_eq!(weigh(known + year, Some(known), rumour), Weight::Believe);
    assert_eq!(weigh(known + 10 * year, Some(known), rumour), Weight::Ask);
    assert_eq!(weigh(known + 10 * year, Some(known), Source::FirstHand), Weight::Believe);
    assert_eq!(weigh(u64::MAX, Some(known), Source::FirstHand), Weight::Refuse);
    assert_eq!(weigh(u64::MAX, None, rumour), Weight::Refuse);
}

#[test]
fn whatever_hearsay_reaches_the_owner_can_outrank() {
    let top = RUMOURED_INCARNATION_MAX;
    let rumour = Source::Rumour(NodeId(9));
    assert_eq!(weigh(top, Some(top), rumour), Weight::Believe);
    assert_eq!(weigh(top + 1, Some(top), rumour), Weight::Ask);
    assert_eq!(weigh(top + 1, Some(top), Source::FirstHand), Weight::Believe);
}

#[test]
fn rumours_are_told_a_bounded_number_of_times_the_least_told_first() {
    let record = |node: u64| Record {
        node: NodeId(node),
        address: "a:1".into(),
        incarnation: 1,
        status: Status::Alive,
        accuser: NodeId(node),
    };
    let mut queue = RumourQueue::default();
    queue.push(record(1));
    assert_eq!(queue.take(1, 3).len(), 1);
    queue.push(record(2));
    assert_eq!(queue.take(1, 3), [record(2)]);
    let mut told = 0;
    while !queue.is_empty() {
        told += queue.take(8, 3).len();
    }
    assert_eq!(told, 4);
}
