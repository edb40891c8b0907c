//! The scheduler's numbers, and what it tells about itself.

use std::time::Duration;

use super::Authority;
use crate::error::PlacementError;
use crate::operator::{Blocked, Proposal};
use quorate_types::NodeId;

/// The scheduler's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Time between two looks at the cluster.
    pub interval: Duration,
    /// Up to this much is added to each interval by chance, so that loops
    /// which started together do not stay together.
    pub jitter_max: Duration,
    /// How long one call of a port may take. After it, a proposal's outcome
    /// is unknown.
    pub call_timeout: Duration,
    /// How long a group rests after its first refusal in a row.
    pub backoff_min: Duration,
    /// How long it rests at most; the rest doubles up to here.
    pub backoff_max: Duration,
    /// How long an accepted operator counts as in flight before it was first
    /// seen there: the proposer's answer may overtake its own list.
    pub unseen_grace: Duration,
    /// How long the past is remembered. At least the policy's longest window,
    /// or reverse moves and merges come early.
    pub history_age: Duration,
    /// The most operators proposed after one look; what is left over is
    /// planned again.
    pub proposals_per_look_max: u32,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            jitter_max: Duration::from_secs(2),
            call_timeout: Duration::from_secs(5),
            backoff_min: Duration::from_secs(5),
            backoff_max: Duration::from_secs(300),
            unseen_grace: Duration::from_secs(30),
            history_age: Duration::from_secs(3_600),
            proposals_per_look_max: 128,
        }
    }
}

impl SchedulerConfig {
    /// Checks that the numbers agree with each other.
    ///
    /// # Errors
    /// [`PlacementError::InvalidConfig`] naming the rule that is broken.
    pub fn validate(&self) -> Result<(), PlacementError> {
        let rules = [
            (!self.interval.is_zero(), "interval must not be zero"),
            (!self.call_timeout.is_zero(), "call_timeout must not be zero"),
            (
                !self.backoff_min.is_zero() && self.backoff_min <= self.backoff_max,
                "0 < backoff_min <= backoff_max",
            ),
            (self.proposals_per_look_max > 0, "proposals_per_look_max must not be zero"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(PlacementError::InvalidConfig(rule)),
            None => Ok(()),
        }
    }
}

/// What the scheduler tells about itself. Counters start at zero with the
/// scheduler and only rise; the rest describes the last look.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SchedulerStatus {
    /// The authority under which it acts, if it does.
    pub authority: Option<Authority>,
    /// Whether it was told to pause.
    pub paused: bool,
    /// Looks that led to a plan.
    pub looks: u64,
    /// Looks that failed because a port did.
    pub looks_failed: u64,
    /// Operators that were accepted.
    pub accepted: u64,
    /// Operators that were refused.
    pub refused: u64,
    /// Cancellations that were accepted.
    pub cancelled: u64,
    /// Operators in flight.
    pub in_flight: u64,
    /// Repairs that are needed and impossible.
    pub blocked: Vec<Blocked>,
    /// Draining nodes that hold nothing any more.
    pub drained: Vec<NodeId>,
    /// Merges that would be worth while; advice.
    pub merges: Vec<Proposal>,
}
