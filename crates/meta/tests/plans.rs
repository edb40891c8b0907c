//! Operators that are begun on what a view shows.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::drivers::{Group, Others};
use common::*;
use quorate_meta::{AdminError, Command, Directory, MetadataClient, shard_group};
use quorate_types::{GroupId, MigrationId, NodeId, ShardId};

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

#[test]
fn leadership_is_handed_to_the_replica_on_the_node() {
    let host = Host::with_spare();
    let view = host.registry.view();
    let group = shard_group(SHARD);
    let known = view.group(group).unwrap().replica_on(NodeId(2)).unwrap();
    assert_eq!(view.replica_to_lead(group, NodeId(2)), Ok(known.id));
    let elsewhere = view.replica_to_lead(group, NodeId(4));
    assert!(matches!(elsewhere, Err(AdminError::Refused(_))), "{elsewhere:?}");
    let nothing = view.replica_to_lead(GroupId(999), NodeId(2));
    assert!(matches!(nothing, Err(AdminError::NotFound(_))), "{nothing:?}");
}

/// A client on the leader of three nodes' metadata and a spare one.
fn leader() -> (Arc<Group>, MetadataClient) {
    let directory = Arc::new(Directory::new(NodeId(1), BTreeMap::new()));
    let group = Group::new(Some(Arc::clone(&directory)));
    for command in [Command::Bootstrap(bootstrap(3, &["m"])), Command::Join(node(4))] {
        group.apply(&command.encode().unwrap());
    }
    let client = MetadataClient::new(directory, Arc::new(Others::silent()));
    client.set_replica(Some(Arc::clone(&group) as _));
    (group, client)
}

#[tokio::test(start_paused = true)]
async fn an_operator_is_begun_once_though_its_outcome_is_lost_at_first() {
    let (group, client) = leader();
    group.edit(|state| state.lost_outcomes = 1);
    let id = client.begin_split(SHARD, "c".into()).await.unwrap();
    let view = client.directory().view();
    let running: Vec<_> = view.running_operators().map(|operator| operator.id).collect();
    assert_eq!(running, [id]);
}

#[tokio::test(start_paused = true)]
async fn a_second_operator_on_a_group_is_refused() {
    let (_, client) = leader();
    client.begin_move(shard_group(SHARD), replace(1, 4)).await.unwrap();
    let refused = client.begin_split(SHARD, "c".into()).await;
    assert!(matches!(refused, Err(AdminError::Refused(_))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_begun_on_what_is_not_there() {
    let (group, client) = leader();
    let before = group.edit(|state| state.commands.len());
    let moved = client.begin_move(GroupId(999), replace(1, 4)).await;
    assert!(matches!(moved, Err(AdminError::NotFound(_))), "{moved:?}");
    let split = client.begin_split(ShardId(999), "c".into()).await;
    assert!(matches!(split, Err(AdminError::NotFound(_))), "{split:?}");
    assert_eq!(group.edit(|state| state.commands.len()), before);
}
