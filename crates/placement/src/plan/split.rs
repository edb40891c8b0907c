//! Tier 5: shards of a size and heat that one group can serve.
//!
//! Independent of every gate of balance: a hot shard in a balanced cluster is
//! cut all the same.

use std::cmp::Reverse;

use super::ledger::{GroupSlot, Ledger};
use crate::operator::{Operator, Reason};
use crate::view::ShardView;

pub(crate) fn plan(ledger: &mut Ledger<'_>) {
    let mut wanted: Vec<(Reason, GroupSlot)> = ledger
        .groups()
        .filter(|group| ledger.is_movable(*group))
        .filter_map(|group| Some((reason(ledger, ledger.group(group).shard?)?, group)))
        .collect();
    // Heat hurts now and size later; within each, the worst first.
    wanted.sort_by_key(|(reason, group)| {
        let shard = ledger.group(*group).shard;
        let excess = shard.map_or((0, 0), |shard| (shard.load_ops, shard.bytes));
        (Reverse(*reason), Reverse(excess), *group)
    });
    for (reason, group) in wanted {
        let pending = u64::from(ledger.splits());
        let shards = ledger.shard_count().saturating_add(pending);
        let limits = &ledger.policy.limits;
        if ledger.splits() >= limits.splits_total || shards >= ledger.policy.split.shards_max {
            return;
        }
        if let Some(shard) = ledger.group(group).shard {
            ledger.propose(cut(shard), reason);
        }
    }
}

fn reason(ledger: &Ledger<'_>, shard: &ShardView) -> Option<Reason> {
    let policy = &ledger.policy.split;
    if shard.rows < policy.rows_min || ledger.history.reshaped(shard.id, policy.quiet) {
        return None;
    }
    if shard.load_ops > policy.load_ops_max {
        Some(Reason::ShardTooHot)
    } else if shard.bytes > policy.bytes_max {
        Some(Reason::ShardTooLarge)
    } else {
        None
    }
}

/// Cuts where the data says. A measured key that no longer lies inside the
/// range is no use; then the executor finds the middle of the data itself.
fn cut(shard: &ShardView) -> Operator {
    let inside = |key: &&quorate_types::Blob| shard.range.split_at(key).is_some();
    Operator::Split { shard: shard.id, at: shard.split_key.as_ref().filter(inside).cloned() }
}
