//! Whatever is asked of a registry in whatever order, its promises hold. The
//! invariants of a single state are asserted by every apply; here are those
//! over histories, restarts and replicas.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::BTreeMap;

use common::*;
use proptest::prelude::*;
use quorate_meta::{
    BeginMove, BeginSplit, ClusterView, Command, CutRefusal, JournalWrite, NodeState, Registry,
    ReplicaChange, Reply, SettingValue, SplitPhase, Task,
};
use quorate_types::{Blob, Epoch, GroupId, MigrationId, NodeId, ReplicaId, ShardEpoch, ShardId};

/// A command to be; what its numbers mean depends on the state it meets.
type Wish = (u8, u64, u64, u64);

fn wishes() -> impl Strategy<Value = Vec<Wish>> {
    prop::collection::vec((0..15u8, any::<u64>(), any::<u64>(), any::<u64>()), 1..120)
}

const REFUSALS: [CutRefusal; 3] =
    [CutRefusal::ChildTaken, CutRefusal::KeyOutside, CutRefusal::EpochPassed];

fn pick<T: Copy>(from: &[T], number: u64) -> Option<T> {
    from.get(usize::try_from(number).unwrap() % from.len().max(1)).copied()
}

/// Mostly a command that makes sense in `view`, sometimes one that is stale,
/// misdirected or a repetition.
fn command(view: &ClusterView, (kind, a, b, c): Wish) -> Command {
    let node = NodeId(1 + a % 7);
    let id = MigrationId(u128::from(b % 40));
    let is_wanted = |task: &Task| matches!(task, Task::Move(_)) == (kind > 10);
    let running: Vec<MigrationId> = view
        .running_operators()
        .filter(|operator| is_wanted(&operator.task))
        .map(|operator| operator.id)
        .collect();
    let operator = pick(&running, a).filter(|_| !c.is_multiple_of(8)).unwrap_or(id);
    match kind {
        0 | 1 => Command::Join(node_with(1 + a % 7, b)),
        2 => Command::SetNodeState {
            node,
            state: pick(&[NodeState::Active, NodeState::Draining, NodeState::Removed], b).unwrap(),
        },
        3 => Command::SetClusterVersion { version: u32::try_from(a % 4).unwrap() },
        4 => Command::Set {
            name: format!("s{}", a % 4),
            value: (!b.is_multiple_of(3)).then_some(SettingValue::Number(c)),
        },
        5 | 6 => begin_split(view, id, a, c),
        7 => advance_split(view, operator, c),
        8 => Command::InstallSplit {
            operator,
            parent_epoch: ShardEpoch(1 + b % 6),
            child_epoch: ShardEpoch(1 + c % 6),
        },
        9 if matches!(phase(view, operator), SplitPhase::Installed { .. }) => {
            Command::FinishSplit { operator }
        }
        9 => Command::AbortSplit {
            operator,
            expected: phase(view, operator),
            reason: pick(&REFUSALS, c).unwrap(),
        },
        10 | 13 => begin_move(view, id, a, c),
        11 => match c % 3 {
            0 => Command::AbandonMove { migration: operator },
            _ => Command::CommitMove { migration: operator },
        },
        _ => Command::Journal(JournalWrite {
            id,
            expected: view.journal_row(id).map(|row| row.revision).filter(|_| c % 4 > 0),
            row: Blob::from(&a.to_be_bytes()),
            finished: c.is_multiple_of(5),
        }),
    }
}

fn node_with(id: u64, salt: u64) -> quorate_meta::NodeSpec {
    let mut spec = node(id);
    spec.supports = u32::try_from(1 + salt % 3).unwrap();
    if salt.is_multiple_of(11) {
        spec.disk = disk(1 + salt % 9);
    }
    spec
}

fn begin_split(view: &ClusterView, operator: MigrationId, a: u64, c: u64) -> Command {
    let shards: Vec<ShardId> = view.shards().map(|(id, _)| id).collect();
    let shard = pick(&shards, a).unwrap_or(ShardId(a % 3));
    let at = Blob::from(&u16::try_from(c % 0x1_0000).unwrap().to_be_bytes());
    let at = if c.is_multiple_of(5) { at } else { inside(view, shard, at) };
    let record = view.shard(shard);
    Command::BeginSplit(BeginSplit {
        operator,
        shard,
        at,
        epoch: record.map_or(ShardEpoch(1), |record| record.epoch),
        generation: record.and_then(|r| view.group(r.group)).map_or(0, |group| group.generation),
    })
}

/// A key behind the shard's first one, made from `salt`.
fn inside(view: &ClusterView, shard: ShardId, salt: Blob) -> Blob {
    let start = view.shard(shard).map(|shard| shard.range.start.to_vec()).unwrap_or_default();
    Blob::from([start, salt.to_vec()].concat())
}

fn phase(view: &ClusterView, operator: MigrationId) -> SplitPhase {
    match view.operator(operator).map(|operator| &operator.task) {
        Some(Task::Split(split)) => split.phase,
        _ => SplitPhase::Planned,
    }
}

fn advance_split(view: &ClusterView, operator: MigrationId, c: u64) -> Command {
    let from = phase(view, operator);
    let to = match from {
        SplitPhase::Planned if !c.is_multiple_of(6) => SplitPhase::Ordering,
        _ => SplitPhase::Ordered { epoch: Epoch(c % 100) },
    };
    Command::AdvanceSplit { operator, from, to }
}

fn begin_move(view: &ClusterView, migration: MigrationId, a: u64, c: u64) -> Command {
    let groups: Vec<GroupId> = view.groups().map(|(id, _)| id).collect();
    let group = pick(&groups, a).unwrap_or(GroupId(1));
    let (from, to) = (NodeId(1 + c % 7), NodeId(1 + (c >> 8) % 7));
    let change = match c % 4 {
        0 => ReplicaChange::Add { to },
        1 => ReplicaChange::Remove { from },
        _ => ReplicaChange::Replace { from, to },
    };
    let generation =
        view.group(group).map_or(0, |group| group.generation) - u64::from(c.is_multiple_of(9));
    Command::BeginMove(BeginMove { migration, group, change, generation })
}

/// Who has ever had which replica id.
#[derive(Default)]
struct Holders(BTreeMap<ReplicaId, (GroupId, NodeId)>);

impl Holders {
    fn note(&mut self, view: &ClusterView) {
        for (group, record) in view.groups() {
            for replica in &record.replicas {
                self.check(replica.id, group, replica.node);
            }
            for retired in &record.retired {
                self.check(retired.id, group, retired.node);
                assert!(view.is_retired(group, retired.id));
            }
        }
        for operator in view.running_operators() {
            if let Task::Split(split) = &operator.task {
                for child in &split.child_replicas {
                    self.check(child.id, split.child_group, child.node);
                }
            }
        }
    }

    fn check(&mut self, id: ReplicaId, group: GroupId, node: NodeId) {
        let holder = *self.0.entry(id).or_insert((group, node));
        assert_eq!(holder, (group, node), "{id} was given out twice");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_history_keeps_every_promise(wishes in wishes()) {
        let mut host = Host::bootstrapped();
        let mut replica = Registry::load(host.rows.clone()).unwrap();
        let mut holders = Holders::default();
        for wish in wishes {
            let before = host.registry.view().clone();
            let entry = command(&before, wish).encode().unwrap();
            host.index += 1;
            let reply = host.deliver(&entry);

            // A replica that took the same entry has the same rows and reply.
            let applied = replica.apply(host.index, &entry).unwrap();
            prop_assert_eq!(&applied.reply, &reply);
            prop_assert_eq!(&replica, &host.registry);

            let view = host.registry.view();
            holders.note(view);
            let map_changed = before.nodes().ne(view.nodes())
                || before.groups().ne(view.groups())
                || before.shards().ne(view.shards())
                || before.running_operators().ne(view.running_operators());
            prop_assert_eq!(view.version(), before.version() + u64::from(map_changed));
            if matches!(reply, Reply::Refused(_) | Reply::Conflict { .. }) {
                prop_assert!(!map_changed);
            }
        }
        // A restart finds what was in memory.
        prop_assert_eq!(&host.reloaded(), &host.registry);
        prop_assert_eq!(Registry::decode(&host.registry.encode()).unwrap(), host.registry);
    }

    #[test]
    fn a_repeated_history_answers_the_same_and_changes_no_map(wishes in wishes()) {
        let mut host = Host::bootstrapped();
        for wish in wishes {
            let command = command(host.registry.view(), wish);
            let first = host.propose(command.clone());
            let version = host.registry.view().version();
            let again = host.propose(command);
            prop_assert_eq!(host.registry.view().version(), version);
            let is_write = matches!(first, Reply::Journalled { .. });
            let is_lost_race = matches!(again, Reply::Conflict { .. });
            prop_assert!(first == again || (is_write && is_lost_race), "{first:?} then {again:?}");
        }
    }

    #[test]
    fn every_key_has_exactly_one_shard(wishes in wishes(), key in prop::collection::vec(any::<u8>(), 0..6)) {
        let mut host = Host::bootstrapped();
        for wish in wishes {
            let command = command(host.registry.view(), wish);
            host.propose(command);
        }
        let view = host.registry.view();
        let owners: Vec<ShardId> = view
            .shards()
            .filter(|(_, shard)| shard.range.contains(&key))
            .map(|(id, _)| id)
            .collect();
        prop_assert_eq!(owners, view.locate(&key).map(|(id, _)| vec![id]).unwrap());
    }
}
