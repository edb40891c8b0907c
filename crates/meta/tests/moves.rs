//! Moves of replicas, and the compare-and-set journal.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::*;
use quorate_meta::limits::{
    JOURNAL_FINISHED_KEPT, JOURNAL_OPEN_MAX, JOURNAL_ROW_BYTES_MAX, OPERATORS_ENDED_KEPT,
    RETIRED_KEPT_PER_GROUP,
};
use quorate_meta::{
    BeginMove, Birth, Command, Founding, JournalWrite, Limited, METADATA_GROUP, NodeState,
    OperatorState, Origin, Refusal, ReplicaChange, Reply, Role, SEQUENCER_GROUP, Task, shard_group,
};
use quorate_types::{GroupId, KeyRange, MigrationId, NodeId, ReplicaId, ShardEpoch, ShardId};

const GROUP: GroupId = shard_group(ShardId(1));
const COMMIT: Command = Command::CommitMove { migration: MOVE };
const ABANDON: Command = Command::AbandonMove { migration: MOVE };

fn added(task: &Task) -> ReplicaId {
    match task {
        Task::Move(change) => change.added.unwrap(),
        Task::Split(_) => panic!("expected a move"),
    }
}

/// One whole move of a group's replica, under an id of its own.
fn carry_out(host: &mut Host, migration: u128, group: GroupId, change: ReplicaChange) {
    let migration = MigrationId(migration);
    let generation = host.generation(group);
    host.operator(Command::BeginMove(BeginMove { migration, group, change, generation }));
    host.operator(Command::CommitMove { migration });
}

fn write(id: u128, expected: Option<u64>, row: &str, finished: bool) -> Command {
    Command::Journal(JournalWrite { id: MigrationId(id), expected, row: row.into(), finished })
}

#[test]
fn a_move_names_who_leaves_and_who_comes_until_it_is_over() {
    let mut host = Host::with_spare();
    let begun = host.operator(host.begin_move(GROUP, replace(1, 4)));
    let view = host.registry.view();
    let (from, to) = view.replacement(&begun).unwrap();
    assert_eq!((from.node, to.node, to.id), (NodeId(1), NodeId(4), added(&begun.task)));
    host.operator(COMMIT);
    assert_eq!(host.registry.view().replacement(&begun), None, "the one that left is gone");
}

#[test]
fn a_move_that_only_adds_replaces_nobody() {
    let mut host = Host::with_spare();
    let begun = host.operator(host.begin_move(GROUP, ReplicaChange::Add { to: NodeId(4) }));
    assert_eq!(host.registry.view().replacement(&begun), None);
}

#[test]
fn a_move_shows_a_learner_and_then_replaces_the_voter() {
    let mut host = Host::with_spare();
    let begun = host.operator(host.begin_move(GROUP, replace(1, 4)));
    let new = added(&begun.task);
    let learner = *host.registry.view().group(GROUP).unwrap().replica_on(NodeId(4)).unwrap();
    assert_eq!((learner.id, learner.role, learner.origin), (new, Role::Learner, Origin::Joined));
    let old = host.registry.view().group(GROUP).unwrap().replica_on(NodeId(1)).unwrap().id;

    let ended = host.operator(COMMIT);
    assert_eq!(ended.state, OperatorState::Finished { at: host.index });
    let view = host.registry.view();
    let group = view.group(GROUP).unwrap();
    assert_eq!(group.replica(new).map(|replica| replica.role), Some(Role::Voter));
    assert_eq!(group.replica_on(NodeId(1)), None);
    assert_eq!(group.retired.last().map(|gone| (gone.id, gone.node)), Some((old, NodeId(1))));
    assert!(view.is_retired(GROUP, old));
    assert!(!view.is_retired(GROUP, new));
    assert!(!view.is_retired(GROUP, ReplicaId(1_000)), "never given out");
    assert_eq!(host.reloaded(), host.registry);
}

#[test]
fn an_abandoned_move_retires_its_learner() {
    let mut host = Host::with_spare();
    let new = added(&host.operator(host.begin_move(GROUP, replace(1, 4))).task);
    host.operator(ABANDON);
    let view = host.registry.view();
    let group = view.group(GROUP).unwrap();
    assert_eq!(group.voters().count(), 3);
    assert_eq!(group.replica(new), None);
    assert!(view.is_retired(GROUP, new));
    assert_eq!(host.refused(COMMIT), Refusal::OperatorEnded { operator: MOVE });
}

#[test]
fn every_step_of_a_move_may_be_repeated() {
    let mut host = Host::with_spare();
    let begin = host.begin_move(GROUP, replace(1, 4));
    let begun = host.operator(begin.clone());
    assert_eq!(host.operator(begin.clone()), begun);
    let ended = host.operator(COMMIT);
    assert_eq!(host.operator(COMMIT), ended);
    assert_eq!(host.operator(begin), ended);
    assert_eq!(host.refused(ABANDON), Refusal::OperatorEnded { operator: MOVE });
}

#[test]
fn a_late_duplicate_of_an_abandoned_move_begins_nothing() {
    let mut host = Host::with_spare();
    let begin = host.begin_move(GROUP, replace(1, 4));
    host.operator(begin.clone());
    host.operator(ABANDON);
    let Command::BeginMove(late) = begin else { panic!("a move") };
    let late = BeginMove { migration: MigrationId(601), ..late };
    let refusal = host.refused(Command::BeginMove(late));
    assert_eq!(refusal, Refusal::StaleGeneration { group: GROUP, current: 3 });
}

#[test]
fn a_move_is_refused_where_it_makes_no_sense() {
    let mut host = Host::with_spare();
    let mut refused = |change| {
        let command = host.begin_move(GROUP, change);
        host.refused(command)
    };
    assert_eq!(refused(replace(4, 4)), Refusal::NoVoterOn { group: GROUP, node: NodeId(4) });
    assert_eq!(refused(replace(1, 2)), Refusal::ReplicaOn { group: GROUP, node: NodeId(2) });
    assert_eq!(refused(replace(1, 1)), Refusal::ReplicaOn { group: GROUP, node: NodeId(1) });
    assert_eq!(refused(replace(1, 9)), Refusal::NodeUnknown { node: NodeId(9) });
    host.propose(set_state(4, NodeState::Draining));
    let draining = host.refused(host.begin_move(GROUP, replace(1, 4)));
    assert_eq!(draining, Refusal::NodeNotActive { node: NodeId(4), state: NodeState::Draining });
    let nowhere = GroupId(15);
    let unknown = host.refused(host.begin_move(nowhere, replace(1, 4)));
    assert_eq!(unknown, Refusal::GroupUnknown { group: nowhere });
}

#[test]
fn a_target_of_a_move_cannot_be_removed_meanwhile() {
    let mut host = Host::with_spare();
    host.operator(host.begin_move(GROUP, replace(1, 4)));
    let refusal = host.refused(set_state(4, NodeState::Removed));
    assert_eq!(refusal, Refusal::NodeHoldsReplicas { node: NodeId(4), replicas: 1 });
}

#[test]
fn a_cluster_of_one_grows_to_three_and_back() {
    let mut host = Host::default();
    host.propose(Command::Bootstrap(bootstrap(1, &[])));
    host.propose(Command::Join(node(2)));
    host.propose(Command::Join(node(3)));
    for group in [METADATA_GROUP, SEQUENCER_GROUP, GROUP] {
        let id = u128::from(group.0) * 10;
        carry_out(&mut host, id, group, ReplicaChange::Add { to: NodeId(2) });
        carry_out(&mut host, id + 1, group, ReplicaChange::Add { to: NodeId(3) });
        assert_eq!(host.registry.view().group(group).unwrap().voters().count(), 3);
        carry_out(&mut host, id + 2, group, ReplicaChange::Remove { from: NodeId(1) });
        carry_out(&mut host, id + 3, group, ReplicaChange::Remove { from: NodeId(2) });
        let last = host.refused(host.begin_move(group, ReplicaChange::Remove { from: NodeId(3) }));
        assert_eq!(last, Refusal::LastVoter { group });
    }
}

#[test]
fn a_group_takes_nine_replicas_and_no_tenth() {
    let mut host = Host::bootstrapped();
    for id in 4..=10 {
        host.propose(Command::Join(node(id)));
    }
    for id in 4..=9 {
        carry_out(&mut host, u128::from(id), GROUP, ReplicaChange::Add { to: NodeId(id) });
    }
    let full = host.refused(host.begin_move(GROUP, ReplicaChange::Add { to: NodeId(10) }));
    assert_eq!(full, Refusal::Limit { what: Limited::Replicas, max: 9 });
}

#[test]
fn draining_moves_metadata_and_sequencer_voters_too() {
    let mut host = Host::with_spare();
    host.propose(set_state(1, NodeState::Draining));
    let groups: Vec<GroupId> =
        host.registry.view().replicas_on(NodeId(1)).map(|(group, _)| group).collect();
    assert!(groups.contains(&METADATA_GROUP) && groups.contains(&SEQUENCER_GROUP));
    for group in groups {
        carry_out(&mut host, u128::from(group.0), group, replace(1, 4));
    }
    let gone = host.propose(set_state(1, NodeState::Removed));
    assert!(matches!(gone, Reply::Done { .. }));
}

#[test]
fn old_retired_replicas_and_old_operators_are_forgotten_but_stay_spent() {
    let mut host = Host::with_spare();
    let first = host.registry.view().group(GROUP).unwrap().replica_on(NodeId(1)).unwrap().id;
    for n in 0..OPERATORS_ENDED_KEPT as u128 + 10 {
        let (from, to) = if n % 2 == 0 { (1, 4) } else { (4, 1) };
        carry_out(&mut host, n, GROUP, replace(from, to));
    }
    let view = host.registry.view();
    assert_eq!(view.group(GROUP).unwrap().retired.len(), RETIRED_KEPT_PER_GROUP);
    assert!(view.is_retired(GROUP, first));
    assert_eq!(view.ended_operators().count(), OPERATORS_ENDED_KEPT);
    assert!(view.operator(MigrationId(9)).is_none() && view.operator(MigrationId(10)).is_some());
    assert_eq!(host.reloaded(), host.registry);
}

#[test]
fn a_journal_row_is_written_by_whoever_was_first() {
    let mut host = Host::bootstrapped();
    assert_eq!(host.propose(write(1, None, "a", false)), Reply::Journalled { revision: 1 });
    let Reply::Conflict { current: Some(row) } = host.propose(write(1, None, "b", false)) else {
        panic!("the second writer must lose");
    };
    assert_eq!((row.revision, &*row.row), (1, &b"a"[..]));
    assert_eq!(host.propose(write(1, Some(1), "c", false)), Reply::Journalled { revision: 2 });
    assert!(matches!(host.propose(write(1, Some(1), "d", true)), Reply::Conflict { .. }));
    assert_eq!(host.propose(write(2, Some(1), "e", false)), Reply::Conflict { current: None });
    assert_eq!(host.propose(write(1, Some(2), "f", true)), Reply::Journalled { revision: 3 });
    let last = host.refused(write(1, Some(3), "g", false));
    assert_eq!(last, Refusal::JournalFinished { id: MigrationId(1) });
    assert_eq!(host.reloaded(), host.registry);
}

#[test]
fn finished_journal_rows_are_forgotten_and_open_ones_never() {
    let mut host = Host::bootstrapped();
    host.propose(write(0, None, "open", false));
    for id in 1..=JOURNAL_FINISHED_KEPT as u128 + 1 {
        host.propose(write(id, None, "done", true));
    }
    let view = host.registry.view();
    assert!(view.journal_row(MigrationId(0)).is_some());
    assert!(view.journal_row(MigrationId(1)).is_none());
    assert_eq!(view.journal().count(), JOURNAL_FINISHED_KEPT + 1);
    assert_eq!(host.reloaded(), host.registry);
}

#[test]
fn the_journal_is_bounded() {
    let mut host = Host::bootstrapped();
    let large = "x".repeat(JOURNAL_ROW_BYTES_MAX + 1);
    let bytes =
        Refusal::Limit { what: Limited::JournalRowBytes, max: JOURNAL_ROW_BYTES_MAX as u64 };
    assert_eq!(host.refused(write(0, None, &large, false)), bytes);
    for id in 0..JOURNAL_OPEN_MAX as u128 {
        host.propose(write(id, None, "", false));
    }
    let rows = Refusal::Limit { what: Limited::JournalRows, max: JOURNAL_OPEN_MAX as u64 };
    assert_eq!(host.refused(write(9_999, None, "", false)), rows);
    assert_eq!(host.propose(write(0, Some(1), "", true)), Reply::Journalled { revision: 2 });
    assert_eq!(host.propose(write(9_999, None, "", false)), Reply::Journalled { revision: 1 });
}

#[test]
fn a_replica_is_seeded_until_its_group_s_voters_have_changed() {
    let mut host = Host::with_spare();
    let born = |host: &Host, id, at| {
        let view = host.registry.view();
        view.birth(id, view.group(id).and_then(|group| group.replicas.get(at)).unwrap()).unwrap()
    };
    for id in [GROUP, SEQUENCER_GROUP] {
        let group = host.registry.view().group(id).unwrap();
        let members: Vec<_> = group.voters().map(|voter| (voter.id, voter.node)).collect();
        let range = if id == GROUP { KeyRange::new("", "m") } else { KeyRange::all() };
        let founding = Founding { members, range, epoch: ShardEpoch(1) };
        assert_eq!(born(&host, id, 0), Birth::Seeded(founding));
    }
    assert_eq!(born(&host, METADATA_GROUP, 0), Birth::Joined, "it is formed by hand");
    let seeded = born(&host, GROUP, 0);
    host.ordered_split();
    host.operator(install(2, 2));
    host.operator(FINISH);
    assert_eq!(born(&host, GROUP, 0), seeded, "its log has the cut");
    host.operator(host.begin_move(GROUP, replace(1, 4)));
    assert_eq!(born(&host, GROUP, 3), Birth::Joined, "the learner");
    assert_eq!(born(&host, GROUP, 0), seeded, "the move waits for the group to come into being");
    host.operator(Command::CommitMove { migration: MOVE });
    assert_eq!(born(&host, GROUP, 0), Birth::Joined, "its siblings have moved on");
}
