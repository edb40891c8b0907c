//! From what a node observes to a view: how long others have been silent, how
//! fast counters rise, and whose report of a shard is right.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_types::{KeyRange, NodeId, ShardEpoch, ShardId};

use crate::view::{Members, NodeState, ShardView, SystemGroupView};

/// Since when members have been silent, for whoever sees only that they are.
#[derive(Debug, Clone, Default)]
pub struct Silences {
    since: BTreeMap<NodeId, Duration>,
}

impl Silences {
    /// Takes note of who among the members answers at `now`, and tells how
    /// long each of the others has been silent. A moment of life ends a
    /// silence.
    pub fn observe(
        &mut self,
        now: Duration,
        members: &[NodeId],
        alive: &[NodeId],
    ) -> BTreeMap<NodeId, Duration> {
        let alive: BTreeSet<NodeId> = alive.iter().copied().collect();
        let silent: BTreeSet<NodeId> =
            members.iter().copied().filter(|member| !alive.contains(member)).collect();
        self.since.retain(|node, _| silent.contains(node));
        for node in silent {
            self.since.entry(node).or_insert(now);
        }
        self.since.iter().map(|(node, from)| (*node, now.saturating_sub(*from))).collect()
    }
}

/// Turns counters of shards into rates.
#[derive(Debug, Clone, Default)]
pub struct RateMeter {
    last: BTreeMap<ShardId, u64>,
    at: Duration,
}

impl RateMeter {
    /// How fast each counter rose per second since the last look. `now` is of
    /// a clock that never goes back. A counter that is new, or that fell, has
    /// not risen.
    pub fn measure(
        &mut self,
        counters: BTreeMap<ShardId, u64>,
        now: Duration,
    ) -> BTreeMap<ShardId, u64> {
        let elapsed = now.saturating_sub(std::mem::replace(&mut self.at, now));
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = |(shard, count): (&ShardId, &u64)| {
            let before = self.last.get(shard).copied().unwrap_or(*count);
            (*shard, count.saturating_sub(before).saturating_mul(1_000) / millis)
        };
        let rates = counters.iter().map(rate).collect();
        self.last = counters;
        rates
    }
}

/// What a node says of its replica of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaReport {
    /// The node.
    pub node: NodeId,
    /// Whether it leads the shard.
    pub leads: bool,
    /// In which term: of two that say they lead, the later one is right.
    pub term: u64,
    /// Stored bytes.
    pub bytes: u64,
    /// Stored rows.
    pub rows: u64,
    /// Operations per second.
    pub load_ops: u64,
}

impl ShardView {
    /// A shard whose leader, size and load are as the newest of those that
    /// lead it reports; unknown, hence nothing, while nobody does.
    #[must_use]
    pub fn reported(
        id: ShardId,
        range: KeyRange,
        epoch: ShardEpoch,
        members: Members,
        reports: impl IntoIterator<Item = ReplicaReport>,
    ) -> Self {
        let leading = reports.into_iter().filter(|report| report.leads);
        let newest = leading.max_by_key(|report| report.term);
        Self {
            id,
            range,
            epoch,
            members: Members { leader: newest.map(|report| report.node), ..members },
            bytes: newest.map_or(0, |report| report.bytes),
            rows: newest.map_or(0, |report| report.rows),
            load_ops: newest.map_or(0, |report| report.load_ops),
            // Finding it reads the shard; the executor does when it splits.
            split_key: None,
        }
    }
}

impl SystemGroupView {
    /// A group that should have as many voters as it has.
    #[must_use]
    pub fn as_found(members: Members) -> Self {
        let replicas = u32::try_from(members.voters.len()).unwrap_or(u32::MAX);
        Self { members, replicas }
    }
}

impl NodeState {
    /// The state of a node that is to be emptied or not, and that has been
    /// silent for so long, if it is.
    #[must_use]
    pub fn observed(silence: Option<Duration>, is_draining: bool) -> Self {
        match silence {
            Some(duration) => Self::Dead { duration },
            None if is_draining => Self::Draining,
            None => Self::Active,
        }
    }
}
