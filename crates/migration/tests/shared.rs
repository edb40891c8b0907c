//! A journal in somebody else's rows passes the journal suite, and bears with
//! what those rows may do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_migration::{
    Journal, JournalError, MigrationRow, Outcome, Place, SharedJournal, SharedRow, SharedRows,
};
use quorate_types::runtime::BoxFuture;
use quorate_types::{GroupId, Hlc, MigrationId, NodeId, ReplicaId, ShardId};

/// Rows in memory, where somebody else may write as well.
#[derive(Default)]
struct Elsewhere {
    rows: Mutex<BTreeMap<MigrationId, SharedRow>>,
    outcomes: Mutex<Vec<Outcome>>,
    /// Writes that take effect and whose answer is lost.
    lost_answers: Mutex<usize>,
    is_deposed: bool,
}

impl Elsewhere {
    fn answer(&self) -> Result<(), JournalError> {
        let mut lost = self.lost_answers.lock();
        if *lost == 0 {
            return Ok(());
        }
        *lost -= 1;
        Err(JournalError::Unavailable)
    }
}

impl SharedRows for Elsewhere {
    fn is_authority(&self, _term: u64) -> bool {
        !self.is_deposed
    }

    fn rows(&self) -> Vec<SharedRow> {
        self.rows.lock().values().cloned().collect()
    }

    fn write(
        &self,
        id: MigrationId,
        expected: Option<u64>,
        row: Bytes,
    ) -> BoxFuture<Result<(), JournalError>> {
        let mut rows = self.rows.lock();
        let is_expected = rows.get(&id).map(|stored| stored.revision) == expected;
        if is_expected {
            rows.insert(id, SharedRow { id, revision: expected.unwrap_or(0) + 1, row });
        }
        let outcome = if is_expected { self.answer() } else { Err(JournalError::Unavailable) };
        Box::pin(async move { outcome })
    }

    fn finish(&self, last: SharedRow, outcome: Outcome) -> BoxFuture<Result<(), JournalError>> {
        self.outcomes.lock().push(outcome);
        assert_eq!(self.rows.lock().remove(&last.id), Some(last));
        let answer = self.answer();
        Box::pin(async move { answer })
    }
}

fn planned(id: u128) -> MigrationRow {
    let from = Place { node: NodeId(1), replica: ReplicaId(11) };
    let to = Place { node: NodeId(4), replica: ReplicaId(14) };
    let of = (ShardId(1), GroupId(17));
    MigrationRow::planned(MigrationId(id), of, from, to, 1, Hlc::default())
}

#[cfg(feature = "conformance")]
#[tokio::test]
async fn the_shared_journal_conforms() {
    let fresh =
        || async { Arc::new(SharedJournal::new(Arc::<Elsewhere>::default())) as Arc<dyn Journal> };
    // All that it knows is in the rows.
    let reopened = |journal| async move { journal };
    quorate_migration::conformance::journal(fresh, reopened).await;
}

#[tokio::test]
async fn a_record_whose_answer_was_lost_is_recorded_once() {
    let rows = Arc::new(Elsewhere { lost_answers: Mutex::new(1), ..Elsewhere::default() });
    let journal = SharedJournal::new(Arc::clone(&rows) as _);
    let lost = journal.record(planned(1), None, 1).await;
    assert_eq!(lost, Err(JournalError::Unavailable));
    journal.record(planned(1), None, 1).await.unwrap();
    assert_eq!(rows.rows()[0].revision, 1);
}

#[tokio::test]
async fn nothing_is_written_without_authority() {
    let rows = Arc::new(Elsewhere { is_deposed: true, ..Elsewhere::default() });
    let journal = SharedJournal::new(Arc::clone(&rows) as _);
    let refused = journal.record(planned(1), None, 1).await;
    assert_eq!(refused, Err(JournalError::NotAuthority));
    assert_eq!(rows.rows(), []);
}

#[tokio::test]
async fn a_damaged_row_is_neither_served_nor_replaced() {
    let rows = Arc::<Elsewhere>::default();
    let journal = SharedJournal::new(Arc::clone(&rows) as _);
    let id = MigrationId(1);
    let damaged = SharedRow { id, revision: 3, row: "damage".into() };
    rows.rows.lock().insert(id, damaged.clone());
    assert_eq!(journal.rows().await, Ok(Vec::new()));
    let refused = journal.record(planned(1), None, 1).await;
    assert_eq!(refused, Err(JournalError::Quarantined(id)));
    assert_eq!(journal.finish(id).await, Err(JournalError::Quarantined(id)));
    assert_eq!(rows.rows(), [damaged]);
    assert!(rows.outcomes.lock().is_empty());
}
