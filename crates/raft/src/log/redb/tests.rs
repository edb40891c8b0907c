//! Damage of a log in a redb file.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::sync::Arc;

use quorate_testkit::disk::{CrashDisk, DiskImage};
use quorate_types::env::{Rng, SplitMix};
use quorate_types::{GroupId, ReplicaId};

use super::super::{DurableLog, LogEngine, LogEntry, LogError, LogPosition, LogState, Vote};
use crate::consensus::tests::support::small_log;

const FILE: &str = "log.redb";
const GROUPS: u64 = 5;

/// What a log holds: of each group its replica, its state and its entries.
type Held = Vec<(GroupId, ReplicaId, LogState, Vec<LogEntry>)>;

fn open(disk: &CrashDisk) -> Result<DurableLog, LogError> {
    DurableLog::open(Arc::new(disk.clone()), "log", small_log())
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
