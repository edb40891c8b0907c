//! Tier 6: every node carries its share.
//!
//! Warm local search: start from the cluster as it is, let the hottest node
//! give to the coldest what evens the two out most, and of equals the replica
//! that is cheapest to move; count it, repeat. The hottest first lowers the
//! peak, what evens out most lowers the variance, the cheapest saves bytes.

use super::gate::{Gate, Share, room_millis};
use super::ledger::{GroupSlot, Ledger, NodeEntry, NodeSlot, Standing};
use crate::operator::Reason;

fn share(node: &NodeEntry) -> Share {
    Share { load_millis: node.load_millis, weight: node.weight }
}

pub(crate) fn plan(ledger: &mut Ledger<'_>) {
    let gate = Gate::new(ledger, share);
    let was_open = ledger.history.balancing().replicas;
    let mut open = gate.is_open(ledger, was_open, share);
    let mut found = false;
    while open && ledger.may_move_for_balance() {
        let Some(step) = next_step(ledger, &gate) else { break };
        ledger.move_replica(step.group, step.from, step.to, Reason::Imbalance);
        found = true;
    }
    // Shards are not sand: when nothing can be improved, this is balance.
    if !found && !ledger.is_moving() {
        open = false;
    }
    ledger.balancing_mut().replicas = open;
}

struct Step {
    group: GroupSlot,
    from: NodeSlot,
    to: NodeSlot,
}

fn next_step(ledger: &Ledger<'_>, gate: &Gate) -> Option<Step> {
    let mut coldest: Vec<NodeSlot> = ledger.nodes_with(Standing::Active).collect();
    coldest.sort_by_key(|slot| (ledger.node(*slot).utilization(0), *slot));
    coldest.iter().rev().find_map(|from| step_from(ledger, gate, *from, &coldest))
}

/// The best step from one node. When the coldest node is only waiting for
/// places to receive, the lukewarm do not take what is meant for it: a
/// newcomer must not cause moves between old nodes.
fn step_from(
    ledger: &Ledger<'_>,
    gate: &Gate,
    from: NodeSlot,
    coldest: &[NodeSlot],
) -> Option<Step> {
    let giver = share(ledger.node(from));
    let mut newcomer_waits = false;
    for to in coldest.iter().copied().filter(|to| *to != from) {
        let taker = share(ledger.node(to));
        let takes = gate.should_take(taker);
        let room = room_millis(giver, taker);
        if room == 0 || (newcomer_waits && !takes) {
            return None;
        }
        if !takes && !gate.should_give(giver) {
            return None;
        }
        if !ledger.may_receive(to, 0) {
            newcomer_waits = true;
        } else if let Some(group) = best_replica(ledger, from, to, room) {
            return Some(Step { group, from, to });
        }
    }
    None
}

/// The costliest replica within `room`; of equals, one that does not lead,
/// then the one with the fewest bytes.
fn best_replica(
    ledger: &Ledger<'_>,
    from: NodeSlot,
    to: NodeSlot,
    room_millis: u64,
) -> Option<GroupSlot> {
    let mut best: Option<(u64, (bool, u64, GroupSlot))> = None;
    let within = ledger.node(from).hosts.range(..=(room_millis, GroupSlot::LAST));
    for (cost, group) in within.rev() {
        if best.is_some_and(|(best_cost, _)| best_cost != *cost) {
            break;
        }
        if !may_move(ledger, *group, from, to) {
            continue;
        }
        let entry = ledger.group(*group);
        let price = (entry.leader == Some(from), entry.bytes, *group);
        if best.is_none_or(|(_, best_price)| price < best_price) {
            best = Some((*cost, price));
        }
    }
    best.map(|(_, (_, _, group))| group)
}

fn may_move(ledger: &Ledger<'_>, group: GroupSlot, from: NodeSlot, to: NodeSlot) -> bool {
    let entry = ledger.group(group);
    let policy = ledger.policy;
    entry.shard.is_some()
        && ledger.is_movable(group)
        && !ledger.occupies(group, to)
        && ledger.may_send(group, Some(from), 0)
        && ledger.node(to).disk_fits(entry.bytes, policy.disk.target_percent)
        && !ledger.history.replica_left(entry.id, ledger.node(to).id, policy.reverse_window)
        && ledger.shared_zone_pairs(group, Some(from), Some(to))
            <= ledger.shared_zone_pairs(group, None, None)
}
