//! When balancing begins, when it ends, and how much one move may carry.
//!
//! Begin at a larger imbalance than one ends at, and measurements that wobble
//! between the two change nothing. A node *below* its share opens the gate as
//! well as one above: that is how an empty newcomer gets its first shard.

use super::ledger::{Ledger, NodeEntry, Standing};

/// A load and the weight that carries it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    pub(crate) load_millis: u64,
    pub(crate) weight: u64,
}

/// The active nodes' loads against their mean.
#[derive(Debug)]
pub(crate) struct Gate {
    load_total_millis: u128,
    weight_total: u128,
    enter_percent: u128,
    leave_percent: u128,
}

impl Gate {
    /// Measures the active nodes.
    pub(crate) fn new(ledger: &Ledger<'_>, share: impl Fn(&NodeEntry) -> Share) -> Self {
        let shares = || ledger.nodes_with(Standing::Active).map(|slot| share(ledger.node(slot)));
        Self {
            load_total_millis: shares().map(|share| u128::from(share.load_millis)).sum(),
            weight_total: shares().map(|share| u128::from(share.weight)).sum(),
            enter_percent: u128::from(ledger.policy.enter_imbalance_percent),
            leave_percent: u128::from(ledger.policy.leave_imbalance_percent),
        }
    }

    /// Whether to balance now, given whether balancing was under way.
    pub(crate) fn is_open(
        &self,
        ledger: &Ledger<'_>,
        was_open: bool,
        share: impl Fn(&NodeEntry) -> Share,
    ) -> bool {
        let percent = if was_open { self.leave_percent } else { self.enter_percent };
        ledger
            .nodes_with(Standing::Active)
            .map(|slot| share(ledger.node(slot)))
            .any(|share| self.is_over(share, percent) || self.is_under(share, percent))
    }

    /// Whether the node carries so much that it should give.
    pub(crate) fn should_give(&self, share: Share) -> bool {
        self.is_over(share, self.leave_percent)
    }

    /// Whether the node carries so little that it should take.
    pub(crate) fn should_take(&self, share: Share) -> bool {
        self.is_under(share, self.leave_percent)
    }

    /// load / weight > mean * (100 + percent) / 100, without a division.
    fn is_over(&self, share: Share, percent: u128) -> bool {
        u128::from(share.load_millis) * self.weight_total * 100
            > self.load_total_millis * u128::from(share.weight) * (100 + percent)
    }

    fn is_under(&self, share: Share, percent: u128) -> bool {
        u128::from(share.load_millis) * self.weight_total * 100
            < self.load_total_millis * u128::from(share.weight) * 100u128.saturating_sub(percent)
    }
}

/// The most that may go from one node to another without the receiver ending
/// above the giver: half the gap when their weights are equal. Any positive
/// load within it makes the sum of squares smaller, and load equal to it makes
/// it smallest; that is why balancing ends.
pub(crate) fn room_millis(from: Share, to: Share) -> u64 {
    let cross = |a: Share, b: Share| u128::from(a.load_millis) * u128::from(b.weight);
    let gap = cross(from, to).saturating_sub(cross(to, from));
    let weights = u128::from(from.weight) + u128::from(to.weight);
    u64::try_from(gap / weights.max(1)).unwrap_or(u64::MAX)
}
