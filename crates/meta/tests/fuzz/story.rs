//! Commands out of decisions. What they mean depends on the state they meet:
//! most make sense in it, some are stale, misdirected or nonsense.

use quorate_meta::{
    BeginMove, BeginSplit, Bootstrap, ClusterView, Command, CutRefusal, JournalWrite, Label,
    NodeSpec, NodeState, Registry, ReplicaChange, SettingValue, SplitPhase, TARGET_REPLICAS, Task,
};
use quorate_testkit::fuzz::Choices;
use quorate_types::{Blob, ClusterId, Epoch, GroupId, MigrationId, NodeId, ShardEpoch, ShardId};

use crate::common::{bootstrap, disk, node};

fn id(choices: &mut Choices<'_>, few: usize) -> u64 {
    match choices.byte() {
        250.. => choices.edge(),
        byte => 1 + u64::from(byte) % few as u64,
    }
}

fn node_id(choices: &mut Choices<'_>) -> NodeId {
    NodeId(id(choices, 6))
}

fn migration(choices: &mut Choices<'_>) -> MigrationId {
    MigrationId(u128::from(id(choices, 12)))
}

fn text(choices: &mut Choices<'_>) -> String {
    match choices.below(6) {
        0 => String::from_utf8_lossy(choices.bytes(80)).into_owned(),
        1 => "x".repeat(choices.below(1_200)),
        _ => format!("n{}:7000", choices.below(4)),
    }
}

fn spec(choices: &mut Choices<'_>) -> NodeSpec {
    let mut spec = node(id(choices, 6));
    match choices.below(8) {
        0 => spec.disk = disk(id(choices, 6)),
        1 => spec.address = text(choices),
        2 => spec.supports = u32::from(choices.byte() % 4),
        3 => {
            let label =
                |choices: &mut Choices<'_>| Label { name: text(choices), value: "a".into() };
            spec.labels = (0..choices.below(4)).map(|_| label(choices)).collect();
        }
        _ => {}
    }
    spec
}

fn a_bootstrap(choices: &mut Choices<'_>) -> Bootstrap {
    let mut plan = bootstrap(1 + choices.below(4) as u64, &["f", "m"]);
    match choices.below(10) {
        0 => plan.nodes = (0..choices.below(5)).map(|_| spec(choices)).collect(),
        1 => plan.metadata_voters = (0..choices.below(4)).map(|_| node_id(choices)).collect(),
        2 => plan.sequencer_voters = (0..choices.below(12)).map(|_| node_id(choices)).collect(),
        3 => plan.replicas_per_shard = u32::try_from(id(choices, 5) & 0xFFFF_FFFF).unwrap(),
        4 => plan.split_keys = (0..choices.below(4)).map(|_| key(choices)).collect(),
        5 => plan.cluster = ClusterId(u128::from(choices.number())),
        _ => {}
    }
    plan
}

fn key(choices: &mut Choices<'_>) -> Blob {
    match choices.below(8) {
        0 => Blob::new(),
        1 => vec![b'q'; choices.below(1_100)].into(),
        _ => choices.bytes(3).into(),
    }
}

fn group(choices: &mut Choices<'_>, view: &ClusterView) -> GroupId {
    let groups: Vec<GroupId> = view.groups().map(|(id, _)| id).collect();
    let any = GroupId(id(choices, 20));
    if choices.below(10) == 0 { any } else { choices.pick(&groups).copied().unwrap_or(any) }
}

/// An operator that runs, or any.
fn operator(choices: &mut Choices<'_>, view: &ClusterView) -> MigrationId {
    let running: Vec<MigrationId> = view.running_operators().map(|operator| operator.id).collect();
    let any = migration(choices);
    if choices.below(6) == 0 { any } else { choices.pick(&running).copied().unwrap_or(any) }
}

fn phase(choices: &mut Choices<'_>, view: &ClusterView, operator: MigrationId) -> SplitPhase {
    let shard_epoch = |choices: &mut Choices<'_>| ShardEpoch(id(choices, 9));
    match view.operator(operator).map(|operator| &operator.task) {
        Some(Task::Split(split)) if choices.below(6) > 0 => split.phase,
        _ => match choices.below(5) {
            0 => SplitPhase::Planned,
            1 => SplitPhase::Ordering,
            2 => SplitPhase::Ordered { epoch: Epoch(choices.edge()) },
            3 => {
                SplitPhase::Installed { parent: shard_epoch(choices), child: shard_epoch(choices) }
            }
            _ => SplitPhase::Refused { reason: CutRefusal::EpochPassed },
        },
    }
}

fn next_phase(choices: &mut Choices<'_>, from: SplitPhase) -> SplitPhase {
    match from {
        SplitPhase::Planned if choices.below(6) > 0 => SplitPhase::Ordering,
        _ => SplitPhase::Ordered { epoch: Epoch(choices.edge()) },
    }
}

fn begin_split(choices: &mut Choices<'_>, view: &ClusterView) -> BeginSplit {
    let shards: Vec<ShardId> = view.shards().map(|(id, _)| id).collect();
    let any = ShardId(id(choices, 9));
    let shard = choices.pick(&shards).copied().filter(|_| choices.below(10) > 0).unwrap_or(any);
    let record = view.shard(shard);
    let start = record.map(|shard| shard.range.start.to_vec()).unwrap_or_default();
    let at = key(choices);
    let inside = choices.below(4) > 0;
    let at = if inside { Blob::from([start, at.to_vec()].concat()) } else { at };
    let generation = record.and_then(|it| view.group(it.group)).map_or(0, |it| it.generation);
    BeginSplit {
        operator: migration(choices),
        shard,
        at,
        epoch: record.map_or(ShardEpoch(1), |record| record.epoch),
        generation: if choices.below(12) == 0 { choices.edge() } else { generation },
    }
}

fn begin_move(choices: &mut Choices<'_>, view: &ClusterView) -> BeginMove {
    let group = group(choices, view);
    let (from, to) = (node_id(choices), node_id(choices));
    let change = match choices.below(4) {
        0 => ReplicaChange::Add { to },
        1 => ReplicaChange::Remove { from },
        _ => ReplicaChange::Replace { from, to },
    };
    let generation = view.group(group).map_or(0, |group| group.generation);
    let generation = if choices.below(12) == 0 { choices.edge() } else { generation };
    BeginMove { migration: migration(choices), group, change, generation }
}

fn journal(choices: &mut Choices<'_>, view: &ClusterView) -> JournalWrite {
    let id = migration(choices);
    let known = view.journal_row(id).map(|row| row.revision);
    let row = match choices.below(12) {
        0 => vec![7; choices.below(20_000)].into(),
        _ => choices.bytes(9).into(),
    };
    let expected = if choices.below(6) == 0 { Some(choices.edge()) } else { known };
    JournalWrite { id, expected, row, finished: choices.below(4) == 0 }
}

fn setting(choices: &mut Choices<'_>) -> Command {
    let name = if choices.below(4) == 0 { TARGET_REPLICAS.to_owned() } else { text(choices) };
    let value = match choices.below(3) {
        0 => None,
        1 => Some(SettingValue::Number(choices.edge())),
        _ => Some(SettingValue::Text(text(choices))),
    };
    Command::Set { name, value }
}

/// Any command.
pub(crate) fn command(choices: &mut Choices<'_>, registry: &Registry) -> Command {
    let view = registry.view();
    match choices.below(19) {
        0 => Command::Bootstrap(a_bootstrap(choices)),
        1 | 2 => Command::Join(spec(choices)),
        3 => {
            let states = [NodeState::Active, NodeState::Draining, NodeState::Removed];
            let node = node_id(choices);
            Command::SetNodeState { node, state: *choices.pick(&states).unwrap() }
        }
        4 => Command::SetClusterVersion { version: u32::from(choices.byte() % 4) },
        5 => setting(choices),
        6 | 7 => Command::BeginSplit(begin_split(choices, view)),
        8..=10 => {
            let operator = operator(choices, view);
            let from = phase(choices, view, operator);
            Command::AdvanceSplit { operator, from, to: next_phase(choices, from) }
        }
        11 => Command::InstallSplit {
            operator: operator(choices, view),
            parent_epoch: ShardEpoch(id(choices, 12)),
            child_epoch: ShardEpoch(id(choices, 12)),
        },
        12 => {
            let operator = operator(choices, view);
            let expected = phase(choices, view, operator);
            Command::AbortSplit { operator, expected, reason: CutRefusal::KeyOutside }
        }
        13 | 14 => Command::BeginMove(begin_move(choices, view)),
        15 => Command::CommitMove { migration: operator(choices, view) },
        16 => Command::AbandonMove { migration: operator(choices, view) },
        17 => Command::FinishSplit { operator: operator(choices, view) },
        _ => Command::Journal(journal(choices, view)),
    }
}
