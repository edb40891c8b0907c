//! One shard becomes two while it is used.

use std::time::Duration;

use quorate_tests::{
    Admin, Cluster, Execution, Failure, Load, Reply, Shard, Work, eventually, words,
};
use serde_json::json;

const CLIENTS: [Work; 7] =
    [Work::Lists, Work::Lists, Work::Lists, Work::Lists, Work::Bank, Work::Puts, Work::Puts];
const SPLIT: Duration = Duration::from_secs(60);

fn shard(admin: Admin, id: u64) -> Shard {
    eventually("the shard is known", SPLIT, || {
        let shards = admin.shards()?;
        let found = shards.iter().find(|shard| shard.id == id).cloned();
        found.ok_or_else(|| format!("{shards:?}"))
    })
}

#[test]
fn a_shard_splits_under_load_and_loses_nothing() {
    let mut cluster = Cluster::start(3);
    let mut client = cluster.client(1);
    let keys: Vec<String> = (0..400).map(|number| format!("stays:{number}")).collect();
    for key in &keys {
        client.must(&format!("SET {key} {key}"));
    }
    let parent = cluster.admin(1).shard_of("list:0:0").unwrap();
    let inside: Vec<&String> = keys.iter().filter(|key| parent.holds(key)).collect();
    assert!(inside.len() > 10, "{} of the keys lie in the shard", inside.len());

    let load = Load::on(&cluster.gateways());
    let report = load.run(&CLIENTS, |progress| {
        progress.wait(200);
        let path = format!("/v1/shards/{}/split", parent.id);
        let split = cluster.begin(2, &path, &json!({}));
        cluster.wait_migrated(&split, SPLIT);
        progress.wait(200);

        // Once more, at a key of choice and with a leader that dies.
        let named = cluster_knows_the_child(cluster.admin(2), &parent);
        let at = inside.iter().filter(|key| named.holds(key)).max_by_key(|key| slot(key)).unwrap();
        let split = cluster.begin(3, &path, &json!({ "key": at }));
        let leader = cluster.leader_of(at);
        cluster.kill(leader);
        progress.wait(100);
        cluster.restart(leader);
        cluster.wait_migrated(&split, SPLIT);
        eventually("the key begins a child", SPLIT, || {
            let home = cluster.admin(1).shard_of(at)?;
            if home.id == parent.id { Err(format!("{home:?}")) } else { Ok(()) }
        });
        progress.wait(200);
    });
    report.assert_correct(cluster.gateway(3));

    for id in cluster.ids() {
        let mut node = cluster.client(id);
        for key in &keys {
            assert_eq!(node.must(&format!("GET {key}")), Reply::bulk(key), "on node {id}");
        }
        eventually("the node knows every shard", SPLIT, || {
            let shards = cluster.admin(id).shards()?;
            if shards.len() == 10 { Ok(()) } else { Err(format!("{shards:?}")) }
        });
        assert!(shard(cluster.admin(id), parent.id).epoch > parent.epoch);
    }
    the_halves_share_a_transaction(&cluster, &parent, &inside);
    cluster.wait_agreement();
}

/// The parent as it is once a node has heard of its first split.
fn cluster_knows_the_child(admin: Admin, parent: &Shard) -> Shard {
    eventually("the split is known", SPLIT, || {
        let now = shard(admin, parent.id);
        if now.epoch > parent.epoch { Ok(now) } else { Err(format!("{now:?}")) }
    })
}

/// Keys lie in the order of their slots.
fn slot(key: &str) -> Vec<u8> {
    quorate_server::partition_key(key.as_bytes()).to_vec()
}

fn the_halves_share_a_transaction(cluster: &Cluster, parent: &Shard, inside: &[&String]) {
    let shards = cluster.admin(1).shards().unwrap();
    let halves: Vec<&Shard> =
        shards.iter().filter(|shard| inside.iter().any(|key| shard.holds(key))).collect();
    assert!(halves.len() >= 2, "{} had {inside:?}", parent.id);
    let picked: Vec<&String> =
        halves.iter().map(|half| *inside.iter().find(|key| half.holds(key)).unwrap()).collect();
    let commands: Vec<_> =
        picked.iter().map(|key| words(&format!("GETSET {key} across"))).collect();
    let mut client = cluster.client(2);
    let before = eventually("a transaction across the halves commits", SPLIT, || {
        match client.transaction(&commands) {
            Ok(Execution::Done(before)) => Ok(before),
            Err(Failure::Refused(text)) => Err(text),
            other => panic!("{picked:?}: {other:?}"),
        }
    });
    for (key, before) in picked.iter().zip(before) {
        assert_eq!(before, Reply::bulk(key));
        assert_eq!(cluster.insist(3, &format!("GET {key}")), Reply::bulk("across"));
    }
}
