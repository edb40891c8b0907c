//! Both engines against the suites that every engine must pass, and what the
//! suites have to refuse.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

#[path = "conformance/flawed.rs"]
mod flawed;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flawed::{Flaw, FlawedEngine};
use quorate_engine::conformance::{Reopen, engine_storage_suite, engine_suite};
use quorate_engine::{EngineError, MemEngine, RedbConfig, RedbEngine};
use quorate_types::disk::DirectoryDisk;

#[tokio::test]
async fn the_memory_engine_conforms() {
    engine_suite(|| Arc::new(MemEngine::new())).await;
}

#[tokio::test]
async fn the_redb_engine_conforms() {
    conforms(&RedbConfig::default()).await;
}

#[tokio::test]
async fn the_redb_engine_conforms_while_it_commits_all_the_time() {
    conforms(&RedbConfig { commit_bytes: 1, ..RedbConfig::default() }).await;
}

async fn conforms(config: &RedbConfig) {
    let directory = tempfile::tempdir().unwrap();
    let disk = DirectoryDisk::open(directory.path()).unwrap();
    let files = AtomicU64::new(0);
    engine_suite(|| {
        let file = format!("{}.redb", files.fetch_add(1, Ordering::Relaxed));
        Arc::new(RedbEngine::open(&disk, &file, config.clone()).unwrap())
    })
    .await;
}

#[tokio::test]
async fn the_redb_engine_keeps_what_it_closes() {
    let directory = tempfile::tempdir().unwrap();
    let files = AtomicU64::new(0);
    engine_storage_suite(|| -> Reopen {
        let disk = DirectoryDisk::open(directory.path()).unwrap();
        let file = format!("{}.redb", files.fetch_add(1, Ordering::Relaxed));
        // An engine that was closed by nobody's leave lets go a moment later.
        Box::new(move || {
            loop {
                match RedbEngine::open(&disk, &file, RedbConfig::default()) {
                    Ok(engine) => return Arc::new(engine),
                    Err(EngineError::Open { .. }) => std::thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
            }
        })
    })
    .await;
}

#[tokio::test]
async fn the_flawless_engine_conforms() {
    engine_suite(|| Arc::new(FlawedEngine::new(Flaw::None))).await;
    engine_storage_suite(|| FlawedEngine::storage(Flaw::None)).await;
}

macro_rules! refused {
    ($($test:ident, $flaw:ident, $sentence:tt;)+) => {$(
        #[tokio::test]
        #[should_panic(expected = $sentence)]
        async fn $test() {
            engine_suite(|| Arc::new(FlawedEngine::new(Flaw::$flaw))).await;
            engine_storage_suite(|| FlawedEngine::storage(Flaw::$flaw)).await;
        }
    )+};
}

refused! {
    an_engine_without_system_rows_is_refused, DropsSystem, "assertion";
    an_engine_that_takes_a_stale_index_is_refused, TakesStale, "called `Result::unwrap_err()` on an `Ok` value";
    an_engine_that_hides_what_follows_is_refused, HidesMore, "assertion";
    an_engine_that_flushes_nothing_is_refused, FlushLies, "assertion";
    an_engine_that_does_not_close_twice_is_refused, ClosesOnce, "`Engine::close` again";
    an_engine_that_closes_on_a_flush_is_refused, CloseBreaksFlush, "keeps its promise";
    an_engine_that_loses_what_it_closes_is_refused, CloseForgets, "`Engine::close` makes";
}
