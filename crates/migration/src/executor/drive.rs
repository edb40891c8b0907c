//! One migration, from being taken up to its end: the machine's steps turned
//! into calls.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use quorate_types::hlc::HlcClock;
use quorate_types::membership::Fence;
use quorate_types::{Hlc, MigrationId, buggify, runtime, watch};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::{Config, Running, Shared, Status};
use crate::machine::{Delay, Done, Effect, Machine, Step};
use crate::ports::{ControlError, Journal, JournalError, ReplicaControl};
use crate::row::{MigrationRow, Outcome, Position};

/// How a migration left its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It is over and its row is gone.
    Finished { is_completed: bool, pause_longest: Duration },
    /// Somebody else coordinates it, or the task failed; the next scan tells.
    LeftAlone,
    /// The journal takes nothing more from this authority.
    StandDown,
}

/// What one migration's task works with.
pub(super) struct Context {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) control: Arc<dyn ReplicaControl>,
    pub(super) config: Config,
    pub(super) shared: Arc<Shared>,
    pub(super) status: watch::Sender<Status>,
    pub(super) ended: mpsc::Sender<(MigrationId, End)>,
}

/// Reports the end even if an adapter panics. The channel has a place for
/// every task there can be.
struct Report {
    ended: mpsc::Sender<(MigrationId, End)>,
    id: MigrationId,
    end: End,
}

impl Drop for Report {
    fn drop(&mut self) {
        if self.ended.try_send((self.id, self.end)).is_err() {
            tracing::debug!(id = %self.id, "ended after its term");
        }
    }
}

impl Context {
    pub(super) async fn drive(self, machine: Machine) {
        let (ended, id) = (self.ended.clone(), machine.row().id);
        let mut report = Report { ended, id, end: End::LeftAlone };
        report.end = self.steps(machine).await;
    }

    async fn steps(&self, mut machine: Machine) -> End {
        loop {
            if self.shared.cancelled.lock().contains(&machine.row().id) {
                machine.handle_cancel();
            }
            self.publish(&machine);
            match machine.poll_step() {
                Step::Record { row, expected } => match self.record(*row, expected).await {
                    Ok(row) => machine.handle_recorded(row),
                    Err(JournalError::NotAuthority | JournalError::Failed) => {
                        return End::StandDown;
                    }
                    Err(error) => {
                        tracing::warn!(id = %machine.row().id, %error, "not recorded");
                        machine.handle_conflict();
                    }
                },
                Step::Observe(delay) => self.observe(&mut machine, delay).await,
                Step::Perform(effect, fence) => self.perform(&mut machine, effect, fence).await,
                Step::Finished(outcome) => return self.finish(machine.row(), outcome).await,
                Step::Superseded => {
                    // Lets what superseded us become visible to the next scan.
                    sleep(self.backoff(1)).await;
                    return End::LeftAlone;
                }
            }
        }
    }

    /// Records until the outcome is known; a repetition is no conflict.
    async fn record(
        &self,
        mut row: MigrationRow,
        expected: Position,
    ) -> Result<MigrationRow, JournalError> {
        row.hlc = self.stamp(row.hlc);
        let mut failures = 0;
        loop {
            let call = self.journal.record(row.clone(), Some(expected), row.term);
            match timeout(self.config.call_timeout, call).await {
                Ok(Ok(())) => {
                    tracing::debug!(id = %row.id, position = %row.position(), "recorded");
                    return Ok(row);
                }
                Ok(Err(JournalError::Unavailable)) | Err(_) => {}
                Ok(Err(error)) => return Err(error),
            }
            failures += 1;
            sleep(self.backoff(failures)).await;
        }
    }

    async fn observe(&self, machine: &mut Machine, delay: Delay) {
        match delay {
            Delay::None => {}
            Delay::Poll => sleep(jittered(self.config.poll_interval)).await,
            Delay::Backoff { failures } => sleep(self.backoff(failures)).await,
        }
        match self.call(self.control.progress(machine.row().group)).await {
            Ok(progress) => {
                tracing::trace!(id = %machine.row().id, ?progress, "observed");
                machine.handle_progress(&progress);
            }
            Err(error) => {
                tracing::debug!(id = %machine.row().id, %error, "not observed");
                machine.handle_control_error(error);
            }
        }
    }

    async fn perform(&self, machine: &mut Machine, effect: Effect, fence: Fence) {
        let (id, group) = (machine.row().id, machine.row().group);
        if buggify!("migration waits between checkpoint and effect") {
            sleep(self.backoff(1)).await;
        }
        tracing::debug!(%id, ?effect, "performing");
        let control = &self.control;
        let done = match effect {
            Effect::AddLearner { replica, node } => {
                let call = control.add_learner(fence, group, replica, node);
                self.call(call).await.map(|()| Done::Plain)
            }
            Effect::ChangeVoters(change) => {
                self.call(control.change_voters(fence, group, change)).await.map(|()| Done::Plain)
            }
            Effect::TransferLeader { to } => {
                let call = control.transfer_leader(fence, group, to);
                self.call(call).await.map(Done::Transferred)
            }
            Effect::Remove { replica } => {
                self.call(control.remove(fence, group, replica)).await.map(Done::Removed)
            }
        };
        match done {
            Ok(done) => machine.handle_effect(done),
            Err(error) => {
                tracing::debug!(%id, ?effect, %error, "failed");
                machine.handle_control_error(error);
            }
        }
    }

    async fn finish(&self, row: &MigrationRow, outcome: Outcome) -> End {
        let mut failures = 0;
        loop {
            match timeout(self.config.call_timeout, self.journal.finish(row.id)).await {
                Ok(Ok(())) => break,
                Ok(Err(JournalError::NotAuthority | JournalError::Failed)) => {
                    return End::StandDown;
                }
                Ok(Err(_)) | Err(_) => {
                    failures += 1;
                    sleep(self.backoff(failures)).await;
                }
            }
        }
        let pause_longest = Duration::from_micros(row.pause.longest_micros);
        tracing::info!(id = %row.id, ?outcome, ?pause_longest, "migration ended");
        let is_completed = matches!(outcome, Outcome::Completed { .. });
        End::Finished { is_completed, pause_longest }
    }

    /// A call that does not answer in time has an unknown outcome.
    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, ControlError>>,
    ) -> Result<T, ControlError> {
        timeout(self.config.call_timeout, call).await.unwrap_or(Err(ControlError::Unavailable))
    }

    fn publish(&self, machine: &Machine) {
        let running = Running {
            row: machine.row().clone(),
            failures: machine.failures(),
            is_stuck: machine.is_stuck(),
        };
        self.status.modify(|status| {
            let changed = status.running.get(&running.row.id) != Some(&running);
            status.running.insert(running.row.id, running);
            changed
        });
    }

    /// A timestamp above that of the row before, wherever that lies: a journal
    /// never waits for a clock.
    fn stamp(&self, before: Hlc) -> Hlc {
        HlcClock::after(self.config.node, before).tick(self.config.clock.wall_millis())
    }

    fn backoff(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        let delay = self.config.backoff_min.saturating_mul(1 << doublings);
        jittered(delay.min(self.config.backoff_max))
    }
}

/// Between half of `delay` and all of it, so that many that failed together do
/// not try again together.
fn jittered(delay: Duration) -> Duration {
    let half = delay / 2;
    let spread_micros = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
    half + Duration::from_micros(runtime::random() % spread_micros)
}
