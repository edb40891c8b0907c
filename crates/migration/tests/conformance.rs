//! The table on its own passes the journal suite.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::sync::Arc;

use parking_lot::Mutex;
use quorate_migration::{
    Journal, LocalJournal, MigrationStateTable, TableConfig, TableError, conformance,
};
use quorate_types::disk::DirectoryDisk;

fn open(disk: &DirectoryDisk) -> Arc<dyn Journal> {
    // The thread that served the journal before may still be closing the file.
    let table = loop {
        match MigrationStateTable::open(disk, TableConfig::default()) {
            Ok(table) => break table,
            Err(TableError::Storage { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    Arc::new(LocalJournal::spawn(table).unwrap())
}

#[tokio::test]
async fn the_local_journal_conforms() {
    let directories = Mutex::new(Vec::new());
    let disk_of_latest = || {
        let directories = directories.lock();
        let latest: &tempfile::TempDir = directories.last().unwrap();
        DirectoryDisk::open(latest.path()).unwrap()
    };
    let fresh = || {
        directories.lock().push(tempfile::tempdir().unwrap());
        let journal = open(&disk_of_latest());
        async move { journal }
    };
    let reopened = |journal: Arc<dyn Journal>| {
        drop(journal);
        let journal = open(&disk_of_latest());
        async move { journal }
    };
    conformance::journal(fresh, reopened).await;
}
