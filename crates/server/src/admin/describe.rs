//! The cluster in the words of the admin interface: what the metadata, gossip
//! and the journal of migrations say, for an operator to read.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use quorate_crdt::NodeLoad;
use quorate_engine::StateHash;
use quorate_gossip::Status;
use quorate_meta::{
    ClusterView, CutRefusal, METADATA_GROUP, NodeState, Operator, Role, Split, SplitPhase, Task,
    shard_of,
};
use quorate_migration::{MigrationRow, Outcome};
use quorate_types::{GroupId, KeyRange, MigrationId, NodeId, ShardId};

use super::port::{AdminError, MigrationInfo, NodeInfo, ReplicaInfo, ShardInfo};

/// The label that names a node's gateway.
pub(crate) const GATEWAY_LABEL: &str = "gateway";
/// The label that names a node's admin interface.
pub(crate) const ADMIN_LABEL: &str = "admin";

/// Every node that ever joined. What it leads is its own report.
pub(crate) fn nodes(
    view: &ClusterView,
    liveness: &BTreeMap<NodeId, Status>,
    loads: &BTreeMap<NodeId, NodeLoad>,
) -> Vec<NodeInfo> {
    let leaders = |node| led_by(node, liveness, loads).count();
    view.nodes()
        .map(|(node, record)| NodeInfo {
            id: node.0,
            address: record.address.clone(),
            gateway: record.label(GATEWAY_LABEL).map(str::to_owned),
            admin: record.label(ADMIN_LABEL).map(str::to_owned),
            state: liveness.get(&node).map_or("unknown", word).to_owned(),
            draining: record.state == NodeState::Draining,
            replicas: count(view.replicas_on(node).count()),
            leaders: count(leaders(node)),
        })
        .collect()
}

/// How many shards have a leader that is not known to be gone.
pub(crate) fn shards_led(
    liveness: &BTreeMap<NodeId, Status>,
    loads: &BTreeMap<NodeId, NodeLoad>,
) -> usize {
    let led = loads.keys().flat_map(|node| led_by(*node, liveness, loads));
    led.collect::<BTreeSet<_>>().len()
}

/// The shards that a node said it leads, when it was last heard. One that died
/// leads nothing, and cannot say so.
fn led_by<'a>(
    node: NodeId,
    liveness: &BTreeMap<NodeId, Status>,
    loads: &'a BTreeMap<NodeId, NodeLoad>,
) -> impl Iterator<Item = ShardId> + use<'a> {
    let is_gone = matches!(liveness.get(&node), Some(Status::Dead | Status::Left));
    let load = loads.get(&node).filter(|_| !is_gone);
    let shards = load.into_iter().flat_map(|load| load.shards.iter());
    shards.filter(|shard| shard.leader).map(|shard| shard.shard)
}

/// Whether a node can be emptied: each of its groups needs another node that
/// takes replicas and has none of it.
pub(crate) fn check_drain(view: &ClusterView, node: NodeId) -> Result<(), AdminError> {
    if view.node(node).is_none() {
        return Err(AdminError::NotFound(format!("there is no node {}", node.0)));
    }
    let has_room = |group: GroupId| {
        let mut others = view
            .members()
            .filter(|(other, record)| *other != node && record.state == NodeState::Active);
        others.any(|(other, _)| view.group(group).is_none_or(|g| g.replica_on(other).is_none()))
    };
    if view.replicas_on(node).all(|(group, _)| has_room(group)) {
        return Ok(());
    }
    Err(AdminError::Refused(format!(
        "node {} cannot be emptied: every other node that takes replicas has one of the same \
         group already; start a further node with --join first",
        node.0
    )))
}

const fn word(status: &Status) -> &'static str {
    match status {
        Status::Alive => "alive",
        Status::Suspect => "suspect",
        Status::Dead => "dead",
        Status::Left => "left",
    }
}

/// A shard, if there is one: who is presumed to lead it, and the state of the
/// answering node's own replica.
pub(crate) fn shard(
    view: &ClusterView,
    shard: ShardId,
    leader: Option<NodeId>,
    own: Option<StateHash>,
) -> Option<ShardInfo> {
    let record = view.shard(shard)?;
    let replicas = view.group(record.group).map(|group| group.replicas.iter());
    Some(ShardInfo {
        id: shard.0,
        range: show_range(&record.range),
        leader: leader.map(|leader| leader.0),
        replicas: replicas
            .into_iter()
            .flatten()
            .map(|replica| ReplicaInfo {
                id: replica.id.0,
                node: replica.node.0,
                voter: replica.role == Role::Voter,
            })
            .collect(),
        epoch: record.epoch.0,
        applied: own.map(|own| own.index),
        state_hash: own.map(|own| format!("{:032x}", own.hash)),
    })
}

/// Moves and splits, the ended ones included for as long as they are kept.
pub(crate) fn migrations(
    view: &ClusterView,
    rows: &BTreeMap<MigrationId, MigrationRow>,
) -> Vec<MigrationInfo> {
    let operators = view.running_operators().chain(view.ended_operators());
    operators.map(|operator| migration(operator, rows.get(&operator.id))).collect()
}

fn migration(operator: &Operator, row: Option<&MigrationRow>) -> MigrationInfo {
    let (kind, from, to) = match &operator.task {
        Task::Split(_) => ("split", None, None),
        Task::Move(planned) => ("move", planned.change.from(), planned.change.to()),
    };
    let error = match (&operator.task, row.and_then(MigrationRow::outcome)) {
        (Task::Split(split), _) => refusal(split.phase).map(str::to_owned),
        (Task::Move(_), Some(Outcome::Aborted { reason, .. })) => Some(reason.to_string()),
        (Task::Move(_), Some(Outcome::Completed { .. }) | None) => None,
    };
    let phase = match (&operator.task, row, &error) {
        (_, _, Some(reason)) => format!("Aborted: {reason}"),
        (Task::Split(Split { phase: SplitPhase::Installed { .. }, .. }), ..)
            if operator.is_running() =>
        {
            "Installed: the new shard's replicas are not there yet".to_owned()
        }
        (Task::Split(split), ..) => split.phase.to_string(),
        (Task::Move(_), Some(row), None) => row.phase().to_string(),
        (Task::Move(_), None, None) => "Planned".to_owned(),
    };
    MigrationInfo {
        id: operator.id.to_string(),
        kind: kind.to_owned(),
        group: show_group(operator.group),
        shard: shard_of(operator.group).map(|shard| shard.0),
        from: from.map(|node| node.0),
        to: to.map(|node| node.0),
        phase,
        attempt: row.map_or(1, |row| u64::from(row.attempt)),
        write_pause_micros: row.map(|row| row.pause.longest_micros),
        finished: !operator.is_running(),
        error,
    }
}

const fn refusal(phase: SplitPhase) -> Option<&'static str> {
    let SplitPhase::Refused { reason } = phase else { return None };
    Some(match reason {
        CutRefusal::ChildTaken => "the new shard's id is taken",
        CutRefusal::KeyOutside => "the key is not inside the shard",
        CutRefusal::EpochPassed => "the shard has been split meanwhile",
    })
}

fn show_group(group: GroupId) -> String {
    match shard_of(group) {
        Some(shard) => format!("shard {}", shard.0),
        None if group == METADATA_GROUP => "metadata".to_owned(),
        None => "sequencer".to_owned(),
    }
}

fn show_range(range: &KeyRange) -> String {
    let end = range.end.as_ref().map_or_else(|| "∞".to_owned(), |end| hex(end));
    format!("[{}, {end})", hex(&range.start))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 + bytes.len() * 2);
    text.push_str("0x");
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn count(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
