//! A journal in somebody else's rows, which change by compare-and-set: the
//! metadata log of a cluster, for one.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use quorate_types::MigrationId;
use quorate_types::runtime::BoxFuture;

use crate::ports::{Journal, JournalError, admit};
use crate::row::{Change, MigrationRow, Outcome, Position, RowError};

/// Rows that are opaque to whoever keeps them (port).
pub trait SharedRows: Send + Sync + 'static {
    /// Whether this process may write in that term.
    fn is_authority(&self, term: u64) -> bool;

    /// Every row that is not finished, with its revision.
    fn rows(&self) -> Vec<SharedRow>;

    /// Writes a row if it is at the expected revision (`None`: there is none).
    ///
    /// # Errors
    /// [`JournalError::Unavailable`] for a lost race as well as for a lost
    /// answer: the outcome is seen by reading again.
    fn write(
        &self,
        id: MigrationId,
        expected: Option<u64>,
        row: Bytes,
    ) -> BoxFuture<Result<(), JournalError>>;

    /// Makes it known how a migration ended, and then removes its row. A crash
    /// between the two leaves the row, so that it is done again.
    ///
    /// # Errors
    /// [`JournalError::Unavailable`]; finishing again is safe.
    fn finish(&self, last: SharedRow, outcome: Outcome) -> BoxFuture<Result<(), JournalError>>;
}

/// A row as somebody else keeps it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SharedRow {
    /// Whose it is.
    pub id: MigrationId,
    /// What the next write must expect.
    pub revision: u64,
    /// [`MigrationRow::seal`].
    pub row: Bytes,
}

impl SharedRow {
    /// Verifies and decodes it. A damaged row is reported, not only skipped.
    #[must_use]
    pub fn open(&self) -> Option<MigrationRow> {
        MigrationRow::open(&self.id.0.to_be_bytes(), &self.row)
            .inspect_err(|damage| {
                tracing::error!(id = %self.id, %damage, "a migration row cannot be read");
            })
            .ok()
    }
}

/// A [`Journal`] over [`SharedRows`].
pub struct SharedJournal(Arc<dyn SharedRows>);

impl SharedJournal {
    /// A journal in these rows.
    #[must_use]
    pub fn new(rows: Arc<dyn SharedRows>) -> Self {
        Self(rows)
    }
}

impl Journal for SharedJournal {
    fn record(
        &self,
        row: MigrationRow,
        expected: Option<Position>,
        term: u64,
    ) -> BoxFuture<Result<(), JournalError>> {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            if !shared.is_authority(term) || row.term != term {
                return Err(JournalError::NotAuthority);
            }
            let stored = shared.rows();
            let current = stored.iter().find(|stored| stored.id == row.id);
            if current.is_some_and(|current| current.open().is_none()) {
                return Err(JournalError::Quarantined(row.id));
            }
            let rows = stored.iter().filter_map(|stored| Some((stored.id, stored.open()?)));
            let rows: BTreeMap<MigrationId, MigrationRow> = rows.collect();
            if admit(&rows, &row, expected)? == Change::Repeated {
                return Ok(());
            }
            let revision = current.map(|current| current.revision);
            shared.write(row.id, revision, row.seal()).await
        })
    }

    fn rows(&self) -> BoxFuture<Result<Vec<MigrationRow>, JournalError>> {
        let rows = self.0.rows().iter().filter_map(SharedRow::open).collect();
        Box::pin(async move { Ok(rows) })
    }

    fn finish(&self, id: MigrationId) -> BoxFuture<Result<(), JournalError>> {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let Some(last) = shared.rows().into_iter().find(|stored| stored.id == id) else {
                return Ok(());
            };
            let row = last.open().ok_or(JournalError::Quarantined(id))?;
            let unfinished = JournalError::Row(RowError::Unfinished(row.position()));
            let outcome = row.outcome().ok_or(unfinished)?;
            shared.finish(last, outcome).await
        })
    }
}

impl std::fmt::Debug for SharedJournal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedJournal").finish_non_exhaustive()
    }
}
