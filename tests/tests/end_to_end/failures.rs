//! The death of whoever has a part to play.

use std::time::Duration;

use quorate_tests::{Cluster, Load, Reply, Work};

/// How soon every node knows that another is dead, or back, on a busy machine.
/// How soon it should be is measured in virtual time, by gossip's own tests.
const SEEN: Duration = Duration::from_secs(40);

const CLIENTS: [Work; 6] =
    [Work::Puts, Work::Puts, Work::Puts, Work::Bank, Work::Bank, Work::Lists];

#[test]
fn the_service_survives_the_death_of_every_role() {
    let mut cluster = Cluster::start(3);
    let load = Load::on(&cluster.gateways());
    let report = load.run(&CLIENTS, |progress| {
        progress.wait(100);
        let metadata = cluster.ask("the metadata has a leader", |admin| {
            let status = admin.status()?;
            status.metadata_leader.ok_or_else(|| format!("{status:?}"))
        });
        cluster.kill(metadata);
        progress.wait(150);
        cluster.restart(metadata);
        progress.wait(50);

        let sequencer = cluster.ask("the sequencer has a leader", |admin| {
            let status = admin.status()?;
            status.sequencer_leader.ok_or_else(|| format!("{status:?}"))
        });
        cluster.kill(sequencer);
        progress.wait(150);
        cluster.restart(sequencer);
        progress.wait(50);

        let shard = cluster.leader_of("account:1");
        cluster.kill(shard);
        progress.wait(150);
        cluster.restart(shard);
        progress.wait(50);
    });
    report.assert_correct(cluster.gateway(1));
    cluster.wait_agreement();
}

#[test]
fn a_dead_and_a_stalled_node_are_seen_and_seen_again() {
    let mut cluster = Cluster::start(3);
    let others = [1, 2];
    cluster.wait_state(&[1, 2, 3], 3, "alive", SEEN);

    // Its sockets stay open and its ports answer the handshake.
    cluster.pause(3);
    cluster.wait_state(&others, 3, "dead", SEEN);
    cluster.resume(3);
    cluster.wait_state(&others, 3, "alive", SEEN);

    cluster.kill(3);
    cluster.wait_state(&others, 3, "dead", SEEN);
    cluster.insist(1, "SET written:meanwhile 1");
    cluster.restart(3);
    cluster.wait_state(&others, 3, "alive", SEEN);
    assert_eq!(cluster.insist(3, "GET written:meanwhile"), Reply::bulk("1"));
}

#[test]
fn without_a_majority_nothing_is_answered_wrongly() {
    let mut cluster = Cluster::start(3);
    cluster.client(1).must("MSET a 1 b 1 c 1 d 1");
    cluster.kill(2);
    cluster.kill(3);
    let mut alone = cluster.client(1);
    // Neither an old value nor an acknowledgement: refused or unknown.
    let read = alone.run(quorate_tests::words("GET a"));
    assert!(read.is_err(), "a single node of three answered {read:?}");
    let write = cluster.client(1).run(quorate_tests::words("SET b 2"));
    assert!(write.is_err(), "a single node of three acknowledged {write:?}");
    cluster.start_all();
    let after = cluster.insist(2, "MGET a b c d").elements();
    let texts: Vec<Option<&str>> = after.iter().map(Reply::text).collect();
    assert_eq!((texts[0], texts[2], texts[3]), (Some("1"), Some("1"), Some("1")));
    assert!(matches!(texts[1], Some("1" | "2")), "{texts:?}");
}
