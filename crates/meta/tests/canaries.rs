//! The planted bugs do what their names say. Only in a build that has them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::*;
use quorate_meta::{BeginMove, Command, Task, shard_group};
use quorate_testkit::canary::with;
use quorate_types::fault::Canary;
use quorate_types::{GroupId, MigrationId, NodeId, ReplicaId, ShardId};

const GROUP: GroupId = shard_group(ShardId(1));

fn begin(host: &mut Host, migration: u128, from: u64, to: u64) -> ReplicaId {
    let (migration, change) = (MigrationId(migration), replace(from, to));
    let generation = host.generation(GROUP);
    let begin = BeginMove { migration, group: GROUP, change, generation };
    match host.operator(Command::BeginMove(begin)).task {
        Task::Move(planned) => planned.added.unwrap(),
        Task::Split(_) => panic!("expected a move"),
    }
}

/// Whether the replica of an abandoned move still counts.
fn counts_after_an_abandoned_move() -> bool {
    let mut host = Host::with_spare();
    let added = begin(&mut host, 1, 1, 4);
    host.operator(Command::AbandonMove { migration: MigrationId(1) });
    let group = host.registry.view().group(GROUP).unwrap();
    group.voters().any(|voter| voter.id == added)
}

#[test]
fn an_abandoned_move_leaves_both_replicas() {
    assert!(!counts_after_an_abandoned_move());
    assert!(with(Canary::MoveHalfAborted, counts_after_an_abandoned_move));
}

/// The id that left by a move to node 4, and the one that comes back to node 1.
fn gone_and_next() -> (ReplicaId, ReplicaId) {
    let mut host = Host::with_spare();
    let gone = host.registry.view().group(GROUP).unwrap().replica_on(NodeId(1)).unwrap().id;
    begin(&mut host, 1, 1, 4);
    host.operator(Command::CommitMove { migration: MigrationId(1) });
    (gone, begin(&mut host, 2, 4, 1))
}

#[test]
fn the_id_of_a_replica_that_left_is_given_out_again() {
    let (gone, next) = gone_and_next();
    assert!(next > gone);
    let (gone, next) = with(Canary::ReplicaIdReused, gone_and_next);
    assert_eq!(next, gone);
}
