//! Tier 3: draining nodes emptied; leaders first, so that clients notice
//! least, then shard replicas, then voters of the system.

use super::destination::{Found, Wanted, best};
use super::ledger::{GroupSlot, Ledger, NodeSlot, Standing};
use crate::operator::{Obstacle, Reason};

pub(crate) fn plan(ledger: &mut Ledger<'_>) {
    let draining: Vec<NodeSlot> = ledger.nodes_with(Standing::Draining).collect();
    for node in &draining {
        hand_over_leaders(ledger, *node);
    }
    for node in &draining {
        move_replicas(ledger, *node, Reason::ReplicaDraining);
    }
    for node in &draining {
        move_replicas(ledger, *node, Reason::SystemVoterDraining);
    }
}

fn hand_over_leaders(ledger: &mut Ledger<'_>, node: NodeSlot) {
    let led: Vec<GroupSlot> = ledger.node(node).leads.iter().rev().map(|(_, slot)| *slot).collect();
    for group in led {
        hand_over(ledger, group, node);
    }
}

fn hand_over(ledger: &mut Ledger<'_>, group: GroupSlot, from: NodeSlot) {
    let allowed = ledger.may_transfer() && ledger.may_transfer_at(from);
    if !allowed || ledger.is_busy(group) || !ledger.has_quorum(group) {
        return;
    }
    if let Some(to) = ledger.successor(group, from).filter(|to| ledger.may_transfer_at(*to)) {
        ledger.transfer_leader(group, from, to, Reason::LeaderDraining);
    }
}

/// Moves the node's shard replicas, or its system voters, by `reason`.
fn move_replicas(ledger: &mut Ledger<'_>, node: NodeSlot, reason: Reason) {
    let of_system = reason == Reason::SystemVoterDraining;
    let hosted: Vec<GroupSlot> = ledger
        .node(node)
        .hosts
        .iter()
        .rev()
        .map(|(_, slot)| *slot)
        .filter(|slot| ledger.group(*slot).shard.is_none() == of_system)
        .collect();
    for group in hosted {
        if !ledger.may_move() || !ledger.may_send(group, Some(node), 0) {
            return;
        }
        if ledger.is_movable(group) {
            move_replica(ledger, group, node, reason);
        }
    }
}

fn move_replica(ledger: &mut Ledger<'_>, group: GroupSlot, from: NodeSlot, reason: Reason) {
    let leads = ledger.group(group).leader == Some(from);
    if leads && ledger.successor(group, from).is_some() {
        return hand_over(ledger, group, from);
    }
    // The node leaves, so what its zone contributes leaves in any case: the
    // best spread that is left will do.
    let wanted = Wanted {
        group,
        leaving: Some(from),
        disk_percent_max: ledger.policy.disk.target_percent,
        shared_zone_pairs_max: usize::MAX,
        extra_moves: 0,
    };
    match best(ledger, wanted) {
        Found::Node(to) => ledger.move_replica(group, from, to, reason),
        Found::LimitReached => {}
        Found::Nowhere => ledger.block(group, Obstacle::NoDestination),
    }
}
