//! Both engines against the suite that every engine must pass.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_engine::conformance::engine_suite;
use quorate_engine::{MemEngine, RedbConfig, RedbEngine};
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
