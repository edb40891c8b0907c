//! A node that has no replica of the metadata finds every shard by gossip's
//! allocation table, and by nothing else.

use std::time::Duration;

use quorate::types::{Blob, NodeId, ShardId};
use quorate::{Answer, ExecuteError, Transaction};
use quorate_testkit::sim::{Sim, run};
use quorate_tests::sim::{Cluster, Ear, KEYS, Operator, eventually, route};
use tokio::time::sleep;

/// The node that joined and founded nothing, and its place.
const FOURTH: NodeId = NodeId(4);
const PLACE: usize = 3;
/// In the middle of a shard.
const CUT: &str = "k";

/// Three founders and a fourth node. The placement is off, so that the fourth
/// has no replica of anything.
async fn four(sim: &Sim) -> Cluster {
    let cluster = Cluster::found_with(sim, |config| config.scheduler = None).await;
    cluster.join().await.expect("there is a spare machine");
    cluster.serving().await;
    let (_, fourth) = cluster.node(PLACE).expect("the node runs");
    assert_eq!(fourth.view().replicas_on(FOURTH).count(), 0);
    cluster
}

fn shard_on(cluster: &Cluster, place: usize) -> ShardId {
    let (_, node) = cluster.node(place).expect("the node runs");
    route(&node, CUT).expect("the key has a shard").0
}

/// Waits until the key has another shard on a node's map than the parent.
async fn see_split(cluster: &Cluster, place: usize, parent: ShardId) {
    eventually(|| {
        let seen = shard_on(cluster, place);
        if seen == parent { Err(format!("{seen}")) } else { Ok(()) }
    })
    .await
    .expect("the split is known");
}

/// Writes every key and reads it again, through the fourth node.
async fn assert_reaches_every_key(cluster: &Cluster, value: &str) {
    let (life, node) = cluster.node(PLACE).expect("the node runs");
    let session = node.session();
    for key in KEYS {
        life.run(session.execute(Transaction::new().put(key, value).call())).await.unwrap();
    }
    let read = KEYS.iter().fold(Transaction::new(), |read, key| read.get(*key));
    let result = life.run(session.execute(read.call())).await.unwrap();
    assert_eq!(Answer::of(&result).unwrap().values.0, vec![Some(Blob::from(value)); KEYS.len()]);
}

#[test]
fn a_node_that_cannot_ask_the_metadata_follows_the_allocation_table() {
    let finished = run(31, |sim| async move {
        let cluster = four(&sim).await;
        assert_reaches_every_key(&cluster, "before").await;

        cluster.deafness.begin(FOURTH, Ear::Control);
        let parent = shard_on(&cluster, PLACE);
        Operator::of(&cluster).split_at(CUT).await.expect("somebody hears of it");
        see_split(&cluster, PLACE, parent).await;
        let (_, fourth) = cluster.node(PLACE).expect("the node runs");
        assert_eq!(fourth.view().shards().count(), 3, "it has asked the metadata");
        assert_reaches_every_key(&cluster, "after").await;
    });
    finished.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_node_that_hears_no_gossip_keeps_its_routes_whatever_the_metadata_says() {
    let finished = run(32, |sim| async move {
        let cluster = four(&sim).await;
        cluster.deafness.begin(FOURTH, Ear::Gossip);
        let parent = shard_on(&cluster, PLACE);
        Operator::of(&cluster).split_at(CUT).await.expect("somebody hears of it");
        for founder in 0..PLACE {
            see_split(&cluster, founder, parent).await;
        }
        let (_, fourth) = cluster.node(PLACE).expect("the node runs");
        eventually(|| match fourth.view() {
            view if view.shards().count() == 4 => Ok(()),
            view => Err(format!("{} shards", view.shards().count())),
        })
        .await
        .expect("the fourth has the metadata of the split");
        sleep(Duration::from_secs(5)).await;
        assert_eq!(shard_on(&cluster, PLACE), parent);

        cluster.deafness.end(FOURTH);
        see_split(&cluster, PLACE, parent).await;
        assert_reaches_every_key(&cluster, "after").await;
    });
    finished.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_leader_that_a_call_in_doubt_made_forget_is_known_again_without_another_call() {
    let finished = run(33, |sim| async move {
        let cluster = Cluster::found_with(&sim, |config| {
            config.scheduler = None;
            // Ends between two looks of the node at who leads what.
            config.client.deadline = config.client.attempt_deadline + Duration::from_millis(370);
        })
        .await;
        let leader = |place: usize| {
            let (_, node) = cluster.node(place).expect("the node runs");
            route(&node, CUT).expect("the key has a shard").1
        };
        let leads = leader(0).expect("the shard has a leader");
        let place = (0..cluster.members()).find(|place| cluster.id(*place) != leads).unwrap();
        cluster.network.cut_one_way(leads, cluster.id(place));
        let (life, node) = cluster.node(place).expect("the node runs");
        let session = node.session();
        let call = Transaction::new().put(CUT, "in doubt").call();
        let told = life.run(session.execute(call)).await;
        assert!(matches!(told, Err(ExecuteError::Unknown(_))), "{told:?}");
        assert_eq!(leader(place), None);

        cluster.network.heal();
        eventually(|| match leader(place) {
            Some(_) => Ok(()),
            None => Err("nobody".to_owned()),
        })
        .await
        .expect("the leader is known again");
    });
    finished.unwrap_or_else(|error| panic!("{error}"));
}
