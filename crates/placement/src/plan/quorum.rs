//! Tier 1: enough voters, on living nodes.

use std::cmp::Reverse;

use super::destination::{Found, Wanted, best};
use super::ledger::{GroupSlot, Ledger, NodeSlot, Standing};
use crate::history::InFlight;
use crate::operator::{Obstacle, Operator, Reason};
use crate::safety::majority;

pub(crate) fn plan(ledger: &mut Ledger<'_>, in_flight: &[InFlight]) {
    cancel_hopeless(ledger, in_flight);
    let mut groups: Vec<GroupSlot> = ledger.groups().collect();
    // The groups closest to losing their quorum are repaired first.
    groups.sort_by_key(|group| (spare_voters(ledger, *group), *group));
    for group in groups {
        repair(ledger, group);
    }
}

/// Gives up operators whose destination died, so that their group is free for
/// one that can succeed.
fn cancel_hopeless(ledger: &mut Ledger<'_>, in_flight: &[InFlight]) {
    for operator in in_flight {
        let to = match &operator.operator {
            Operator::MoveReplica { to, .. }
            | Operator::AddReplica { to, .. }
            | Operator::TransferLeader { to, .. } => *to,
            _ => continue,
        };
        if matches!(ledger.standing_of(to), None | Some(Standing::Gone)) {
            ledger.cancel(operator);
        }
    }
}

/// How many more voters may fall silent; negative without a quorum.
fn spare_voters(ledger: &Ledger<'_>, group: GroupSlot) -> i64 {
    let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let needed = majority(ledger.group(group).voters.len());
    signed(ledger.live_voters(group)) - signed(needed)
}

fn repair(ledger: &mut Ledger<'_>, group: GroupSlot) {
    if ledger.is_busy(group) {
        return;
    }
    if !ledger.has_quorum(group) {
        return ledger.block(group, Obstacle::NoQuorum);
    }
    let voters = ledger.group(group).voters.len();
    let desired = desired_voters(ledger, group);
    let gone = gone_voter(ledger, group);
    if voters > ledger.group(group).replicas {
        remove_surplus(ledger, group);
    } else if gone.is_some() {
        place(ledger, group, gone, Reason::VoterDead);
    } else if voters < desired {
        place(ledger, group, None, Reason::UnderReplicated);
    }
}

/// The wanted number of voters, or with too few nodes the largest odd number
/// below it: an even number of voters tolerates no more failures than one
/// less, and waits for one more acknowledgement.
fn desired_voters(ledger: &Ledger<'_>, group: GroupSlot) -> usize {
    let entry = ledger.group(group);
    let keeps = |slot: &NodeSlot| match ledger.node(*slot).standing {
        Standing::Active => true,
        Standing::Draining | Standing::Silent => entry.voters.contains(slot),
        Standing::Gone => false,
    };
    let hosts = ledger.nodes().filter(keeps).count();
    if hosts >= entry.replicas { entry.replicas } else { hosts.saturating_sub(1) | 1 }
}

fn gone_voter(ledger: &Ledger<'_>, group: GroupSlot) -> Option<NodeSlot> {
    let voters = ledger.group(group).voters.iter().copied();
    voters.filter(|voter| ledger.node(*voter).standing == Standing::Gone).min()
}

/// Finds a place for a voter, in exchange for `leaving` if there is one. Any
/// spread and a well-filled disk will do: a voter in the wrong zone votes.
fn place(ledger: &mut Ledger<'_>, group: GroupSlot, leaving: Option<NodeSlot>, reason: Reason) {
    let wanted = Wanted {
        group,
        leaving,
        disk_percent_max: ledger.policy.disk.hard_percent,
        shared_zone_pairs_max: usize::MAX,
        extra_moves: ledger.policy.limits.repair_moves_extra_per_node,
    };
    match best(ledger, wanted) {
        Found::Nowhere => ledger.block(group, Obstacle::NoDestination),
        Found::Node(to) if ledger.may_move() => match leaving {
            Some(from) => ledger.move_replica(group, from, to, reason),
            None => {
                let (group, to) = (ledger.group(group).id, ledger.node(to).id);
                ledger.propose(Operator::AddReplica { group, to }, reason);
            }
        },
        Found::Node(_) | Found::LimitReached => {}
    }
}

/// Removes the voter that is worth least: a dead one, then a draining one,
/// then one that does not lead, spoils the spread, and whose node is busiest.
/// A silent voter that may come back is waited for.
fn remove_surplus(ledger: &mut Ledger<'_>, group: GroupSlot) {
    let entry = ledger.group(group);
    let worth = |voter: &NodeSlot| {
        let node = ledger.node(*voter);
        let standing = match node.standing {
            Standing::Gone => 0,
            Standing::Draining => 1,
            Standing::Active | Standing::Silent => 2,
        };
        let leads = entry.leader == Some(*voter);
        let pairs = ledger.shared_zone_pairs(group, Some(*voter), None);
        (standing, leads, pairs, Reverse(node.utilization(0)), Reverse(*voter))
    };
    let victim = entry
        .voters
        .iter()
        .copied()
        .filter(|voter| ledger.node(*voter).standing != Standing::Silent)
        .min_by_key(worth);
    let Some(victim) = victim else { return };
    let left = entry.voters.len() - 1;
    let live_left = ledger.live_voters(group) - usize::from(ledger.node(victim).standing.is_live());
    if ledger.may_move() && live_left >= majority(left) {
        let (group, from) = (entry.id, ledger.node(victim).id);
        ledger.propose(Operator::RemoveReplica { group, from }, Reason::OverReplicated);
    }
}
