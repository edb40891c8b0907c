//! The table as a journal of its own, for use without a metadata log.

use std::sync::Arc;

use quorate_types::runtime::{self, BoxFuture};
use quorate_types::{MigrationId, watch};
use tokio::sync::{mpsc, oneshot};

use crate::ports::{Journal, JournalError, admit};
use crate::row::{MigrationRow, Position, RowError};
use crate::table::{MigrationStateTable, Quarantined, TableError};

/// Requests under way; a full queue makes the caller wait its turn.
const QUEUE_REQUESTS_MAX: usize = 64;

type Reply<T> = oneshot::Sender<Result<T, JournalError>>;

enum Request {
    Record { row: Box<MigrationRow>, expected: Option<Position>, term: u64, reply: Reply<()> },
    Rows { reply: Reply<Vec<MigrationRow>> },
    Finish { id: MigrationId, reply: Reply<()> },
}

/// A [`Journal`] in one file on one machine. Its commits block, so they are
/// made on a thread of their own (a task inside a simulation).
///
/// The authority is whoever recorded with the highest term.
#[derive(Debug, Clone)]
pub struct LocalJournal {
    requests: mpsc::Sender<Request>,
    quarantined: watch::Receiver<Arc<[Quarantined]>>,
}

impl LocalJournal {
    /// Serves `table` until the last clone of the journal is dropped.
    ///
    /// # Errors
    /// When the operating system refuses another thread.
    pub fn spawn(table: MigrationStateTable) -> std::io::Result<Self> {
        let (requests, queue) = mpsc::channel(QUEUE_REQUESTS_MAX);
        let (damaged, quarantined) = watch::channel(damaged_rows(&table));
        runtime::thread("migration-journal", serve(table, queue, damaged))?;
        Ok(Self { requests, quarantined })
    }

    /// The damaged rows set aside; see [`MigrationStateTable::quarantined`].
    #[must_use]
    pub fn quarantined(&self) -> Arc<[Quarantined]> {
        self.quarantined.borrow().clone()
    }

    fn ask<T: Send + 'static>(
        &self,
        request: impl FnOnce(Reply<T>) -> Request + Send + 'static,
    ) -> BoxFuture<Result<T, JournalError>> {
        let requests = self.requests.clone();
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            requests.send(request(reply)).await.map_err(|_| JournalError::Failed)?;
            answer.await.unwrap_or(Err(JournalError::Failed))
        })
    }
}

impl Journal for LocalJournal {
    fn record(
        &self,
        row: MigrationRow,
        expected: Option<Position>,
        term: u64,
    ) -> BoxFuture<Result<(), JournalError>> {
        let row = Box::new(row);
        self.ask(move |reply| Request::Record { row, expected, term, reply })
    }

    fn rows(&self) -> BoxFuture<Result<Vec<MigrationRow>, JournalError>> {
        self.ask(|reply| Request::Rows { reply })
    }

    fn finish(&self, id: MigrationId) -> BoxFuture<Result<(), JournalError>> {
        self.ask(move |reply| Request::Finish { id, reply })
    }
}

async fn serve(
    mut table: MigrationStateTable,
    mut queue: mpsc::Receiver<Request>,
    damaged: watch::Sender<Arc<[Quarantined]>>,
) {
    let mut term_max = table.rows().values().map(|row| row.term).max().unwrap_or(0);
    while let Some(request) = queue.recv().await {
        // A caller that is gone has lost interest, not the row: its outcome is
        // unknown to it, which it must bear with anyway.
        match request {
            Request::Record { row, expected, term, reply } => {
                let recorded = record(&mut table, &mut term_max, *row, expected, term);
                runtime::sync_delay().await;
                drop(reply.send(recorded));
            }
            Request::Rows { reply } => {
                let rows = table.load_all().map_err(refused);
                damaged.send(damaged_rows(&table));
                drop(reply.send(rows));
            }
            Request::Finish { id, reply } => {
                let finished = finish(&mut table, id);
                runtime::sync_delay().await;
                drop(reply.send(finished));
            }
        }
    }
}

fn record(
    table: &mut MigrationStateTable,
    term_max: &mut u64,
    row: MigrationRow,
    expected: Option<Position>,
    term: u64,
) -> Result<(), JournalError> {
    if term < *term_max || row.term != term {
        return Err(JournalError::NotAuthority);
    }
    *term_max = term;
    admit(table.rows(), &row, expected)?;
    table.upsert(row).map(drop).map_err(refused)
}

fn finish(table: &mut MigrationStateTable, id: MigrationId) -> Result<(), JournalError> {
    match table.get(id) {
        None => Ok(()),
        Some(row) if !row.phase().is_final() => {
            Err(JournalError::Row(RowError::Unfinished(row.position())))
        }
        Some(_) => table.remove(id).map(drop).map_err(refused),
    }
}

fn damaged_rows(table: &MigrationStateTable) -> Arc<[Quarantined]> {
    table.quarantined().cloned().collect()
}

fn refused(error: TableError) -> JournalError {
    match error {
        TableError::Row(error) => JournalError::Row(error),
        TableError::Quarantined(id) => JournalError::Quarantined(id),
        TableError::Full(rows) => JournalError::Full(rows),
        TableError::Newer { .. } | TableError::Storage { .. } | TableError::Damaged { .. } => {
            JournalError::Failed
        }
    }
}
