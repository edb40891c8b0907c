//! Tier 8: nearly empty neighbours joined. Advice only: nothing executes a
//! merge yet, so it neither spends a limit nor holds a shard back.

use super::ledger::Ledger;
use crate::operator::{Group, Operator, Reason};
use crate::view::{ClusterView, ShardView};

pub(crate) fn plan(ledger: &mut Ledger<'_>, view: &ClusterView) {
    let mut shards: Vec<&ShardView> =
        view.shards.iter().filter(|shard| may_merge(ledger, shard)).collect();
    shards.sort_by_key(|shard| (&shard.range.start, shard.id));
    let mut planned = 0;
    let mut shards = shards.into_iter().peekable();
    while let Some(left) = shards.next() {
        if planned >= ledger.policy.merge.planned_max {
            return;
        }
        if let Some(right) = shards.next_if(|right| fit_together(ledger, left, right)) {
            let operator = Operator::Merge { left: left.id, right: right.id };
            ledger.advise(operator, Reason::ShardsTooSmall);
            planned += 1;
        }
    }
}

fn may_merge(ledger: &Ledger<'_>, shard: &ShardView) -> bool {
    let slot = ledger.group_slot(Group::Shard(shard.id));
    slot.is_some_and(|slot| ledger.is_movable(slot))
        && !ledger.history.reshaped(shard.id, ledger.policy.merge.quiet)
}

fn fit_together(ledger: &Ledger<'_>, left: &ShardView, right: &ShardView) -> bool {
    let policy = &ledger.policy.merge;
    left.range.end.as_ref() == Some(&right.range.start)
        && left.bytes.saturating_add(right.bytes) <= policy.bytes_max
        && left.load_ops.saturating_add(right.load_ops) <= policy.load_ops_max
}
