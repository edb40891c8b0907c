//! The suite that every [`Journal`] has to pass. Panics where one does not.

use std::future::Future;
use std::sync::Arc;

use quorate_types::{GroupId, Hlc, MigrationId, NodeId, ReplicaId, ShardId};

use crate::ports::{Journal, JournalError};
use crate::row::{AbortReason, Checkpoint, MigrationRow, Place, Position, Promotion, RowError};

/// Runs the whole suite. `fresh` makes an empty journal on which this process
/// is the authority of the terms 1 to 9, and `reopened` gives a view of the
/// same journal as after a restart.
///
/// # Panics
/// When the journal breaks its contract.
pub async fn journal<F, R>(
    mut fresh: impl FnMut() -> F,
    mut reopened: impl FnMut(Arc<dyn Journal>) -> R,
) where
    F: Future<Output = Arc<dyn Journal>>,
    R: Future<Output = Arc<dyn Journal>>,
{
    starts_empty(&*fresh().await).await;
    records_every_phase_in_order(&*fresh().await).await;
    repeats_without_effect(&*fresh().await).await;
    refuses_a_writer_that_expects_another_row(&*fresh().await).await;
    refuses_to_go_back(&*fresh().await).await;
    refuses_an_earlier_term(&*fresh().await).await;
    refuses_a_second_migration_of_a_group(&*fresh().await).await;
    finishes_only_what_is_over(&*fresh().await).await;
    let journal = fresh().await;
    let row = planned(1, 1);
    must(journal.record(row.clone(), None, 1).await);
    let journal = reopened(journal).await;
    assert_eq!(rows(&*journal).await, [row], "what was recorded outlives a restart");
}

async fn starts_empty(journal: &dyn Journal) {
    assert_eq!(rows(journal).await, [], "a fresh journal is empty");
    must(journal.finish(MigrationId(1)).await);
}

async fn records_every_phase_in_order(journal: &dyn Journal) {
    let mut before = None;
    for row in whole_way() {
        must(journal.record(row.clone(), before, 1).await);
        assert_eq!(rows(journal).await, std::slice::from_ref(&row), "the latest row is served");
        before = Some(row.position());
    }
}

async fn repeats_without_effect(journal: &dyn Journal) {
    let [first, second, ..] = whole_way();
    must(journal.record(first.clone(), None, 1).await);
    must(journal.record(second.clone(), Some(first.position()), 1).await);
    let mut again = second.clone();
    again.hlc.millis += 1;
    must(journal.record(again, Some(first.position()), 1).await);
    assert_eq!(rows(journal).await, [second], "the first record of a checkpoint stands");
}

async fn refuses_a_writer_that_expects_another_row(journal: &dyn Journal) {
    let [first, second, third, ..] = whole_way();
    must(journal.record(first.clone(), None, 1).await);
    must(journal.record(second.clone(), Some(first.position()), 1).await);
    for expected in [None, Some(first.position())] {
        conflicts_with(journal.record(third.clone(), expected, 1).await, &second);
    }
    assert_eq!(rows(journal).await, [second], "a refused record changes nothing");
}

async fn refuses_to_go_back(journal: &dyn Journal) {
    let [first, second, third, _, cutover, _] = whole_way();
    let mut before = None;
    for row in whole_way().into_iter().take(5) {
        must(journal.record(row.clone(), before, 1).await);
        before = Some(row.position());
    }
    let abort = Checkpoint::Aborting { reason: AbortReason::Cancelled };
    let aborting = MigrationRow { checkpoint: abort, attempt: 2, ..first.clone() };
    let restarted = MigrationRow { attempt: 2, ..first.clone() };
    for row in [first, second, third, aborting, restarted] {
        let position = row.position();
        let refused = journal.record(row, before, 1).await;
        assert!(
            matches!(refused, Err(JournalError::Row(RowError::Regression { .. }))),
            "{position} after the cutover: {refused:?}"
        );
    }
    assert_eq!(rows(journal).await, [cutover], "a refused record changes nothing");
}

async fn refuses_an_earlier_term(journal: &dyn Journal) {
    let first = planned(1, 1);
    must(journal.record(first.clone(), None, 1).await);
    let claimed = MigrationRow { attempt: 2, term: 2, ..first.clone() };
    must(journal.record(claimed.clone(), Some(first.position()), 2).await);
    let stale = MigrationRow { checkpoint: Checkpoint::CatchUp, ..first.clone() };
    for expected in [first.position(), claimed.position()] {
        let refused = journal.record(stale.clone(), Some(expected), 1).await;
        assert!(
            matches!(
                refused,
                Err(JournalError::NotAuthority
                    | JournalError::Conflict(_)
                    | JournalError::Row(RowError::StaleTerm { .. }))
            ),
            "a coordinator of an earlier term: {refused:?}"
        );
    }
    assert_eq!(rows(journal).await, [claimed], "a refused record changes nothing");
}

async fn refuses_a_second_migration_of_a_group(journal: &dyn Journal) {
    let (one, other) = (planned(1, 1), planned(2, 1));
    must(journal.record(one.clone(), None, 1).await);
    conflicts_with(journal.record(other, None, 1).await, &one);
    must(journal.record(planned(3, 2), None, 1).await);
    assert_eq!(rows(journal).await.len(), 2, "other groups are free to move");
    must(journal.record(planned(2, 4), None, 1).await);
    let ids: Vec<u128> = rows(journal).await.iter().map(|row| row.id.0).collect();
    assert_eq!(ids, [1, 2, 3], "`Journal::rows`: in the order of their ids");
}

async fn finishes_only_what_is_over(journal: &dyn Journal) {
    let mut before = None::<Position>;
    for row in whole_way() {
        must(journal.record(row.clone(), before, 1).await);
        if !row.phase().is_final() {
            let refused = journal.finish(row.id).await;
            assert!(
                matches!(refused, Err(JournalError::Row(RowError::Unfinished(_)))),
                "finished at {}: {refused:?}",
                row.position()
            );
        }
        before = Some(row.position());
    }
    must(journal.finish(MigrationId(1)).await);
    must(journal.finish(MigrationId(1)).await);
    assert_eq!(rows(journal).await, [], "a finished migration leaves no row");
}

fn planned(id: u128, group: u64) -> MigrationRow {
    let from = Place { node: NodeId(1), replica: ReplicaId(11) };
    let to = Place { node: NodeId(4), replica: ReplicaId(14) };
    let of = (ShardId(group), GroupId(group));
    MigrationRow::planned(MigrationId(id), of, from, to, 1, Hlc::default())
}

fn whole_way() -> [MigrationRow; 6] {
    let promotion = Promotion::AtCutover;
    [
        Checkpoint::AddLearner,
        Checkpoint::CatchUp,
        Checkpoint::PromoteLearner { promotion, matched: 9, last_log: 10 },
        Checkpoint::LeadershipTransfer,
        Checkpoint::Cutover,
        Checkpoint::Complete { source_destroyed: true },
    ]
    .map(|checkpoint| MigrationRow { checkpoint, ..planned(1, 1) })
}

async fn rows(journal: &dyn Journal) -> Vec<MigrationRow> {
    match journal.rows().await {
        Ok(rows) => rows,
        Err(error) => panic!("the rows cannot be read: {error}"),
    }
}

fn must(result: Result<(), JournalError>) {
    assert!(result.is_ok(), "refused: {result:?}");
}

fn conflicts_with(result: Result<(), JournalError>, row: &MigrationRow) {
    assert!(
        matches!(&result, Err(JournalError::Conflict(current)) if **current == *row),
        "expected a conflict with {row:?}, got {result:?}"
    );
}
