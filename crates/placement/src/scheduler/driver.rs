//! The thin task around the core: it asks the ports and passes the answers on.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use quorate_types::{runtime, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{
    Action, Authority, ClusterSource, Proposer, SchedulerConfig, SchedulerCore, SchedulerStatus,
};
use crate::error::{PlacementError, Refused};
use crate::history::InFlight;
use crate::operator::Proposal;
use crate::policy::PlacementPolicy;
use crate::view::ClusterView;

/// What the handle asks of the task.
#[derive(Debug, Clone, Copy, Default)]
struct Wishes {
    stopped: bool,
    paused: bool,
    kicks: u64,
}

/// Starts schedulers.
#[derive(Debug)]
pub struct Scheduler;

impl Scheduler {
    /// Starts a scheduler on the current runtime. It acts only while `source`
    /// says that this node has authority; dropping the handle stops it.
    ///
    /// # Errors
    /// When the configuration contradicts itself.
    pub fn spawn(
        source: Arc<dyn ClusterSource>,
        proposer: Arc<dyn Proposer>,
        policy: Arc<dyn PlacementPolicy>,
        config: SchedulerConfig,
    ) -> Result<SchedulerHandle, PlacementError> {
        let timeout = config.call_timeout;
        let core = SchedulerCore::new(policy, config, runtime::random())?;
        let (wishes, wishes_seen) = watch::channel(Wishes::default());
        let (status, status_seen) = watch::channel(SchedulerStatus::default());
        let driver = Driver {
            core,
            source,
            proposer,
            wishes: wishes_seen,
            kicks: 0,
            status,
            started: Instant::now(),
            timeout,
        };
        let task = runtime::spawn(driver.run());
        Ok(SchedulerHandle { wishes, status: status_seen, task })
    }
}

/// Steers a running scheduler. Dropping it stops the scheduler too.
pub struct SchedulerHandle {
    wishes: watch::Sender<Wishes>,
    status: watch::Receiver<SchedulerStatus>,
    task: JoinHandle<()>,
}

impl SchedulerHandle {
    /// Stops the scheduler and waits until it has ended. Operators in flight
    /// go on; a proposal under way may or may not be accepted.
    pub async fn stop(self) {
        self.wish(|wishes| wishes.stopped = true);
        drop(self.task.await);
    }

    /// Stops proposing until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.wish(|wishes| wishes.paused = true);
    }

    /// Proposes again.
    pub fn resume(&self) {
        self.wish(|wishes| wishes.paused = false);
    }

    /// Looks at the cluster now instead of at the next interval.
    pub fn kick(&self) {
        self.wish(|wishes| wishes.kicks += 1);
    }

    /// What the scheduler tells about itself, as it changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<SchedulerStatus> {
        self.status.clone()
    }

    fn wish(&self, change: impl FnOnce(&mut Wishes)) {
        self.wishes.modify(|wishes| {
            change(wishes);
            true
        });
    }
}

struct Driver {
    core: SchedulerCore,
    source: Arc<dyn ClusterSource>,
    proposer: Arc<dyn Proposer>,
    wishes: watch::Receiver<Wishes>,
    kicks: u64,
    status: watch::Sender<SchedulerStatus>,
    started: Instant,
    timeout: Duration,
}

/// The scheduler is to end.
struct Stopped;

impl Driver {
    async fn run(mut self) {
        while self.turn().await.is_ok() {}
    }

    /// Looks if a look is due, acts, and sleeps until there is a reason not to.
    async fn turn(&mut self) -> Result<(), Stopped> {
        self.refresh()?;
        if self.core.is_look_due(self.now()) {
            let look = self.look().await?;
            self.refresh()?;
            self.core.handle_look(self.now(), look);
        }
        while let Some(action) = self.next_action()? {
            self.act(action).await?;
        }
        self.publish();
        let wake_at = self.started + self.core.wake_at(self.now());
        tokio::select! {
            biased;
            changed = self.wishes.changed() => changed.map_err(|_| Stopped),
            () = tokio::time::sleep_until(wake_at) => Ok(()),
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Passes authority and wishes on to the core.
    fn refresh(&mut self) -> Result<(), Stopped> {
        let wishes = self.wishes.get();
        if wishes.stopped {
            return Err(Stopped);
        }
        if wishes.paused != self.core.status().paused {
            self.core.handle_pause(wishes.paused);
        }
        if wishes.kicks != self.kicks {
            self.kicks = wishes.kicks;
            self.core.handle_kick();
        }
        self.core.handle_authority(self.source.authority());
        Ok(())
    }

    /// The next action under the authority of this very moment.
    fn next_action(&mut self) -> Result<Option<Action>, Stopped> {
        self.refresh()?;
        Ok(self.core.poll_action())
    }

    async fn look(
        &mut self,
    ) -> Result<Result<(ClusterView, Vec<InFlight>), PlacementError>, Stopped> {
        let (view, operators) = (self.source.view(), self.proposer.operators());
        let look = async {
            // The list first: what ends in between shows in the view, and
            // what begins in between is refused by its preconditions.
            let operators = operators.await?;
            Ok((view.await?, operators))
        };
        let late = || Err(PlacementError::ViewUnavailable("the call timed out".into()));
        self.within(look, late).await
    }

    async fn act(&mut self, action: Action) -> Result<(), Stopped> {
        match action {
            Action::Propose(authority, proposal) => self.propose(authority, proposal).await,
            Action::Cancel(authority, id) => {
                let call = self.proposer.cancel(authority, id);
                let answer = self.within(call, || Err(Refused::Unknown)).await?;
                self.core.handle_cancelled(id, answer);
                Ok(())
            }
        }
    }

    async fn propose(&mut self, authority: Authority, proposal: Proposal) -> Result<(), Stopped> {
        let call = self.proposer.propose(authority, proposal.clone());
        let answer = self.within(call, || Err(Refused::Unknown)).await?;
        self.core.handle_proposed(self.now(), authority, &proposal, answer);
        Ok(())
    }

    /// Awaits a call until it answers, its time is up, or the scheduler ends.
    async fn within<T>(
        &mut self,
        call: impl Future<Output = T>,
        late: impl FnOnce() -> T,
    ) -> Result<T, Stopped> {
        let mut wishes = self.wishes.clone();
        tokio::select! {
            biased;
            // Told to stop, or nobody is left who could tell.
            _ = wishes.wait_for(|wishes| wishes.stopped) => Err(Stopped),
            answer = tokio::time::timeout(self.timeout, call) => {
                Ok(answer.unwrap_or_else(|_| late()))
            }
        }
    }

    fn publish(&self) {
        let status = self.core.status();
        self.status.modify(|published| {
            let changed = published != status;
            if changed {
                published.clone_from(status);
            }
            changed
        });
    }
}
