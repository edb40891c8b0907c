//! What every [`Engine`] must do, as suites to run against one's own.
//!
//! ```text
//! engine_suite(|| Arc::new(MyEngine::new())).await;
//! // And if it keeps its shards in some storage:
//! engine_storage_suite(|| Box::new(my_open_of_a_new_storage())).await;
//! ```
//!
//! Each check takes a fresh engine and panics where the engine is wrong.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test suite: it panics where the engine under test is wrong"
)]

use std::sync::Arc;

use bytes::Bytes;
use quorate_types::{Blob, KeyRange, ShardId};

use crate::{
    Batch, Engine, EngineError, Fork, KEY_BYTES_MAX, Mutation, ScanLimit, Space, VALUE_BYTES_MAX,
};

const A: ShardId = ShardId(1);
const B: ShardId = ShardId(2);
const ALL: ScanLimit = ScanLimit { rows: usize::MAX, bytes: usize::MAX };

/// Runs every check, each on an engine of its own.
pub async fn engine_suite(make: impl Fn() -> Arc<dyn Engine>) {
    creating_twice_changes_nothing(&*make());
    an_unknown_shard_is_an_error(&*make()).await;
    a_batch_is_visible_at_return(&*make()).await;
    a_refused_batch_changes_nothing(&*make()).await;
    clears_come_before_data(&*make()).await;
    a_cleared_shard_starts_anew(&*make()).await;
    a_scan_merges_old_and_new(&*make()).await;
    a_scan_ends_at_its_limits(&*make()).await;
    a_flush_makes_durable(&*make()).await;
    a_fork_hands_over_the_upper_rows(&*make()).await;
    two_forks_of_one_batch_each_take_their_part(&*make()).await;
    a_fork_of_a_fork_keeps_all_apart(&*make()).await;
    a_fork_leaves_an_existing_child_alone(&*make()).await;
    a_snapshot_installs_elsewhere(&*make(), &*make()).await;
    a_snapshot_stands_still(&*make(), &*make()).await;
    an_install_replaces_everything(&*make()).await;
    a_bad_chunk_is_refused(&*make()).await;
    a_bad_staging_is_refused(&*make()).await;
    removing_leaves_siblings_alone(&*make()).await;
    equal_states_have_equal_hashes(&*make(), &*make()).await;
    the_middle_key_halves_the_data(&*make()).await;
    the_middle_key_is_no_longer_than_it_has_to_be(&*make()).await;
    closing_keeps_its_promises_and_may_be_repeated(&*make()).await;
}

/// Opens one storage, again and again; waits until whoever has it open lets go.
pub type Reopen = Box<dyn Fn() -> Arc<dyn Engine>>;

/// Runs the checks for engines that keep their shards in some storage. Each
/// call of `fresh` provides a new one.
///
/// That what was flushed survives a loss of power needs a disk that loses it,
/// which only the engine's owner can put under it.
pub async fn engine_storage_suite(fresh: impl Fn() -> Reopen) {
    a_closed_engine_has_kept_everything(&fresh()).await;
    a_close_takes_effect_though_nobody_waits(&fresh()).await;
}

fn batch(index: u64, rows: &[(&str, Option<&str>)]) -> Batch {
    let row = |(key, value): &(&str, Option<&str>)| Mutation {
        key: (*key).into(),
        value: value.map(Blob::from),
    };
    let data = rows.iter().map(row).collect();
    let system = vec![Mutation::put("cursor", index.to_string().as_str())];
    Batch { index, data, system, ..Batch::default() }
}

fn fork(index: u64, at: &str) -> Batch {
    let child_system = vec![Mutation::put("cursor", "born")];
    let fork = Fork { child: B, at: at.into(), child_index: 100, child_system };
    Batch { forks: vec![fork], ..batch(index, &[]) }
}

/// An engine with shard A, created at index 1, holding `keys` at index 2.
fn seeded(engine: &dyn Engine, keys: &[&str]) {
    let system = vec![Mutation::put("cursor", "1")];
    assert!(engine.create(A, KeyRange::all(), 1, system).unwrap());
    let rows: Vec<_> = keys.iter().map(|key| (*key, Some(*key))).collect();
    engine.apply(A, batch(2, &rows)).unwrap();
}

fn keys(engine: &dyn Engine, shard: ShardId) -> Vec<String> {
    let page = engine.scan(shard, Space::Data, &KeyRange::all(), ALL).unwrap();
    assert!(!page.more);
    page.rows.into_iter().map(|(key, _)| String::from_utf8(key.to_vec()).unwrap()).collect()
}

fn get(engine: &dyn Engine, shard: ShardId, key: &str) -> Option<Blob> {
    engine.get(shard, Space::Data, key.as_bytes()).unwrap()
}

fn chunks(engine: &dyn Engine, shard: ShardId, bytes_max: usize) -> Vec<Bytes> {
    let mut snapshot = engine.snapshot(shard).unwrap();
    std::iter::from_fn(|| snapshot.next_chunk(bytes_max).unwrap()).collect()
}

async fn install(from: &[Bytes], to: &dyn Engine, shard: ShardId) {
    let mut staging = to.staging(shard).unwrap();
    for chunk in from {
        assert!(!staging.is_complete());
        staging.write(chunk.clone()).await.unwrap();
    }
    assert!(staging.is_complete());
    to.install(shard, staging, Vec::new()).await.unwrap();
}

fn creating_twice_changes_nothing(engine: &dyn Engine) {
    seeded(engine, &["a"]);
    assert!(!engine.create(A, KeyRange::new("x", "y"), 9, Vec::new()).unwrap());
    assert_eq!(engine.applied(A).unwrap(), Some(2));
    assert_eq!(engine.range(A).unwrap(), Some(KeyRange::all()));
    assert_eq!(engine.shards().unwrap(), [A]);
}

async fn an_unknown_shard_is_an_error(engine: &dyn Engine) {
    let unknown = |error| matches!(error, EngineError::UnknownShard(A));
    assert!(unknown(engine.apply(A, batch(1, &[])).unwrap_err()));
    assert!(unknown(engine.apply(A, fork(1, "m")).unwrap_err()));
    assert!(unknown(engine.get(A, Space::System, b"cursor").unwrap_err()));
    assert!(unknown(engine.scan(A, Space::Data, &KeyRange::all(), ALL).unwrap_err()));
    assert!(unknown(engine.flush(A).await.unwrap_err()));
    assert!(unknown(engine.snapshot(A).err().unwrap()));
    assert!(unknown(engine.hash(A).unwrap_err()));
    assert!(unknown(engine.status(A).unwrap_err()));
    assert!(unknown(engine.middle_key(A).unwrap_err()));
    assert_eq!(engine.range(A).unwrap(), None);
    assert_eq!(engine.applied(A).unwrap(), None);
    assert_eq!(engine.durable(A).unwrap(), None);
    engine.remove(A).await.unwrap();
}

async fn a_batch_is_visible_at_return(engine: &dyn Engine) {
    seeded(engine, &["a", "b"]);
    assert_eq!(get(engine, A, "a"), Some("a".into()));
    assert_eq!(engine.get(A, Space::System, b"cursor").unwrap(), Some("2".into()));
    assert_eq!(engine.applied(A).unwrap(), Some(2));
    engine.ready().await.unwrap();
    engine.apply(A, batch(5, &[("a", None), ("b", Some("new")), ("", Some("empty key"))])).unwrap();
    assert_eq!(get(engine, A, "a"), None);
    assert_eq!(get(engine, A, "b"), Some("new".into()));
    assert_eq!(get(engine, A, ""), Some("empty key".into()));
    assert_eq!(engine.applied(A).unwrap(), Some(5));
    // The two spaces do not see each other's rows.
    assert_eq!(engine.get(A, Space::System, b"b").unwrap(), None);
    assert_eq!(get(engine, A, "cursor"), None);
}

async fn a_refused_batch_changes_nothing(engine: &dyn Engine) {
    engine.create(A, KeyRange::new("b", "n"), 7, Vec::new()).unwrap();
    let before = engine.hash(A).unwrap();
    let refused = |batch| {
        let error = engine.apply(A, batch).unwrap_err();
        assert_eq!(engine.hash(A).unwrap(), before);
        error
    };
    let stale = refused(batch(7, &[("c", Some("x"))]));
    assert!(matches!(stale, EngineError::StaleIndex { index: 7, applied: 7, .. }));
    for outside in ["a", "n"] {
        let error = refused(batch(8, &[("c", Some("x")), (outside, Some("x"))]));
        assert!(matches!(error, EngineError::OutOfRange { .. }));
    }
    let mut large = batch(8, &[("c", Some("x"))]);
    large.system.push(Mutation::put("v", vec![0; VALUE_BYTES_MAX + 1]));
    assert!(matches!(refused(large), EngineError::RowTooLarge { .. }));
    let mut long = batch(8, &[("c", Some("x"))]);
    long.system.push(Mutation::put(vec![0; KEY_BYTES_MAX + 1], "v"));
    assert!(matches!(refused(long), EngineError::RowTooLarge { .. }));
    for at in ["a", "b", "n", "z"] {
        assert!(matches!(refused(fork(8, at)), EngineError::BadFork { .. }));
    }
    let mut onto_itself = fork(8, "c");
    onto_itself.forks.first_mut().unwrap().child = A;
    assert!(matches!(refused(onto_itself), EngineError::BadFork { .. }));
    assert_eq!(engine.shards().unwrap(), [A]);
}

async fn clears_come_before_data(engine: &dyn Engine) {
    seeded(engine, &["a", "b", "c", "d", "e"]);
    engine.flush(A).await.unwrap();
    engine.apply(A, batch(3, &[("bb", Some("x")), ("d", Some("x"))])).unwrap();
    let clears = vec![KeyRange::new("b", "c"), KeyRange::new("d", "dd"), KeyRange::new("x", "a")];
    let data = vec![Mutation::put("b", "after")];
    engine.apply(A, Batch { index: 4, clears, data, ..Batch::default() }).unwrap();
    assert_eq!(keys(engine, A), ["a", "b", "c", "e"]);
    assert_eq!(get(engine, A, "b"), Some("after".into()));
    assert_eq!(get(engine, A, "bb"), None);
    let hash = engine.hash(A).unwrap();
    engine.flush(A).await.unwrap();
    assert_eq!(engine.hash(A).unwrap(), hash);
    assert_eq!(keys(engine, A), ["a", "b", "c", "e"]);
    // The shard's own rows are no data.
    assert_eq!(engine.get(A, Space::System, b"cursor").unwrap(), Some("3".into()));
}

async fn a_cleared_shard_starts_anew(engine: &dyn Engine) {
    // More rows than any engine would delete one by one.
    let many: Vec<String> = (0..5_000).map(|row| format!("{row:06}")).collect();
    seeded(engine, &many.iter().map(String::as_str).collect::<Vec<_>>());
    engine.flush(A).await.unwrap();
    engine.apply(A, fork(3, "004000")).unwrap();
    let clears = vec![KeyRange::all()];
    engine.apply(A, Batch { index: 4, clears, ..batch(4, &[("000007", Some("x"))]) }).unwrap();
    for _ in 0..2 {
        assert_eq!(keys(engine, A), ["000007"]);
        assert_eq!(keys(engine, B).len(), 1_000);
        assert_eq!(engine.flush(A).await.unwrap(), 4);
    }
    engine.apply(A, batch(5, &[("000008", Some("y"))])).unwrap();
    engine.flush(A).await.unwrap();
    assert_eq!(keys(engine, A), ["000007", "000008"]);
    assert_eq!(keys(engine, B).len(), 1_000);
}

async fn a_scan_merges_old_and_new(engine: &dyn Engine) {
    seeded(engine, &["a", "c", "e", "g"]);
    engine.flush(A).await.unwrap();
    engine.apply(A, batch(3, &[("b", Some("b")), ("c", Some("new")), ("e", None)])).unwrap();
    assert_eq!(keys(engine, A), ["a", "b", "c", "g"]);
    assert_eq!(get(engine, A, "c"), Some("new".into()));
    let inner = KeyRange::new("b", "g");
    let page = engine.scan(A, Space::Data, &inner, ALL).unwrap();
    assert_eq!(page.rows, [("b".into(), "b".into()), ("c".into(), "new".into())]);
    let nothing = engine.scan(A, Space::Data, &KeyRange::new("g", "b"), ALL).unwrap();
    assert!(nothing.rows.is_empty() && !nothing.more);
    let system = engine.scan(A, Space::System, &KeyRange::all(), ALL).unwrap();
    assert_eq!(system.rows, [("cursor".into(), "3".into())]);
}

async fn a_scan_ends_at_its_limits(engine: &dyn Engine) {
    seeded(engine, &["a1", "b1", "c1", "d1"]);
    engine.flush(A).await.unwrap();
    engine.apply(A, batch(3, &[("b2", Some("b2")), ("c1", None), ("d1", None)])).unwrap();
    let shown = |rows, bytes| {
        let limit = ScanLimit { rows, bytes };
        let page = engine.scan(A, Space::Data, &KeyRange::all(), limit).unwrap();
        (page.rows.len(), page.more)
    };
    assert_eq!(shown(0, 100), (0, true));
    assert_eq!(shown(1, 100), (1, true));
    assert_eq!(shown(2, 100), (2, true));
    assert_eq!(shown(3, 100), (3, false));
    assert_eq!(shown(9, 0), (1, true));
    assert_eq!(shown(9, 8), (2, true));
    assert_eq!(shown(9, 11), (2, true));
    assert_eq!(shown(9, 12), (3, false));
}

async fn a_flush_makes_durable(engine: &dyn Engine) {
    seeded(engine, &["a"]);
    assert_eq!(engine.flush(A).await.unwrap(), 2);
    assert_eq!(engine.durable(A).unwrap(), Some(2));
    let flushes: Vec<_> = (3..10)
        .map(|index| {
            engine.apply(A, batch(index, &[("a", Some("x"))])).unwrap();
            (index, engine.flush(A))
        })
        .collect();
    for (index, flush) in flushes {
        assert!(flush.await.unwrap() >= index);
    }
    assert_eq!(engine.durable(A).unwrap(), Some(9));
    let status = engine.status(A).unwrap();
    assert_eq!((status.applied, status.durable, status.pending_bytes), (9, Some(9), 0));
    assert_eq!(status.rows_estimate, 2);
}

async fn a_fork_hands_over_the_upper_rows(engine: &dyn Engine) {
    seeded(engine, &["a", "m", "z"]);
    engine.flush(A).await.unwrap();
    let forking = fork(3, "m");
    let data = vec![Mutation::put("b", "b"), Mutation::put("n", "n"), Mutation::delete("z")];
    engine.apply(A, Batch { data, ..forking }).unwrap();
    for _ in 0..2 {
        assert_eq!(keys(engine, A), ["a", "b"]);
        assert_eq!(keys(engine, B), ["m", "n"]);
        assert_eq!(get(engine, A, "m"), None);
        assert_eq!(get(engine, B, "a"), None);
        assert_eq!(engine.range(A).unwrap().unwrap().end, Some("m".into()));
        assert_eq!(engine.range(B).unwrap().unwrap().start, "m".into());
        assert_eq!(engine.applied(B).unwrap(), Some(100));
        assert_eq!(engine.get(B, Space::System, b"cursor").unwrap(), Some("born".into()));
        assert_eq!(engine.flush(B).await.unwrap(), 100);
    }
    let outside = engine.apply(A, batch(4, &[("m", Some("x"))])).unwrap_err();
    assert!(matches!(outside, EngineError::OutOfRange { .. }));
    engine.apply(B, batch(101, &[("m", None)])).unwrap();
    engine.apply(A, batch(4, &[("a", None)])).unwrap();
    engine.flush(A).await.unwrap();
    assert_eq!((keys(engine, A), keys(engine, B)), (vec!["b".into()], vec!["n".into()]));
}

async fn two_forks_of_one_batch_each_take_their_part(engine: &dyn Engine) {
    const C: ShardId = ShardId(77);
    seeded(engine, &["b", "h", "t"]);
    let part =
        |child, at: &str| Fork { child, at: at.into(), child_index: 100, child_system: Vec::new() };
    let forks = vec![part(B, "n"), part(C, "d")];
    engine.apply(A, Batch { forks, ..batch(3, &[("z", Some("z"))]) }).unwrap();
    assert_eq!(keys(engine, A), ["b"]);
    assert_eq!(keys(engine, C), ["h"]);
    assert_eq!(keys(engine, B), ["t", "z"]);
}

async fn a_fork_of_a_fork_keeps_all_apart(engine: &dyn Engine) {
    seeded(engine, &["a", "d", "g", "k"]);
    let view = engine.snapshot(A).unwrap();
    engine.apply(A, fork(3, "d")).unwrap();
    let grandchild =
        Fork { child: ShardId(3), at: "g".into(), child_index: 1, child_system: Vec::new() };
    let clears = vec![KeyRange::new("a", "z")];
    let data = vec![Mutation::put("e", "e"), Mutation::put("h", "h")];
    let forks = vec![grandchild];
    engine.apply(B, Batch { index: 101, clears, data, forks, ..Batch::default() }).unwrap();
    for _ in 0..2 {
        assert_eq!(keys(engine, A), ["a"]);
        assert_eq!(keys(engine, B), ["e"]);
        assert_eq!(keys(engine, ShardId(3)), ["h"]);
        engine.flush(ShardId(3)).await.unwrap();
    }
    assert_eq!(view.index(), 2);
}

async fn a_fork_leaves_an_existing_child_alone(engine: &dyn Engine) {
    seeded(engine, &["a", "m"]);
    let child = KeyRange { start: "m".into(), end: None };
    engine.create(B, child.clone(), 500, vec![Mutation::put("cursor", "its own")]).unwrap();
    engine.apply(B, Batch { system: Vec::new(), ..batch(501, &[("q", Some("q"))]) }).unwrap();
    engine.flush(A).await.unwrap();
    engine.apply(A, batch(3, &[("n", Some("n"))])).unwrap();
    engine.apply(A, fork(4, "m")).unwrap();
    for _ in 0..2 {
        assert_eq!(keys(engine, A), ["a"]);
        assert_eq!(keys(engine, B), ["q"]);
        assert_eq!(engine.applied(B).unwrap(), Some(501));
        assert_eq!(engine.range(B).unwrap(), Some(child.clone()));
        assert_eq!(engine.get(B, Space::System, b"cursor").unwrap(), Some("its own".into()));
        engine.flush(A).await.unwrap();
    }
}

async fn a_snapshot_installs_elsewhere(from: &dyn Engine, to: &dyn Engine) {
    seeded(from, &["a", "b", "c", "d"]);
    from.flush(A).await.unwrap();
    from.apply(A, batch(3, &[("b", None), ("e", Some("e"))])).unwrap();
    let hash = from.hash(A).unwrap();
    assert_eq!(from.snapshot(A).unwrap().system_row(b"cursor").unwrap(), Some("3".into()));
    for bytes_max in [0, 5, 1 << 20] {
        install(&chunks(from, A, bytes_max), to, A).await;
        assert_eq!(to.hash(A).unwrap(), hash);
        assert_eq!(to.applied(A).unwrap(), Some(3));
        assert_eq!(to.durable(A).unwrap(), Some(3));
        assert_eq!(to.range(A).unwrap(), Some(KeyRange::all()));
    }
    to.apply(A, batch(4, &[("f", Some("f"))])).unwrap();
    assert_eq!(keys(to, A), ["a", "c", "d", "e", "f"]);
}

async fn a_snapshot_stands_still(from: &dyn Engine, to: &dyn Engine) {
    seeded(from, &["a", "b", "m"]);
    let hash = from.hash(A).unwrap();
    let mut snapshot = from.snapshot(A).unwrap();
    let first = snapshot.next_chunk(1).unwrap().unwrap();
    from.apply(A, batch(3, &[("a", Some("new")), ("b", None)])).unwrap();
    from.flush(A).await.unwrap();
    from.apply(A, fork(4, "m")).unwrap();
    from.flush(A).await.unwrap();
    from.remove(A).await.unwrap();
    assert_eq!(snapshot.index(), 2);
    assert_eq!(*snapshot.range(), KeyRange::all());
    let rest = std::iter::from_fn(|| snapshot.next_chunk(1).unwrap());
    let all: Vec<_> = std::iter::once(first).chain(rest).collect();
    install(&all, to, A).await;
    assert_eq!(to.hash(A).unwrap(), hash);
}

async fn an_install_replaces_everything(engine: &dyn Engine) {
    seeded(engine, &["a", "b", "m", "z"]);
    engine.flush(A).await.unwrap();
    engine.apply(A, fork(3, "m")).unwrap();
    let snapshot = chunks(engine, A, 1 << 20);
    engine.apply(A, batch(4, &[("c", Some("c"))])).unwrap();
    let mut staging = engine.staging(A).unwrap();
    for chunk in snapshot {
        staging.write(chunk).await.unwrap();
    }
    assert_eq!(keys(engine, A), ["a", "b", "c"]);
    assert_eq!(staging.index(), Some(3));
    let system = vec![Mutation::put("installed", "yes"), Mutation::delete("cursor")];
    engine.install(A, staging, system).await.unwrap();
    assert_eq!(keys(engine, A), ["a", "b"]);
    assert_eq!((engine.applied(A).unwrap(), engine.durable(A).unwrap()), (Some(3), Some(3)));
    assert_eq!(engine.get(A, Space::System, b"installed").unwrap(), Some("yes".into()));
    assert_eq!(engine.get(A, Space::System, b"cursor").unwrap(), None);
    // The sibling with which it shared its storage has lost nothing.
    engine.flush(B).await.unwrap();
    assert_eq!(keys(engine, B), ["m", "z"]);
}

async fn a_bad_chunk_is_refused(engine: &dyn Engine) {
    seeded(engine, &["a", "b", "c"]);
    let chunks = chunks(engine, A, 1);
    for flipped in 0..chunks[0].len() {
        let mut damaged = chunks[0].to_vec();
        damaged[flipped] ^= 1;
        let mut staging = engine.staging(B).unwrap();
        assert!(matches!(staging.write(damaged.into()).await, Err(EngineError::Chunk(_))));
        // A staging that refused a chunk takes no other.
        assert!(matches!(staging.write(chunks[0].clone()).await, Err(EngineError::Chunk(_))));
    }
    let mut out_of_order = engine.staging(B).unwrap();
    assert!(matches!(out_of_order.write(chunks[1].clone()).await, Err(EngineError::Chunk(_))));
    let mut repeated = engine.staging(B).unwrap();
    repeated.write(chunks[0].clone()).await.unwrap();
    assert!(matches!(repeated.write(chunks[0].clone()).await, Err(EngineError::Chunk(_))));
    assert!(engine.install(B, repeated, Vec::new()).await.is_err());
    assert_eq!(engine.shards().unwrap(), [A]);
}

async fn a_bad_staging_is_refused(engine: &dyn Engine) {
    seeded(engine, &["a"]);
    let chunks = chunks(engine, A, 1 << 20);
    let mut partial = engine.staging(B).unwrap();
    partial.write(chunks[0].clone()).await.unwrap();
    let error = engine.install(B, partial, Vec::new()).await.unwrap_err();
    assert!(matches!(error, EngineError::BadStaging(B, _)));
    let mut of_another_shard = engine.staging(A).unwrap();
    for chunk in &chunks {
        of_another_shard.write(chunk.clone()).await.unwrap();
    }
    let error = engine.install(B, of_another_shard, Vec::new()).await.unwrap_err();
    assert!(matches!(error, EngineError::BadStaging(B, _)));
    // Nothing of it hinders the shard from being made.
    assert!(engine.create(B, KeyRange::all(), 1, Vec::new()).unwrap());
}

async fn removing_leaves_siblings_alone(engine: &dyn Engine) {
    seeded(engine, &["a", "m"]);
    engine.apply(A, fork(3, "m")).unwrap();
    engine.remove(A).await.unwrap();
    assert_eq!(engine.shards().unwrap(), [B]);
    assert_eq!(engine.range(A).unwrap(), None);
    assert_eq!(keys(engine, B), ["m"]);
    // A new shard of the old id has none of the old rows.
    assert!(engine.create(A, KeyRange::new("", "m"), 1, Vec::new()).unwrap());
    assert!(keys(engine, A).is_empty());
    assert_eq!(engine.get(A, Space::System, b"cursor").unwrap(), None);
    engine.remove(B).await.unwrap();
    engine.remove(B).await.unwrap();
    assert_eq!(engine.shards().unwrap(), [A]);
}

async fn equal_states_have_equal_hashes(one: &dyn Engine, other: &dyn Engine) {
    seeded(one, &["a", "b", "c"]);
    seeded(other, &["c", "d"]);
    assert_ne!(one.hash(A).unwrap().hash, other.hash(A).unwrap().hash);
    one.flush(A).await.unwrap();
    one.apply(A, batch(4, &[("b", None)])).unwrap();
    other.apply(A, batch(3, &[("d", None), ("c", Some("c"))])).unwrap();
    other.apply(A, batch(4, &[("a", Some("a"))])).unwrap();
    assert_eq!(one.hash(A).unwrap(), other.hash(A).unwrap());
    // A row counts for its space.
    one.apply(A, batch(5, &[("x", Some("x"))])).unwrap();
    let mut system = batch(5, &[]);
    system.system.push(Mutation::put("x", "x"));
    other.apply(A, system).unwrap();
    assert_ne!(one.hash(A).unwrap().hash, other.hash(A).unwrap().hash);
}

async fn the_middle_key_halves_the_data(engine: &dyn Engine) {
    seeded(engine, &[]);
    assert_eq!(engine.middle_key(A).unwrap(), None);
    engine.apply(A, batch(3, &[("a", Some("x"))])).unwrap();
    assert_eq!(engine.middle_key(A).unwrap(), None);
    engine.apply(A, batch(4, &[("b", Some("x"))])).unwrap();
    assert_eq!(engine.middle_key(A).unwrap(), Some("b".into()));
    let many: Vec<String> = (0..10_000).map(|row| format!("{row:06}")).collect();
    let rows: Vec<_> = many.iter().map(|key| (key.as_str(), Some("value"))).collect();
    engine.apply(A, batch(5, &rows)).unwrap();
    engine.flush(A).await.unwrap();
    let middle = engine.middle_key(A).unwrap().unwrap();
    let below = KeyRange { start: Blob::new(), end: Some(middle) };
    let below = engine.scan(A, Space::Data, &below, ALL).unwrap().rows.len();
    assert!((4_900..5_100).contains(&below), "{below} of 10,000 rows are below the middle");
}

async fn the_middle_key_is_no_longer_than_it_has_to_be(engine: &dyn Engine) {
    let tail = "x".repeat(2_000);
    let (one, other) = (format!("banana{tail}"), format!("bandana{tail}"));
    seeded(engine, &[&one, &other]);
    assert_eq!(engine.middle_key(A).unwrap(), Some("band".into()));
    engine.apply(A, fork(3, "band")).unwrap();
    assert_eq!(keys(engine, A), [one]);
    assert_eq!(keys(engine, B), [other]);
}

/// Whether an engine that was closed may say so.
fn may_be_closed<T: std::fmt::Debug>(outcome: Result<T, EngineError>) {
    assert!(
        matches!(outcome, Ok(_) | Err(EngineError::Closed)),
        "`Engine::close`: it may refuse calls with `Closed`, and not as {outcome:?}"
    );
}

async fn closing_keeps_its_promises_and_may_be_repeated(engine: &dyn Engine) {
    seeded(engine, &["a"]);
    let early = engine.flush(A);
    engine.apply(A, batch(3, &[("b", Some("b"))])).unwrap();
    let late = engine.flush(A);
    let (one, other) = (engine.close(), engine.close());
    one.await.expect("`Engine::close` of sound storage");
    other.await.expect("`Engine::close` again, at the same time");
    assert!(early.await.unwrap() >= 2, "`Engine::flush` before a close keeps its promise");
    assert!(late.await.unwrap() >= 3, "`Engine::flush` before a close keeps its promise");
    engine.close().await.expect("`Engine::close` again, afterwards");
    may_be_closed(engine.apply(A, batch(4, &[("c", Some("c"))])));
    may_be_closed(engine.get(A, Space::Data, b"a"));
    may_be_closed(engine.flush(A).await);
    may_be_closed(engine.ready().await);
    may_be_closed(engine.create(B, KeyRange::all(), 1, Vec::new()));
    may_be_closed(engine.remove(A).await);
}

/// A shard, its child, and both after a while.
fn lived_in(engine: &dyn Engine) -> [crate::StateHash; 2] {
    seeded(engine, &["a", "m", "z"]);
    engine.apply(A, fork(3, "m")).unwrap();
    engine.apply(A, batch(4, &[("b", Some("b")), ("a", None)])).unwrap();
    engine.apply(B, batch(101, &[("n", Some("n"))])).unwrap();
    [A, B].map(|shard| engine.hash(shard).unwrap())
}

fn has_kept(engine: &dyn Engine, before: [crate::StateHash; 2]) {
    let now = [A, B].map(|shard| engine.hash(shard).unwrap());
    assert_eq!(now, before, "`Engine::close` makes everything applied durable");
    assert_eq!(engine.shards().unwrap(), [A, B], "`Engine::close` keeps the shards");
    for (shard, index) in [(A, 4), (B, 101)] {
        assert_eq!(engine.applied(shard).unwrap(), Some(index), "what is durable is applied");
        assert_eq!(engine.durable(shard).unwrap(), Some(index), "what is there is durable");
    }
}

async fn a_closed_engine_has_kept_everything(storage: &Reopen) {
    let engine = storage();
    let before = lived_in(&*engine);
    engine.close().await.unwrap();
    // Whoever still holds the engine holds no storage any more.
    let reopened = storage();
    has_kept(&*reopened, before);
    drop(engine);
    reopened.apply(A, batch(5, &[("c", Some("c"))])).unwrap();
    assert_eq!(keys(&*reopened, A), ["b", "c"]);
    reopened.close().await.unwrap();
}

async fn a_close_takes_effect_though_nobody_waits(storage: &Reopen) {
    let engine = storage();
    let before = lived_in(&*engine);
    drop(engine.close());
    let reopened = storage();
    has_kept(&*reopened, before);
    reopened.close().await.unwrap();
}
