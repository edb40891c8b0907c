//! What happens to a shard between the call of `install` or `remove` and its
//! completion.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod support;

use quorate_engine::{
    Batch, Engine, EngineError, Fork, MemEngine, Mutation, RedbConfig, RedbEngine, Space, Staging,
};
use quorate_types::{Blob, KeyRange, ShardId};
use support::TestDisk;

const PARENT: ShardId = ShardId(1);
const CHILD: ShardId = ShardId(2);

fn fork() -> Batch {
    let child_system = vec![Mutation::put("cursor", "forked")];
    let forks = vec![Fork { child: CHILD, at: "m".into(), child_index: 1, child_system }];
    Batch { index: 3, forks, ..Batch::default() }
}

/// An engine with a parent that is about to be forked.
async fn parent(disk: &TestDisk) -> RedbEngine {
    let engine = RedbEngine::open(disk, "state", RedbConfig::default()).unwrap();
    engine.create(PARENT, KeyRange::all(), 1, Vec::new()).unwrap();
    let data = vec![Mutation::put("a", "old"), Mutation::put("n", "old")];
    engine.apply(PARENT, Batch { index: 2, data, ..Batch::default() }).unwrap();
    engine.flush(PARENT).await.unwrap();
    engine
}

/// The child as another machine has it, ready to be installed.
async fn staged_child(engine: &RedbEngine) -> Box<dyn Staging> {
    let elsewhere = MemEngine::new();
    let range = KeyRange { start: "m".into(), end: None };
    elsewhere.create(CHILD, range, 50, vec![Mutation::put("cursor", "installed")]).unwrap();
    let data = vec![Mutation::put("n", "new")];
    elsewhere.apply(CHILD, Batch { index: 51, data, ..Batch::default() }).unwrap();
    let mut snapshot = elsewhere.snapshot(CHILD).unwrap();
    let mut staging = engine.staging(CHILD).unwrap();
    while let Some(chunk) = snapshot.next_chunk(1 << 20).unwrap() {
        staging.write(chunk).await.unwrap();
    }
    staging
}

fn get(engine: &RedbEngine, shard: ShardId, key: &str) -> Option<Blob> {
    engine.get(shard, Space::Data, key.as_bytes()).unwrap()
}

#[tokio::test]
async fn a_fork_onto_an_arriving_child_leaves_it_alone() {
    let disk = TestDisk::default();
    let engine = parent(&disk).await;
    let staged = staged_child(&engine).await;
    disk.hold_syncs();
    let installing = engine.install(CHILD, staged, Vec::new());
    disk.await_held_sync();
    engine.apply(PARENT, fork()).unwrap();
    assert!(!engine.create(CHILD, KeyRange::all(), 1, Vec::new()).unwrap());
    assert_eq!(engine.range(CHILD).unwrap(), None);
    assert!(matches!(engine.remove(CHILD).await, Err(EngineError::Busy(CHILD))));
    disk.release_syncs();
    installing.await.unwrap();
    for _ in 0..2 {
        assert_eq!(engine.applied(CHILD).unwrap(), Some(51));
        assert_eq!(get(&engine, CHILD, "n"), Some("new".into()));
        assert_eq!(
            (get(&engine, PARENT, "a"), get(&engine, PARENT, "n")),
            (Some("old".into()), None)
        );
        engine.flush(PARENT).await.unwrap();
    }
}

#[tokio::test]
async fn a_shard_being_installed_is_read_and_not_written() {
    let disk = TestDisk::default();
    let engine = parent(&disk).await;
    engine.apply(PARENT, fork()).unwrap();
    let staged = staged_child(&engine).await;
    disk.hold_syncs();
    let installing = engine.install(CHILD, staged, Vec::new());
    disk.await_held_sync();
    let refused = engine.apply(CHILD, Batch { index: 60, ..Batch::default() });
    assert!(matches!(refused, Err(EngineError::Busy(CHILD))));
    assert!(matches!(engine.remove(CHILD).await, Err(EngineError::Busy(CHILD))));
    assert_eq!(get(&engine, CHILD, "n"), Some("old".into()));
    disk.release_syncs();
    installing.await.unwrap();
    assert_eq!(get(&engine, CHILD, "n"), Some("new".into()));
    engine.apply(CHILD, Batch { index: 60, ..Batch::default() }).unwrap();
    assert_eq!(engine.flush(CHILD).await.unwrap(), 60);
}

#[tokio::test]
async fn a_shard_being_removed_is_no_child_for_a_fork() {
    let disk = TestDisk::default();
    let engine = parent(&disk).await;
    let range = KeyRange { start: "m".into(), end: None };
    engine.create(CHILD, range, 9, Vec::new()).unwrap();
    disk.hold_syncs();
    let removing = engine.remove(CHILD);
    disk.await_held_sync();
    assert!(matches!(engine.apply(PARENT, fork()), Err(EngineError::Busy(CHILD))));
    assert_eq!(engine.applied(PARENT).unwrap(), Some(2));
    disk.release_syncs();
    removing.await.unwrap();
    engine.apply(PARENT, fork()).unwrap();
    assert_eq!(get(&engine, CHILD, "n"), Some("old".into()));
}

#[tokio::test]
async fn a_dropped_future_does_not_undo_the_call() {
    let disk = TestDisk::default();
    let engine = parent(&disk).await;
    let staged = staged_child(&engine).await;
    drop(engine.install(CHILD, staged, Vec::new()));
    drop(engine.remove(PARENT));
    engine.close().await.unwrap();
    let engine = RedbEngine::open(&disk, "state", RedbConfig::default()).unwrap();
    assert_eq!(engine.shards().unwrap(), [CHILD]);
    assert_eq!(get(&engine, CHILD, "n"), Some("new".into()));
}
