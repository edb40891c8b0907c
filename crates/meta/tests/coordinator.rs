//! What is brought about by the node that leads the metadata group.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::drivers::{Group, Others};
use common::*;
use quorate_meta::{
    AdminError, ClusterView, Command, Cut, CutRefusal, Directory, Effects, MetadataClient,
    Operator, OperatorState, Ordered, SplitPhase, Splitting, shard_group,
};
use quorate_types::runtime::BoxFuture;
use quorate_types::{Epoch, GroupId, MigrationId, NodeId, ShardId};

/// Long enough for every step of an operator.
const LOOKS: Duration = Duration::from_secs(5);

/// What was brought about. Moves fail; the sequencer orders at once, unless
/// it never will, and children are born unless none is.
#[derive(Default)]
struct Outside {
    never: Option<CutRefusal>,
    is_barren: bool,
    terms: Mutex<Vec<Option<u64>>>,
    published: Mutex<Vec<u64>>,
    moves: Mutex<Vec<MigrationId>>,
}

impl Splitting for Outside {
    fn order(&self, _: Cut) -> BoxFuture<Result<Ordered, AdminError>> {
        let ordered = self.never.map_or(Ordered::Now(Epoch(9)), Ordered::Never);
        Box::pin(std::future::ready(Ok(ordered)))
    }

    fn is_born(&self, _: GroupId) -> BoxFuture<bool> {
        let is_born = !self.is_barren;
        Box::pin(async move {
            if !is_born {
                std::future::pending::<()>().await;
            }
            is_born
        })
    }
}

impl Effects for Outside {
    fn coordinates(&self, term: Option<u64>) {
        self.terms.lock().unwrap().push(term);
    }

    fn publish(&self, view: &ClusterView) {
        self.published.lock().unwrap().push(view.version());
    }

    fn begin_move(self: Arc<Self>, operator: Operator) -> BoxFuture<Result<(), AdminError>> {
        self.moves.lock().unwrap().push(operator.id);
        let failure = AdminError::Unavailable("no journal".to_owned());
        Box::pin(std::future::ready(Err(failure)))
    }
}

/// A node that leads the metadata of three nodes and a spare one.
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

/// Coordinates for a while.
async fn coordinate(client: &MetadataClient) -> Arc<Outside> {
    coordinate_with(client, Outside::default()).await
}

async fn coordinate_with(client: &MetadataClient, outside: Outside) -> Arc<Outside> {
    let outside = Arc::new(outside);
    let coordinating = client.coordinate(Arc::downgrade(&outside));
    assert!(tokio::time::timeout(LOOKS, coordinating).await.is_err(), "ended by itself");
    outside
}

#[tokio::test(start_paused = true)]
async fn a_leader_publishes_and_carries_a_split_to_its_end_though_a_move_waits() {
    let (_, client) = leader();
    let waiting = client.begin_move(shard_group(ShardId(1)), replace(1, 4)).await.unwrap();
    let split = client.begin_split(ShardId(2), "t".into()).await.unwrap();
    let outside = coordinate(&client).await;
    let view = client.directory().view();
    assert!(!view.operator(split).unwrap().is_running());
    assert!(view.operator(waiting).unwrap().is_running());
    assert!(outside.moves.lock().unwrap().iter().all(|id| *id == waiting));
    assert!(outside.moves.lock().unwrap().len() > 1, "asked again");
    assert_eq!(outside.published.lock().unwrap().last(), Some(&view.version()));
    assert_eq!(outside.terms.lock().unwrap()[0], Some(5));
}

#[tokio::test(start_paused = true)]
async fn a_split_that_is_never_ordered_is_given_up_and_its_shard_is_free_again() {
    let (_, client) = leader();
    let (shard, reason) = (ShardId(2), CutRefusal::EpochPassed);
    let split = client.begin_split(shard, "t".into()).await.unwrap();
    let before = client.directory().view().shard(shard).cloned();
    let outside = Outside { never: Some(reason), ..Outside::default() };
    let outside = coordinate_with(&client, outside).await;
    let view = client.directory().view();
    let ended = view.operator(split).unwrap().clone();
    assert!(matches!(ended.state, OperatorState::Aborted { .. }), "{ended:?}");
    assert_eq!(split_of(ended).phase, SplitPhase::Refused { reason }, "an operator sees why");
    assert_eq!((view.shards().len(), view.shard(shard).cloned()), (2, before));
    assert_eq!(outside.published.lock().unwrap().last(), Some(&view.version()));
    // The next one finds the group idle.
    let again = client.begin_split(shard, "u".into()).await.unwrap();
    coordinate(&client).await;
    let ended = client.directory().view().operator(again).unwrap().clone();
    assert!(matches!(ended.state, OperatorState::Finished { .. }), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn the_parent_s_replicas_stay_until_the_child_is_born() {
    let (_, client) = leader();
    let parent = shard_group(ShardId(2));
    let split = client.begin_split(ShardId(2), "t".into()).await.unwrap();
    let barren = Outside { is_barren: true, ..Outside::default() };
    let outside = coordinate_with(&client, barren).await;
    let view = client.directory().view();
    let running = view.operator(split).unwrap().clone();
    assert!(running.is_running());
    assert!(matches!(split_of(running).phase, SplitPhase::Installed { .. }));
    assert_eq!(view.shards().len(), 3, "the map shows the child, or it could not be asked");
    let refused = client.begin_move(parent, replace(1, 4)).await.unwrap_err();
    assert!(refused.to_string().contains("wait for its end"), "{refused}");
    // The child that is not born keeps nobody else waiting.
    assert!(outside.terms.lock().unwrap().len() > 2);
    coordinate(&client).await;
    assert!(!client.directory().view().operator(split).unwrap().is_running());
    client.begin_move(parent, replace(1, 4)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leader_brings_nothing_about() {
    let (group, client) = leader();
    client.begin_split(ShardId(2), "t".into()).await.unwrap();
    let before = group.edit(|state| {
        state.is_deposed = true;
        state.commands.len()
    });
    let outside = coordinate(&client).await;
    assert!(outside.terms.lock().unwrap().iter().all(Option::is_none));
    assert!(outside.published.lock().unwrap().is_empty());
    assert_eq!(group.edit(|state| state.commands.len()), before);
}

#[tokio::test(start_paused = true)]
async fn coordination_ends_with_its_node() {
    let (_, client) = leader();
    let outside = Arc::new(Outside::default());
    let gone = Arc::downgrade(&outside);
    drop(outside);
    client.coordinate(gone).await;
}
