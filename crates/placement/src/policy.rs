//! The numbers behind a plan, and the port through which users bring a
//! policy of their own.

use std::time::Duration;

use crate::error::PlacementError;
use crate::history::{History, InFlight};
use crate::operator::Plan;
use crate::view::{ClusterView, ShardView};

const MIB: u64 = 1 << 20;

/// Thousandths: what one point of cost is counted in.
pub(crate) const MILLI: u64 = 1_000;

/// Decides what to change next.
///
/// An implementation must be a function of its arguments: two metadata
/// leaders with the same knowledge plan the same. The `conformance` feature
/// holds the suite that it must pass.
pub trait PlacementPolicy: Send + Sync {
    /// What to do now.
    fn plan(&self, view: &ClusterView, in_flight: &[InFlight], history: &History) -> Plan;
}

/// The default policy: the tiers of [`Tier`](crate::Tier), in order.
#[derive(Debug, Clone, Default)]
pub struct LexicographicPolicy {
    policy: Policy,
}

impl LexicographicPolicy {
    /// A planner that follows `policy`.
    ///
    /// # Errors
    /// When the numbers contradict each other; see [`Policy::validate`].
    pub fn new(policy: Policy) -> Result<Self, PlacementError> {
        policy.validate()?;
        Ok(Self { policy })
    }
}

impl PlacementPolicy for LexicographicPolicy {
    fn plan(&self, view: &ClusterView, in_flight: &[InFlight], history: &History) -> Plan {
        crate::plan::plan(view, &self.policy, in_flight, history)
    }
}

/// The numbers that [`plan`](crate::plan()) follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How long a node may be dead before its replicas are replaced; long
    /// enough for a restart, because a restart is cheaper than a copy.
    pub dead_grace: Duration,
    /// Balancing begins when some node is this far from its share.
    pub enter_imbalance_percent: u32,
    /// Balancing ends when every node is within this of its share.
    pub leave_imbalance_percent: u32,
    /// Balancing never returns a replica, or a leader, to a node that it left
    /// within this time.
    pub reverse_window: Duration,
    /// What hosting a shard costs.
    pub cost: CostModel,
    /// When a disk is too full.
    pub disk: DiskPolicy,
    /// When a shard is cut.
    pub split: SplitPolicy,
    /// When neighbours would be joined.
    pub merge: MergePolicy,
    /// How much may happen at once.
    pub limits: Limits,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            dead_grace: Duration::from_secs(300),
            enter_imbalance_percent: 10,
            leave_imbalance_percent: 5,
            reverse_window: Duration::from_secs(1_800),
            cost: CostModel::default(),
            disk: DiskPolicy::default(),
            split: SplitPolicy::default(),
            merge: MergePolicy::default(),
            limits: Limits::default(),
        }
    }
}

impl Policy {
    /// Checks that the numbers agree with each other.
    ///
    /// # Errors
    /// [`PlacementError::InvalidPolicy`] naming the rule that is broken.
    pub fn validate(&self) -> Result<(), PlacementError> {
        let limits = &self.limits;
        let rules = [
            (
                self.leave_imbalance_percent < self.enter_imbalance_percent,
                "leave_imbalance_percent must be below enter_imbalance_percent",
            ),
            (
                self.disk.target_percent < self.disk.relieve_percent
                    && self.disk.relieve_percent <= self.disk.hard_percent
                    && self.disk.hard_percent <= 100,
                "disk: target < relieve <= hard <= 100",
            ),
            (
                self.merge.bytes_max.saturating_mul(2) <= self.split.bytes_max,
                "merge.bytes_max must be at most half of split.bytes_max, or a merged shard splits",
            ),
            (
                self.merge.load_ops_max.saturating_mul(2) <= self.split.load_ops_max,
                "merge.load_ops_max must be at most half of split.load_ops_max",
            ),
            (
                self.cost.ops_per_point > 0 && self.cost.bytes_per_point > 0,
                "cost: a point must be worth something",
            ),
            (
                limits.moves_total > 0
                    && limits.moves_per_source > 0
                    && limits.moves_per_destination > 0
                    && limits.leader_transfers_total > 0
                    && limits.leader_transfers_per_node > 0,
                "limits: a limit of zero would stop repairs",
            ),
            (
                limits.balance_moves_total <= limits.moves_total,
                "limits: balance_moves_total must not exceed moves_total",
            ),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(PlacementError::InvalidPolicy(rule)),
            None => Ok(()),
        }
    }
}

/// What hosting a replica costs its node, in points: one for being there, one
/// per so many operations, one per so many bytes. Fixed references rather
/// than the cluster's averages, so that one shard's cost does not change
/// because another shard's load did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CostModel {
    /// This many operations per second cost as much as one idle replica.
    pub ops_per_point: u64,
    /// This many bytes cost as much as one idle replica.
    pub bytes_per_point: u64,
}

impl Default for CostModel {
    fn default() -> Self {
        Self { ops_per_point: 1_000, bytes_per_point: 256 * MIB }
    }
}

impl CostModel {
    /// What a replica of `shard` costs, in thousandths of a point.
    #[must_use]
    pub fn replica_millis(&self, shard: &ShardView) -> u64 {
        self.leader_millis(shard).saturating_add(per(shard.bytes, self.bytes_per_point))
    }

    /// What leading `shard` costs, in thousandths of a point.
    #[must_use]
    pub fn leader_millis(&self, shard: &ShardView) -> u64 {
        MILLI.saturating_add(per(shard.load_ops, self.ops_per_point))
    }
}

/// The most that one shard may cost, so that sums over a whole cluster stay
/// far from the end of 64 bits.
const COST_MILLIS_MAX: u128 = 1 << 40;

fn per(amount: u64, unit: u64) -> u64 {
    let millis = u128::from(amount) * u128::from(MILLI) / u128::from(unit.max(1));
    u64::try_from(millis.min(COST_MILLIS_MAX)).unwrap_or(u64::MAX)
}

/// When a disk is too full, in percent of its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskPolicy {
    /// Above this a node gives shards away, even if it is balanced otherwise.
    pub relieve_percent: u32,
    /// Drains, relief and balancing fill no disk beyond this; lower than
    /// `relieve_percent`, so that what was relieved is not given back.
    pub target_percent: u32,
    /// Replacing a lost voter may fill a disk up to this: a quorum is worth
    /// more than a comfortable disk.
    pub hard_percent: u32,
}

impl Default for DiskPolicy {
    fn default() -> Self {
        Self { relieve_percent: 85, target_percent: 80, hard_percent: 95 }
    }
}

/// When a shard is cut in two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitPolicy {
    /// Above this many bytes; bounds the time to copy a replica.
    pub bytes_max: u64,
    /// Above this many operations per second; bounds what one leader serves.
    pub load_ops_max: u64,
    /// Fewer rows than this are not cut: one hot key cannot be.
    pub rows_min: u64,
    /// No more shards than this; each costs every node some memory.
    pub shards_max: u64,
    /// A shard that was just reshaped is left alone this long, until its
    /// measurements are its own.
    pub quiet: Duration,
}

impl Default for SplitPolicy {
    fn default() -> Self {
        Self {
            bytes_max: 512 * MIB,
            load_ops_max: 10_000,
            rows_min: 16,
            shards_max: 65_536,
            quiet: Duration::from_secs(60),
        }
    }
}

/// When two neighbours would be joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergePolicy {
    /// Both together store at most this.
    pub bytes_max: u64,
    /// Both together serve at most this many operations per second.
    pub load_ops_max: u64,
    /// Neither was reshaped for this long.
    pub quiet: Duration,
    /// At most this many are listed in one plan.
    pub planned_max: u32,
}

impl Default for MergePolicy {
    fn default() -> Self {
        Self {
            bytes_max: 32 * MIB,
            load_ops_max: 100,
            quiet: Duration::from_secs(3_600),
            planned_max: 64,
        }
    }
}

/// How much may happen at once, in flight and newly planned together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Replicas added, moved or removed in the whole cluster.
    pub moves_total: u32,
    /// Of these, those that balancing may fill; the rest is kept free so that
    /// a repair never waits for comfort.
    pub balance_moves_total: u32,
    /// Replicas that one node sends: its disk and its clients share the link.
    /// When the replica's own node is silent, the leader is the sender.
    pub moves_per_source: u32,
    /// Replicas that one node receives.
    pub moves_per_destination: u32,
    /// A repair of a quorum may exceed what one node sends and receives by
    /// this many, because the places may be taken by balancing.
    pub repair_moves_extra_per_node: u32,
    /// Leaders handed over in the whole cluster.
    pub leader_transfers_total: u32,
    /// Leaders that one node hands over or takes.
    pub leader_transfers_per_node: u32,
    /// Shards being cut.
    pub splits_total: u32,
    /// Entries of [`Plan::blocked`]; the first few tell the story.
    pub blocked_total: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            moves_total: 32,
            balance_moves_total: 24,
            moves_per_source: 2,
            moves_per_destination: 4,
            repair_moves_extra_per_node: 1,
            leader_transfers_total: 32,
            leader_transfers_per_node: 4,
            splits_total: 8,
            blocked_total: 64,
        }
    }
}

#[cfg(test)]
mod tests;
