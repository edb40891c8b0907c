//! What is under way and what happened lately: the planner's only memory, and
//! it is handed in.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use quorate_types::{NodeId, ShardId};

use crate::operator::{Group, Operator};

/// Names an accepted operator until it has ended. Chosen by the proposer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct OperatorId(pub u128);

impl fmt::Display for OperatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "op{:x}", self.0)
    }
}

impl fmt::Debug for OperatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An operator that was accepted and has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlight {
    /// Its name.
    pub id: OperatorId,
    /// What it does.
    pub operator: Operator,
}

/// Which kinds of balancing are under way. Balancing begins at one threshold
/// and ends at a lower one, so the planner must be told where it is between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balancing {
    /// Replicas are being evened out.
    pub replicas: bool,
    /// Leaders are being evened out.
    pub leaders: bool,
}

/// The most past moves, and the most past splits, that are remembered. At the
/// default limits and windows a busy cluster stays well below it; past it the
/// oldest entry is forgotten, which can at worst allow one reverse move.
pub const PAST_ENTRIES_MAX: usize = 65_536;

/// What happened lately. All times are durations since one fixed moment, the
/// same for all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    now: Duration,
    balancing: Balancing,
    replicas_left: BTreeMap<(Group, NodeId), Duration>,
    leaders_left: BTreeMap<(Group, NodeId), Duration>,
    reshaped: BTreeMap<ShardId, Duration>,
    resting: BTreeMap<Group, Duration>,
}

impl History {
    /// Sets the present moment. Time never goes back.
    pub fn advance(&mut self, now: Duration) {
        self.now = self.now.max(now);
        let now = self.now;
        self.resting.retain(|_, until| *until > now);
    }

    /// Forgets what happened longer ago than `age`.
    pub fn forget(&mut self, age: Duration) {
        let oldest = self.now.saturating_sub(age);
        self.replicas_left.retain(|_, at| *at >= oldest);
        self.leaders_left.retain(|_, at| *at >= oldest);
        self.reshaped.retain(|_, at| *at >= oldest);
    }

    /// Notes that `operator` was accepted now.
    pub fn record(&mut self, operator: &Operator) {
        let now = self.now;
        match operator {
            Operator::MoveReplica { group, from, .. } => {
                remember(&mut self.replicas_left, (*group, *from), now);
            }
            Operator::TransferLeader { group, from, .. } => {
                remember(&mut self.leaders_left, (*group, *from), now);
            }
            Operator::Split { shard, .. } => remember(&mut self.reshaped, *shard, now),
            Operator::Merge { left, right } => {
                remember(&mut self.reshaped, *left, now);
                remember(&mut self.reshaped, *right, now);
            }
            Operator::AddReplica { .. } | Operator::RemoveReplica { .. } => {}
        }
    }

    /// Notes that `shard` came out of a split, so that it is not reshaped
    /// again before its measurements mean something.
    pub fn record_child(&mut self, shard: ShardId) {
        remember(&mut self.reshaped, shard, self.now);
    }

    /// Leaves `group` alone until `until`.
    pub fn rest(&mut self, group: Group, until: Duration) {
        remember(&mut self.resting, group, until);
    }

    /// Sets which kinds of balancing are under way, as the last plan said.
    pub fn set_balancing(&mut self, balancing: Balancing) {
        self.balancing = balancing;
    }

    /// The present moment.
    #[must_use]
    pub const fn now(&self) -> Duration {
        self.now
    }

    /// Which kinds of balancing are under way.
    #[must_use]
    pub const fn balancing(&self) -> Balancing {
        self.balancing
    }

    /// Whether `group` is to be left alone now.
    #[must_use]
    pub fn is_resting(&self, group: Group) -> bool {
        self.resting.get(&group).is_some_and(|until| *until > self.now)
    }

    /// Whether a replica of `group` left `node` within `window`.
    #[must_use]
    pub fn replica_left(&self, group: Group, node: NodeId, window: Duration) -> bool {
        self.replicas_left.get(&(group, node)).is_some_and(|at| self.within(*at, window))
    }

    /// Whether leadership of `group` left `node` within `window`.
    #[must_use]
    pub fn leader_left(&self, group: Group, node: NodeId, window: Duration) -> bool {
        self.leaders_left.get(&(group, node)).is_some_and(|at| self.within(*at, window))
    }

    /// Whether `shard` was split, merged or born within `window`.
    #[must_use]
    pub fn reshaped(&self, shard: ShardId, window: Duration) -> bool {
        self.reshaped.get(&shard).is_some_and(|at| self.within(*at, window))
    }

    fn within(&self, at: Duration, window: Duration) -> bool {
        self.now.saturating_sub(at) < window
    }
}

/// Inserts, and lets the oldest entry go when there are too many.
fn remember<K: Ord + Copy>(entries: &mut BTreeMap<K, Duration>, key: K, at: Duration) {
    entries.insert(key, at);
    if entries.len() > PAST_ENTRIES_MAX {
        let oldest = entries.iter().min_by_key(|(_, at)| **at).map(|(key, _)| *key);
        if let Some(oldest) = oldest {
            entries.remove(&oldest);
        }
    }
}
