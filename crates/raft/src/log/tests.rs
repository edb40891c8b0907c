#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_testkit::disk::{CrashDisk, SweepOptions, sweep};
use quorate_testkit::sim;
use quorate_types::disk::DirectoryDisk;
use quorate_types::owner::Owner;
use quorate_types::{DiskId, GroupId, ReplicaId};

use super::{
    DurableLog, LogConfig, LogEngine, LogEntry, LogError, LogMedium, LogPosition, Place, Vote,
};
use crate::conformance::log_engine_suite;
use crate::consensus::tests::support::{
    MEDIA, REDB, RamDisk, open_log, open_on, simulate, small_log,
};

const GROUP: GroupId = GroupId(1);
const REPLICA: ReplicaId = ReplicaId(11);

fn entry(index: u64, payload: &str) -> LogEntry {
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    LogEntry { position: LogPosition { term: 1, index }, payload }
}

async fn append(log: &dyn LogEngine, entry: LogEntry) -> Result<(), LogError> {
    let (done, durable) = tokio::sync::oneshot::channel();
    let completion = Box::new(move |result| drop(done.send(result)));
    log.append(GROUP, vec![entry], completion).await?;
    durable.await.unwrap()
}

#[test]
fn every_medium_conforms_in_simulation() {
    for medium in MEDIA {
        simulate(log_engine_suite(|| {
            let disk = RamDisk::default();
            Box::new(move || open_on(&disk, medium))
        }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_medium_conforms_on_a_real_disk() {
    for medium in MEDIA {
        let directories = Mutex::new(Vec::new());
        log_engine_suite(|| {
            let directory = tempfile::tempdir().unwrap();
            let disk = DirectoryDisk::open(directory.path()).unwrap();
            directories.lock().push(directory);
            let config = LogConfig { medium, ..small_log() };
            Box::new(move || {
                let disk = Arc::new(disk.clone());
                Arc::new(DurableLog::open(disk, "raft", config.clone()).unwrap())
            })
        })
        .await;
    }
}

/// Appends and votes until the disk loses power at some moment, and returns
/// what was acknowledged before.
async fn write_until_power_loss(disk: &RamDisk, medium: LogMedium, commits: u64) -> (u64, u64) {
    let log = open_on(disk, medium);
    log.admit(GROUP, REPLICA).await.unwrap();
    let acknowledged = Arc::new(Mutex::new(0));
    let mut voted = 0;
    for index in 0..1000 {
        let counter = Arc::clone(&acknowledged);
        let completion = Box::new(move |result: Result<(), LogError>| {
            if result.is_ok() {
                *counter.lock() = index + 1;
            }
        });
        log.append(GROUP, vec![entry(index, "some payload")], completion).await.unwrap();
        if index % 7 == 0 {
            let vote = Vote { term: index, candidate: REPLICA, committed: false };
            log.save_vote(GROUP, vote).await.unwrap();
            voted = index;
        }
        if log.stats().commits >= commits {
            break;
        }
    }
    disk.crash();
    let acknowledged = *acknowledged.lock();
    (acknowledged, voted)
}

#[test]
fn what_was_acknowledged_survives_a_power_loss() {
    for (medium, commits) in MEDIA.into_iter().flat_map(|it| (1..20).map(move |n| (it, n))) {
        simulate(async move {
            let disk = RamDisk::default();
            let (acknowledged, voted) = write_until_power_loss(&disk, medium, commits).await;
            let log = open_on(&disk, medium);
            let state = log.admit(GROUP, REPLICA).await.unwrap();
            let kept = state.last.map_or(0, |last| last.index + 1);
            assert!(kept >= acknowledged, "{kept} kept, {acknowledged} acknowledged");
            assert!(state.vote.is_some_and(|vote| vote.term >= voted));
            let entries = log.read(GROUP, 0..kept, usize::MAX).unwrap();
            assert_eq!(entries.len() as u64, kept);
        });
    }
}

/// The negative control of the test above: it can fail.
#[test]
fn a_disk_that_lies_about_syncs_is_found_out() {
    simulate(async {
        let disk = RamDisk::default();
        let log = open_log(&disk);
        log.admit(GROUP, REPLICA).await.unwrap();
        disk.lie_about_syncs();
        append(&*log, entry(0, "acknowledged")).await.unwrap();
        disk.crash();
        let kept = match DurableLog::open(Arc::new(disk), "raft", small_log()) {
            Ok(log) => log.admit(GROUP, REPLICA).await.unwrap().last,
            Err(_) => None,
        };
        assert_eq!(kept, None);
    });
}

/// Opens the log of a disk and leaves it.
fn open_and_leave(disk: &CrashDisk) -> Result<(), LogError> {
    let disk = Arc::new(disk.clone());
    let opened = sim::run(1, |_| async { DurableLog::open(disk, "raft", small_log()).map(drop) });
    opened.unwrap().value
}

#[test]
fn a_log_whose_creation_was_cut_short_is_created_anew() {
    let options = SweepOptions { rounds: 8, ..SweepOptions::default() };
    let opened =
        sweep(options, |disk, _: &mut ()| open_and_leave(disk), |disk, ()| open_and_leave(disk));
    assert!(opened.unwrap().crashes_unsynced > 0);
}

#[test]
fn a_failed_disk_fails_everything_for_good_and_names_the_file() {
    simulate(async {
        let disk = RamDisk::default();
        let log = open_log(&disk);
        log.admit(GROUP, REPLICA).await.unwrap();
        disk.fail();
        let error = append(&*log, entry(0, "lost")).await.unwrap_err();
        assert!(matches!(error, LogError::Disk { .. }), "{error}");
        assert!(error.to_string().contains("raft.redb"));
        let vote = Vote { term: 1, candidate: REPLICA, committed: false };
        assert!(matches!(log.save_vote(GROUP, vote).await, Err(LogError::Disk { .. })));
    });
}

#[test]
fn a_damaged_row_is_reported_and_never_served() {
    simulate(async {
        let disk = RamDisk::default();
        let log = open_log(&disk);
        log.admit(GROUP, REPLICA).await.unwrap();
        append(&*log, entry(0, "the payload that will be damaged")).await.unwrap();
        // Push it out of the tail.
        append(&*log, entry(1, &"x".repeat(1000))).await.unwrap();
        log.close().await.unwrap();
        assert!(disk.corrupt(b"that will be damaged") > 0);
        let error = DurableLog::open(Arc::new(disk.clone()), "raft", small_log()).unwrap_err();
        assert!(matches!(error, LogError::Damaged { place: Place::Row(0), .. }), "{error}");
        assert!(error.to_string().contains("raft.redb"), "{error}");
    });
}

#[test]
fn rows_whose_entries_are_purged_are_deleted() {
    simulate(async {
        let disk = RamDisk::default();
        let stored = |disk: &RamDisk| super::redb::stored_rows(disk, "raft.redb").unwrap();
        let log = open_log(&disk);
        log.admit(GROUP, REPLICA).await.unwrap();
        for index in 0..20 {
            append(&*log, entry(index, "purged soon")).await.unwrap();
        }
        log.purge(GROUP, LogPosition { term: 1, index: 18 }).await.unwrap();
        append(&*log, entry(20, "kept")).await.unwrap();
        log.close().await.unwrap();
        assert_eq!(stored(&disk), 2, "the rows of 19 and 20");
        let log = open_log(&disk);
        log.admit(GROUP, REPLICA).await.unwrap();
        log.forget(GROUP, REPLICA).await.unwrap();
        log.admit(GroupId(2), ReplicaId(21)).await.unwrap();
        log.close().await.unwrap();
        assert_eq!(stored(&disk), 0);
    });
}

#[test]
fn waiting_operations_share_a_commit() {
    simulate(async {
        let log = open_log(&RamDisk::default());
        let groups: Vec<GroupId> = (1..=64).map(GroupId).collect();
        for &group in &groups {
            log.admit(group, ReplicaId(group.0)).await.unwrap();
        }
        let before = log.stats().commits;
        let appends = groups.iter().map(|&group| {
            let (done, durable) = tokio::sync::oneshot::channel();
            let completion = Box::new(move |result| drop(done.send(result)));
            let started = log.append(group, vec![entry(0, "together")], completion);
            async move {
                started.await.unwrap();
                durable.await.unwrap().unwrap();
            }
        });
        futures_util::future::join_all(appends).await;
        assert!(log.stats().commits - before <= 2, "one commit, or two if one was under way");
    });
}

/// Small appends that never cease do not keep a large one waiting.
#[test]
fn room_is_given_in_the_order_in_which_it_was_asked_for() {
    for medium in MEDIA {
        simulate(async move {
            let config = LogConfig { medium, queued_bytes_max: 8 << 10, ..LogConfig::default() };
            let disk = Arc::new(RamDisk::default());
            let log = Arc::new(DurableLog::open(disk, "raft", config).unwrap());
            let small: Vec<GroupId> = (2..10).map(GroupId).collect();
            for &group in small.iter().chain([&GROUP]) {
                log.admit(group, ReplicaId(group.0 * 10 + 1)).await.unwrap();
            }
            let busy = small.into_iter().map(|group| {
                let log = Arc::clone(&log);
                quorate_types::runtime::spawn(async move {
                    for index in 0.. {
                        let some = vec![entry(index, &"x".repeat(1_500))];
                        if log.append(group, some, Box::new(|_| {})).await.is_err() {
                            break;
                        }
                    }
                })
            });
            let busy: Vec<_> = busy.collect();
            log.append(GROUP, vec![entry(0, "small")], Box::new(|_| {})).await.unwrap();
            let commits = log.stats().commits;
            append(&*log, entry(1, &"x".repeat(8 << 10))).await.unwrap();
            assert!(log.stats().commits - commits < 20, "{:?}", log.stats());
            busy.iter().for_each(tokio::task::JoinHandle::abort);
        });
    }
}

/// A purge that got its room before a large append, and could wait for company.
#[test]
fn a_purge_does_not_keep_room_from_an_append_for_good() {
    simulate(async {
        let config = LogConfig { medium: REDB, queued_bytes_max: 8 << 10, ..LogConfig::default() };
        let log = DurableLog::open(Arc::new(RamDisk::default()), "raft", config).unwrap();
        let log = Arc::new(log);
        let other = GroupId(2);
        log.admit(GROUP, REPLICA).await.unwrap();
        log.admit(other, ReplicaId(21)).await.unwrap();
        append(&*log, entry(0, "small")).await.unwrap();
        let large = || "x".repeat(8 << 10);
        let first = log.append(other, vec![entry(0, &large())], Box::new(|_| {}));
        let purge = log.purge(GROUP, LogPosition { term: 1, index: 0 });
        let second = append(&*log, entry(1, &large()));
        let all = futures_util::future::join3(first, purge, second);
        let done = tokio::time::timeout(Duration::from_secs(60), all).await;
        let (first, purge, second) = done.unwrap();
        assert!(first.is_ok() && purge.is_ok() && second.is_ok());
    });
}

#[test]
fn a_row_damaged_while_running_is_found_by_the_read() {
    simulate(async {
        let disk = RamDisk::default();
        let config = LogConfig { medium: LogMedium::Redb { cache_bytes: 0 }, ..small_log() };
        let log = DurableLog::open(Arc::new(disk.clone()), "raft", config).unwrap();
        log.admit(GROUP, REPLICA).await.unwrap();
        append(&log, entry(0, "the payload that will be damaged")).await.unwrap();
        append(&log, entry(1, &"x".repeat(1000))).await.unwrap();
        assert!(disk.corrupt(b"that will be damaged") > 0);
        let error = log.read(GROUP, 0..1, usize::MAX).unwrap_err();
        assert!(matches!(error, LogError::Damaged { place: Place::Row(0), .. }), "{error}");
        assert!(error.to_string().contains("raft.redb"));
        assert_eq!(log.read(GROUP, 1..2, usize::MAX).unwrap().len(), 1);
    });
}

#[tokio::test]
async fn a_lost_or_foreign_log_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let disk = DirectoryDisk::open(directory.path()).unwrap();
    let (ours, theirs) = (DiskId::random(), DiskId::random());
    let open = |disk_id, has_store| {
        let owner = Some(Owner { disk: disk_id, has_store });
        let config = LogConfig { owner, medium: REDB, ..small_log() };
        DurableLog::open(Arc::new(disk.clone()), "raft", config)
    };
    for has_store in [false, true] {
        open(ours, has_store).unwrap().close().await.unwrap();
        let refused = open(theirs, has_store);
        assert!(matches!(refused, Err(LogError::Owner { .. })), "{refused:?}");
    }
    let path = directory.path().join("raft.redb");
    std::fs::remove_file(&path).unwrap();
    let refused = open(ours, true).unwrap_err().to_string();
    assert!(refused.contains("is gone; put it back"), "{refused}");
    assert!(!path.exists(), "an empty log took the place of the lost one");
}
