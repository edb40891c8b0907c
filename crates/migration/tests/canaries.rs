//! The planted bugs do what their names say. Only in a build that has them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use bytes::Bytes;
use quorate_migration::{
    AbortReason, Checkpoint, Machine, MigrationRow, Place, Policy, Progress, Step,
};
use quorate_testkit::canary::with;
use quorate_types::fault::Canary;
use quorate_types::{GroupId, Hlc, MigrationId, NodeId, ReplicaId, ShardId};

fn row() -> MigrationRow {
    let place = |id| Place { node: NodeId(id), replica: ReplicaId(id) };
    let group = (ShardId(1), GroupId(17));
    MigrationRow::planned(MigrationId(7), group, place(1), place(4), 1, Hlc::default())
}

/// Rows that differ from a stored one in a byte and can be read.
fn readable_damage() -> usize {
    let (row, stored) = (row(), row().seal());
    let damaged = (0..stored.len()).filter(|&at| {
        let mut bytes = stored.to_vec();
        bytes[at] ^= 1;
        MigrationRow::open(&row.key(), &Bytes::from(bytes)).is_ok_and(|read| read != row)
    });
    damaged.count()
}

#[test]
fn a_damaged_row_is_taken_as_it_stands() {
    assert_eq!(readable_damage(), 0);
    assert!(with(Canary::RowNotVerified, readable_damage) > 0);
}

/// What is done first about a move whose target votes and that is given up.
fn first_step_of_undoing() -> Step {
    let reason = AbortReason::Cancelled;
    let row = MigrationRow { checkpoint: Checkpoint::Aborting { reason }, attempt: 2, ..row() };
    let mut machine = Machine::new(row, 1, Policy::default());
    let voters = [1, 2, 3, 4].map(ReplicaId).into();
    let leader = Some(ReplicaId(2));
    machine.handle_progress(&Progress { leader, voters, ..Progress::default() });
    machine.poll_step()
}

#[test]
fn a_move_is_given_up_without_taking_anything_back() {
    assert!(matches!(first_step_of_undoing(), Step::Perform(..)));
    match with(Canary::MoveHalfAborted, first_step_of_undoing) {
        Step::Record { row, .. } => assert!(row.outcome().is_some()),
        other => panic!("{other:?}"),
    }
}
