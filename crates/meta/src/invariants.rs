//! What always holds. Checked in full when rows are loaded, and in builds
//! with debug assertions after every command.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::{GroupId, ReplicaId};

use crate::error::Violation;
use crate::groups::{METADATA_GROUP, ReplicaGroup, Role, SEQUENCER_GROUP, shard_group};
use crate::nodes::NodeState;
use crate::operators::{Operator, Task};
use crate::view::ClusterView;

/// The first invariant that `view` breaks.
pub(crate) fn check(view: &ClusterView) -> Result<(), Violation> {
    if view.cluster().is_none() {
        let is_empty = view.nodes.is_empty() && view.groups.is_empty() && view.shards.is_empty();
        return if is_empty { Ok(()) } else { Err(Violation::NotBootstrapped) };
    }
    check_ranges(view)?;
    check_groups(view)?;
    check_replica_ids(view)?;
    check_operators(view)?;
    check_disks(view)
}

/// The shards hold every key, each once.
fn check_ranges(view: &ClusterView) -> Result<(), Violation> {
    let mut expected = Some(&[] as &[u8]);
    let mut last = None;
    let mut seen = 0;
    for (id, shard) in view.shards_in_key_order() {
        if expected != Some(&*shard.range.start) || shard.range.is_empty() {
            return Err(Violation::RangesDoNotPartition(id));
        }
        expected = shard.range.end.as_deref();
        last = Some(id);
        seen += 1;
    }
    match (last, expected) {
        (None, _) => Err(Violation::ShardsMissing),
        (Some(id), Some(_)) => Err(Violation::RangesDoNotPartition(id)),
        (Some(id), None) if seen != view.shards.len() => Err(Violation::RangesDoNotPartition(id)),
        (Some(_), None) => Ok(()),
    }
}

/// There is exactly one group for each service and each shard, and each is
/// made of sound replicas.
fn check_groups(view: &ClusterView) -> Result<(), Violation> {
    let mut expected: BTreeSet<GroupId> = [METADATA_GROUP, SEQUENCER_GROUP].into();
    for (id, shard) in view.shards() {
        if id >= view.header.next_shard || shard.group != shard_group(id) {
            return Err(Violation::ShardNotAllocated(id));
        }
        expected.insert(shard.group);
    }
    let actual: BTreeSet<GroupId> = view.groups.keys().copied().collect();
    if let Some(group) = expected.symmetric_difference(&actual).next() {
        return Err(Violation::GroupMismatch(*group));
    }
    view.groups().try_for_each(|(id, group)| check_group(view, id, group))
}

fn check_group(view: &ClusterView, id: GroupId, group: &ReplicaGroup) -> Result<(), Violation> {
    if group.voters().next().is_none() {
        return Err(Violation::NoVoter(id));
    }
    let mut nodes = BTreeSet::new();
    for replica in &group.replicas {
        let node = replica.node;
        if !nodes.insert(node) {
            return Err(Violation::TwoOnOneNode { group: id, node });
        }
        if view.node(node).is_none_or(|node| node.state == NodeState::Removed) {
            return Err(Violation::ReplicaOnNoMember { group: id, node });
        }
    }
    let learners = group.replicas.iter().filter(|replica| replica.role == Role::Learner);
    let learners: Vec<ReplicaId> = learners.map(|replica| replica.id).collect();
    let wanted: Vec<ReplicaId> = view.operator_on(id).and_then(added_by).into_iter().collect();
    if learners != wanted {
        return Err(Violation::StrayLearner(id));
    }
    Ok(())
}

fn added_by(operator: &Operator) -> Option<ReplicaId> {
    match &operator.task {
        Task::Move(change) => change.added,
        Task::Split(_) => None,
    }
}

/// No replica id is a member, retired or promised to a child twice.
fn check_replica_ids(view: &ClusterView) -> Result<(), Violation> {
    let mut uses: BTreeMap<ReplicaId, u32> = BTreeMap::new();
    let mut note = |id| *uses.entry(id).or_default() += 1;
    for (_, group) in view.groups() {
        group.replicas.iter().for_each(|replica| note(replica.id));
        group.retired.iter().for_each(|retired| note(retired.id));
    }
    for split in view.promised_children() {
        split.child_replicas.iter().for_each(|child| note(child.id));
    }
    let broken = uses.iter().find(|(id, count)| **count > 1 || **id >= view.header.next_replica);
    broken.map_or(Ok(()), |(id, _)| Err(Violation::ReplicaNotUnique(*id)))
}

/// One unfinished operator per group at most, on a group that exists.
fn check_operators(view: &ClusterView) -> Result<(), Violation> {
    let running: Vec<&Operator> =
        view.operators.values().filter(|operator| operator.is_running()).collect();
    let stray = running.iter().find(|operator| {
        view.group(operator.group).is_none()
            || view.operator_on(operator.group).map(|found| found.id) != Some(operator.id)
    });
    match stray {
        Some(operator) => Err(Violation::TwoOperators(operator.id)),
        None => Ok(()),
    }
}

/// A disk is bound to one node id.
fn check_disks(view: &ClusterView) -> Result<(), Violation> {
    let shared = view.nodes().find(|(id, node)| view.node_of_disk(node.disk) != Some(*id));
    shared.map_or(Ok(()), |(id, _)| Err(Violation::DiskShared(id)))
}
