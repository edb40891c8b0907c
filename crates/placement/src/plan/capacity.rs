//! Tier 4: disks below their limit, whatever the balance of load says.

use super::destination::{Found, Wanted, best};
use super::ledger::{GroupSlot, Ledger, NodeSlot, Standing};
use crate::operator::{Obstacle, Reason};

pub(crate) fn plan(ledger: &mut Ledger<'_>) {
    let full: Vec<NodeSlot> =
        ledger.nodes_with(Standing::Active).filter(|node| is_too_full(ledger, *node)).collect();
    for node in full {
        relieve(ledger, node);
    }
}

/// Counts what is under way to another node as gone: it was moved for this.
fn is_too_full(ledger: &Ledger<'_>, node: NodeSlot) -> bool {
    let node = ledger.node(node);
    let limit = u128::from(node.disk_total_bytes) * u128::from(ledger.policy.disk.relieve_percent);
    node.disk_total_bytes > 0 && u128::from(node.disk_after_bytes) * 100 > limit
}

/// Moves the largest shards first: the fewest moves that bring relief.
fn relieve(ledger: &mut Ledger<'_>, node: NodeSlot) {
    let mut hosted: Vec<GroupSlot> =
        ledger.node(node).hosts.iter().map(|(_, slot)| *slot).collect();
    hosted.retain(|slot| ledger.group(*slot).bytes > 0);
    hosted.sort_by_key(|slot| (std::cmp::Reverse(ledger.group(*slot).bytes), *slot));
    let mut nowhere = None;
    for group in hosted {
        if !is_too_full(ledger, node) {
            return;
        }
        if !ledger.may_move() || !ledger.may_send(group, Some(node), 0) {
            return;
        }
        if !ledger.is_movable(group) {
            continue;
        }
        let wanted = Wanted {
            group,
            leaving: Some(node),
            disk_percent_max: ledger.policy.disk.target_percent,
            shared_zone_pairs_max: ledger.shared_zone_pairs(group, None, None),
            extra_moves: 0,
        };
        match best(ledger, wanted) {
            Found::Node(to) => ledger.move_replica(group, node, to, Reason::DiskNearlyFull),
            Found::LimitReached => return,
            Found::Nowhere => nowhere = nowhere.or(Some(group)),
        }
    }
    if let Some(group) = nowhere {
        ledger.block(group, Obstacle::NoDestination);
    }
}
