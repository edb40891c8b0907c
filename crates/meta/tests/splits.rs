//! Splits from plan to map.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::*;
use quorate_meta::limits::SPLIT_KEY_BYTES_MAX;
use quorate_meta::{
    BeginSplit, Birth, Command, Limited, Lineage, OperatorState, Origin, Refusal, Role, SplitPhase,
    shard_group,
};
use quorate_types::{KeyRange, MigrationId, NodeId, ReplicaId, ShardEpoch, ShardId};

const FIRST: ShardId = ShardId(1);

#[test]
fn a_plan_allocates_every_id_and_changes_no_range() {
    let mut host = Host::bootstrapped();
    let split = split_of(host.operator(host.begin_split(1, "f")));
    assert_eq!((split.child, split.child_group), (ShardId(3), shard_group(ShardId(3))));
    assert_eq!(split.change, host.registry.view().version());
    assert_eq!(split.phase, SplitPhase::Planned);
    let nodes: Vec<NodeId> = split.child_replicas.iter().map(|child| child.node).collect();
    assert_eq!(nodes, [1, 2, 3].map(NodeId));
    let ids: Vec<ReplicaId> = split.child_replicas.iter().map(|child| child.id).collect();
    assert_eq!(ids, [13, 14, 15].map(ReplicaId));

    let view = host.registry.view();
    assert_eq!(view.shards().len(), 2);
    assert!(view.group(split.child_group).is_none());
    assert!(!view.is_retired(split.child_group, ids[0]), "planned is not spent");
    assert_eq!(view.operator_on(shard_group(FIRST)).map(|o| o.id), Some(SPLIT));
}

#[test]
fn an_ordered_split_installs_both_ranges() {
    let mut host = Host::bootstrapped();
    let split = host.ordered_split();
    let version = host.registry.view().version();
    assert!(host.operator(install(2, 2)).is_running(), "its child may not be born");

    let view = host.registry.view();
    assert_eq!(view.version(), version + 1);
    assert_eq!(view.shard(FIRST).unwrap().range, KeyRange::new("", "f"));
    let child = view.shard(split.child).unwrap();
    assert_eq!((child.range.clone(), child.epoch), (KeyRange::new("f", "m"), ShardEpoch(2)));
    assert_eq!(child.parent, Some(Lineage { shard: FIRST, at: "f".into() }));
    let group = view.group(split.child_group).unwrap();
    assert!(group.replicas.iter().all(|r| r.origin == Origin::Seeded && r.role == Role::Voter));
    assert_eq!(view.locate(b"g").map(|(id, _)| id), Some(split.child));
    assert_eq!(view.locate(b"a").map(|(id, _)| id), Some(FIRST));
    assert_eq!(view.locate(b"z").map(|(id, _)| id), Some(ShardId(2)));
    assert_eq!(host.reloaded(), host.registry);
    let ended = host.operator(FINISH);
    assert_eq!(ended.state, OperatorState::Finished { at: host.index });
    assert_eq!(host.registry.view().version(), version + 2);
    assert_eq!(host.reloaded(), host.registry);
}

#[test]
fn every_step_of_a_split_may_be_repeated() {
    let mut host = Host::bootstrapped();
    let begin = host.begin_split(1, "f");
    let planned = host.operator(begin.clone());
    assert_eq!(host.operator(begin.clone()), planned);
    let ordering = host.operator(advance(SplitPhase::Planned, SplitPhase::Ordering));
    assert_eq!(host.operator(advance(SplitPhase::Planned, SplitPhase::Ordering)), ordering);
    assert_eq!(host.operator(begin.clone()), ordering);
    host.operator(advance(SplitPhase::Ordering, ORDERED));
    let installed = host.operator(install(2, 2));
    assert_eq!(host.operator(install(2, 2)), installed);
    assert_eq!(host.operator(begin.clone()), installed);
    let ended = host.operator(FINISH);
    let version = host.registry.view().version();
    assert_eq!(host.operator(FINISH), ended);
    assert_eq!(host.operator(install(2, 2)), ended);
    assert_eq!(host.operator(begin), ended);
    assert_eq!(host.registry.view().version(), version);
}

#[test]
fn phases_never_go_back_or_skip() {
    let mut host = Host::bootstrapped();
    host.operator(host.begin_split(1, "f"));
    let planned = Refusal::PhaseOrder { current: SplitPhase::Planned };
    assert_eq!(host.refused(advance(SplitPhase::Planned, ORDERED)), planned);
    assert_eq!(host.refused(install(2, 2)), planned);
    assert_eq!(host.refused(FINISH), planned);
    host.operator(advance(SplitPhase::Planned, SplitPhase::Ordering));
    let mismatch = Refusal::PhaseMismatch { current: SplitPhase::Ordering };
    assert_eq!(host.refused(advance(SplitPhase::Planned, ORDERED)), mismatch);
    let back = host.refused(advance(SplitPhase::Ordering, SplitPhase::Planned));
    assert_eq!(back, Refusal::PhaseOrder { current: SplitPhase::Ordering });
    let installed = SplitPhase::Installed { parent: ShardEpoch(2), child: ShardEpoch(2) };
    let skip = host.refused(advance(SplitPhase::Ordering, installed));
    assert_eq!(skip, Refusal::PhaseOrder { current: SplitPhase::Ordering });
    assert_eq!(host.refused(FINISH), Refusal::PhaseOrder { current: SplitPhase::Ordering });
}

#[test]
fn an_abort_needs_the_phase_and_stops_at_the_order() {
    let mut host = Host::bootstrapped();
    let split = split_of(host.operator(host.begin_split(1, "f")));
    host.operator(advance(SplitPhase::Planned, SplitPhase::Ordering));
    let raced = host.refused(abort(SplitPhase::Planned));
    assert_eq!(raced, Refusal::PhaseMismatch { current: SplitPhase::Ordering });
    let ended = host.operator(abort(SplitPhase::Ordering));
    assert_eq!(ended.state, OperatorState::Aborted { at: host.index });
    assert_eq!(split_of(ended.clone()).phase, REFUSED, "whoever looks sees why");
    assert_eq!(host.operator(abort(SplitPhase::Ordering)), ended);
    assert_eq!(host.reloaded(), host.registry);
    assert_eq!(host.refused(install(2, 2)), Refusal::OperatorEnded { operator: SPLIT });
    assert_eq!(host.refused(FINISH), Refusal::OperatorEnded { operator: SPLIT });
    let view = host.registry.view();
    assert!(view.is_retired(split.child_group, split.child_replicas[0].id));

    let mut host = Host::bootstrapped();
    host.ordered_split();
    assert_eq!(host.refused(abort(ORDERED)), Refusal::PhaseOrder { current: ORDERED });
    let installed = split_of(host.operator(install(2, 2))).phase;
    assert_eq!(host.refused(abort(installed)), Refusal::PhaseOrder { current: installed });
    host.operator(FINISH);
    assert_eq!(host.refused(abort(installed)), Refusal::OperatorEnded { operator: SPLIT });
}

#[test]
fn a_late_duplicate_of_an_aborted_split_begins_nothing() {
    let mut host = Host::bootstrapped();
    let begin = host.begin_split(1, "f");
    host.operator(begin.clone());
    host.operator(abort(SplitPhase::Planned));
    let Command::BeginSplit(late) = begin else { panic!("a split") };
    let late = Command::BeginSplit(BeginSplit { operator: MigrationId(501), ..late });
    let group = shard_group(FIRST);
    assert_eq!(host.refused(late), Refusal::StaleGeneration { group, current: 3 });
}

#[test]
fn ids_of_an_aborted_split_are_never_used_again() {
    let mut host = Host::bootstrapped();
    let first = split_of(host.operator(host.begin_split(1, "f")));
    host.operator(abort(SplitPhase::Planned));
    let mut host = Host { registry: host.reloaded(), ..host };
    let Command::BeginSplit(again) = host.begin_split(1, "f") else { panic!("a split") };
    let again = Command::BeginSplit(BeginSplit { operator: MigrationId(501), ..again });
    let second = split_of(host.operator(again));
    assert!(second.child > first.child);
    let highest = first.child_replicas.iter().map(|child| child.id).max().unwrap();
    assert!(second.child_replicas.iter().all(|child| child.id > highest));
}

#[test]
fn a_split_is_refused_where_it_makes_no_sense() {
    let mut host = Host::bootstrapped();
    let outside = Refusal::SplitKeyOutside { shard: FIRST };
    for key in ["", "m", "z"] {
        assert_eq!(host.refused(host.begin_split(1, key)), outside);
    }
    let long = "a".repeat(SPLIT_KEY_BYTES_MAX + 1);
    let limit = Refusal::Limit { what: Limited::SplitKeyBytes, max: SPLIT_KEY_BYTES_MAX as u64 };
    assert_eq!(host.refused(host.begin_split(1, &long)), limit);
    let unknown = host.refused(host.begin_split(9, "f"));
    assert_eq!(unknown, Refusal::ShardUnknown { shard: ShardId(9) });
    let Command::BeginSplit(begin) = host.begin_split(1, "f") else { panic!("a split") };
    let stale = Command::BeginSplit(BeginSplit { epoch: ShardEpoch(7), ..begin });
    assert_eq!(host.refused(stale), Refusal::StaleEpoch { shard: FIRST, current: ShardEpoch(1) });
}

#[test]
fn one_operator_works_on_a_shard_at_a_time() {
    let mut host = Host::with_spare();
    let group = shard_group(FIRST);
    host.operator(host.begin_split(1, "f"));
    let busy = Refusal::Busy { group, operator: SPLIT };
    assert_eq!(host.refused(host.begin_move(group, replace(1, 4))), busy);
    for (from, to) in [(SplitPhase::Planned, SplitPhase::Ordering), (SplitPhase::Ordering, ORDERED)]
    {
        host.operator(advance(from, to));
    }
    host.operator(install(2, 2));
    assert_eq!(host.refused(host.begin_move(group, replace(1, 4))), busy, "the child needs it");
    let other = shard_group(ShardId(2));
    assert!(host.operator(host.begin_move(other, replace(1, 4))).is_running());
}

#[test]
fn both_epochs_must_rise() {
    let mut host = Host::bootstrapped();
    host.ordered_split();
    let current = ShardEpoch(1);
    assert_eq!(host.refused(install(1, 2)), Refusal::EpochNotAbove { current });
    assert_eq!(host.refused(install(2, 1)), Refusal::EpochNotAbove { current });
}

#[test]
fn an_id_names_one_operator_for_good() {
    let mut host = Host::bootstrapped();
    host.operator(host.begin_split(1, "f"));
    let mismatch = Refusal::OperatorMismatch { operator: SPLIT };
    assert_eq!(host.refused(host.begin_split(2, "t")), mismatch);
    assert_eq!(host.refused(Command::CommitMove { migration: SPLIT }), mismatch);
    let unknown = Refusal::OperatorUnknown { operator: MOVE };
    assert_eq!(host.refused(Command::AbandonMove { migration: MOVE }), unknown);
}

#[test]
fn a_child_s_replica_is_born_by_the_fork_beside_it() {
    let mut host = Host::bootstrapped();
    let split = host.ordered_split();
    let born = |host: &Host| {
        let view = host.registry.view();
        let replica = view.group(split.child_group).map(|group| group.replicas[0]);
        view.birth(split.child_group, &replica?)
    };
    assert_eq!(born(&host), None, "the map does not show it yet");
    host.propose(install(2, 2));
    assert_eq!(born(&host), Some(Birth::Forked { parent: FIRST, at: "f".into() }));
}
