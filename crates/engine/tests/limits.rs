//! Back pressure, and that what nobody owns is given back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod support;

use std::path::Path;
use std::time::Duration;

use quorate_engine::{Batch, Engine, EngineError, Fork, Mutation, RedbConfig, RedbEngine, Space};
use quorate_types::disk::DirectoryDisk;
use quorate_types::{KeyRange, ShardId};
use redb::{ReadableDatabase, ReadableTableMetadata, TableDefinition};
use support::{TestDisk, is_ready, simulate};

const A: ShardId = ShardId(1);
const B: ShardId = ShardId(2);

fn row(index: u64, bytes: usize) -> Batch {
    let data = vec![Mutation::put(index.to_be_bytes().as_slice(), vec![0; bytes])];
    Batch { index, data, ..Batch::default() }
}

#[tokio::test]
async fn ready_waits_while_too_much_is_pending() {
    let disk = TestDisk::default();
    let config = RedbConfig { pending_bytes_max: 100_000, ..RedbConfig::default() };
    let engine = RedbEngine::open(&disk, "state", config).unwrap();
    engine.create(A, KeyRange::all(), 0, Vec::new()).unwrap();
    disk.hold_syncs();
    let mut index = 0;
    while is_ready(&mut engine.ready()) {
        index += 1;
        engine.apply(A, row(index, 10_000)).unwrap();
        assert!(index <= 10, "there is still room for {index} rows");
    }
    assert_eq!(index, 10);
    // Whoever does not ask is not refused, and what is pending is visible.
    engine.apply(A, row(11, 10_000)).unwrap();
    assert!(engine.get(A, Space::Data, &11_u64.to_be_bytes()).unwrap().is_some());
    assert!(engine.durable(A).unwrap().is_none_or(|durable| durable < 10));
    let (ready, other) = (engine.ready(), engine.ready());
    disk.release_syncs();
    ready.await.unwrap();
    other.await.unwrap();
    assert!(engine.durable(A).unwrap().is_some_and(|durable| durable >= 10));
}

#[test]
fn pending_bytes_come_back_to_nothing() {
    simulate(3, async {
        let disk = TestDisk::default();
        // At the limit with the first byte: only an exact account lets `ready`
        // through.
        let config = RedbConfig { pending_bytes_max: 1, ..RedbConfig::default() };
        let engine = RedbEngine::open(&disk, "state", config).unwrap();
        engine.create(A, KeyRange::all(), 0, Vec::new()).unwrap();
        for index in 1..200_u64 {
            let key = 10_000 - index;
            let mut batch = Batch { index, ..row(key, index as usize) };
            batch.system = batch.data.clone();
            if index % 7 == 0 {
                batch.clears.push(KeyRange::all());
            }
            let range = engine.range(A).unwrap().unwrap();
            let at = (key + 5).to_be_bytes().as_slice().into();
            if index % 20 == 0 && range.split_at(&at).is_some() {
                // Every other time the child exists.
                let child = ShardId(2 + index / 40);
                batch.forks = vec![Fork { child, at, child_index: 1, child_system: Vec::new() }];
            }
            engine.apply(A, batch).unwrap();
            let view = engine.snapshot(A).unwrap();
            if index % 50 == 0 {
                engine.remove(B).await.unwrap();
            }
            if index % 3 == 0 {
                engine.ready().await.unwrap();
            }
            drop(view);
        }
        for shard in engine.shards().unwrap() {
            engine.flush(shard).await.unwrap();
            assert_eq!(engine.status(shard).unwrap().pending_bytes, 0);
        }
        engine.ready().await.unwrap();
    });
}

#[test]
fn a_batch_becomes_durable_in_time_without_being_asked_for() {
    simulate(4, async {
        let disk = TestDisk::default();
        let commit_age_max = Duration::from_secs(60);
        let config = RedbConfig { commit_age_max, ..RedbConfig::default() };
        let engine = RedbEngine::open(&disk, "state", config).unwrap();
        engine.create(A, KeyRange::all(), 5, Vec::new()).unwrap();
        tokio::time::sleep(commit_age_max / 2).await;
        assert_eq!(engine.durable(A).unwrap(), None);
        tokio::time::sleep(commit_age_max).await;
        assert_eq!(engine.durable(A).unwrap(), Some(5));
    });
}

fn open(directory: &Path) -> RedbEngine {
    let disk = DirectoryDisk::open(directory).unwrap();
    RedbEngine::open(&disk, "state", RedbConfig::default()).unwrap()
}

/// Rows and garbage entries in a closed file.
fn stored(directory: &Path) -> (u64, u64) {
    let db = redb::Database::open(directory.join("state")).unwrap();
    let transaction = db.begin_read().unwrap();
    let rows = transaction.open_table(TableDefinition::<&[u8], &[u8]>::new("rows")).unwrap();
    let garbage = transaction.open_table(TableDefinition::<u64, &[u8]>::new("garbage")).unwrap();
    (rows.len().unwrap(), garbage.len().unwrap())
}

/// Opens and closes the file until its garbage is collected; each time collects
/// some. Returns the rows left.
async fn collected(directory: &Path) -> u64 {
    for _ in 0..100 {
        let (rows, garbage) = stored(directory);
        if garbage == 0 {
            return rows;
        }
        let engine = open(directory);
        engine.close().await.unwrap();
    }
    panic!("garbage is never collected");
}

async fn seeded(directory: &Path) -> RedbEngine {
    let engine = open(directory);
    engine.create(A, KeyRange::all(), 0, vec![Mutation::put("cursor", "0")]).unwrap();
    let data = (0..6_000_u64).map(|row| Mutation::put(&row.to_be_bytes(), "value")).collect();
    engine.apply(A, Batch { index: 1, data, ..Batch::default() }).unwrap();
    engine.flush(A).await.unwrap();
    engine
}

fn fork(index: u64, at: u64) -> Batch {
    let child_system = vec![Mutation::put("cursor", "born")];
    let at = at.to_be_bytes().as_slice().into();
    Batch {
        index,
        forks: vec![Fork { child: B, at, child_index: 1, child_system }],
        ..Batch::default()
    }
}

#[tokio::test]
async fn a_removed_shard_leaves_only_its_sibling_s_rows() {
    let directory = tempfile::tempdir().unwrap();
    let engine = seeded(directory.path()).await;
    engine.apply(A, fork(2, 1_000)).unwrap();
    engine.remove(B).await.unwrap();
    engine.close().await.unwrap();
    assert_eq!(collected(directory.path()).await, 1_000 + 1);
}

#[tokio::test]
async fn an_emptied_shard_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let engine = seeded(directory.path()).await;
    engine.apply(A, Batch { index: 2, clears: vec![KeyRange::all()], ..Batch::default() }).unwrap();
    engine.close().await.unwrap();
    assert_eq!(collected(directory.path()).await, 1);
}

#[tokio::test]
async fn a_parent_gives_up_what_an_existing_child_has_for_itself() {
    let directory = tempfile::tempdir().unwrap();
    let engine = seeded(directory.path()).await;
    let start = 1_000_u64.to_be_bytes().as_slice().into();
    engine.create(B, KeyRange { start, end: None }, 7, Vec::new()).unwrap();
    engine.apply(A, fork(2, 1_000)).unwrap();
    engine.close().await.unwrap();
    assert_eq!(collected(directory.path()).await, 1_000 + 1);
}

#[tokio::test]
async fn an_abandoned_staging_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let engine = seeded(directory.path()).await;
    let mut snapshot = engine.snapshot(A).unwrap();
    let mut abandoned = engine.staging(B).unwrap();
    let mut cut_short = engine.staging(B).unwrap();
    while let Some(chunk) = snapshot.next_chunk(10_000).unwrap() {
        abandoned.write(chunk.clone()).await.unwrap();
        cut_short.write(chunk).await.unwrap();
    }
    drop(abandoned);
    engine.close().await.unwrap();
    // As after a crash: this one never heard that it was over.
    drop(cut_short);
    assert!(stored(directory.path()).0 > 6_001);
    assert_eq!(collected(directory.path()).await, 6_001);
}

#[tokio::test]
async fn an_installed_shard_leaves_nothing_of_the_old_one() {
    let directory = tempfile::tempdir().unwrap();
    let engine = seeded(directory.path()).await;
    let mut snapshot = engine.snapshot(A).unwrap();
    let mut staging = engine.staging(A).unwrap();
    while let Some(chunk) = snapshot.next_chunk(1 << 20).unwrap() {
        staging.write(chunk).await.unwrap();
    }
    let installing = engine.install(A, staging, Vec::new());
    assert!(matches!(engine.apply(A, row(9, 1)), Err(EngineError::Busy(A)) | Ok(())));
    installing.await.unwrap();
    assert_eq!(engine.applied(A).unwrap(), Some(1));
    engine.close().await.unwrap();
    assert_eq!(collected(directory.path()).await, 6_001);
    let engine = open(directory.path());
    assert_eq!(engine.get(A, Space::System, b"cursor").unwrap(), Some("0".into()));
}
