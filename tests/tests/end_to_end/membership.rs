//! Nodes that come and replicas that move.

use std::time::Duration;

use quorate_tests::{Cluster, Load, Progress, Reply, Work, eventually};
use serde_json::json;

const CLIENTS: [Work; 6] =
    [Work::Lists, Work::Lists, Work::Lists, Work::Bank, Work::Puts, Work::Puts];

/// How long one replica's move may take, on a busy machine.
const MOVE: Duration = Duration::from_secs(60);
/// How long it may take to empty a node.
const DRAIN: Duration = Duration::from_secs(300);

/// Moves one shard's replica to `to` and waits until it is there. The
/// placement moves others at the same time, so a shard may be taken.
fn move_one(cluster: &Cluster, to: u64) -> u64 {
    let (shard, migration) = eventually("a replica begins to move", MOVE, || {
        let admin = cluster.admin(2);
        let shards = admin.shards()?;
        let mut refusals = Vec::new();
        for shard in shards.iter().filter(|shard| !shard.voters().contains(&to)) {
            let from = shard.leader.filter(|leader| *leader != 2).unwrap_or(1);
            let path = format!("/v1/shards/{}/move", shard.id);
            match admin.post(&path, &json!({ "from": from, "to": to })) {
                Ok(Some(migration)) => return Ok((shard.id, migration)),
                Ok(None) => panic!("a move has no migration"),
                Err(refusal) => refusals.push(refusal),
            }
        }
        Err(format!("{refusals:?}"))
    });
    cluster.wait_migrated(&migration, MOVE);
    eventually("the moved replica votes", MOVE, || {
        let shards = cluster.admin(to).shards()?;
        let moved = shards.iter().find(|moved| moved.id == shard);
        match moved {
            Some(moved) if moved.voters().contains(&to) && moved.applied.is_some() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    shard
}

fn drain(cluster: &Cluster, node: u64) {
    let admin = cluster.admin(2);
    let path = format!("/v1/nodes/{node}/drain");
    eventually("the node is told to drain", DRAIN, || admin.post(&path, &json!({})));
    eventually("the node is empty", DRAIN, || {
        let drained = admin.node(node)?;
        let is_empty = drained.draining && drained.replicas == 0;
        if is_empty { Ok(()) } else { Err(format!("{drained:?}")) }
    });
}

#[test]
fn a_fourth_node_joins_takes_replicas_and_relieves_another() {
    let mut cluster = Cluster::start(3);
    cluster.client(1).must("MSET early:1 1 early:2 2 early:3 3 early:4 4");
    cluster.join(4);

    // It has no replica of the metadata, yet finds every shard.
    let mut fourth = cluster.client(4);
    let early = fourth.must("MGET early:1 early:2 early:3 early:4").elements();
    assert_eq!(early, ["1", "2", "3", "4"].map(Reply::bulk));
    for number in 0..32 {
        fourth.must(&format!("SET through:four:{number} {number}"));
        let seen = cluster.client(1).must(&format!("GET through:four:{number}"));
        assert_eq!(seen, Reply::Bulk(number.to_string()));
    }

    let load = Load::on(&cluster.gateways());
    let report = load.run(&CLIENTS, |progress: Progress<'_>| {
        progress.wait(100);
        move_one(&cluster, 4);
        progress.wait(100);
        drain(&cluster, 1);
        progress.wait(100);
    });
    report.assert_correct(cluster.gateway(4));
    eventually("node 1 votes nowhere", DRAIN, || {
        let shards = cluster.admin(4).shards()?;
        let is_relieved = shards.iter().all(|shard| shard.voters() == [2, 3, 4]);
        if is_relieved { Ok(()) } else { Err(format!("{shards:?}")) }
    });
    cluster.wait_agreement();

    // The empty node is not needed any more.
    cluster.terminate(1);
    let load = Load::on(&[cluster.gateway(2), cluster.gateway(3), cluster.gateway(4)]);
    assert_eq!(cluster.insist(4, "GET early:1"), Reply::bulk("1"));
    let report = load.run(&[Work::Puts], |progress| progress.wait(50));
    report.assert_correct(cluster.gateway(3));
}

#[test]
fn a_move_survives_the_death_of_those_who_take_part() {
    let mut cluster = Cluster::start(3);
    cluster.join(4);
    let load = Load::on(&cluster.gateways());
    let report = load.run(&CLIENTS, |progress| {
        progress.wait(100);
        // The placement fills the empty node by itself; whoever leads the
        // metadata carries the moves out, and dies while it does.
        for victim in [4, 0] {
            eventually("replicas arrive on the fourth node", MOVE, || {
                let node = cluster.admin(2).node(4).or_else(|_| cluster.admin(3).node(4))?;
                if node.replicas > 0 { Ok(()) } else { Err(format!("{node:?}")) }
            });
            let victim = match victim {
                0 => cluster.ask("the metadata has a leader", |admin| {
                    admin.status()?.metadata_leader.ok_or_else(|| "none".to_owned())
                }),
                other => other,
            };
            cluster.kill(victim);
            progress.wait(50);
            cluster.restart(victim);
            progress.wait(50);
        }
        eventually("every shard is whole and nothing moves", DRAIN, || {
            let shards = cluster.admin(2).shards()?;
            let is_whole = |replicas: usize, voters: usize| replicas == 3 && voters == 3;
            let all = shards.iter().all(|s| is_whole(s.replicas.len(), s.voters().len()));
            let held = cluster.admin(2).node(4)?.replicas;
            if all && held >= 4 { Ok(()) } else { Err(format!("{held} on 4; {shards:?}")) }
        });
    });
    report.assert_correct(cluster.gateway(4));
    cluster.wait_agreement();
}
