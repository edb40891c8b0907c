//! Three hosts in one process, on virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "cluster/quiescence.rs"]
mod quiescence;
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use quorate_raft::{
    Group, GroupClass, Host, HostConfig, LogError, ProposeError, RaftError, ReadError, Refused,
};
use quorate_types::{GroupId, NodeId, ReplicaId};
use support::*;

fn ids(replicas: impl IntoIterator<Item = u64>) -> BTreeSet<ReplicaId> {
    replicas.into_iter().map(ReplicaId).collect()
}

/// The leader's place in `nodes`, and one that follows.
fn places(nodes: &[TestNode], leader: &Group) -> (usize, usize) {
    let replica = |node: &TestNode| node.host.group(leader.id()).map(|group| group.replica());
    let leads = nodes.iter().position(|node| replica(node) == Some(leader.replica())).unwrap();
    (leads, (leads + 1) % nodes.len())
}

#[test]
fn every_group_elects_and_replicates() {
    simulate(async {
        let network = Network::default();
        let nodes = seeded_cluster(&network, &[1, 2, 3]).await;
        for group in [1, 2, 3] {
            let replicas = groups_of(&nodes, group);
            let leader = leader_of(&replicas).await;
            assert_eq!(leader.id(), GroupId(group));
            let first = propose(&leader, "a").await;
            let second = propose(&leader, "b").await;
            assert_eq!(first.outcome, &1_u64.to_be_bytes()[..]);
            assert!(second.index > first.index);
            applied_everywhere(&replicas, second.index).await;
            for node in &nodes {
                assert_eq!(node.tape(group), ["a", "b"]);
            }
        }
    });
}

#[test]
fn heartbeats_of_many_groups_share_messages() {
    simulate(async {
        let network = Network::default();
        let groups: Vec<u64> = (1..=90).collect();
        let restless = HostConfig { quiet_after: None, ..config() };
        let nodes = seeded_cluster_with(&network, &groups, restless).await;
        for &group in &groups {
            leader_of(&groups_of(&nodes, group)).await;
        }
        let sent = || {
            let metrics = nodes.iter().map(|node| node.host.metrics());
            metrics.fold((0, 0), |(heartbeats, messages), it| {
                (heartbeats + it.heartbeats, messages + it.heartbeat_messages)
            })
        };
        let terms = || -> Vec<u64> {
            let replicas = nodes.iter().flat_map(|node| node.host.statuses());
            replicas.map(|it| it.term).collect()
        };
        let (before, terms_before) = (sent(), terms());
        tokio::time::sleep(Duration::from_secs(20)).await;
        let after = sent();
        let (heartbeats, messages) = (after.0 - before.0, after.1 - before.1);
        // Five a second from each leader to two followers, and not much less.
        assert!(heartbeats >= 90 * 2 * 4 * 20, "{heartbeats}");
        assert!(messages * 2 < heartbeats, "{messages} messages for {heartbeats} heartbeats");
        assert_eq!(terms(), terms_before, "nobody stands for election");
    });
}

#[test]
fn a_group_can_be_initialized_instead_of_seeded() {
    simulate(async {
        let network = Network::default();
        let mut nodes: Vec<TestNode> = (1..=3).map(|id| TestNode::start(id, &network)).collect();
        let mut replicas = Vec::new();
        for node in &mut nodes {
            let id = node.id.0;
            replicas.push(node.create(1, 10 + id).await);
        }
        let members: Vec<_> = (1..=3).map(|id| (ReplicaId(10 + id), NodeId(id))).collect();
        replicas[0].initialize(&members).await.unwrap();
        let leader = leader_of(&replicas).await;
        let written = propose(&leader, "first").await;
        applied_everywhere(&replicas, written.index).await;
        assert_eq!(leader.status().voters, members);
        assert!(matches!(leader.initialize(&members).await, Err(RaftError::Refused(_))));
    });
}

#[test]
fn only_the_leader_accepts_proposals_and_confirms_reads() {
    simulate(async {
        let network = Network::default();
        let nodes = seeded_cluster(&network, &[1]).await;
        let replicas = groups_of(&nodes, 1);
        let leader = leader_of(&replicas).await;
        let (leads, follows) = places(&nodes, &leader);
        let written = propose(&leader, "a").await;
        let read = leader.read_index().await.unwrap();
        assert!(read.index >= written.index);
        assert_eq!(read.term, leader.status().term);
        let follower = &replicas[follows];
        follower.wait_applied(written.index).await.unwrap();
        let leader_node = Some(nodes[leads].id);
        let refused = follower.propose(Bytes::from_static(b"b"), DEADLINE).await;
        assert_eq!(refused, Err(ProposeError::NotLeader { leader: leader_node }));
        let refused = follower.read_index().await;
        assert_eq!(refused, Err(ReadError::NotLeader { leader: leader_node }));
    });
}

#[test]
fn reads_that_wait_share_a_round() {
    simulate(async {
        let network = Network::default();
        let nodes = seeded_cluster(&network, &[1]).await;
        let leader = leader_of(&groups_of(&nodes, 1)).await;
        let (leads, _) = places(&nodes, &leader);
        let reads = join_all((0..100).map(|_| leader.read_index())).await;
        assert!(reads.iter().all(Result::is_ok));
        let metrics = nodes[leads].host.metrics();
        assert_eq!(metrics.reads, 100);
        assert!(metrics.read_rounds <= 2, "{} rounds", metrics.read_rounds);
    });
}

#[test]
fn a_read_does_not_wait_for_the_company_of_heartbeats() {
    simulate(async {
        let network = Network::default();
        let restless = HostConfig { quiet_after: None, ..config() };
        let nodes = seeded_cluster_with(&network, &[1, 2, 3], restless).await;
        let leader = leader_of(&groups_of(&nodes, 1)).await;
        propose(&leader, "a").await;
        for _ in 0..200 {
            // At every moment between two heartbeats, of this group and of others.
            tokio::time::sleep(Duration::from_millis(7)).await;
            let began = tokio::time::Instant::now();
            leader.read_index().await.unwrap();
            let took = began.elapsed();
            assert!(took < Duration::from_millis(8), "{took:?} for a round trip of two");
        }
    });
}

#[test]
fn a_leader_with_a_lease_reads_without_asking() {
    simulate(async {
        let network = Network::default();
        let leased = HostConfig { lease_reads: true, quiet_after: None, ..config() };
        let nodes = seeded_cluster_with(&network, &[1], leased).await;
        let leader = leader_of(&groups_of(&nodes, 1)).await;
        propose(&leader, "a").await;
        network.take_calls();
        for _ in 0..1000 {
            leader.read_index().await.unwrap();
        }
        assert!(network.take_calls() < 10, "heartbeats at most");
    });
}

/// The leader's last round may be a lease old when all its followers have lost
/// what they promised it. Whenever that is, it reads no more once another one has
/// written.
#[test]
fn a_lease_ends_before_restarted_voters_elect() {
    for phase in 0..12 {
        simulate(async {
            let network = Network::default();
            let leased = HostConfig { lease_reads: true, quiet_after: None, ..config() };
            let mut nodes = seeded_cluster_with(&network, &[1], leased).await;
            let leader = leader_of(&groups_of(&nodes, 1)).await;
            propose(&leader, "a").await;
            tokio::time::sleep(Duration::from_millis(17 * phase)).await;
            leader.read_index().await.unwrap();
            let leads = places(&nodes, &leader).0;
            network.isolate(nodes[leads].id);
            let mut others = Vec::new();
            for place in (0..3).filter(|place| *place != leads) {
                nodes[place].crash_and_restart().await;
                others.push(nodes[place].create(1, 11 + place as u64).await);
            }
            let began = tokio::time::Instant::now();
            let reading = quorate_types::runtime::spawn(read_on(leader, began));
            let successor = leader_of(&others).await;
            propose(&successor, "b").await;
            let written = tokio::time::Instant::now();
            let read_last = reading.await.unwrap();
            assert!(read_last > began, "the lease is of use");
            assert!(read_last < written, "phase {phase}: {:?}", read_last - written);
        });
    }
}

/// A voter that was started again may have promised its leader not to vote. That
/// holds for its own vote, too, which with one of a voter that promised nothing
/// makes a leader.
#[test]
fn a_restarted_voter_does_not_stand_either_while_its_leader_may_read() {
    for seed in 0..24 {
        simulate_seed(seed, async {
            let network = Network::default();
            let leased = HostConfig { lease_reads: true, quiet_after: None, ..config() };
            let mut nodes = seeded_cluster_with(&network, &[1], leased).await;
            let leader = leader_of(&groups_of(&nodes, 1)).await;
            propose(&leader, "a").await;
            let leads = places(&nodes, &leader).0;
            let (restarts, forgets) = ((leads + 1) % 3, (leads + 2) % 3);
            // One follower alone answers, for so long that the other is bound by
            // nothing any more.
            network.mute(nodes[leads].id, nodes[forgets].id);
            network.mute(nodes[forgets].id, nodes[leads].id);
            tokio::time::sleep(Duration::from_millis(3_000 + 37 * seed)).await;
            leader.read_index().await.unwrap();
            network.isolate(nodes[leads].id);
            nodes[restarts].crash_and_restart().await;
            let restarted = nodes[restarts].create(1, 11 + restarts as u64).await;
            let others = [restarted, nodes[forgets].host.group(GroupId(1)).unwrap()];
            let began = tokio::time::Instant::now();
            let reading = quorate_types::runtime::spawn(read_on(leader, began));
            let successor = leader_of(&others).await;
            propose(&successor, "b").await;
            let written = tokio::time::Instant::now();
            let read_last = reading.await.unwrap();
            assert!(read_last > began, "the lease is of use");
            assert!(read_last < written, "seed {seed}: read {:?} later", read_last - written);
        });
    }
}

/// Reads for five seconds; says when the last read was asked for that succeeded.
async fn read_on(leader: Group, began: tokio::time::Instant) -> tokio::time::Instant {
    let mut read_last = began;
    while began.elapsed() < Duration::from_secs(5) {
        let asked = tokio::time::Instant::now();
        if leader.read_index().await.is_ok() {
            read_last = asked;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    read_last
}

#[test]
fn a_leader_without_quorum_neither_commits_nor_reads() {
    simulate(async {
        let network = Network::default();
        let nodes = seeded_cluster(&network, &[1]).await;
        let replicas = groups_of(&nodes, 1);
        let leader = leader_of(&replicas).await;
        let (leads, _) = places(&nodes, &leader);
        network.isolate(nodes[leads].id);
        let lost = leader.propose(Bytes::from_static(b"lost?"), Duration::from_secs(1)).await;
        assert_eq!(lost, Err(ProposeError::Unknown));
        assert!(leader.read_index().await.is_err());
        let others: Vec<Group> =
            replicas.iter().filter(|group| group.replica() != leader.replica()).cloned().collect();
        let successor = leader_of(&others).await;
        assert!(successor.status().term > leader.status().term);
        let written = propose(&successor, "kept").await;
        network.heal();
        applied_everywhere(&replicas, written.index).await;
        assert_eq!(nodes[leads].tape(1), ["kept"], "the unacknowledged one is gone");
    });
}

#[test]
fn a_leader_that_hears_no_answers_does_not_hold_up_the_others() {
    simulate(async {
        let network = Network::default();
        let nodes = seeded_cluster(&network, &[1]).await;
        let replicas = groups_of(&nodes, 1);
        let leader = leader_of(&replicas).await;
        let (leads, _) = places(&nodes, &leader);
        let (others, ways): (Vec<Group>, Vec<NodeId>) = nodes
            .iter()
            .zip(&replicas)
            .filter(|(_, group)| group.replica() != leader.replica())
            .map(|(node, group)| (group.clone(), node.id))
            .unzip();
        for from in ways {
            network.mute(from, nodes[leads].id);
        }
        // Its heartbeats arrive as before, and nothing tells it of another term.
        let successor = tokio::time::timeout(Duration::from_secs(8), leader_of(&others)).await;
        let written = propose(&successor.unwrap(), "kept").await;
        network.heal();
        applied_everywhere(&replicas, written.index).await;
    });
}

#[test]
fn a_restarted_follower_catches_up_from_its_own_disk() {
    simulate(async {
        let network = Network::default();
        let mut nodes = seeded_cluster(&network, &[1]).await;
        let leader = leader_of(&groups_of(&nodes, 1)).await;
        for command in ["a", "b", "c"] {
            propose(&leader, command).await;
        }
        let (_, follows) = places(&nodes, &leader);
        let replica = 11 + follows as u64;
        nodes[follows].crash_and_restart().await;
        let written = propose(&leader, "meanwhile").await;
        let restarted = nodes[follows].create(1, replica).await;
        restarted.wait_applied(written.index).await.unwrap();
        assert_eq!(nodes[follows].tape(1), ["a", "b", "c", "meanwhile"]);
        assert_eq!(restarted.status().voters.len(), 3);
    });
}

#[test]
fn everything_acknowledged_survives_the_power_loss_of_all_nodes() {
    simulate(async {
        let network = Network::default();
        let mut nodes = seeded_cluster(&network, &[1, 2]).await;
        for group in [1, 2] {
            let leader = leader_of(&groups_of(&nodes, group)).await;
            join_all((0..100).map(|nth| async move { nth.to_string() }).map(|command| {
                let leader = leader.clone();
                async move { propose(&leader, &command.await).await }
            }))
            .await;
        }
        for node in &mut nodes {
            node.crash_and_restart().await;
        }
        for node in &mut nodes {
            for group in [1, 2] {
                let replica = group * 10 + node.id.0;
                node.create(group, replica).await;
            }
        }
        for group in [1, 2] {
            let replicas = groups_of(&nodes, group);
            let leader = leader_of(&replicas).await;
            let written = propose(&leader, "after").await;
            applied_everywhere(&replicas, written.index).await;
            for node in &nodes {
                assert_eq!(node.tape(group).len(), 101);
            }
        }
    });
}

#[test]
fn leadership_moves_only_to_a_live_voter() {
    simulate(async {
        let network = Network::default();
        let nodes = seeded_cluster(&network, &[1]).await;
        let replicas = groups_of(&nodes, 1);
        let leader = leader_of(&replicas).await;
        propose(&leader, "a").await;
        let (leads, follows) = places(&nodes, &leader);
        let dead = (leads + 2) % 3;
        network.isolate(nodes[dead].id);
        // Let its last answer grow old.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let refused = leader.transfer_leader(replicas[dead].replica()).await;
        assert!(matches!(refused, Err(RaftError::NotReady(_))), "{refused:?}");
        assert!(leader.status().leading, "a refusal changes nothing");
        let refused = leader.transfer_leader(ReplicaId(99)).await;
        assert!(matches!(refused, Err(RaftError::Refused(_))));

        let target = &replicas[follows];
        leader.transfer_leader(target.replica()).await.unwrap();
        let successor = leader_of(std::slice::from_ref(target)).await;
        propose(&successor, "b").await;
        assert!(!leader.status().leading);
        let refused = leader.transfer_leader(target.replica()).await;
        assert!(matches!(refused, Err(RaftError::NotLeader { .. })));
    });
}

#[test]
fn a_learner_behind_the_purge_gets_a_snapshot_and_is_promoted() {
    simulate(async {
        let network = Network::default();
        let mut nodes = seeded_cluster(&network, &[1]).await;
        let leader = leader_of(&groups_of(&nodes, 1)).await;
        for nth in 0..200 {
            propose(&leader, &nth.to_string()).await;
        }
        let status = leader.status();
        assert!(status.purged.unwrap() > 100, "the log was purged behind a flush: {status:?}");

        nodes.push(TestNode::start(4, &network));
        let learner = nodes[3].create(1, 14).await;
        leader.add_learner(ReplicaId(14), NodeId(4)).await.unwrap();
        let written = propose(&leader, "after").await;
        learner.wait_applied(written.index).await.unwrap();
        assert_eq!(nodes[3].tape(1).len(), 201);
        assert_eq!(leader.status().learners, [(ReplicaId(14), NodeId(4))]);
        assert!(learner.status().purged > Some(100), "it came by snapshot");

        leader.set_voters(ids([11, 12, 13, 14])).await.unwrap();
        assert_eq!(leader.status().voters.len(), 4);
        let removed = (11..=13).find(|&id| ReplicaId(id) != leader.replica()).unwrap();
        leader.set_voters(ids((11..=14).filter(|&id| id != removed))).await.unwrap();
        let status = leader.status();
        assert_eq!((status.voters.len(), status.learners.len()), (3, 0));
        propose(&leader, "with the new voters").await;
    });
}

#[test]
fn a_follower_that_fell_behind_the_purge_gets_a_snapshot() {
    simulate(async {
        let network = Network::default();
        let nodes = seeded_cluster(&network, &[1]).await;
        let replicas = groups_of(&nodes, 1);
        let leader = leader_of(&replicas).await;
        let (_, follows) = places(&nodes, &leader);
        network.isolate(nodes[follows].id);
        // The purge waits until replication has noticed that the follower is gone.
        let mut last = 0;
        let mut written = 0;
        while leader.status().purged.unwrap() <= replicas[follows].applied() {
            last = propose(&leader, &written.to_string()).await.index;
            written += 1;
            assert!(written < 10_000, "an absent follower must not pin the log");
        }
        network.heal();
        replicas[follows].wait_applied(last).await.unwrap();
        assert_eq!(nodes[follows].tape(1).len(), written);
    });
}

#[test]
fn a_follower_that_is_slower_than_its_leader_does_not_pin_the_log() {
    simulate(async {
        let network = Network::default();
        let impatient =
            HostConfig { purge_waits_entries: 2_000, appends_in_flight_max: 1, ..config() };
        let nodes = seeded_cluster_with(&network, &[1], impatient).await;
        let replicas = groups_of(&nodes, 1);
        let leader = leader_of(&replicas).await;
        let (leads, follows) = places(&nodes, &leader);
        // It takes some 300 entries a second, of a thousand.
        network.slow(nodes[follows].id, Duration::from_millis(900));
        let write = |writer: u32| {
            let leader = leader.clone();
            async move {
                for number in 0..3_000 {
                    propose(&leader, &format!("{writer}: {number}")).await;
                }
            }
        };
        let written = join_all((0..4).map(write));
        let watched = async {
            let mut longest = 0;
            for _ in 0..120 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let now = leader.status();
                longest = longest.max(now.last_log.unwrap() - now.purged.unwrap_or(0));
            }
            longest
        };
        let (_, longest) = tokio::join!(written, watched);
        assert!(longest > 2_000, "it was waited for: {longest} entries");
        assert!(longest < 5_000, "the log had {longest} entries");
        assert!(nodes[leads].host.metrics().snapshots_sent > 0, "it has other ways");
        network.heal();
        replicas[follows].wait_applied(leader.status().last_log.unwrap()).await.unwrap();
        assert_eq!(nodes[follows].tape(1).len(), 4 * 3_000);
    });
}

#[test]
fn a_log_that_falls_quiet_within_a_pause_is_purged_behind_it() {
    const PAUSE: Duration = Duration::from_secs(2);
    simulate(async {
        let network = Network::default();
        let pausing = HostConfig { purge_pause: PAUSE, ..config() };
        let nodes = seeded_cluster_with(&network, &[1], pausing).await;
        let replicas = groups_of(&nodes, 1);
        let leader = leader_of(&replicas).await;
        let begun = tokio::time::Instant::now();
        for number in 0..300 {
            propose(&leader, &format!("{number}")).await;
        }
        assert!(begun.elapsed() < PAUSE, "all is written within a pause");
        let flushes = || nodes.iter().map(|node| node.host.metrics().flushes).max();
        assert_eq!(flushes(), Some(1));
        tokio::time::sleep(PAUSE).await;
        assert_eq!(flushes(), Some(2));
        for replica in &replicas {
            let status = replica.status();
            assert!(status.purged > Some(250), "{status:?}");
        }
    });
}

/// Not long enough for a purge, and nobody writes any more.
#[test]
fn a_log_that_falls_quiet_is_purged_unless_a_follower_lacks_some_of_it() {
    simulate(async {
        const QUIET_FOR: Duration = Duration::from_secs(150);
        let network = Network::default();
        let nodes = seeded_cluster(&network, &[1]).await;
        let replicas = groups_of(&nodes, 1);
        let leader = leader_of(&replicas).await;
        let mut last = 0;
        for nth in 0..40 {
            last = propose(&leader, &nth.to_string()).await.index;
        }
        applied_everywhere(&replicas, last).await;
        for replica in &replicas {
            assert!(replica.status().purged < Some(last - 40), "{:?}", replica.status());
        }
        tokio::time::sleep(QUIET_FOR).await;
        for replica in &replicas {
            assert!(replica.status().purged > Some(last - 20), "{:?}", replica.status());
        }
        let leads = |node: &&TestNode| node.host.group(GroupId(1)).unwrap().status().leading;
        let away = nodes.iter().find(|node| !leads(node)).unwrap();
        network.isolate(away.id);
        let purged = leader.status().purged;
        for nth in 0..30 {
            last = propose(&leader, &nth.to_string()).await.index;
        }
        tokio::time::sleep(QUIET_FOR).await;
        assert_eq!(leader.status().purged, purged);
        network.heal();
        applied_everywhere(&replicas, last).await;
        assert!(nodes.iter().all(|node| node.host.metrics().snapshots_sent == 0));
    });
}

#[test]
fn a_log_that_is_too_long_when_its_node_starts_is_sent_to_followers() {
    simulate(async {
        let network = Network::default();
        let patient = HostConfig { purge_after_entries: 10_000, ..config() };
        let mut nodes = seeded_cluster_with(&network, &[1], patient).await;
        let leader = leader_of(&groups_of(&nodes, 1)).await;
        let writes = (0..1_500).map(|number| {
            let (leader, command) = (leader.clone(), number.to_string());
            async move { propose(&leader, &command).await }
        });
        let last = join_all(writes).await.iter().map(|it| it.index).max().unwrap();
        applied_everywhere(&groups_of(&nodes, 1), last).await;
        // Its machine is where it was flushed to, so no flush has anything purged.
        let impatient = HostConfig { purge_after_entries: 100, purge_waits_entries: 0, ..config() };
        for node in &mut nodes {
            node.stores[&GroupId(1)].flush();
            node.restart_with(impatient.clone()).await;
        }
        for node in &mut nodes {
            node.create(1, 10 + node.id.0).await;
        }
        let replicas = groups_of(&nodes, 1);
        let goes_on = async {
            let written = propose(&leader_of(&replicas).await, "and on").await;
            applied_everywhere(&replicas, written.index).await;
        };
        let in_time = tokio::time::timeout(Duration::from_secs(60), goes_on).await;
        in_time.expect("the leader commits what it is asked to");
    });
}

/// Three replicas whose logs were purged, so that a fourth needs a snapshot;
/// with the leader and the place of the node for the fourth.
async fn purged(network: &Network) -> (Vec<TestNode>, Group, u64) {
    let mut nodes = seeded_cluster(network, &[1]).await;
    let leader = leader_of(&groups_of(&nodes, 1)).await;
    let mut last = 0;
    for nth in 0..200 {
        last = propose(&leader, &nth.to_string()).await.index;
    }
    nodes.push(TestNode::start(4, network));
    (nodes, leader, last)
}

/// As the simulator found: the leader waited two minutes for an answer
/// that was lost, and its follower got nothing meanwhile.
#[test]
fn a_lost_answer_to_the_end_of_a_snapshot_is_not_waited_for() {
    simulate(async {
        let network = Network::default();
        let (mut nodes, leader, last) = purged(&network).await;
        let learner = nodes[3].create(1, 14).await;
        network.snapshots.lock().ends_to_lose = 1;
        leader.add_learner(ReplicaId(14), NodeId(4)).await.unwrap();
        let begun = tokio::time::Instant::now();
        let after = propose(&leader, "after").await.index;
        learner.wait_applied(last).await.unwrap();
        learner.wait_applied(after).await.unwrap();
        assert!(begun.elapsed() <= 2 * config().snapshot_chunk_deadline, "{:?}", begun.elapsed());
        let snapshots = network.snapshots.lock();
        assert_eq!((snapshots.ends_to_lose, snapshots.begun, snapshots.ends), (0, 1, 2));
    });
}

#[test]
fn a_snapshot_that_takes_long_to_install_is_sent_once() {
    simulate(async {
        let network = Network::default();
        let (mut nodes, leader, last) = purged(&network).await;
        let learner = nodes[3].create(1, 14).await;
        let takes = 3 * config().snapshot_chunk_deadline;
        *nodes[3].stores[&GroupId(1)].installs_in.lock() = takes;
        leader.add_learner(ReplicaId(14), NodeId(4)).await.unwrap();
        learner.wait_applied(last).await.unwrap();
        let snapshots = network.snapshots.lock();
        assert_eq!(snapshots.begun, 1);
        assert!((4..=8).contains(&snapshots.ends), "{} ends", snapshots.ends);
    });
}

#[test]
fn a_removed_replica_never_comes_back() {
    simulate(async {
        let network = Network::default();
        let mut nodes = seeded_cluster(&network, &[1]).await;
        let leader = leader_of(&groups_of(&nodes, 1)).await;
        let (_, follows) = places(&nodes, &leader);
        let removed = 11 + follows as u64;
        leader.set_voters(ids((11..=13).filter(|&id| id != removed))).await.unwrap();
        nodes[follows].host.remove(GroupId(1)).await.unwrap();
        assert!(nodes[follows].host.group(GroupId(1)).is_none());
        let refused = nodes[follows].try_create(1, removed).await;
        assert!(matches!(refused, Err(RaftError::Log(LogError::Tombstoned { .. }))));

        nodes[follows].crash_and_restart().await;
        let refused = nodes[follows].try_create(1, removed).await;
        assert!(matches!(refused, Err(RaftError::Log(LogError::Tombstoned { .. }))));

        nodes[follows].stores.clear();
        let fresh = nodes[follows].create(1, 21).await;
        leader.add_learner(ReplicaId(21), nodes[follows].id).await.unwrap();
        let written = propose(&leader, "for the new replica").await;
        fresh.wait_applied(written.index).await.unwrap();
    });
}

#[test]
fn a_reservation_keeps_the_end_of_an_earlier_replica_away() {
    simulate(async {
        let network = Network::default();
        let mut nodes = seeded_cluster(&network, &[1]).await;
        let node = &mut nodes[0];
        let (group, gone, next) = (GroupId(1), ReplicaId(11), ReplicaId(21));
        let runs = node.host.reserve(group, gone);
        assert!(matches!(runs, Err(RaftError::Exists(_))), "it runs");
        node.host.remove(group).await.unwrap();
        let destroyed = node.host.reserve(group, gone);
        assert!(matches!(destroyed, Err(RaftError::Log(LogError::Tombstoned { .. }))));
        let mut reserved = node.host.reserve(group, next).unwrap();
        assert!(matches!(node.host.reserve(group, next), Err(RaftError::Exists(_))));
        assert!(matches!(node.host.remove(group).await, Err(RaftError::Exists(_))));
        let machine = TapeStore::default().machine();
        let running = reserved.create(GroupClass::Shard, machine).await.unwrap();
        assert_eq!((reserved.group(), running.replica()), (group, next));
        let second = reserved.create(GroupClass::Shard, TapeStore::default().machine()).await;
        assert!(matches!(second, Err(RaftError::Exists(_))));
        assert!(matches!(node.host.remove(group).await, Err(RaftError::Exists(_))), "still held");
        drop(reserved);
        node.host.remove(group).await.unwrap();

        let kept = node.create(2, 31).await;
        drop(kept);
        node.crash_and_restart().await;
        let other = node.host.reserve(GroupId(2), ReplicaId(41));
        assert!(matches!(other, Err(RaftError::Log(LogError::Occupied { .. }))));
    });
}

#[test]
fn a_group_whose_replicas_come_one_by_one_is_led_by_the_one_that_campaigns() {
    simulate(async {
        let network = Network::default();
        let mut nodes: Vec<TestNode> = (1..=3).map(|id| TestNode::start(id, &network)).collect();
        let members: Vec<_> = (11..=13).map(|id| (ReplicaId(id), NodeId(id - 10))).collect();
        let began = tokio::time::Instant::now();
        for node in &mut nodes {
            let row = quorate_raft::seeded_host_row(&members);
            node.stores.insert(GroupId(1), TapeStore::seeded(row));
            let replica = node.create(1, 10 + node.id.0).await;
            if node.id == NodeId(1) {
                replica.campaign();
            }
            // Refused by those who are not there yet, it asks again.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let replicas = groups_of(&nodes, 1);
        let leader = leader_of(&replicas).await;
        assert_eq!(leader.replica(), ReplicaId(11));
        let timing = config().timing(GroupClass::Shard);
        let patience = timing.election_min - timing.lease();
        assert!(began.elapsed() < patience, "no silence was waited out");
        let term = leader.status().term;
        for follower in &replicas[1..] {
            follower.campaign();
        }
        tokio::time::sleep(timing.election_max).await;
        let now = leader.status();
        assert_eq!((now.leading, now.term), (true, term), "a leader in office is not disturbed");
    });
}

#[test]
fn deadlines_of_snapshots_that_do_not_fit_are_refused_in_words() {
    for chunk in [Duration::ZERO, config().snapshot_staging_idle_max] {
        let config = HostConfig { snapshot_chunk_deadline: chunk, ..config() };
        let wire = Network::default().wire(NodeId(1));
        let refused = Host::open(config, open_log(&RamDisk::default()), wire).unwrap_err();
        assert!(refused.to_string().contains("below snapshot_staging_idle_max"), "{refused}");
    }
}

/// An admitted command that the log did not take would halt its group.
#[test]
fn commands_that_no_segment_takes_are_refused_in_words() {
    simulate(async {
        let log = || open_on(&RamDisk::default(), SEGMENTS);
        let wire = Network::default().wire(NodeId(1));
        let refused = Host::open(config(), log(), wire).unwrap_err().to_string();
        assert!(refused.contains("configure larger segments"), "{refused}");
        let fitting = HostConfig { command_bytes_max: 8 << 10, ..config() };
        Host::open(fitting, log(), Network::default().wire(NodeId(1))).unwrap();
    });
}

/// Before anything is done for it: whoever cannot be hosted harms nobody.
#[test]
fn a_replica_that_the_log_has_no_room_for_is_not_reserved() {
    simulate(async {
        let log = open_on(&RamDisk::default(), SEGMENTS);
        let mut next = 1;
        while log.room_for(GroupId(next)).is_ok() {
            log.admit(GroupId(next), ReplicaId(next)).await.unwrap();
            next += 1;
        }
        let config = HostConfig { command_bytes_max: 8 << 10, ..config() };
        let host = Host::open(config, log, Network::default().wire(NodeId(1))).unwrap();
        let refused = host.reserve(GroupId(next), ReplicaId(next)).map(drop).unwrap_err();
        assert!(matches!(refused, RaftError::Log(LogError::Crowded { .. })), "{refused}");
        host.reserve(GroupId(1), ReplicaId(1)).map(drop).unwrap();
    });
}

#[test]
fn timings_that_do_not_fit_are_refused_in_words() {
    let network = Network::default();
    let mut config = config();
    config.shard.election_min = config.shard.lease();
    let wire = network.wire(NodeId(1));
    let refused = Host::open(config, open_log(&RamDisk::default()), wire).unwrap_err();
    assert!(
        refused.to_string().contains("above half of election_max and a heartbeat, which is 1.2s"),
        "{refused}"
    );
    let hasty = HostConfig { quiet_after: Some(Duration::from_millis(3_999)), ..self::config() };
    let wire = network.wire(NodeId(1));
    let refused = Host::open(hasty, open_log(&RamDisk::default()), wire).unwrap_err().to_string();
    assert!(refused.contains("has to be twice the longest election_max at least"), "{refused}");
}

#[test]
fn a_machine_error_halts_the_replica_and_says_why() {
    simulate(async {
        let network = Network::default();
        let nodes = seeded_cluster(&network, &[1]).await;
        let leader = leader_of(&groups_of(&nodes, 1)).await;
        let poisoned = leader.propose(Bytes::from_static(b"poison"), Duration::from_secs(2)).await;
        assert_eq!(poisoned, Err(ProposeError::Unknown));
        let waited = leader.wait_applied(1000).await;
        assert!(matches!(waited, Err(RaftError::Halted(_))), "{waited:?}");
        assert!(leader.status().halted.unwrap().contains("poisoned"));
        let refused = leader.propose(Bytes::from_static(b"more"), DEADLINE).await;
        assert_eq!(refused, Err(ProposeError::Refused(Refused::Halted)));
    });
}

#[test]
fn what_exceeds_a_limit_is_refused_before_admission() {
    simulate(async {
        let network = Network::default();
        let nodes = seeded_cluster(&network, &[1]).await;
        let leader = leader_of(&groups_of(&nodes, 1)).await;
        let limit = config().command_bytes_max;
        let large = leader.propose(Bytes::from(vec![0; limit + 1]), DEADLINE).await;
        let expected = Refused::TooLarge { bytes: limit + 1, limit };
        assert_eq!(large, Err(ProposeError::Refused(expected)));

        let crowd = config().proposals_pending_max + 10;
        let outcomes = join_all((0..crowd).map(|_| {
            let leader = leader.clone();
            async move { leader.propose(Bytes::from_static(b"x"), DEADLINE).await }
        }))
        .await;
        let busy = Err(ProposeError::Refused(Refused::Busy));
        assert_eq!(outcomes.iter().filter(|&outcome| *outcome == busy).count(), 10);
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), crowd - 10);
    });
}

#[test]
fn a_machine_that_lost_its_state_is_not_run_over_a_purged_log() {
    simulate(async {
        let network = Network::default();
        let mut nodes = seeded_cluster(&network, &[1]).await;
        leader_of(&groups_of(&nodes, 1)).await;
        nodes[0].crash_and_restart().await;
        nodes[0].stores.clear();
        let refused = nodes[0].try_create(1, 11).await;
        assert!(matches!(refused, Err(RaftError::StateLost { .. })), "{refused:?}");
    });
}

#[test]
fn the_same_seed_gives_the_same_run() {
    fn run() -> Vec<u64> {
        let (sender, receiver) = std::sync::mpsc::channel();
        simulate(async move {
            let network = Network::default();
            let started = tokio::time::Instant::now();
            let nodes = seeded_cluster(&network, &[1, 2]).await;
            for group in [1, 2] {
                let leader = leader_of(&groups_of(&nodes, group)).await;
                let written = propose(&leader, "a").await;
                sender.send(leader.replica().0).unwrap();
                sender.send(written.index).unwrap();
                sender.send(started.elapsed().as_millis() as u64).unwrap();
            }
        });
        receiver.iter().collect()
    }
    assert_eq!(run(), run());
}
