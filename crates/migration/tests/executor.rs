//! The executor over the model group, on paused time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod model;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::{GROUP, Group, PAUSE, SOURCE, TARGET, planned};
use parking_lot::Mutex;
use quorate_migration::{
    Checkpoint, Config, ControlError, Done, Effect, Executor, Fence, Journal, JournalError,
    MigrationRow, Outcome, Phase, Position, Progress, Removal, ReplicaControl, Status, VoterChange,
    admit,
};
use quorate_types::env::SystemClock;
use quorate_types::runtime::BoxFuture;
use quorate_types::{GroupId, MigrationId, NodeId, ReplicaId, watch};

/// Rows in memory; remembers what was recorded.
#[derive(Default)]
struct MemoryJournal {
    rows: Mutex<BTreeMap<MigrationId, MigrationRow>>,
    history: Mutex<Vec<MigrationRow>>,
    term_max: Mutex<u64>,
}

impl MemoryJournal {
    fn holding(row: MigrationRow) -> Arc<Self> {
        let journal = Self::default();
        journal.rows.lock().insert(row.id, row);
        Arc::new(journal)
    }

    fn last(&self) -> MigrationRow {
        self.history.lock().last().unwrap().clone()
    }
}

impl Journal for MemoryJournal {
    fn record(
        &self,
        row: MigrationRow,
        expected: Option<Position>,
        term: u64,
    ) -> BoxFuture<Result<(), JournalError>> {
        let mut rows = self.rows.lock();
        let result = if term < *self.term_max.lock() {
            Err(JournalError::NotAuthority)
        } else {
            admit(&rows, &row, expected).map(|_| {
                self.history.lock().push(row.clone());
                rows.insert(row.id, row);
            })
        };
        Box::pin(async move { result })
    }

    fn rows(&self) -> BoxFuture<Result<Vec<MigrationRow>, JournalError>> {
        let rows = self.rows.lock().values().cloned().collect();
        Box::pin(async move { Ok(rows) })
    }

    fn finish(&self, id: MigrationId) -> BoxFuture<Result<(), JournalError>> {
        self.rows.lock().remove(&id);
        Box::pin(async { Ok(()) })
    }
}

/// The model group behind the port. A call takes a millisecond, so that it can
/// be interrupted.
#[derive(Clone)]
struct ModelControl(Arc<Mutex<Group>>);

impl ModelControl {
    fn of(count: u64) -> Self {
        Self(Arc::new(Mutex::new(Group::of(count))))
    }

    fn perform(&self, effect: Effect, fence: Fence) -> BoxFuture<Result<Done, ControlError>> {
        let group = Arc::clone(&self.0);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            group.lock().perform(effect, fence, false)
        })
    }
}

impl ReplicaControl for ModelControl {
    fn progress(&self, _: GroupId) -> BoxFuture<Result<Progress, ControlError>> {
        let progress = self.0.lock().progress();
        Box::pin(async move { progress })
    }

    fn add_learner(
        &self,
        fence: Fence,
        _: GroupId,
        replica: ReplicaId,
        node: NodeId,
    ) -> BoxFuture<Result<(), ControlError>> {
        let done = self.perform(Effect::AddLearner { replica, node }, fence);
        Box::pin(async move { done.await.map(|_| ()) })
    }

    fn change_voters(
        &self,
        fence: Fence,
        _: GroupId,
        change: VoterChange,
    ) -> BoxFuture<Result<(), ControlError>> {
        let done = self.perform(Effect::ChangeVoters(change), fence);
        Box::pin(async move { done.await.map(|_| ()) })
    }

    fn transfer_leader(
        &self,
        fence: Fence,
        _: GroupId,
        to: ReplicaId,
    ) -> BoxFuture<Result<Duration, ControlError>> {
        let done = self.perform(Effect::TransferLeader { to }, fence);
        Box::pin(async move {
            match done.await? {
                Done::Transferred(pause) => Ok(pause),
                other => panic!("{other:?}"),
            }
        })
    }

    fn remove(
        &self,
        fence: Fence,
        _: GroupId,
        replica: ReplicaId,
    ) -> BoxFuture<Result<Removal, ControlError>> {
        let done = self.perform(Effect::Remove { replica }, fence);
        Box::pin(async move {
            match done.await? {
                Done::Removed(removal) => Ok(removal),
                other => panic!("{other:?}"),
            }
        })
    }
}

fn spawn(
    journal: &Arc<MemoryJournal>,
    control: &ModelControl,
    term: Option<u64>,
) -> (Executor, watch::Sender<Option<u64>>) {
    let (authority, receiver) = watch::channel(term);
    let config = Config::new(NodeId(3), SystemClock::shared());
    let journal = Arc::clone(journal) as Arc<dyn Journal>;
    let control = Arc::new(control.clone());
    (Executor::spawn(journal, control, receiver, config), authority)
}

async fn until(executor: &Executor, accept: impl Fn(&Status) -> bool) -> Status {
    executor.status().wait_for(accept).await.unwrap()
}

async fn until_phase(executor: &Executor, phase: Phase) {
    until(executor, |status| status.running.values().any(|one| one.row.phase() == phase)).await;
}

#[tokio::test(start_paused = true)]
async fn the_authority_completes_a_move_and_reports_its_pause() {
    let (journal, control) = (MemoryJournal::holding(planned()), ModelControl::of(3));
    let (executor, _authority) = spawn(&journal, &control, Some(1));
    let status = until(&executor, |status| status.completed == 1).await;
    assert_eq!((status.pause_longest, status.over_budget), (PAUSE, 0));
    let ended = journal.last();
    assert_eq!(control.0.lock().check_home(ended.outcome().unwrap()), Ok(()));
    assert!(journal.rows.lock().is_empty());
    let stamps: Vec<_> = journal.history.lock().iter().map(|row| row.hlc).collect();
    assert!(stamps.is_sorted_by(|earlier, later| earlier < later));
}

#[tokio::test(start_paused = true)]
async fn without_authority_nothing_is_touched() {
    let (journal, control) = (MemoryJournal::holding(planned()), ModelControl::of(3));
    let (executor, authority) = spawn(&journal, &control, None);
    tokio::time::advance(Duration::from_secs(3_600)).await;
    assert_eq!((journal.history.lock().len(), executor.status().get()), (0, Status::default()));
    authority.send(Some(1));
    until(&executor, |status| status.completed == 1).await;
}

/// prior-systems: `Resumed` had no resumer; recovery was never wired.
#[tokio::test(start_paused = true)]
async fn whoever_is_the_authority_next_resumes_what_the_last_one_left() {
    for phase in [Phase::AddLearner, Phase::CatchUp, Phase::Cutover] {
        let (journal, control) = (MemoryJournal::holding(planned()), ModelControl::of(3));
        let (first, authority) = spawn(&journal, &control, Some(1));
        until_phase(&first, phase).await;
        authority.send(None);
        until(&first, |status| status.authority.is_none()).await;
        let recorded = journal.history.lock().len();
        assert!(first.status().get().running.is_empty());

        let (second, _authority) = spawn(&journal, &control, Some(2));
        until(&second, |status| status.completed == 1).await;
        let claimed = journal.history.lock()[recorded].clone();
        assert_eq!((claimed.term, claimed.attempt), (2, 2));
        assert_eq!(control.0.lock().check_home(journal.last().outcome().unwrap()), Ok(()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stopped_executor_leaves_a_row_that_another_finishes() {
    let (journal, control) = (MemoryJournal::holding(planned()), ModelControl::of(3));
    let (first, _authority) = spawn(&journal, &control, Some(1));
    until_phase(&first, Phase::CatchUp).await;
    first.stop().await;
    let (second, _authority) = spawn(&journal, &control, Some(1));
    until(&second, |status| status.completed == 1).await;
}

#[tokio::test(start_paused = true)]
async fn cancelling_before_the_cutover_restores_the_group() {
    let (journal, control) = (MemoryJournal::holding(planned()), ModelControl::of(3));
    let (executor, _authority) = spawn(&journal, &control, Some(1));
    until_phase(&executor, Phase::CatchUp).await;
    executor.cancel(planned().id);
    until(&executor, |status| status.aborted == 1).await;
    let outcome = journal.last().outcome().unwrap();
    assert!(matches!(outcome, Outcome::Aborted { target_destroyed: true, .. }));
    assert_eq!(control.0.lock().check_home(outcome), Ok(()));
}

/// prior-systems: failures proposed no abort; the row blocked the shard.
#[tokio::test(start_paused = true)]
async fn a_target_that_never_answers_ends_in_an_abort() {
    let (journal, control) = (MemoryJournal::holding(planned()), ModelControl::of(3));
    control.0.lock().dead.insert(TARGET);
    let (executor, _authority) = spawn(&journal, &control, Some(1));
    until(&executor, |status| status.aborted == 1).await;
    let next = MigrationRow { id: MigrationId(78), ..planned() };
    assert_eq!(journal.record(next, None, 1).await, Ok(()), "{GROUP} is free for another move");
}

#[tokio::test(start_paused = true)]
async fn a_cutover_that_cannot_go_on_is_reported_as_stuck_and_goes_on_later() {
    let cutover = MigrationRow { checkpoint: Checkpoint::Cutover, ..planned() };
    let (journal, control) = (MemoryJournal::holding(cutover), ModelControl::of(3));
    control.0.lock().learners.insert(TARGET);
    control.0.lock().matched.insert(TARGET, 0);
    control.0.lock().dead.extend([ReplicaId(2), ReplicaId(3)]);
    let (executor, _authority) = spawn(&journal, &control, Some(1));
    let status = until(&executor, |status| status.stuck().count() == 1).await;
    assert_eq!((status.completed, status.aborted), (0, 0));
    control.0.lock().dead.clear();
    until(&executor, |status| status.completed == 1).await;
    assert!(!control.0.lock().is_member(SOURCE));
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_knows_a_newer_authority_is_not_pressed() {
    let (journal, control) = (MemoryJournal::holding(planned()), ModelControl::of(3));
    *journal.term_max.lock() = 5;
    let (executor, authority) = spawn(&journal, &control, Some(1));
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let effects = control.0.lock().fences.len();
    assert!(journal.history.lock().is_empty() && effects <= 1);
    authority.send(Some(6));
    until(&executor, |status| status.completed == 1).await;
}
