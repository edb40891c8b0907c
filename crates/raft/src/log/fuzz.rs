//! The rows of the log, behind their checksums, and what it makes of them.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use ::redb::{Builder, TableDefinition};
use bytes::Bytes;
use quorate_testkit::fuzz;
use quorate_testkit::fuzz::Corpus;
use quorate_types::codec::{ROW_HEADER_BYTES, encode, seal_row};
use quorate_types::disk::Disk;
use quorate_types::{GroupId, ReplicaId, Seq};

use super::medium::NewEntry;
use super::redb::batch::{BatchBuilder, open_batch, scan_batch};
use super::redb::storage::FileStorage;
use super::redb::{BATCHES, GROUPS, OWNER};
use super::rows::{GroupRow, OwnerRow};
use super::{DurableLog, LogEngine, LogEntry, LogPosition, Vote};
use crate::consensus::tests::support::{RamDisk, open_log, simulate, small_log};

const GROUP: GroupId = GroupId(1);
const REPLICA: ReplicaId = ReplicaId(11);
const FORMAT: u8 = 1;

fn at(term: u64, index: u64) -> LogPosition {
    LogPosition { term, index }
}

fn group_rows() -> Vec<GroupRow> {
    let vote = Some(Vote { term: 3, candidate: REPLICA, committed: true });
    let mut owner = OwnerRow { vote, ..OwnerRow::new(REPLICA) };
    let mut rows = vec![GroupRow { owner: Some(owner.clone()), tombstones: Seq::new() }];
    owner.truncate(4, 7, 9);
    owner.truncate(5, 8, 8);
    owner.purge(at(2, 3));
    let tombstones = Seq(vec![ReplicaId(1), ReplicaId(5)]);
    rows.push(GroupRow { owner: None, tombstones: tombstones.clone() });
    rows.push(GroupRow { owner: Some(owner), tombstones });
    rows
}

/// Payloads of batch rows: runs of one group, of two, and none.
fn batches() -> Vec<Bytes> {
    let runs: [&[(u64, u64, u64)]; 4] =
        [&[(1, 11, 4), (1, 11, 5)], &[(1, 11, 4), (2, 21, 9), (1, 11, 5)], &[], &[(1, 12, 1)]];
    let batch = |entries: &[(u64, u64, u64)]| {
        let mut builder = BatchBuilder::default();
        for &(group, replica, index) in entries {
            let (group, replica) = (GroupId(group), ReplicaId(replica));
            let payload = Bytes::from_static(b"payload");
            let position = at(2, index);
            builder.push(&NewEntry {
                group,
                replica,
                position,
                ticket: 0,
                payload,
                is_rewritten: false,
            });
        }
        builder.seal(0).slice(ROW_HEADER_BYTES..)
    };
    runs.map(batch).into()
}

#[test]
fn any_bytes_are_a_group_row_or_none() {
    fuzz!(Corpus::of(group_rows().iter().map(encode)), |input| {
        let sealed = seal_row(&GROUP.0.to_be_bytes(), FORMAT, input);
        assert!(GroupRow::open(GROUP, input).is_err() || input.len() > ROW_HEADER_BYTES);
        let row = fuzz::frugal(sealed.len(), || GroupRow::open(GROUP, &sealed));
        if let Ok(row) = row {
            assert_eq!(GroupRow::open(GROUP, &row.seal(GROUP)).unwrap(), row);
        }
    });
}

#[test]
fn any_bytes_are_a_batch_or_none() {
    fuzz!(Corpus::of(batches()), |input| {
        let sealed = seal_row(&9_u64.to_be_bytes(), FORMAT, input);
        let payload = open_batch(9, &sealed).unwrap();
        let found = fuzz::frugal(input.len(), || scan_batch(9, &payload));
        for entry in found.unwrap_or_default() {
            let start = entry.location.offset as usize;
            assert!(payload.get(start..start + entry.location.len as usize).is_some());
        }
        let _ = open_batch(9, input);
    });
}

/// A file with the given rows, each sealed under its key.
fn file_with(groups: &[Bytes], batches: &[Bytes]) -> RamDisk {
    let disk = RamDisk::default();
    let storage = FileStorage(disk.open("raft.redb").unwrap());
    let database = Builder::new().create_with_backend(storage).unwrap();
    let transaction = database.begin_write().unwrap();
    let put = |table: TableDefinition<'_, u64, &[u8]>, first: u64, payloads: &[Bytes]| {
        let mut table = transaction.open_table(table).unwrap();
        for (key, payload) in (first..).zip(payloads) {
            table.insert(key, &*seal_row(&key.to_be_bytes(), FORMAT, payload)).unwrap();
        }
    };
    put(GROUPS, GROUP.0, groups);
    put(BATCHES, 0, batches);
    transaction.open_table(OWNER).unwrap();
    transaction.commit().unwrap();
    drop(database);
    disk
}

/// Uses a log as a replica would.
pub(super) async fn live_with(log: &dyn LogEngine) {
    for (group, replica) in log.groups() {
        let state = log.admit(group, replica).await.unwrap();
        let next = state.last.map_or(0, |last| last.index + 1);
        let first = state.purged.map_or(0, |purged| purged.index + 1);
        if let Ok(entries) = log.read(group, first..next, usize::MAX) {
            let indexes = entries.iter().map(|entry| entry.position.index);
            assert!(indexes.clone().zip(indexes.skip(1)).all(|(one, two)| two == one + 1));
        }
        let entry = LogEntry { position: at(9, next), payload: Bytes::from_static(b"next") };
        let (done, durable) = tokio::sync::oneshot::channel();
        let completion = Box::new(move |result| drop(done.send(result)));
        log.append(group, vec![entry.clone()], completion).await.unwrap();
        durable.await.unwrap().unwrap();
        assert_eq!(log.read(group, next..next + 1, usize::MAX).unwrap(), [entry]);
        log.truncate(group, next).await.unwrap();
        log.purge(group, at(9, next)).await.unwrap();
        assert_eq!(log.state(group).unwrap().last, Some(at(9, next)));
        log.forget(group, replica).await.unwrap();
    }
}

/// The first byte says which row the rest replaces.
#[test]
fn a_log_with_any_row_is_refused_or_lives_on() {
    let groups: Vec<Bytes> = group_rows().iter().map(encode).collect();
    let batches = batches();
    let named = |first: u8, payloads: &[Bytes]| {
        let name = |(at, payload): (u8, &Bytes)| [&[at][..], payload].concat();
        (first..).zip(payloads).map(name).collect::<Vec<_>>()
    };
    let corpus = [named(0, &groups), named(3, &batches)].concat();
    fuzz!(Corpus::of(corpus), |input| {
        let Some((which, payload)) = input.split_first() else { return };
        let (mut groups, mut batches) = (groups.clone(), batches.clone());
        let rows = groups.iter_mut().chain(&mut batches);
        let replaced = rows.into_iter().nth(usize::from(*which) % 7).unwrap();
        *replaced = Bytes::copy_from_slice(payload);
        let disk = file_with(&groups, &batches);
        simulate(async {
            let opened = DurableLog::open(Arc::new(disk.clone()), "raft", small_log());
            let Ok(log) = opened else { return };
            live_with(&log).await;
            log.close().await.unwrap();
            drop(log);
            let again = open_log(&disk);
            assert_eq!(again.groups(), []);
            again.close().await.unwrap();
        });
    });
}
