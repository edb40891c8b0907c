//! What every implementation of this crate's ports must do, as tests to be run
//! against it.
//!
//! | port | the one line |
//! |---|---|
//! | [`LogEngine`] | `log_engine_suite(\|\| Box::new(my_open)).await` |
//! | [`StateMachine`](crate::StateMachine) | `state_machine_suite(\|\| my_subject(), &commands).await` |
//! | [`Network`](crate::Network) | `network_suite(\|nodes\| my_network(nodes)).await` |
//! | [`Transport`](crate::Transport) | `transport_suite(\|nodes\| my_transports(nodes)).await` |
//!
//! The suite for logs checks meaning, not durability: that what was
//! acknowledged survives a power loss needs a disk that loses power, which only
//! the engine's owner can put under it.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "these are tests")]

mod machine;
mod network;

use std::sync::Arc;

use bytes::Bytes;
use quorate_types::{GroupId, ReplicaId};
use tokio::sync::oneshot;

use crate::log::{LogEngine, LogEntry, LogError, LogPosition, LogState, Vote};

pub use machine::{Subject, state_machine_suite};
pub use network::{End, Net, network_suite, transport_suite};

/// Opens one storage, again and again.
pub type Open = Box<dyn Fn() -> Arc<dyn LogEngine> + Send + Sync>;

const GROUP: GroupId = GroupId(7);
const OTHER: GroupId = GroupId(8);
const REPLICA: ReplicaId = ReplicaId(71);

/// Runs the whole suite. Each call of `fresh` provides an empty storage.
///
/// # Panics
/// When the engine does not conform; the message says where.
pub async fn log_engine_suite(fresh: impl Fn() -> Open) {
    appended_entries_are_readable_at_once_and_after_reopen(&fresh()).await;
    a_vote_is_kept(&fresh()).await;
    a_gap_is_refused(&fresh()).await;
    groups_are_appended_to_together(&fresh()).await;
    an_empty_log_begins_anywhere(&fresh()).await;
    truncated_entries_stay_away_and_can_be_replaced(&fresh()).await;
    a_purge_removes_the_front_and_keeps_the_position(&fresh()).await;
    a_purge_beyond_the_end_moves_the_log(&fresh()).await;
    reads_are_bounded_and_never_empty(&fresh()).await;
    groups_do_not_see_each_other(&fresh()).await;
    a_forgotten_replica_never_returns(&fresh()).await;
    completions_come_in_order(&fresh()).await;
    a_closed_log_refuses(&fresh()).await;
}

/// An entry whose payload names its position.
fn entry(term: u64, index: u64) -> LogEntry {
    let payload = Bytes::from(format!("payload of {index} in {term}"));
    LogEntry { position: LogPosition { term, index }, payload }
}

fn entries(term: u64, indexes: std::ops::Range<u64>) -> Vec<LogEntry> {
    indexes.map(|index| entry(term, index)).collect()
}

async fn append(log: &Arc<dyn LogEngine>, group: GroupId, entries: Vec<LogEntry>) {
    let (done, durable) = oneshot::channel();
    log.append(group, entries, Box::new(move |result| drop(done.send(result)))).await.unwrap();
    durable.await.unwrap().unwrap();
}

async fn open(open: &Open) -> Arc<dyn LogEngine> {
    let log = open();
    log.admit(GROUP, REPLICA).await.unwrap();
    log
}

async fn reopen(log: Arc<dyn LogEngine>, storage: &Open) -> Arc<dyn LogEngine> {
    log.close().await.unwrap();
    drop(log);
    open(storage).await
}

/// All that a log holds.
fn all(log: &Arc<dyn LogEngine>, group: GroupId) -> Vec<LogEntry> {
    let entries = log.read(group, 0..u64::MAX, usize::MAX).unwrap();
    if let Some(bytes) = log.payload_bytes(group) {
        let held: u64 = entries.iter().map(|entry| entry.payload.len() as u64).sum();
        assert_eq!(bytes, held, "`LogEngine::payload_bytes` counts what is there");
    }
    entries
}

async fn appended_entries_are_readable_at_once_and_after_reopen(storage: &Open) {
    let log = open(storage).await;
    assert_eq!(log.state(GROUP).unwrap(), LogState::default());
    log.append(GROUP, entries(1, 0..3), Box::new(drop)).await.unwrap();
    assert_eq!(all(&log, GROUP), entries(1, 0..3), "readable when append returns");
    append(&log, GROUP, entries(2, 3..300)).await;
    let log = reopen(log, storage).await;
    let mut expected = entries(1, 0..3);
    expected.extend(entries(2, 3..300));
    assert_eq!(all(&log, GROUP), expected);
    assert_eq!(log.state(GROUP).unwrap().last, Some(LogPosition { term: 2, index: 299 }));
    assert_eq!(log.term_at(GROUP, 2).unwrap(), Some(1));
    assert_eq!(log.term_at(GROUP, 3).unwrap(), Some(2));
    assert_eq!(log.term_at(GROUP, 300).unwrap(), None);
}

async fn a_vote_is_kept(storage: &Open) {
    let log = open(storage).await;
    let mut vote = Vote { term: 3, candidate: ReplicaId(9), committed: false };
    log.save_vote(GROUP, vote).await.unwrap();
    vote.committed = true;
    log.save_vote(GROUP, vote).await.unwrap();
    let log = reopen(log, storage).await;
    let kept = log.state(GROUP).unwrap().vote;
    assert_eq!(kept, Some(vote), "`LogEngine::save_vote`: ready once it is durable");
}

async fn a_gap_is_refused(storage: &Open) {
    let log = open(storage).await;
    append(&log, GROUP, entries(1, 0..3)).await;
    let (done, outcome) = oneshot::channel();
    let completion = Box::new(move |result| drop(done.send(result)));
    let refused = log.append(GROUP, entries(1, 4..5), completion).await;
    assert!(matches!(refused, Err(LogError::Gap { expected: 3, found: 4, .. })));
    assert!(
        matches!(outcome.await.unwrap(), Err(LogError::Gap { .. })),
        "the completion is called with the same error"
    );
    assert_eq!(all(&log, GROUP), entries(1, 0..3));
}

async fn groups_are_appended_to_together(storage: &Open) {
    let log = open(storage).await;
    log.admit(OTHER, ReplicaId(81)).await.unwrap();
    let (done, durable) = oneshot::channel();
    let appends =
        vec![(GROUP, entries(1, 0..3)), (OTHER, entries(2, 5..6)), (GROUP, entries(1, 3..4))];
    log.append_all(appends, Box::new(move |result| drop(done.send(result)))).await.unwrap();
    assert_eq!(all(&log, GROUP), entries(1, 0..4), "`LogEngine::append_all` appends all");
    durable.await.unwrap().unwrap();
    let log = reopen(log, storage).await;
    assert_eq!(all(&log, GROUP), entries(1, 0..4));
    assert_eq!(all(&log, OTHER), entries(2, 5..6));

    let (done, outcome) = oneshot::channel();
    let appends =
        vec![(OTHER, entries(2, 6..7)), (GROUP, entries(1, 5..6)), (OTHER, entries(2, 7..8))];
    let refused = log.append_all(appends, Box::new(move |result| drop(done.send(result)))).await;
    assert!(matches!(refused, Err(LogError::Gap { group: GROUP, .. })));
    assert!(matches!(outcome.await.unwrap(), Err(LogError::Gap { group: GROUP, .. })));
    assert_eq!(all(&log, OTHER), entries(2, 5..7), "nothing behind the one that was refused");

    let (done, durable) = oneshot::channel();
    log.append_all(Vec::new(), Box::new(move |result| drop(done.send(result)))).await.unwrap();
    durable.await.unwrap().unwrap();
}

async fn an_empty_log_begins_anywhere(storage: &Open) {
    let log = open(storage).await;
    append(&log, GROUP, entries(4, 11..14)).await;
    let log = reopen(log, storage).await;
    assert_eq!(all(&log, GROUP), entries(4, 11..14));
    assert_eq!(log.state(GROUP).unwrap().purged, None);
    append(&log, GROUP, entries(4, 14..15)).await;
    assert_eq!(log.state(GROUP).unwrap().last, Some(LogPosition { term: 4, index: 14 }));
}

async fn truncated_entries_stay_away_and_can_be_replaced(storage: &Open) {
    let log = open(storage).await;
    append(&log, GROUP, entries(1, 0..10)).await;
    log.truncate(GROUP, 6).await.unwrap();
    assert_eq!(all(&log, GROUP), entries(1, 0..6), "`LogEngine::truncate` removes the tail");
    append(&log, GROUP, entries(2, 6..8)).await;
    log.truncate(GROUP, 4).await.unwrap();
    append(&log, GROUP, entries(3, 4..5)).await;
    let mut expected = entries(1, 0..4);
    expected.extend(entries(3, 4..5));
    assert_eq!(all(&log, GROUP), expected);
    let log = reopen(log, storage).await;
    assert_eq!(all(&log, GROUP), expected);
    log.truncate(GROUP, 0).await.unwrap();
    let log = reopen(log, storage).await;
    assert_eq!(all(&log, GROUP), []);
    assert_eq!(log.state(GROUP).unwrap().last, None);
}

async fn a_purge_removes_the_front_and_keeps_the_position(storage: &Open) {
    let log = open(storage).await;
    append(&log, GROUP, entries(1, 0..10)).await;
    let purged = LogPosition { term: 1, index: 5 };
    log.purge(GROUP, purged).await.unwrap();
    log.purge(GROUP, LogPosition { term: 1, index: 2 }).await.unwrap();
    assert_eq!(all(&log, GROUP), entries(1, 6..10), "`LogEngine::purge` removes the front");
    let log = reopen(log, storage).await;
    assert_eq!(log.state(GROUP).unwrap().purged, Some(purged), "the older purge changed nothing");
    assert_eq!(all(&log, GROUP), entries(1, 6..10));
    let end = LogPosition { term: 1, index: 9 };
    log.purge(GROUP, end).await.unwrap();
    let log = reopen(log, storage).await;
    assert_eq!(log.state(GROUP).unwrap().last, Some(end), "last falls back to purged");
    append(&log, GROUP, entries(2, 10..12)).await;
    assert_eq!(all(&log, GROUP), entries(2, 10..12));
}

async fn a_purge_beyond_the_end_moves_the_log(storage: &Open) {
    let log = open(storage).await;
    append(&log, GROUP, entries(1, 0..3)).await;
    log.purge(GROUP, LogPosition { term: 4, index: 100 }).await.unwrap();
    append(&log, GROUP, entries(4, 101..103)).await;
    let log = reopen(log, storage).await;
    assert_eq!(all(&log, GROUP), entries(4, 101..103));
}

async fn reads_are_bounded_and_never_empty(storage: &Open) {
    let log = open(storage).await;
    append(&log, GROUP, entries(1, 0..10)).await;
    assert_eq!(log.read(GROUP, 4..8, usize::MAX).unwrap(), entries(1, 4..8));
    assert_eq!(log.read(GROUP, 4..8, 0).unwrap(), entries(1, 4..5), "at least one");
    let two = entry(1, 4).payload.len() * 2;
    assert_eq!(log.read(GROUP, 4..8, two).unwrap(), entries(1, 4..6));
    assert_eq!(log.read(GROUP, 8..20, usize::MAX).unwrap(), entries(1, 8..10));
    assert_eq!(log.read(GROUP, 20..30, usize::MAX).unwrap(), []);
}

async fn groups_do_not_see_each_other(storage: &Open) {
    let log = open(storage).await;
    assert!(matches!(log.state(OTHER), Err(LogError::UnknownGroup(OTHER))));
    assert!(matches!(log.term_at(OTHER, 0), Err(LogError::UnknownGroup(OTHER))));
    assert!(!log.is_tombstoned(OTHER, ReplicaId(81)));
    log.admit(OTHER, ReplicaId(81)).await.unwrap();
    append(&log, GROUP, entries(1, 0..5)).await;
    append(&log, OTHER, entries(9, 0..2)).await;
    log.truncate(GROUP, 1).await.unwrap();
    log.purge(OTHER, LogPosition { term: 9, index: 0 }).await.unwrap();
    let log = reopen(log, storage).await;
    assert_eq!(all(&log, GROUP), entries(1, 0..1));
    assert_eq!(all(&log, OTHER), entries(9, 1..2));
    assert_eq!(log.groups(), [(GROUP, REPLICA), (OTHER, ReplicaId(81))]);
}

async fn a_forgotten_replica_never_returns(storage: &Open) {
    let log = open(storage).await;
    append(&log, GROUP, entries(1, 0..5)).await;
    let next = ReplicaId(72);
    let occupied = log.admit(GROUP, next).await;
    assert!(matches!(occupied, Err(LogError::Occupied { owner: REPLICA, .. })));
    log.forget(GROUP, REPLICA).await.unwrap();
    assert!(log.is_tombstoned(GROUP, REPLICA), "`LogEngine::forget` leaves a tombstone");
    assert!(matches!(log.admit(GROUP, REPLICA).await, Err(LogError::Tombstoned { .. })));
    let state = log.admit(GROUP, next).await.unwrap();
    assert_eq!(state, LogState::default(), "nothing of the forgotten replica is left");
    append(&log, GROUP, entries(6, 0..2)).await;
    log.close().await.unwrap();
    drop(log);
    let log = storage();
    assert!(matches!(log.admit(GROUP, REPLICA).await, Err(LogError::Tombstoned { .. })));
    log.admit(GROUP, next).await.unwrap();
    assert_eq!(all(&log, GROUP), entries(6, 0..2));
}

async fn completions_come_in_order(storage: &Open) {
    let log = open(storage).await;
    let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
    for index in 0..50 {
        let order = Arc::clone(&order);
        let completion = Box::new(move |result: Result<(), LogError>| {
            result.unwrap();
            order.lock().push(index);
        });
        log.append(GROUP, entries(1, index..index + 1), completion).await.unwrap();
    }
    append(&log, GROUP, entries(1, 50..51)).await;
    assert_eq!(*order.lock(), (0..50).collect::<Vec<_>>());
    let stats = log.stats();
    assert_eq!(stats.entries, 51);
    assert!(stats.commits <= 52, "no more commits than operations");
}

async fn a_closed_log_refuses(storage: &Open) {
    let log = open(storage).await;
    log.close().await.unwrap();
    let vote = Vote { term: 1, candidate: REPLICA, committed: false };
    let voted = log.save_vote(GROUP, vote).await;
    assert!(matches!(voted, Err(LogError::Closed)), "`LogEngine::close` refuses what comes later");
    let (done, outcome) = oneshot::channel();
    let completion = Box::new(move |result| drop(done.send(result)));
    let appended = log.append(GROUP, entries(1, 0..1), completion).await;
    assert!(matches!(appended, Err(LogError::Closed)));
    assert!(outcome.await.unwrap().is_err(), "a completion is always called");
}
