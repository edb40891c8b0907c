//! Damage of a log in a redb file.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::sync::Arc;

use quorate_testkit::disk::{CrashDisk, DiskImage};
use quorate_types::disk::Disk;
use quorate_types::env::{Rng, SplitMix};
use quorate_types::owner::Owner;
use quorate_types::{DiskId, GroupId, ReplicaId};

use super::super::{
    DurableLog, LogConfig, LogEngine, LogEntry, LogError, LogPosition, LogState, Vote,
};
use crate::consensus::tests::support::small_log;

const FILE: &str = "log.redb";
const GROUPS: u64 = 5;

/// What a log holds: of each group its replica, its state and its entries.
type Held = Vec<(GroupId, ReplicaId, LogState, Vec<LogEntry>)>;

fn open(disk: &CrashDisk) -> Result<DurableLog, LogError> {
    open_by(disk, None)
}

fn open_by(disk: &CrashDisk, owner: Option<Owner>) -> Result<DurableLog, LogError> {
    DurableLog::open(Arc::new(disk.clone()), "log", LogConfig { owner, ..small_log() })
}

fn entries(range: std::ops::Range<u64>) -> Vec<LogEntry> {
    let payload = |index: u64| format!("entry {index} ").repeat(20 + (index % 7) as usize);
    let entry = |index| LogEntry {
        position: LogPosition { term: 1, index },
        payload: payload(index).into_bytes().into(),
    };
    range.map(entry).collect()
}

async fn append(
    log: &DurableLog,
    group: GroupId,
    range: std::ops::Range<u64>,
) -> Result<(), LogError> {
    let (done, durable) = tokio::sync::oneshot::channel();
    let completion = Box::new(move |result| drop(done.send(result)));
    log.append(group, entries(range), completion).await?;
    durable.await.unwrap()
}

async fn held(log: &DurableLog) -> Result<Held, LogError> {
    let mut held = Vec::new();
    for (group, replica) in log.groups() {
        let state = log.admit(group, replica).await?;
        held.push((group, replica, state, log.read(group, 0..u64::MAX, usize::MAX)?));
    }
    Ok(held)
}

/// On a runtime of its own: a simulation fails for every panic, and redb's are
/// contained.
fn run<T>(work: impl AsyncFnOnce() -> T) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work())
}

/// A log with votes, purges, truncations and tombstones, closed.
fn filled() -> (DiskImage, Held) {
    run(async || {
        let disk = CrashDisk::new(1);
        let log = open(&disk).unwrap();
        for number in 1..=GROUPS {
            let (group, replica) = (GroupId(number), ReplicaId(10 + number));
            log.forget(group, ReplicaId(number)).await.unwrap();
            log.admit(group, replica).await.unwrap();
            let vote = Vote { term: number, candidate: replica, committed: true };
            log.save_vote(group, vote).await.unwrap();
        }
        for first in (0..60).step_by(3) {
            for number in 1..=GROUPS {
                append(&log, GroupId(number), first..first + 3).await.unwrap();
            }
        }
        log.purge(GroupId(1), LogPosition { term: 1, index: 20 }).await.unwrap();
        log.truncate(GroupId(2), 50).await.unwrap();
        let all = held(&log).await.unwrap();
        log.close().await.unwrap();
        (disk.image(), all)
    })
}

/// What a damaged log says when it is opened, and lives on with if it can.
fn reopened(disk: &CrashDisk) -> Result<Held, LogError> {
    run(async || {
        let log = open(disk)?;
        let found = held(&log).await?;
        log.close().await?;
        Ok(found)
    })
}

/// That an error names the file.
fn names_the_file(error: &LogError) {
    let is_named = matches!(error, LogError::Disk { .. } | LogError::Damaged { .. });
    assert!(is_named && error.to_string().contains(FILE), "{error}");
}

/// Header, tables, rows, and what redb keeps for itself.
#[test]
fn a_flipped_bit_anywhere_is_refused_or_changes_nothing() {
    let (image, whole) = filled();
    let bytes = image.file(FILE).unwrap();
    let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let mut chance = SplitMix::new(1);
    let mut chosen =
        |from: &[usize]| from[usize::try_from(chance.below(from.len() as u64)).unwrap()];
    let mut places: Vec<usize> = (0..FLIPS).map(|_| chosen(&used)).collect();
    let any: Vec<usize> = (0..bytes.len()).collect();
    places.extend((0..FLIPS / 4).map(|_| chosen(&any)));
    places.extend(0..320);
    let (mut refused, mut silent) = (0, Vec::new());
    for (number, at) in places.into_iter().enumerate() {
        let disk = CrashDisk::from_image(&image, 1);
        assert!(disk.damage(FILE, |bytes| bytes[at] ^= 1 << (number % 8)));
        match reopened(&disk) {
            Ok(found) if found == whole => {}
            Ok(_) => silent.push((at, number % 8)),
            Err(error) => {
                names_the_file(&error);
                refused += 1;
            }
        }
    }
    assert_eq!(silent, [], "opened with something else");
    assert!(refused > FLIPS / 10, "{refused}");
}

const FLIPS: usize = 1_200;

#[test]
fn a_file_that_is_cut_off_is_refused() {
    let (image, _) = filled();
    let len = image.file(FILE).unwrap().len();
    for part in 1..16 {
        let disk = CrashDisk::from_image(&image, 1);
        assert!(disk.damage(FILE, |bytes| bytes.truncate(len * part / 16)));
        names_the_file(&reopened(&disk).map(drop).unwrap_err());
    }
}

/// redb verifies its pages then, and goes back to the commit before the last: power
/// may have cut the last one short.
#[test]
fn after_a_crash_a_damaged_last_commit_passes_for_one_that_was_cut_short() {
    const COMMITS: u64 = 6;
    let group = GroupId(1);
    let image = run(async || {
        let disk = CrashDisk::new(1);
        let log = open(&disk).unwrap();
        log.admit(group, ReplicaId(11)).await.unwrap();
        for index in 0..COMMITS {
            append(&log, group, index..index + 1).await.unwrap();
        }
        let cut = disk.image();
        log.close().await.unwrap();
        cut
    });
    for damaged in 0..COMMITS {
        let disk = CrashDisk::from_image(&image, 1);
        let payload = format!("entry {damaged} entry");
        assert!(disk.damage(FILE, |bytes| {
            let windows = bytes.windows(payload.len()).enumerate();
            let found = windows.filter(|(_, window)| *window == payload.as_bytes());
            let places: Vec<usize> = found.map(|(at, _)| at).collect();
            places.into_iter().for_each(|at| bytes[at] ^= 1);
        }));
        match reopened(&disk) {
            Err(error) => {
                names_the_file(&error);
                assert!(damaged + 1 < COMMITS, "{error}");
            }
            Ok(found) => {
                assert_eq!(damaged + 1, COMMITS, "entry {damaged} was damaged");
                assert_eq!(found[0].3, entries(0..damaged));
            }
        }
    }
}

#[test]
fn a_file_that_holds_nothing_is_missed_by_its_owner_alone() {
    let owner = |has_store| Some(Owner { disk: DiskId(7), has_store });
    let group = GroupId(1);
    let image = run(async || {
        let disk = CrashDisk::new(1);
        let log = open_by(&disk, owner(false)).unwrap();
        log.admit(group, ReplicaId(11)).await.unwrap();
        append(&log, group, 0..3).await.unwrap();
        log.close().await.unwrap();
        disk.image()
    });
    let losses: [fn(&CrashDisk); 3] = [
        |disk| disk.remove(FILE).unwrap(),
        |disk| assert!(disk.damage(FILE, |bytes| bytes.clear())),
        |disk| assert!(disk.damage(FILE, |bytes| bytes.fill(0))),
    ];
    for lose in losses {
        let lost = || {
            let disk = CrashDisk::from_image(&image, 1);
            lose(&disk);
            disk
        };
        run(async || {
            let disk = lost();
            // The second time redb may have begun a file.
            for _ in 0..2 {
                let missed = open_by(&disk, owner(true));
                assert!(matches!(missed, Err(LogError::Owner { .. })), "{missed:?}");
            }
            for none in [None, owner(false)] {
                let log = open_by(&lost(), none).unwrap();
                assert_eq!(log.groups(), []);
                log.close().await.unwrap();
            }
        });
    }
}
