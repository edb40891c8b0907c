//! Operators that are begun on what a view shows.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::*;
use quorate_meta::shard_group;
use quorate_types::{GroupId, MigrationId, ShardId};

const SHARD: ShardId = ShardId(1);

#[test]
fn a_plan_is_taken_on_the_state_it_was_made_on_and_refused_after_it() {
    let mut host = Host::with_spare();
    let before = host.registry.view().clone();
    let group = shard_group(SHARD);
    let planned = before.plan_move(MigrationId(70), group, replace(1, 4)).unwrap();
    host.operator(planned);
    let late = before.plan_split(MigrationId(71), SHARD, "c".into()).unwrap();
    host.refused(late); // A move is under way.
}

#[test]
fn a_split_is_planned_with_the_epoch_of_the_shard() {
    let mut host = Host::with_spare();
    let planned = host.registry.view().plan_split(MigrationId(72), SHARD, "c".into()).unwrap();
    assert!(host.operator(planned).is_running());
}

#[test]
fn what_is_not_there_cannot_be_planned() {
    let host = Host::with_spare();
    let view = host.registry.view();
    assert_eq!(view.plan_move(MigrationId(1), GroupId(999), replace(1, 4)), None);
    assert_eq!(view.plan_split(MigrationId(1), ShardId(999), "c".into()), None);
}
