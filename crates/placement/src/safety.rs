//! The rules that no operator may break, written down apart from the planner
//! so that the two can disagree in a test, and so that an executor can check
//! a proposal against a fresher view.

use quorate_types::NodeId;

use crate::error::Refused;
use crate::history::InFlight;
use crate::operator::{Group, Operator, Precondition};
use crate::view::{ClusterView, Members, NodeState};

/// A rule that an operator would break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hazard {
    /// The group is not in the view.
    UnknownGroup,
    /// The group has an operator in flight.
    GroupBusy,
    /// The destination is not an active node of the cluster.
    DestinationUnfit,
    /// The destination already holds a replica of the group.
    TwoReplicasOnOneNode,
    /// The source is no voter, or not the leader, of the group.
    SourceNotMember,
    /// The new leader is no voter.
    LeaderNotVoter,
    /// The group could not commit the change, or nothing after it.
    QuorumLost,
    /// The split key does not cut the range in two.
    SplitKeyOutside,
    /// The shards are not neighbours.
    NotNeighbours,
}

/// The smallest number of voters that decides for `voters` of them.
#[must_use]
pub const fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The members of `group`.
#[must_use]
pub fn members(view: &ClusterView, group: Group) -> Option<&Members> {
    match group {
        Group::Metadata => view.metadata.as_ref().map(|system| &system.members),
        Group::Sequencer => view.sequencer.as_ref().map(|system| &system.members),
        Group::Shard(id) => view.shards.iter().find(|shard| shard.id == id).map(|s| &s.members),
    }
}

/// Whether the view shows what `operator` was to bring about. A split at a key
/// of the executor's choice, and a merge, cannot be recognized.
#[must_use]
pub fn is_done(view: &ClusterView, operator: &Operator) -> bool {
    let of = |group| members(view, group);
    let votes = |group, node| of(group).is_some_and(|it| it.voters.contains(&node));
    match operator {
        Operator::MoveReplica { group, from, to } => votes(*group, *to) && !votes(*group, *from),
        Operator::AddReplica { group, to } => votes(*group, *to),
        Operator::RemoveReplica { group, from } => {
            of(*group).is_some_and(|it| !it.voters.contains(from))
        }
        Operator::TransferLeader { group, to, .. } => {
            of(*group).is_some_and(|it| it.leader == Some(*to))
        }
        Operator::Split { at, .. } => {
            at.as_ref().is_some_and(|at| view.shards.iter().any(|it| it.range.start == *at))
        }
        Operator::Merge { .. } => false,
    }
}

/// Checks `operator` against the view and against what is in flight.
///
/// # Errors
/// The first rule that it would break.
pub fn check(
    view: &ClusterView,
    in_flight: &[InFlight],
    operator: &Operator,
) -> Result<(), Hazard> {
    for group in operator.groups() {
        if in_flight.iter().any(|other| other.operator.groups().any(|busy| busy == group)) {
            return Err(Hazard::GroupBusy);
        }
    }
    let members = members(view, operator.group()).ok_or(Hazard::UnknownGroup)?;
    match operator {
        Operator::MoveReplica { from, to, .. } => {
            check_destination(view, members, *to)?;
            check_membership_change(view, members, Some(*from), Some(*to))
        }
        Operator::AddReplica { to, .. } => {
            check_destination(view, members, *to)?;
            check_membership_change(view, members, None, Some(*to))
        }
        Operator::RemoveReplica { from, .. } => {
            check_membership_change(view, members, Some(*from), None)
        }
        Operator::TransferLeader { from, to, .. } => check_transfer(view, members, *from, *to),
        Operator::Split { shard, at } => {
            let shard = view.shards.iter().find(|s| s.id == *shard).ok_or(Hazard::UnknownGroup)?;
            let cuts = at.as_ref().is_none_or(|key| shard.range.split_at(key).is_some());
            if cuts { Ok(()) } else { Err(Hazard::SplitKeyOutside) }
        }
        Operator::Merge { left, right } => {
            let find = |id| view.shards.iter().find(|s| s.id == id).ok_or(Hazard::UnknownGroup);
            let (left, right) = (find(*left)?, find(*right)?);
            let touch = left.range.end.as_ref() == Some(&right.range.start);
            if touch { Ok(()) } else { Err(Hazard::NotNeighbours) }
        }
    }
}

/// Checks that everything a proposal was planned on still holds, for whoever
/// accepts it.
///
/// # Errors
/// [`Refused::GroupBusy`] or [`Refused::Precondition`].
pub fn expect(
    view: &ClusterView,
    in_flight: &[InFlight],
    preconditions: &[Precondition],
) -> Result<(), Refused> {
    for precondition in preconditions {
        let group = precondition.group;
        if in_flight.iter().any(|other| other.operator.groups().any(|busy| busy == group)) {
            return Err(Refused::GroupBusy);
        }
        let voters = members(view, group).map(Members::sorted_voters).unwrap_or_default();
        let shard = view.shards.iter().find(|shard| Some(shard.id) == group.shard());
        let epoch_holds = precondition
            .epoch
            .is_none_or(|expected| shard.is_some_and(|shard| shard.epoch == expected));
        if voters != precondition.voters || !epoch_holds {
            return Err(Refused::Precondition);
        }
    }
    Ok(())
}

fn state(view: &ClusterView, node: NodeId) -> Option<NodeState> {
    view.nodes.iter().find(|known| known.id == node).map(|known| known.state)
}

fn check_destination(view: &ClusterView, members: &Members, to: NodeId) -> Result<(), Hazard> {
    if state(view, to) != Some(NodeState::Active) {
        return Err(Hazard::DestinationUnfit);
    }
    if members.voters.contains(&to) || members.learners.contains(&to) {
        return Err(Hazard::TwoReplicasOnOneNode);
    }
    Ok(())
}

/// A joint change needs a majority of the old voters and of the new ones.
fn check_membership_change(
    view: &ClusterView,
    members: &Members,
    from: Option<NodeId>,
    to: Option<NodeId>,
) -> Result<(), Hazard> {
    let old = members.sorted_voters();
    if from.is_some_and(|from| !old.contains(&from)) {
        return Err(Hazard::SourceNotMember);
    }
    let mut new: Vec<NodeId> = old.iter().copied().filter(|node| Some(*node) != from).collect();
    new.extend(to);
    if new.is_empty() || !has_quorum(view, &old) || !has_quorum(view, &new) {
        return Err(Hazard::QuorumLost);
    }
    Ok(())
}

/// Whether enough of `voters` answer to decide anything.
#[must_use]
pub fn has_quorum(view: &ClusterView, voters: &[NodeId]) -> bool {
    let live = |node: &&NodeId| state(view, **node).is_some_and(NodeState::is_live);
    voters.iter().filter(live).count() >= majority(voters.len())
}

fn check_transfer(
    view: &ClusterView,
    members: &Members,
    from: NodeId,
    to: NodeId,
) -> Result<(), Hazard> {
    if members.leader != Some(from) {
        return Err(Hazard::SourceNotMember);
    }
    if from == to || !members.voters.contains(&to) {
        return Err(Hazard::LeaderNotVoter);
    }
    // A transfer to a silent voter blocks writes until the next election.
    if state(view, to) != Some(NodeState::Active) {
        return Err(Hazard::DestinationUnfit);
    }
    if has_quorum(view, &members.voters) { Ok(()) } else { Err(Hazard::QuorumLost) }
}
