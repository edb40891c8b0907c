//! Where a replica may go, and where it goes best.

use super::ledger::{GroupSlot, Ledger, NodeSlot, Standing};

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// The group that needs a place.
    pub(crate) group: GroupSlot,
    /// The replica that gives its place up, if one does.
    pub(crate) leaving: Option<NodeSlot>,
    /// The destination's disk is not filled beyond this.
    pub(crate) disk_percent_max: u32,
    /// At most this many pairs of voters share a failure domain afterwards.
    pub(crate) shared_zone_pairs_max: usize,
    /// By how many moves the limits per node may be exceeded.
    pub(crate) extra_moves: u32,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// The best place.
    Node(NodeSlot),
    /// There are places, but a limit is reached: wait.
    LimitReached,
    /// There is no place.
    Nowhere,
}

/// The best destination: the best spread first, then the least utilized. For
/// groups of the system, nodes with fewer of them come before that.
pub(crate) fn best(ledger: &Ledger<'_>, wanted: Wanted) -> Found {
    let group = ledger.group(wanted.group);
    let (cost, bytes, is_system) = (group.cost_millis, group.bytes, group.shard.is_none());
    let places: Vec<_> = ledger
        .nodes_with(Standing::Active)
        .filter(|to| !ledger.occupies(wanted.group, *to))
        .filter(|to| ledger.node(*to).disk_fits(bytes, wanted.disk_percent_max))
        .map(|to| (ledger.shared_zone_pairs(wanted.group, wanted.leaving, Some(to)), to))
        .filter(|(pairs, _)| *pairs <= wanted.shared_zone_pairs_max)
        .collect();
    if places.is_empty() {
        return Found::Nowhere;
    }
    if !ledger.may_send(wanted.group, wanted.leaving, wanted.extra_moves) {
        return Found::LimitReached;
    }
    let best = places
        .into_iter()
        .filter(|(_, to)| ledger.may_receive(*to, wanted.extra_moves))
        .min_by_key(|(pairs, to)| {
            let node = ledger.node(*to);
            let system_hosts = if is_system { node.system_hosts } else { 0 };
            (*pairs, system_hosts, node.utilization(cost), *to)
        });
    best.map_or(Found::LimitReached, |(_, to)| Found::Node(to))
}
