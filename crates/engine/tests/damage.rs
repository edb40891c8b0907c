//! What is damaged is found, reported and never served.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod support;

use std::error::Error;
use std::fs;
use std::path::Path;

use quorate_engine::{
    Batch, Engine, EngineError, Mutation, RedbConfig, RedbEngine, ScanLimit, Space,
};
use quorate_types::codec::seal_row;
use quorate_types::disk::DirectoryDisk;
use quorate_types::env::{Rng, SplitMix};
use quorate_types::owner::Owner;
use quorate_types::{DiskId, KeyRange, ShardId};
use redb::TableDefinition;
use support::{Fault, TestDisk};

const A: ShardId = ShardId(1);
const PAGE: ScanLimit = ScanLimit { rows: 1000, bytes: 1 << 20 };

fn open(directory: &Path) -> Result<RedbEngine, EngineError> {
    RedbEngine::open(&DirectoryDisk::open(directory).unwrap(), "state", RedbConfig::default())
}

fn rows() -> impl Iterator<Item = Mutation> {
    (0..200)
        .map(|row| Mutation::put(format!("key-{row:04}").as_str(), format!("value-{row}").as_str()))
}

/// A closed file with shard A and its rows.
async fn filled(directory: &Path) {
    let engine = open(directory).unwrap();
    engine.create(A, KeyRange::all(), 0, vec![Mutation::put("cursor", "0")]).unwrap();
    let data = rows().collect();
    engine.apply(A, Batch { index: 1, data, ..Batch::default() }).unwrap();
    engine.close().await.unwrap();
}

/// Replaces bytes wherever they are in the file.
fn patch(directory: &Path, from: &[u8], to: &[u8]) {
    let path = directory.join("state");
    let mut bytes = fs::read(&path).unwrap();
    let places: Vec<_> =
        (0..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from)).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    fs::write(path, bytes).unwrap();
}

fn is_corrupt<T>(result: Result<T, EngineError>) -> bool {
    matches!(result, Err(EngineError::Corrupt { .. }))
}

#[tokio::test]
async fn a_flipped_value_is_found_by_every_way_of_reading() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path()).await;
    patch(directory.path(), b"value-77", b"walue-77");
    let engine = open(directory.path()).unwrap();
    assert!(is_corrupt(engine.get(A, Space::Data, b"key-0077")));
    assert!(is_corrupt(engine.scan(A, Space::Data, &KeyRange::all(), PAGE)));
    assert!(is_corrupt(engine.hash(A)));
    assert!(is_corrupt(engine.middle_key(A)));
    let mut snapshot = engine.snapshot(A).unwrap();
    assert!(snapshot.next_chunk(1 << 20).unwrap().is_some());
    assert!(is_corrupt(snapshot.next_chunk(1 << 20)));
    assert!(is_corrupt(snapshot.next_chunk(1 << 20)));

    let [row] = &engine.corruptions()[..] else { panic!("one row is damaged") };
    assert_eq!((row.shard, row.space, &row.key), (A, Space::Data, &"key-0077".into()));
    let message = engine.hash(A).unwrap_err().to_string();
    assert!(message.contains("state") && message.contains("key-0077"), "{message}");
    // The other rows are served, and a new value heals the row.
    assert!(engine.get(A, Space::Data, b"key-0078").unwrap().is_some());
    let data = vec![Mutation::put("key-0077", "value")];
    engine.apply(A, Batch { index: 2, data, ..Batch::default() }).unwrap();
    engine.flush(A).await.unwrap();
    engine.hash(A).unwrap();
}

#[tokio::test]
async fn a_row_whose_key_is_flipped_is_not_taken_for_absent() {
    for flipped in [&b"key-0079"[..], b"key-0075", b"key-9077", b"jey-0077", b"zey-0077"] {
        let directory = tempfile::tempdir().unwrap();
        filled(directory.path()).await;
        patch(directory.path(), b"key-0077", flipped);
        let engine = open(directory.path()).unwrap();
        assert!(is_corrupt(engine.get(A, Space::Data, b"key-0077")), "{flipped:?}");
        assert!(is_corrupt(engine.scan(A, Space::Data, &KeyRange::all(), PAGE)), "{flipped:?}");
        assert!(is_corrupt(engine.hash(A)), "{flipped:?}");
    }
}

#[tokio::test]
async fn a_first_or_last_row_that_left_its_range_is_missed() {
    for (row, flipped) in [(&b"key-0100"[..], &b"key-0000"[..]), (b"key-0120", b"key-9120")] {
        let directory = tempfile::tempdir().unwrap();
        filled(directory.path()).await;
        patch(directory.path(), row, flipped);
        let engine = open(directory.path()).unwrap();
        let range = KeyRange::new("key-0100", "key-0121");
        assert!(is_corrupt(engine.scan(A, Space::Data, &range, PAGE)), "{flipped:?}");
    }
}

#[tokio::test]
async fn random_damage_is_never_served_and_never_a_panic() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path()).await;
    let path = directory.path().join("state");
    let sound = fs::read(&path).unwrap();
    let used = sound.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    let expected: Vec<_> = rows().collect();
    for seed in 0..150 {
        let mut chance = SplitMix::new(seed);
        let mut bytes = sound.clone();
        for _ in 0..=chance.below(8) {
            let at = chance.below(used) as usize;
            bytes[at] ^= 1 << chance.below(8);
        }
        fs::write(&path, bytes).unwrap();
        let Ok(engine) = open(directory.path()) else { continue };
        for row in &expected {
            if let Ok(Some(value)) = engine.get(A, Space::Data, &row.key) {
                assert_eq!(Some(value), row.value, "seed {seed}");
            }
        }
        if let Ok(page) = engine.scan(A, Space::Data, &KeyRange::all(), PAGE) {
            for (key, value) in page.rows {
                let row = Mutation::put(key, value);
                assert!(expected.contains(&row), "seed {seed}: {row:?}");
            }
        }
        drop(engine.hash(A));
        drop(engine.flush(A).await);
        drop(engine.close().await);
    }
}

fn cause(error: &EngineError) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}

#[tokio::test]
async fn a_file_of_something_else_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("state"), vec![7; 100_000]).unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, EngineError::Open { .. }));
    assert!(error.to_string().contains("state"), "{error}");
    assert!(cause(&error).contains("not a redb database") || cause(&error).contains("Not a redb"));
    // It was not touched.
    assert_eq!(fs::read(directory.path().join("state")).unwrap(), vec![7; 100_000]);
}

#[tokio::test]
async fn a_file_cut_short_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path()).await;
    let path = directory.path().join("state");
    let bytes = fs::read(&path).unwrap();
    for kept in [5, 100, 4096, 10_000, bytes.len() / 2] {
        fs::write(&path, &bytes[..kept]).unwrap();
        assert!(matches!(open(directory.path()), Err(EngineError::Open { .. })), "{kept} bytes");
    }
}

#[tokio::test]
async fn a_header_wiped_by_zeroes_does_not_make_the_file_new() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path()).await;
    let path = directory.path().join("state");
    let mut bytes = fs::read(&path).unwrap();
    bytes[..4096].fill(0);
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(open(directory.path()), Err(EngineError::Open { .. })));
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[tokio::test]
async fn a_database_of_another_program_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let db = redb::Database::create(directory.path().join("state")).unwrap();
    let transaction = db.begin_write().unwrap();
    transaction.open_table(TableDefinition::<u64, u64>::new("theirs")).unwrap();
    transaction.commit().unwrap();
    drop(db);
    assert!(matches!(open(directory.path()), Err(EngineError::NotAnEngine { .. })));
}

#[tokio::test]
async fn a_newer_format_is_named() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path()).await;
    let db = redb::Database::open(directory.path().join("state")).unwrap();
    let transaction = db.begin_write().unwrap();
    transaction
        .open_table(TableDefinition::<&str, &[u8]>::new("engine"))
        .unwrap()
        .insert("format", &*seal_row(b"format", 9, &[]))
        .unwrap();
    transaction.commit().unwrap();
    drop(db);
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, EngineError::NewerFormat { found: 9, known: 1, .. }), "{error}");
}

#[tokio::test]
async fn a_file_in_use_is_refused_until_it_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path()).unwrap();
    assert!(matches!(open(directory.path()), Err(EngineError::Open { .. })));
    engine.create(A, KeyRange::all(), 1, Vec::new()).unwrap();
    let snapshot = engine.snapshot(A).unwrap();
    engine.close().await.unwrap();
    let again = open(directory.path()).unwrap();
    assert_eq!(again.applied(A).unwrap(), Some(1));
    drop(snapshot);
}

async fn fails_for_good(fault: Fault, expected: &str) {
    let disk = TestDisk::default();
    let engine = RedbEngine::open(&disk, "state", RedbConfig::default()).unwrap();
    engine.create(A, KeyRange::all(), 1, Vec::new()).unwrap();
    engine.flush(A).await.unwrap();
    engine.apply(A, Batch { index: 2, ..Batch::default() }).unwrap();
    disk.inject(fault);
    let mut staging = engine.staging(A).unwrap();
    let (one, other) = (engine.flush(A), engine.remove(A));
    for error in [one.await.unwrap_err(), other.await.unwrap_err()] {
        assert!(matches!(error, EngineError::Failed { .. }), "{error}");
        // Both in one line: of a chain of causes an operator sees the first.
        let said = error.to_string();
        assert!(said.contains("state") && said.contains(expected), "{said}");
    }
    let failed = |error| matches!(error, EngineError::Failed { .. });
    assert!(failed(engine.apply(A, Batch { index: 3, ..Batch::default() }).unwrap_err()));
    assert!(failed(engine.create(A, KeyRange::all(), 1, Vec::new()).unwrap_err()));
    assert!(failed(engine.get(A, Space::Data, b"x").unwrap_err()));
    assert!(failed(engine.scan(A, Space::Data, &KeyRange::all(), PAGE).unwrap_err()));
    assert!(failed(engine.hash(A).unwrap_err()));
    assert!(failed(engine.flush(A).await.unwrap_err()));
    assert!(failed(engine.ready().await.unwrap_err()));
    assert!(failed(engine.remove(A).await.unwrap_err()));
    assert!(failed(engine.applied(A).unwrap_err()));
    assert!(staging.write(bytes::Bytes::new()).await.is_err());
    assert!(failed(engine.close().await.unwrap_err()));
}

#[tokio::test]
async fn a_failed_sync_is_permanent() {
    fails_for_good(Fault::FailSync, "told to fail").await;
}

#[tokio::test]
async fn a_panic_below_is_contained_and_permanent() {
    fails_for_good(Fault::PanicOnWrite, "told to panic").await;
}

/// Opens the file as the store of a directory.
fn open_as(directory: &Path, disk: DiskId, has_store: bool) -> Result<RedbEngine, EngineError> {
    let config = RedbConfig { owner: Some(Owner { disk, has_store }), ..RedbConfig::default() };
    RedbEngine::open(&DirectoryDisk::open(directory).unwrap(), "state", config)
}

#[tokio::test]
async fn a_lost_file_is_not_replaced_by_an_empty_one() {
    let (directory, disk) = (tempfile::tempdir().unwrap(), DiskId::random());
    open_as(directory.path(), disk, false).unwrap().close().await.unwrap();
    open_as(directory.path(), disk, true).unwrap().close().await.unwrap();
    fs::remove_file(directory.path().join("state")).unwrap();
    let error = open_as(directory.path(), disk, true).err().unwrap();
    assert!(error.to_string().contains("is gone; put it back"), "{error}");
    assert!(!directory.path().join("state").exists());
    // Nor is a file that somebody else created in its place taken for it.
    filled(directory.path()).await;
    let error = open_as(directory.path(), disk, true).err().unwrap();
    assert!(matches!(error, EngineError::Owner { .. }), "{error}");
}

#[tokio::test]
async fn the_file_of_another_directory_is_refused() {
    let (directory, disk) = (tempfile::tempdir().unwrap(), DiskId::random());
    open_as(directory.path(), disk, false).unwrap().close().await.unwrap();
    for has_store in [false, true] {
        let error = open_as(directory.path(), DiskId::random(), has_store).err().unwrap();
        assert!(error.to_string().contains(&disk.to_string()), "{error}");
    }
    open_as(directory.path(), disk, true).unwrap().close().await.unwrap();
}
