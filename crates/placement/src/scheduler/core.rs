//! The scheduler without its surroundings: time, authority, views and answers
//! come in; actions go out.
//!
//! Kept here: no group has two operators, whatever the policy plans; nothing
//! goes out without authority or while paused; a refusal delays its own group
//! and nothing else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use quorate_types::ShardId;
use quorate_types::env::{Rng, SplitMix};

use super::{Authority, SchedulerConfig, SchedulerStatus};
use crate::error::{PlacementError, Refused};
use crate::history::{History, InFlight, OperatorId};
use crate::operator::{Group, Operator, Plan, Proposal};
use crate::policy::PlacementPolicy;
use crate::safety;
use crate::view::ClusterView;

/// What the driver is to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Propose this; answer with [`SchedulerCore::handle_proposed`].
    Propose(Authority, Proposal),
    /// Cancel this; answer with [`SchedulerCore::handle_cancelled`].
    Cancel(Authority, OperatorId),
}

/// An accepted operator, until it has ended.
#[derive(Debug)]
struct Accepted {
    operator: Operator,
    at: Duration,
    seen: bool,
}

/// How long a group rests after its next refusal.
#[derive(Debug)]
struct Backoff {
    next: Duration,
    last: Duration,
}

/// See the module's description.
pub struct SchedulerCore {
    config: SchedulerConfig,
    policy: Arc<dyn PlacementPolicy>,
    rng: SplitMix,
    authority: Option<Authority>,
    paused: bool,
    next_look: Duration,
    queue: VecDeque<Action>,
    accepted: BTreeMap<OperatorId, Accepted>,
    ended: BTreeMap<Group, Operator>,
    backoffs: BTreeMap<Group, Backoff>,
    shards: Option<BTreeSet<ShardId>>,
    history: History,
    status: SchedulerStatus,
}

impl SchedulerCore {
    /// A scheduler that looks as soon as it has authority. Its jitter follows
    /// from `seed`.
    ///
    /// # Errors
    /// When the configuration contradicts itself.
    pub fn new(
        policy: Arc<dyn PlacementPolicy>,
        config: SchedulerConfig,
        seed: u64,
    ) -> Result<Self, PlacementError> {
        config.validate()?;
        Ok(Self {
            config,
            policy,
            rng: SplitMix::new(seed),
            authority: None,
            paused: false,
            next_look: Duration::ZERO,
            queue: VecDeque::new(),
            accepted: BTreeMap::new(),
            ended: BTreeMap::new(),
            backoffs: BTreeMap::new(),
            shards: None,
            history: History::default(),
            status: SchedulerStatus::default(),
        })
    }

    /// Takes note of the authority this node has now. Losing it, or getting
    /// it in another term, drops everything that was about to be proposed.
    pub fn handle_authority(&mut self, authority: Option<Authority>) {
        if self.authority == authority {
            return;
        }
        self.authority = authority;
        self.queue.clear();
        // What another leader did since is not known; its operators will be
        // in the proposer's list.
        self.accepted.clear();
        self.ended.clear();
        self.next_look = Duration::ZERO;
        self.status = SchedulerStatus {
            authority,
            in_flight: 0,
            blocked: Vec::new(),
            drained: Vec::new(),
            merges: Vec::new(),
            ..std::mem::take(&mut self.status)
        };
    }

    /// Stops or resumes acting. Operators in flight go on.
    pub fn handle_pause(&mut self, paused: bool) {
        self.paused = paused;
        self.status.paused = paused;
        if paused {
            self.queue.clear();
        }
    }

    /// Makes the next look due now.
    pub fn handle_kick(&mut self) {
        self.next_look = Duration::ZERO;
    }

    /// Whether the driver should fetch a view and hand it to
    /// [`handle_look`](Self::handle_look).
    #[must_use]
    pub fn is_look_due(&self, now: Duration) -> bool {
        self.authority.is_some() && !self.paused && self.queue.is_empty() && now >= self.next_look
    }

    /// When to call again at the latest.
    #[must_use]
    pub fn wake_at(&self, now: Duration) -> Duration {
        let regular = now.saturating_add(self.config.interval);
        if self.authority.is_some() && !self.paused {
            self.next_look.max(now).min(regular)
        } else {
            regular
        }
    }

    /// Plans from what was seen, or notes that nothing could be seen.
    pub fn handle_look(
        &mut self,
        now: Duration,
        look: Result<(ClusterView, Vec<InFlight>), PlacementError>,
    ) {
        self.schedule_look(now);
        let (Some(authority), false) = (self.authority, self.paused) else { return };
        self.history.advance(now);
        self.history.forget(self.config.history_age);
        let (view, listed) = match look {
            Ok(seen) => seen,
            Err(error) => {
                tracing::debug!(%error, "could not look at the cluster");
                self.status.looks_failed += 1;
                return;
            }
        };
        self.notice_children(&view);
        let in_flight = self.in_flight(now, &view, listed);
        let plan = self.policy.plan(&view, &in_flight, &self.history);
        self.history.set_balancing(plan.balancing);
        self.queue = self.select(now, authority, &in_flight, &plan);
        self.note(&in_flight, plan);
    }

    /// The next action, unless the right to act is gone.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.queue.pop_front()
    }

    /// Takes the answer to a proposal made under `authority`. Every refusal
    /// is benign.
    pub fn handle_proposed(
        &mut self,
        now: Duration,
        authority: Authority,
        proposal: &Proposal,
        answer: Result<OperatorId, Refused>,
    ) {
        self.history.advance(now);
        match answer {
            Ok(id) => {
                tracing::info!(%id, operator = %proposal.operator, reason = %proposal.reason, "accepted");
                self.status.accepted += 1;
                self.history.record(&proposal.operator);
                if self.authority == Some(authority) {
                    let operator = proposal.operator.clone();
                    self.accepted.insert(id, Accepted { operator, at: now, seen: false });
                }
            }
            Err(refused) => {
                tracing::debug!(operator = %proposal.operator, %refused, "refused");
                self.status.refused += 1;
                let least = match refused {
                    // It may be in flight: give the list time to show it.
                    Refused::Unknown => self.config.unseen_grace,
                    _ => Duration::ZERO,
                };
                proposal.operator.groups().for_each(|group| self.back_off(now, group, least));
                if refused == Refused::NotLeader {
                    self.queue.clear();
                }
            }
        }
    }

    /// Takes the answer to a cancellation. A refused one is asked for again
    /// as long as the policy wants it.
    pub fn handle_cancelled(&mut self, id: OperatorId, answer: Result<(), Refused>) {
        match answer {
            Ok(()) => self.status.cancelled += 1,
            Err(refused) => tracing::debug!(%id, %refused, "cancellation refused"),
        }
    }

    /// What the scheduler tells about itself.
    #[must_use]
    pub fn status(&self) -> &SchedulerStatus {
        &self.status
    }

    /// What happened lately.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// A shard that was not there at the last look came out of a split; its
    /// measurements are not its own yet.
    fn notice_children(&mut self, view: &ClusterView) {
        let shards: BTreeSet<ShardId> = view.shards.iter().map(|shard| shard.id).collect();
        if let Some(known) = self.shards.replace(shards.clone()) {
            shards.difference(&known).for_each(|child| self.history.record_child(*child));
        }
    }

    fn schedule_look(&mut self, now: Duration) {
        let jitter_nanos = u64::try_from(self.config.jitter_max.as_nanos()).unwrap_or(u64::MAX);
        let jitter = Duration::from_nanos(self.rng.below(jitter_nanos.saturating_add(1)));
        self.next_look = now.saturating_add(self.config.interval).saturating_add(jitter);
    }

    /// The proposer's list, and what was accepted but is not listed yet. What
    /// began and ended between two looks is never listed, but is seen to be
    /// done.
    fn in_flight(
        &mut self,
        now: Duration,
        view: &ClusterView,
        listed: Vec<InFlight>,
    ) -> Vec<InFlight> {
        let ids: BTreeSet<OperatorId> = listed.iter().map(|operator| operator.id).collect();
        let grace = self.config.unseen_grace;
        let mut ended = Vec::new();
        self.accepted.retain(|id, accepted| {
            accepted.seen |= ids.contains(id);
            let is_yet_to_come = !accepted.seen
                && now.saturating_sub(accepted.at) < grace
                && !safety::is_done(view, &accepted.operator);
            let alive = ids.contains(id) || is_yet_to_come;
            if !alive {
                ended.push(accepted.operator.clone());
            }
            alive
        });
        self.ended = ended.into_iter().map(|operator| (operator.group(), operator)).collect();
        let unlisted = self.accepted.iter().filter(|(id, _)| !ids.contains(id));
        let unlisted = unlisted
            .map(|(id, accepted)| InFlight { id: *id, operator: accepted.operator.clone() });
        let mut in_flight = listed;
        in_flight.extend(unlisted);
        in_flight
    }

    /// The plan's actions, less what must not be proposed whoever planned it:
    /// operators nobody executes, for groups that are busy or resting, or that
    /// just ended and left everything as it was.
    fn select(
        &mut self,
        now: Duration,
        authority: Authority,
        in_flight: &[InFlight],
        plan: &Plan,
    ) -> VecDeque<Action> {
        let mut busy: BTreeSet<Group> =
            in_flight.iter().flat_map(|other| other.operator.groups()).collect();
        let mut actions: VecDeque<Action> =
            plan.cancels.iter().map(|id| Action::Cancel(authority, *id)).collect();
        let room = usize::try_from(self.config.proposals_per_look_max).unwrap_or(usize::MAX);
        let mut proposed = 0;
        for proposal in &plan.operators {
            let operator = &proposal.operator;
            let blocked = operator
                .groups()
                .any(|group| busy.contains(&group) || self.history.is_resting(group));
            if blocked || !operator.is_executed() || proposed >= room {
                continue;
            }
            if self.ended.get(&operator.group()) == Some(operator) {
                self.back_off(now, operator.group(), Duration::ZERO);
                continue;
            }
            busy.extend(operator.groups());
            actions.push_back(Action::Propose(authority, proposal.clone()));
            proposed += 1;
        }
        actions
    }

    /// Lets a group rest, twice as long as the last time if that was lately.
    fn back_off(&mut self, now: Duration, group: Group, least: Duration) {
        let (min, max) = (self.config.backoff_min, self.config.backoff_max);
        let calm = max.saturating_mul(2);
        self.backoffs.retain(|_, backoff| now.saturating_sub(backoff.last) < calm);
        let backoff = self.backoffs.entry(group).or_insert(Backoff { next: min, last: now });
        let rest = backoff.next.max(least);
        backoff.next = backoff.next.saturating_mul(2).min(max);
        backoff.last = now;
        self.history.rest(group, now.saturating_add(rest));
    }

    fn note(&mut self, in_flight: &[InFlight], plan: Plan) {
        self.status.looks += 1;
        self.status.in_flight = u64::try_from(in_flight.len()).unwrap_or(u64::MAX);
        self.status.blocked = plan.blocked;
        self.status.drained = plan.drained;
        self.status.merges = plan.merges;
    }
}
