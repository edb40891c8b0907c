//! The table on its own passes the journal suite, and what the suite has to
//! refuse.
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
    Journal, JournalError, LocalJournal, MigrationRow, MigrationStateTable, Position, RowError,
    TableConfig, TableError, conformance,
};
use quorate_types::MigrationId;
use quorate_types::disk::DirectoryDisk;
use quorate_types::runtime::BoxFuture;

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

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flaw {
    None,
    HidesConflicts,
    GoesBack,
    FinishesAnything,
    FinishesNothing,
    ForgetsAtRestart,
    RowsBackwards,
}

/// The journal of production with a flaw of one's choice.
struct Flawed {
    flaw: Flaw,
    inner: Arc<dyn Journal>,
}

type Outcome<T> = BoxFuture<Result<T, JournalError>>;

impl Journal for Flawed {
    fn record(&self, row: MigrationRow, expected: Option<Position>, term: u64) -> Outcome<()> {
        let (flaw, recorded) = (self.flaw, self.inner.record(row, expected, term));
        Box::pin(async move {
            match (flaw, recorded.await) {
                (Flaw::HidesConflicts, Err(JournalError::Conflict(_)))
                | (Flaw::GoesBack, Err(JournalError::Row(RowError::Regression { .. }))) => Ok(()),
                (_, outcome) => outcome,
            }
        })
    }

    fn rows(&self) -> Outcome<Vec<MigrationRow>> {
        let (flaw, rows) = (self.flaw, self.inner.rows());
        Box::pin(async move {
            let mut rows = rows.await?;
            if flaw == Flaw::RowsBackwards {
                rows.reverse();
            }
            Ok(rows)
        })
    }

    fn finish(&self, id: MigrationId) -> Outcome<()> {
        let (flaw, inner) = (self.flaw, Arc::clone(&self.inner));
        Box::pin(async move {
            let is_over = |row: &MigrationRow| row.id == id && row.phase().is_final();
            if flaw == Flaw::FinishesNothing && inner.rows().await?.iter().any(is_over) {
                return Ok(());
            }
            match (flaw, inner.finish(id).await) {
                (Flaw::FinishesAnything, Err(JournalError::Row(RowError::Unfinished(_)))) => Ok(()),
                (_, outcome) => outcome,
            }
        })
    }
}

#[tokio::test]
async fn the_local_journal_conforms() {
    suite(Flaw::None).await;
}

macro_rules! refused {
    ($($test:ident, $flaw:ident, $sentence:tt;)+) => {$(
        #[tokio::test]
        #[should_panic(expected = $sentence)]
        async fn $test() {
            suite(Flaw::$flaw).await;
        }
    )+};
}

refused! {
    a_journal_that_hides_conflicts_is_refused, HidesConflicts, "expected a conflict";
    a_journal_that_goes_back_is_refused, GoesBack, "after the cutover";
    a_journal_that_finishes_anything_is_refused, FinishesAnything, "finished at";
    a_journal_that_finishes_nothing_is_refused, FinishesNothing, "leaves no row";
    a_journal_that_forgets_at_restart_is_refused, ForgetsAtRestart, "outlives a restart";
    a_journal_without_order_is_refused, RowsBackwards, "in the order of their ids";
}

async fn suite(flaw: Flaw) {
    let directories = Mutex::new(Vec::new());
    let disk_of_latest = || {
        let directories = directories.lock();
        let latest: &tempfile::TempDir = directories.last().unwrap();
        DirectoryDisk::open(latest.path()).unwrap()
    };
    let fresh = || {
        directories.lock().push(tempfile::tempdir().unwrap());
        let journal: Arc<dyn Journal> = Arc::new(Flawed { flaw, inner: open(&disk_of_latest()) });
        async move { journal }
    };
    let reopened = |journal: Arc<dyn Journal>| {
        drop(journal);
        if flaw == Flaw::ForgetsAtRestart {
            directories.lock().push(tempfile::tempdir().unwrap());
        }
        let journal = open(&disk_of_latest());
        async move { journal }
    };
    conformance::journal(fresh, reopened).await;
}
