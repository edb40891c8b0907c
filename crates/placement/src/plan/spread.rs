//! Tier 2: voters of a group in different failure domains.
//!
//! The measure is the number of pairs of voters that share a domain. Every
//! move makes it smaller, so the tier comes to rest.

use std::cmp::Reverse;

use super::destination::{Found, Wanted, best};
use super::ledger::{GroupSlot, Ledger, NodeSlot, Standing};
use crate::operator::Reason;

pub(crate) fn plan(ledger: &mut Ledger<'_>) {
    for group in ledger.groups() {
        if !ledger.may_move() {
            return;
        }
        let pairs = ledger.shared_zone_pairs(group, None, None);
        let voters = ledger.group(group).voters.len();
        if ledger.is_movable(group) && pairs > unavoidable_pairs(voters, ledger.zones()) {
            improve(ledger, group, pairs);
        }
    }
}

/// The pairs that share a domain when `voters` are dealt evenly to `zones`.
fn unavoidable_pairs(voters: usize, zones: usize) -> usize {
    let pairs = |n: usize| n * n.saturating_sub(1) / 2;
    let each = voters.checked_div(zones).unwrap_or(0);
    let fuller = voters.checked_rem(zones).unwrap_or(0);
    fuller * pairs(each + 1) + (zones - fuller.min(zones)) * pairs(each)
}

fn improve(ledger: &mut Ledger<'_>, group: GroupSlot, pairs: usize) {
    let entry = ledger.group(group);
    let candidate = |from: NodeSlot| {
        let wanted = Wanted {
            group,
            leaving: Some(from),
            disk_percent_max: ledger.policy.disk.target_percent,
            shared_zone_pairs_max: pairs - 1,
            extra_moves: 0,
        };
        let Found::Node(to) = best(ledger, wanted) else { return None };
        let node = ledger.node(from);
        let key = (
            ledger.shared_zone_pairs(group, Some(from), Some(to)),
            node.standing != Standing::Draining,
            entry.leader == Some(from),
            Reverse(node.utilization(0)),
            from,
        );
        Some((key, to))
    };
    let chosen = entry.voters.iter().copied().filter_map(candidate).min();
    if let Some(((.., from), to)) = chosen {
        ledger.move_replica(group, from, to, Reason::ZoneShared);
    }
}
