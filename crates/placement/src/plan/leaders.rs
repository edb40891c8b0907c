//! Tier 7: every node leads its share, weighted by what its shards serve.
//! Handing leadership over copies nothing, so it comes last only because it
//! is the easiest to correct.

use super::gate::{Gate, Share, room_millis};
use super::ledger::{GroupSlot, Ledger, NodeEntry, NodeSlot, Standing};
use crate::operator::Reason;

fn share(node: &NodeEntry) -> Share {
    Share { load_millis: node.leader_load_millis, weight: node.weight }
}

pub(crate) fn plan(ledger: &mut Ledger<'_>) {
    let gate = Gate::new(ledger, share);
    let was_open = ledger.history.balancing().leaders;
    let mut open = gate.is_open(ledger, was_open, share);
    let mut found = false;
    while open && ledger.may_transfer() {
        let Some((group, from, to)) = next_step(ledger, &gate) else { break };
        ledger.transfer_leader(group, from, to, Reason::LeaderImbalance);
        found = true;
    }
    if !found && !ledger.is_moving() {
        open = false;
    }
    ledger.balancing_mut().leaders = open;
}

/// The node that leads most gives first.
fn next_step(ledger: &Ledger<'_>, gate: &Gate) -> Option<(GroupSlot, NodeSlot, NodeSlot)> {
    let mut givers: Vec<NodeSlot> = ledger
        .nodes_with(Standing::Active)
        .filter(|node| ledger.may_transfer_at(*node) && !ledger.node(*node).leads.is_empty())
        .collect();
    givers.sort_by_key(|node| std::cmp::Reverse((ledger.node(*node).leader_utilization(), *node)));
    givers
        .into_iter()
        .find_map(|from| best_transfer(ledger, gate, from).map(|(group, to)| (group, from, to)))
}

/// To the voter that leads least, the costliest shard that does not make it
/// lead more than the giver.
fn best_transfer(
    ledger: &Ledger<'_>,
    gate: &Gate,
    from: NodeSlot,
) -> Option<(GroupSlot, NodeSlot)> {
    let giver = share(ledger.node(from));
    let gives = gate.should_give(giver);
    let led = ledger.node(from).leads.iter().rev().copied();
    led.filter(|(_, group)| ledger.is_movable(*group))
        .flat_map(|(cost, group)| {
            let voters = ledger.group(group).voters.iter().copied();
            voters.map(move |to| (cost, group, to))
        })
        .filter(|(cost, group, to)| {
            let taker = share(ledger.node(*to));
            *to != from
                && may_take(ledger, *group, *to)
                && (gives || gate.should_take(taker))
                && *cost <= room_millis(giver, taker)
        })
        .min_by_key(|(cost, group, to)| {
            let taker = ledger.node(*to).leader_utilization();
            (taker, std::cmp::Reverse(*cost), *group, *to)
        })
        .map(|(_, group, to)| (group, to))
}

fn may_take(ledger: &Ledger<'_>, group: GroupSlot, to: NodeSlot) -> bool {
    let (id, node) = (ledger.group(group).id, ledger.node(to));
    node.standing == Standing::Active
        && ledger.may_transfer_at(to)
        && !ledger.history.leader_left(id, node.id, ledger.policy.reverse_window)
}
