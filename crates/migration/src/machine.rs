//! The migration machine: given a row and what is observed of its group, the
//! next thing to do. No I/O, no clock, no chance; patience is counted in
//! observations.
//!
//! The machine asks for one thing at a time ([`Machine::poll_step`]) and is
//! told how it went (`handle_*`). Three rules carry all its safety:
//!
//! 1. A phase is recorded before its effect. Whoever finds the row does the
//!    phase again, and every effect tolerates that.
//! 2. Every decision rests on an observation made after the latest effect and
//!    the latest record. What an effect returned proves nothing about now.
//! 3. Turning back begins a new attempt, and effects carry the attempt
//!    ([`crate::Fence`]). A delayed effect of the way out cannot land after
//!    its compensation.

use std::time::Duration;

use quorate_types::membership::{Fence, VoterChange};
use quorate_types::{NodeId, ReplicaId, planted, sometimes};

use crate::ports::{ControlError, Progress, Removal};
use crate::row::{
    AbortReason, Checkpoint, MigrationRow, Outcome, Phase, Position, Promotion, Refusal,
};

/// Consecutive observations in which the target must keep up before it counts
/// as caught up: one alone may catch a lull in the writes.
pub const CAUGHT_UP_OBSERVATIONS: u32 = 2;

/// The machine's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How many entries the target may lack and count as keeping up. Small
    /// enough that promotion does not slow commits down, large enough that
    /// the entries in flight of a busy group do not hide the catch-up.
    pub lag_entries_max: u64,
    /// How many entries a voter may lack to be handed the leadership: what it
    /// lacks it must fetch while the group takes no writes.
    pub transfer_lag_entries_max: u64,
    /// Failures within one phase before a move is given up, or, where it no
    /// longer can be, reported as stuck.
    pub failures_max: u32,
    /// Observations without any growth of the target's log before catching up
    /// is given up. A snapshot arrives without growth: allow for the largest.
    pub stalled_observations_max: u32,
    /// Observations of a target that keeps growing but never catches up.
    pub catch_up_observations_max: u32,
    /// How often an unreachable node is asked to destroy its replica before
    /// the migration ends without that.
    pub destroy_attempts_max: u32,
    /// Attempts of one migration, across all coordinators, so that a move that
    /// brings its coordinators down does not do so for ever.
    pub attempts_max: u32,
    /// The longest time that a leadership transfer should keep a group from
    /// taking writes. It is kept by the choice of the successor; what exceeds
    /// it all the same is logged and counted.
    pub pause_budget: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            lag_entries_max: 64,
            transfer_lag_entries_max: 16,
            failures_max: 20,
            stalled_observations_max: 3_000,
            catch_up_observations_max: 100_000,
            destroy_attempts_max: 10,
            attempts_max: 16,
            pause_budget: Duration::from_millis(50),
        }
    }
}

/// What the driver has to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make this row durable: [`crate::Journal::record`]. Answered by
    /// [`Machine::handle_recorded`] or [`Machine::handle_conflict`]; where the
    /// outcome is unknown, record it again.
    Record {
        /// The row; its `hlc` is still that of the row before.
        row: Box<MigrationRow>,
        /// What must be stored now.
        expected: Position,
    },
    /// Wait, then ask for the group's [`Progress`]. Answered by
    /// [`Machine::handle_progress`] or [`Machine::handle_control_error`].
    Observe(Delay),
    /// Perform the effect under the fence. Answered by
    /// [`Machine::handle_effect`] or [`Machine::handle_control_error`].
    Perform(Effect, Fence),
    /// The migration is over; its row may go.
    Finished(Outcome),
    /// Somebody else coordinates this migration. Do nothing more.
    Superseded,
}

/// How long to wait before an observation, in the machine's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delay {
    /// Not at all.
    None,
    /// The interval at which a catching-up target is measured.
    Poll,
    /// Longer with each failure.
    Backoff {
        /// Failures so far, at least one.
        failures: u32,
    },
}

/// A change to a group. Each is a call of [`crate::ReplicaControl`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// [`crate::ReplicaControl::add_learner`].
    AddLearner {
        /// The learner.
        replica: ReplicaId,
        /// Where it is created.
        node: NodeId,
    },
    /// [`crate::ReplicaControl::change_voters`].
    ChangeVoters(VoterChange),
    /// [`crate::ReplicaControl::transfer_leader`].
    TransferLeader {
        /// The next leader.
        to: ReplicaId,
    },
    /// [`crate::ReplicaControl::remove`].
    Remove {
        /// The replica that goes for good.
        replica: ReplicaId,
    },
}

/// What an effect returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// It is done.
    Plain,
    /// Leadership moved; the group took no writes for so long.
    Transferred(Duration),
    /// The replica is out.
    Removed(Removal),
}

/// How well the target has been keeping up.
#[derive(Debug, Clone, Copy, Default)]
struct CatchUpMeter {
    observations: u32,
    keeping_up: u32,
    stalled: u32,
    matched_best: u64,
}

/// One migration under one coordinator.
#[derive(Debug)]
pub struct Machine {
    row: MigrationRow,
    term: u64,
    policy: Policy,
    next: Step,
    failures: u32,
    meter: CatchUpMeter,
    last_effect: Option<Effect>,
    removal: Option<Removal>,
    unreachable: u32,
    is_cancelled: bool,
}

impl Machine {
    /// Takes a stored row over as the coordinator of `term`.
    #[must_use]
    pub fn new(row: MigrationRow, term: u64, policy: Policy) -> Self {
        let mut machine = Self {
            row,
            term,
            policy,
            next: Step::Superseded,
            failures: 0,
            meter: CatchUpMeter::default(),
            last_effect: None,
            removal: None,
            unreachable: 0,
            is_cancelled: false,
        };
        machine.next = machine.begin();
        machine
    }

    /// What to do now. Stays the same until it is answered.
    #[must_use]
    pub fn poll_step(&self) -> Step {
        self.next.clone()
    }

    /// The row as last recorded, with the pauses measured since.
    #[must_use]
    pub const fn row(&self) -> &MigrationRow {
        &self.row
    }

    /// Failures since the migration last moved on.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether the migration can only go on and cannot: an operator should look.
    #[must_use]
    pub const fn is_stuck(&self) -> bool {
        self.failures > self.policy.failures_max
    }

    /// Gives the move up at the next decision, if it then still can be.
    pub const fn handle_cancel(&mut self) {
        self.is_cancelled = true;
    }

    /// The row asked for by [`Step::Record`] is durable.
    pub fn handle_recorded(&mut self, row: MigrationRow) {
        self.row = row;
        self.failures = 0;
        self.meter = CatchUpMeter::default();
        self.last_effect = None;
        self.removal = None;
        self.unreachable = 0;
        self.next = self.row.outcome().map_or(Step::Observe(Delay::None), Step::Finished);
    }

    /// The journal holds another row than expected. Only this machine writes
    /// rows of its term, so another coordinator has taken over.
    pub fn handle_conflict(&mut self) {
        self.next = Step::Superseded;
    }

    /// The group was observed.
    pub fn handle_progress(&mut self, progress: &Progress) {
        self.next = self.decide(progress);
    }

    /// The effect asked for by [`Step::Perform`] returned. Whether it holds is
    /// for the next observation to say.
    pub fn handle_effect(&mut self, done: Done) {
        self.next = Step::Observe(Delay::None);
        match done {
            Done::Plain => {}
            Done::Transferred(pause) => self.row.pause.add(pause),
            Done::Removed(Removal::Destroyed) => self.removal = Some(Removal::Destroyed),
            Done::Removed(Removal::NodeUnreachable) => {
                self.unreachable += 1;
                if self.unreachable >= self.policy.destroy_attempts_max {
                    self.removal = Some(Removal::NodeUnreachable);
                } else {
                    self.last_effect = None;
                    self.next = Step::Observe(Delay::Backoff { failures: self.unreachable });
                }
            }
        }
    }

    /// An observation or an effect failed.
    pub fn handle_control_error(&mut self, error: ControlError) {
        self.last_effect = None;
        self.next = match error {
            ControlError::Unavailable => self.fail(AbortReason::GroupUnavailable),
            ControlError::Refused(Refusal::Fenced) => Step::Superseded,
            ControlError::Refused(refusal) if self.row.phase().is_abortable() => {
                self.abort(AbortReason::Refused(refusal))
            }
            ControlError::Refused(Refusal::GroupGone) => match self.row.checkpoint {
                // Without a group there is no membership left to restore.
                Checkpoint::Aborting { reason } => {
                    self.record(Checkpoint::Aborted { reason, target_destroyed: false })
                }
                _ => self.fail(AbortReason::Refused(Refusal::GroupGone)),
            },
            ControlError::Refused(refusal) => self.fail(AbortReason::Refused(refusal)),
        };
    }

    /// A row from an earlier term is claimed under a new attempt before
    /// anything else: from then on the earlier coordinator can neither record
    /// nor, where its fence has been seen, act.
    fn begin(&mut self) -> Step {
        if let Some(outcome) = self.row.outcome() {
            return Step::Finished(outcome);
        }
        if self.row.term > self.term {
            return Step::Superseded;
        }
        if self.row.term == self.term {
            return Step::Observe(Delay::None);
        }
        note_takeover(self.row.phase());
        if self.row.phase().is_abortable() && self.row.attempt >= self.policy.attempts_max {
            return self.abort(AbortReason::AttemptsExhausted);
        }
        self.record_attempt(self.row.checkpoint)
    }

    fn decide(&mut self, group: &Progress) -> Step {
        if self.is_cancelled && self.row.phase().is_abortable() {
            return self.abort(AbortReason::Cancelled);
        }
        if group.leader.is_none() {
            return self.fail(AbortReason::GroupUnavailable);
        }
        match self.row.checkpoint {
            Checkpoint::AddLearner => self.decide_add_learner(group),
            Checkpoint::CatchUp => self.decide_catch_up(group),
            Checkpoint::PromoteLearner { promotion, .. } => self.decide_promote(group, promotion),
            Checkpoint::LeadershipTransfer => self.decide_transfer(group),
            Checkpoint::Cutover => self.decide_cutover(group),
            Checkpoint::Aborting { reason } => self.decide_undo(group, reason),
            Checkpoint::Complete { .. } | Checkpoint::Aborted { .. } => self.begin(),
        }
    }

    fn decide_add_learner(&mut self, group: &Progress) -> Step {
        if !group.is_settled() {
            return self.fail(AbortReason::GroupUnavailable);
        }
        if !group.is_voter(self.row.from.replica) {
            return self.abort(AbortReason::SourceNotVoter);
        }
        if group.is_member(self.row.to.replica) {
            return self.record(Checkpoint::CatchUp);
        }
        let (replica, node) = (self.row.to.replica, self.row.to.node);
        self.perform(Effect::AddLearner { replica, node }, AbortReason::GroupUnavailable)
    }

    fn decide_catch_up(&mut self, group: &Progress) -> Step {
        let (from, to) = (self.row.from.replica, self.row.to.replica);
        if !group.is_voter(from) {
            return self.abort(AbortReason::SourceNotVoter);
        }
        if !group.is_member(to) {
            return self.start_again();
        }
        let Some(target) = group.replicas.get(&to).filter(|target| target.is_fresh) else {
            self.meter.keeping_up = 0;
            return self.fail(AbortReason::TargetUnresponsive);
        };
        if !group.is_settled() {
            return self.fail(AbortReason::GroupUnavailable);
        }
        self.failures = 0;
        self.measure(group, target.matched);
        if self.meter.keeping_up >= CAUGHT_UP_OBSERVATIONS {
            let is_sole_voter = group.voters.len() == 1;
            let promotion =
                if is_sole_voter { Promotion::Additional } else { Promotion::AtCutover };
            let (matched, last_log) = (target.matched, group.last_log);
            return self.record(Checkpoint::PromoteLearner { promotion, matched, last_log });
        }
        if self.meter.stalled > self.policy.stalled_observations_max
            || self.meter.observations > self.policy.catch_up_observations_max
        {
            return self.abort(AbortReason::CatchUpExhausted);
        }
        Step::Observe(Delay::Poll)
    }

    fn measure(&mut self, group: &Progress, matched: u64) {
        let keeps_up = group.keeps_up(self.row.to.replica, self.policy.lag_entries_max);
        let meter = &mut self.meter;
        meter.observations += 1;
        meter.keeping_up = if keeps_up { meter.keeping_up + 1 } else { 0 };
        let has_grown = keeps_up || matched > meter.matched_best;
        meter.stalled = if has_grown { 0 } else { meter.stalled + 1 };
        meter.matched_best = meter.matched_best.max(matched);
    }

    fn decide_promote(&mut self, group: &Progress, promotion: Promotion) -> Step {
        let (from, to) = (self.row.from.replica, self.row.to.replica);
        if !group.is_voter(from) {
            return self.abort(AbortReason::SourceNotVoter);
        }
        if !group.is_member(to) {
            return self.start_again();
        }
        let is_voter = group.is_settled() && group.is_voter(to);
        if promotion == Promotion::AtCutover || is_voter {
            return self.record(Checkpoint::LeadershipTransfer);
        }
        // A voter that does not answer would take the only voter's quorum.
        if group.is_settled() && !group.keeps_up(to, self.policy.lag_entries_max) {
            return self.fail(AbortReason::TargetUnresponsive);
        }
        let change = VoterChange { add: Some(to), remove: None };
        self.perform(Effect::ChangeVoters(change), AbortReason::GroupUnavailable)
    }

    fn decide_transfer(&mut self, group: &Progress) -> Step {
        let (from, to) = (self.row.from.replica, self.row.to.replica);
        if !group.is_settled() {
            return self.fail(AbortReason::GroupUnavailable);
        }
        if !group.is_voter(from) {
            return self.abort(AbortReason::SourceNotVoter);
        }
        if !group.is_member(to) {
            return self.start_again();
        }
        // The last look at the target while turning back is still possible.
        if !group.keeps_up(to, self.policy.lag_entries_max) {
            return self.fail(AbortReason::TargetUnresponsive);
        }
        if group.leader == Some(from) {
            return self.move_leadership(group, from);
        }
        self.record(Checkpoint::Cutover)
    }

    /// From here only forward, until the target votes and the source is gone.
    fn decide_cutover(&mut self, group: &Progress) -> Step {
        let (from, to) = (self.row.from.replica, self.row.to.replica);
        if group.is_settled() && group.is_voter(to) && !group.is_voter(from) {
            return match self.removal {
                Some(removal) if !group.is_member(from) => {
                    let source_destroyed = removal == Removal::Destroyed;
                    self.record(Checkpoint::Complete { source_destroyed })
                }
                _ => self.perform(Effect::Remove { replica: from }, AbortReason::GroupUnavailable),
            };
        }
        // An election may have given the leadership back to the source.
        if group.leader == Some(from) {
            return self.move_leadership(group, from);
        }
        if group.is_settled() {
            if !group.is_member(to) {
                let (replica, node) = (to, self.row.to.node);
                let effect = Effect::AddLearner { replica, node };
                return self.perform(effect, AbortReason::GroupUnavailable);
            }
            if !self.may_change(group) {
                return self.fail(AbortReason::TargetUnresponsive);
            }
        }
        let change = VoterChange { add: Some(to), remove: Some(from) };
        self.perform(Effect::ChangeVoters(change), AbortReason::GroupUnavailable)
    }

    /// Whether the joint change may begin: the next voters hold a live
    /// majority, without which the group would be caught in the joint
    /// membership, and the target keeps up. A target that died after the
    /// cutover's checkpoint is waited for, then taken in as it is: forward is
    /// the only way, and placement replaces a dead voter like any other.
    fn may_change(&self, group: &Progress) -> bool {
        let (from, to) = (self.row.from.replica, self.row.to.replica);
        let is_live = |replica: &ReplicaId| group.keeps_up(*replica, u64::MAX);
        let staying = group.voters.iter().filter(|voter| **voter != from && **voter != to);
        let next_count = staying.clone().count() + 1;
        let live_count = staying.copied().chain([to]).filter(is_live).count();
        let is_patience_over = self.failures >= self.policy.failures_max;
        live_count * 2 > next_count
            && (is_patience_over || group.keeps_up(to, self.policy.lag_entries_max))
    }

    /// Undoes what the attempt before did, whatever of it is found.
    fn decide_undo(&mut self, group: &Progress, reason: AbortReason) -> Step {
        let to = self.row.to.replica;
        if planted!(MoveHalfAborted) {
            return self.record(Checkpoint::Aborted { reason, target_destroyed: false });
        }
        if group.is_voter(to) {
            if group.leader == Some(to) {
                return self.move_leadership(group, to);
            }
            let change = VoterChange { add: None, remove: Some(to) };
            return self.perform(Effect::ChangeVoters(change), reason);
        }
        match self.removal {
            Some(removal) if !group.is_member(to) => {
                let target_destroyed = removal == Removal::Destroyed;
                self.record(Checkpoint::Aborted { reason, target_destroyed })
            }
            // Also where no learner is found: the call fences off an
            // `add_learner` of the earlier attempt that is still on its way.
            _ => self.perform(Effect::Remove { replica: to }, reason),
        }
    }

    /// Moves the leadership away from `from`: to the target if it votes
    /// already, else to the most complete voter.
    fn move_leadership(&mut self, group: &Progress, from: ReplicaId) -> Step {
        let votes_throughout = |replica: &ReplicaId| {
            group.voters.contains(replica)
                && group.outgoing.as_ref().is_none_or(|voters| voters.contains(replica))
        };
        let candidate = group
            .replicas
            .iter()
            .filter(|(replica, _)| **replica != from && votes_throughout(replica))
            .filter(|(replica, _)| group.keeps_up(**replica, self.policy.transfer_lag_entries_max))
            .max_by_key(|(replica, progress)| {
                (**replica == self.row.to.replica, progress.matched, **replica)
            });
        sometimes!("a move finds nobody to lead", candidate.is_none());
        let Some((&to, _)) = candidate else {
            return self.fail(AbortReason::NoLeaderCandidate);
        };
        self.perform(Effect::TransferLeader { to }, AbortReason::NoLeaderCandidate)
    }

    /// An effect that returned and yet does not show is a failure: it is
    /// repeated only after a delay, and not for ever.
    fn perform(&mut self, effect: Effect, reason: AbortReason) -> Step {
        if self.last_effect.take() == Some(effect) {
            return self.fail(reason);
        }
        self.last_effect = Some(effect);
        let fence =
            Fence { migration: self.row.id, term: self.row.term, attempt: self.row.attempt };
        Step::Perform(effect, fence)
    }

    fn fail(&mut self, reason: AbortReason) -> Step {
        self.failures = self.failures.saturating_add(1);
        if !self.row.phase().is_abortable() {
            return Step::Observe(Delay::Backoff { failures: self.failures });
        }
        if self.is_cancelled {
            return self.abort(AbortReason::Cancelled);
        }
        if self.is_stuck() {
            return self.abort(reason);
        }
        Step::Observe(Delay::Backoff { failures: self.failures })
    }

    /// The learner is gone: begin with the first phase, under a new attempt.
    fn start_again(&self) -> Step {
        sometimes!("a move begins again");
        if self.row.attempt >= self.policy.attempts_max {
            return self.abort(AbortReason::AttemptsExhausted);
        }
        self.record_attempt(Checkpoint::AddLearner)
    }

    fn abort(&self, reason: AbortReason) -> Step {
        sometimes!("a move is given up");
        debug_assert!(self.row.phase().is_abortable(), "after the cutover only forward");
        self.record_attempt(Checkpoint::Aborting { reason })
    }

    fn record(&self, checkpoint: Checkpoint) -> Step {
        self.record_at(checkpoint, self.row.attempt)
    }

    fn record_attempt(&self, checkpoint: Checkpoint) -> Step {
        self.record_at(checkpoint, self.row.attempt.saturating_add(1))
    }

    fn record_at(&self, checkpoint: Checkpoint, attempt: u32) -> Step {
        let row = MigrationRow { checkpoint, attempt, term: self.term, ..self.row.clone() };
        debug_assert_eq!(row.follows(Some(&self.row)), Ok(crate::row::Change::Advanced));
        Step::Record { row: Box::new(row), expected: self.row.position() }
    }
}

/// In which phases coordinators were lost.
fn note_takeover(phase: Phase) {
    match phase {
        Phase::AddLearner => sometimes!("a coordinator is lost while adding a learner"),
        Phase::CatchUp => sometimes!("a coordinator is lost during catch-up"),
        Phase::PromoteLearner => sometimes!("a coordinator is lost before a promotion"),
        Phase::LeadershipTransfer => sometimes!("a coordinator is lost during a transfer"),
        Phase::Cutover => sometimes!("a coordinator is lost during a cutover"),
        Phase::Aborting => sometimes!("a coordinator is lost while undoing a move"),
        Phase::Complete | Phase::Aborted => {}
    }
}
