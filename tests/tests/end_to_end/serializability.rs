//! Strict serializability under everything that can happen to processes.

use std::time::Duration;

use quorate_tests::{Cluster, Load, Work, eventually};

/// How soon every node knows that another is dead, or back, on a busy machine.
const SEEN: Duration = Duration::from_secs(40);
/// How long a shard's leadership may take to move.
const TRANSFER: Duration = Duration::from_secs(30);

const CLIENTS: [Work; 10] = [
    Work::Lists,
    Work::Lists,
    Work::Lists,
    Work::Lists,
    Work::Lists,
    Work::Bank,
    Work::Bank,
    Work::Bank,
    Work::Puts,
    Work::Puts,
];

/// Hands every shard to a node. A group agrees as soon as the node's log is
/// complete and its leader has heard from it.
fn transfer_all(cluster: &Cluster, to: u64) {
    let admin = cluster.admin(to);
    let shards = cluster.ask("the shards are known", |admin| admin.shards());
    for shard in shards {
        let what = format!("shard {} is handed to node {to}", shard.id);
        eventually(&what, TRANSFER, || {
            let shards = admin.shards()?;
            let now = shards.iter().find(|now| now.id == shard.id);
            if now.is_some_and(|now| now.leader == Some(to)) {
                return Ok(());
            }
            admin.transfer(shard.id, to)
        });
    }
}

#[test]
fn histories_are_strictly_serializable_under_kills_stalls_and_transfers() {
    let mut cluster = Cluster::start(3);
    let load = Load::on(&cluster.gateways());
    let report = load.run(&CLIENTS, |progress| {
        progress.wait(300);

        let leader = cluster.leader_of("list:0:0");
        cluster.kill(leader);
        progress.wait(300);
        cluster.restart(leader);
        progress.wait(200);

        let stalled = cluster.leader_of("account:0");
        cluster.pause(stalled);
        let awake: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != stalled).collect();
        cluster.wait_state(&awake, stalled, "dead", SEEN);
        progress.wait(100);
        cluster.resume(stalled);
        cluster.wait_state(&awake, stalled, "alive", SEEN);
        progress.wait(200);

        for to in [1, 2, 3] {
            transfer_all(&cluster, to);
            progress.wait(100);
        }

        // A stall so short that nobody is voted out, and a kill on top of it.
        cluster.pause(1);
        progress.wait(1);
        cluster.resume(1);
        cluster.kill(3);
        progress.wait(300);
        cluster.restart(3);
        progress.wait(300);
        progress.wait_until(Duration::from_secs(20));
    });
    report.assert_correct(cluster.gateway(1));
    cluster.wait_agreement();
}

#[test]
fn every_acknowledged_write_survives_the_restart_of_all_nodes_at_once() {
    let mut cluster = Cluster::start(3);
    let load = Load::on(&cluster.gateways());
    let report = load.run(&CLIENTS, |progress| {
        progress.wait(500);
        progress.wait_puts(20);
        for id in cluster.ids() {
            cluster.kill(id);
        }
        cluster.start_all();
        progress.wait(300);
    });
    report.assert_correct(cluster.gateway(2));
    cluster.wait_agreement();

    // And once more with nobody there, by a polite end.
    for id in cluster.ids() {
        cluster.terminate(id);
    }
    cluster.start_all();
    report.assert_correct(cluster.gateway(3));
    cluster.wait_agreement();
}
