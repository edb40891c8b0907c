//! Groups that nobody uses rest, and nothing is lost by it.

use std::time::Duration;

use quorate_raft::{Group, HostConfig, ProposeError, Timing};
use quorate_types::{GroupId, NodeId, ReplicaId};

use super::support::*;
use super::{ids, places};

const GROUPS: std::ops::RangeInclusive<u64> = 1..=20;

async fn pause(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

fn terms(groups: &[Group]) -> Vec<u64> {
    groups.iter().map(|group| group.status().term).collect()
}

fn all(nodes: &[TestNode]) -> Vec<Group> {
    nodes.iter().flat_map(|node| node.host.groups()).collect()
}

fn resting(nodes: &[TestNode]) -> Vec<u64> {
    nodes.iter().map(|node| node.host.metrics().groups_resting).collect()
}

/// Twenty groups on three nodes, each led and with an entry, all at rest.
async fn rested(network: &Network) -> Vec<TestNode> {
    let groups: Vec<u64> = GROUPS.collect();
    let nodes = seeded_cluster(network, &groups).await;
    for group in groups {
        propose(&leader_of(&groups_of(&nodes, group)).await, "before").await;
    }
    pause(15).await;
    assert_eq!(resting(&nodes), [20, 20, 20]);
    assert!(all(&nodes).iter().all(|group| group.status().resting));
    nodes
}

async fn one_rested(network: &Network) -> (Vec<TestNode>, Vec<Group>, Group, usize) {
    let nodes = seeded_cluster(network, &[1]).await;
    let replicas = groups_of(&nodes, 1);
    let leader = leader_of(&replicas).await;
    propose(&leader, "before").await;
    pause(15).await;
    assert_eq!(resting(&nodes), [1, 1, 1]);
    let leads = places(&nodes, &leader).0;
    (nodes, replicas, leader, leads)
}

fn others(replicas: &[Group], leader: &Group) -> Vec<Group> {
    replicas.iter().filter(|group| group.replica() != leader.replica()).cloned().collect()
}

#[test]
fn groups_that_rest_say_nothing_and_keep_their_leaders() {
    simulate(async {
        let network = Network::default();
        let nodes = rested(&network).await;
        let before = terms(&all(&nodes));
        network.take_calls();
        pause(60).await;
        let calls = network.take_calls();
        // Five times a second from each node to each other one, whatever the
        // number of groups. Awake they take ten a second each.
        assert!(calls <= 60 * 5 * 6 + 6, "{calls} calls in a minute");
        assert_eq!(terms(&all(&nodes)), before);
        assert_eq!(resting(&nodes), [20, 20, 20]);
    });
}

#[test]
fn a_group_that_rests_is_used_as_if_it_did_not() {
    simulate(async {
        let network = Network::default();
        let (nodes, replicas, leader, _) = one_rested(&network).await;
        let term = leader.status().term;
        let written = propose(&leader, "woken by a write").await;
        assert_eq!(written.term, term, "nobody was elected for it");
        applied_everywhere(&replicas, written.index).await;
        assert_eq!(resting(&nodes), [0, 0, 0], "the others hear of it by what they are sent");

        pause(15).await;
        assert_eq!(resting(&nodes), [1, 1, 1], "it rests again");
        let read = leader.read_index().await.unwrap();
        assert_eq!((read.term, read.index), (term, written.index));

        pause(15).await;
        assert_eq!(resting(&nodes), [1, 1, 1]);
        let fresh = leader.status().fresh;
        assert_eq!(fresh, others(&replicas, &leader).iter().map(Group::replica).collect());
        let successor = &others(&replicas, &leader)[0];
        leader.transfer_leader(successor.replica()).await.unwrap();
        leader_of(std::slice::from_ref(successor)).await;

        pause(15).await;
        assert_eq!(resting(&nodes), [1, 1, 1]);
        let stays = ids([successor.replica().0, leader.replica().0]);
        successor.set_voters(stays).await.unwrap();
        assert_eq!(successor.status().voters.len(), 2);
    });
}

#[test]
fn many_uses_at_once_wake_a_group_once() {
    simulate(async {
        let network = Network::default();
        let (_nodes, replicas, leader, _) = one_rested(&network).await;
        let term = leader.status().term;
        let writes = (0..50).map(|_| propose(&leader, "at once"));
        let written = futures_util::future::join_all(writes).await;
        assert!(written.iter().all(|written| written.term == term));
        applied_everywhere(&replicas, written.iter().map(|written| written.index).max().unwrap())
            .await;
    });
}

#[test]
fn the_loss_of_a_node_wakes_what_it_led_and_nothing_more() {
    simulate(async {
        let network = Network::default();
        let nodes = rested(&network).await;
        let lost = NodeId(1);
        let leaders: Vec<(GroupId, u64, NodeId)> = nodes[1]
            .host
            .groups()
            .iter()
            .map(|group| (group.id(), group.status().term, group.status().leader.unwrap().1))
            .collect();
        assert!(leaders.iter().any(|(_, _, leader)| *leader == lost));
        network.isolate(lost);
        pause(3).await;
        for &(group, term, leader) in &leaders {
            let replicas =
                [nodes[1].host.group(group).unwrap(), nodes[2].host.group(group).unwrap()];
            let now = leader_of(&replicas).await.status();
            let elections = now.term - term;
            if leader == lost {
                assert!((1..=2).contains(&elections), "{group}: {elections} elections");
            } else {
                assert_eq!(elections, 0, "{group} had a leader");
            }
        }
        // Without the node that is gone the others rest again.
        pause(30).await;
        assert_eq!(resting(&nodes)[1..], [20, 20]);
        for &(group, ..) in &leaders {
            let replicas =
                [nodes[1].host.group(group).unwrap(), nodes[2].host.group(group).unwrap()];
            propose(&leader_of(&replicas).await, "while it is gone").await;
        }
        pause(30).await;
        assert_eq!(resting(&nodes)[1..], [20, 20]);
        let before = terms(&all(&nodes[1..]));
        network.heal();
        pause(30).await;
        for group in GROUPS {
            assert_eq!(nodes[0].tape(group).last().unwrap(), "while it is gone");
        }
        assert_eq!(terms(&all(&nodes[1..])), before, "who comes back deposes nobody");
        assert_eq!(resting(&nodes), [20, 20, 20]);
    });
}

#[test]
fn a_leader_that_is_removed_while_it_rests_is_missed() {
    simulate(async {
        let network = Network::default();
        let nodes = rested(&network).await;
        let replicas = groups_of(&nodes, 7);
        let leader = leader_of(&replicas).await;
        let (leads, _) = places(&nodes, &leader);
        let terms_of_others = |nodes: &[TestNode]| {
            let groups = all(nodes).into_iter().filter(|group| group.id() != GroupId(7));
            terms(&groups.collect::<Vec<_>>())
        };
        let before = terms_of_others(&nodes);
        // Its node lives and beats for the other groups it leads.
        nodes[leads].host.remove(GroupId(7)).await.unwrap();
        pause(5).await;
        let successor = leader_of(&others(&replicas, &leader)).await;
        propose(&successor, "led by another").await;
        assert_eq!(terms_of_others(&nodes), before);
    });
}

#[test]
fn a_leader_that_rests_and_hears_nobody_gives_way() {
    simulate(async {
        let network = Network::default();
        let (nodes, replicas, leader, leads) = one_rested(&network).await;
        // What the others say to it is lost, what it says arrives: they must not
        // wait for it for ever.
        for node in (0..3).filter(|node| *node != leads) {
            network.mute(nodes[node].id, nodes[leads].id);
        }
        let began = tokio::time::Instant::now();
        let successor = leader_of(&others(&replicas, &leader)).await;
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        let written = propose(&successor, "after").await;
        network.heal();
        applied_everywhere(&replicas, written.index).await;
    });
}

#[test]
fn an_isolated_leader_that_rests_is_replaced() {
    simulate(async {
        let network = Network::default();
        let (nodes, replicas, leader, leads) = one_rested(&network).await;
        network.isolate(nodes[leads].id);
        let successor = leader_of(&others(&replicas, &leader)).await;
        let written = propose(&successor, "after").await;
        let refused = leader.propose("not begun".into(), Duration::from_millis(300)).await;
        assert_eq!(refused, Err(ProposeError::NotLeader { leader: None }));
        network.heal();
        applied_everywhere(&replicas, written.index).await;
        assert_eq!(nodes[leads].tape(1), ["before", "after"]);
    });
}

#[test]
fn a_restarted_follower_of_a_group_that_rests_deposes_nobody() {
    simulate(async {
        let network = Network::default();
        let (mut nodes, _, leader, leads) = one_rested(&network).await;
        let term = leader.status().term;
        let follows = (leads + 1) % 3;
        nodes[follows].crash_and_restart().await;
        let replica = nodes[follows].create(1, leader_replica(follows)).await;
        pause(30).await;
        assert_eq!(leader.status().term, term);
        assert_eq!(resting(&nodes), [1, 1, 1], "they rest again, together");
        assert_eq!(replica.status().leader.map(|(id, _)| id), Some(leader.replica()));
    });
}

/// The replica of group 1 on a node, by the node's place.
fn leader_replica(place: usize) -> u64 {
    10 + place as u64 + 1
}

/// Whenever it comes back, and in whatever phase of its own silence: what it says
/// is of an old term, and must neither depose the leader nor keep it from serving.
#[test]
fn an_old_leader_that_comes_back_disturbs_nobody_who_rests() {
    for phase in 0..20 {
        simulate(async {
            let network = Network::default();
            let (nodes, replicas, leader, leads) = one_rested(&network).await;
            network.isolate(nodes[leads].id);
            // It is kept awake, and so are its heartbeats.
            let kept = leader.clone();
            let using = quorate_types::runtime::spawn(async move {
                loop {
                    drop(kept.read_index().await);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
            let successor = leader_of(&others(&replicas, &leader)).await;
            propose(&successor, "while it was gone").await;
            let term = successor.status().term;
            pause(40).await;
            assert!(successor.status().resting);
            tokio::time::sleep(Duration::from_millis(phase * 200)).await;
            network.heal();
            let asked = tokio::time::Instant::now();
            while asked.elapsed() < Duration::from_secs(6) {
                tokio::time::sleep(Duration::from_millis(37)).await;
                let written = propose(&successor, "after").await;
                assert_eq!(written.term, term, "phase {phase}: it was deposed");
            }
            using.abort();
        });
    }
}

/// What a replica is told twice, or by two others, is no more than a rumour.
#[test]
fn two_restarted_followers_of_five_depose_nobody() {
    simulate(async {
        let network = Network::default();
        let mut nodes: Vec<TestNode> = (1..=5).map(|id| TestNode::start(id, &network)).collect();
        let members: Vec<_> = (1..=5).map(|id| (ReplicaId(10 + id), NodeId(id))).collect();
        let row = quorate_raft::seeded_host_row(&members);
        for node in &mut nodes {
            node.stores.insert(GroupId(1), TapeStore::seeded(row.clone()));
            node.create(1, 10 + node.id.0).await;
        }
        let leader = leader_of(&groups_of(&nodes, 1)).await;
        propose(&leader, "before").await;
        pause(15).await;
        assert_eq!(resting(&nodes), [1; 5]);
        let (term, leads) = (leader.status().term, places(&nodes, &leader).0);
        for place in [(leads + 1) % 5, (leads + 2) % 5] {
            nodes[place].crash_and_restart().await;
        }
        for place in [(leads + 1) % 5, (leads + 2) % 5] {
            nodes[place].create(1, leader_replica(place)).await;
        }
        pause(30).await;
        assert_eq!(leader.status().term, term);
        assert_eq!(resting(&nodes), [1; 5]);
    });
}

#[test]
fn a_slow_heartbeat_does_not_hide_the_loss_of_a_leader() {
    simulate(async {
        let network = Network::default();
        let timing = Timing {
            heartbeat: Duration::from_millis(600),
            election_min: Duration::from_millis(1700),
            election_max: Duration::from_millis(2000),
        };
        let slow = HostConfig { metadata: timing, sequencer: timing, shard: timing, ..config() };
        let nodes = seeded_cluster_with(&network, &[1], slow).await;
        let replicas = groups_of(&nodes, 1);
        let leader = leader_of(&replicas).await;
        propose(&leader, "before").await;
        pause(15).await;
        assert_eq!(resting(&nodes), [1; 3]);
        network.isolate(nodes[places(&nodes, &leader).0].id);
        let others = others(&replicas, &leader);
        let successor = tokio::time::timeout(Duration::from_secs(5), leader_of(&others));
        propose(&successor.await.unwrap(), "after").await;
    });
}

#[test]
fn a_group_that_is_removed_and_made_anew_rests_as_any_other() {
    simulate(async {
        let network = Network::default();
        let (mut nodes, ..) = one_rested(&network).await;
        for node in &nodes {
            node.host.remove(GroupId(1)).await.unwrap();
        }
        assert_eq!(resting(&nodes), [0, 0, 0]);
        let members: Vec<_> = (1..=3).map(|id| (ReplicaId(20 + id), NodeId(id))).collect();
        let row = quorate_raft::seeded_host_row(&members);
        for node in &mut nodes {
            node.stores.insert(GroupId(1), TapeStore::seeded(row.clone()));
            node.create(1, 20 + node.id.0).await;
        }
        let leader = leader_of(&groups_of(&nodes, 1)).await;
        propose(&leader, "anew").await;
        pause(15).await;
        assert_eq!(resting(&nodes), [1, 1, 1]);
        propose(&leader, "and used").await;
    });
}

#[test]
fn a_leader_that_restarts_at_once_is_missed() {
    simulate(async {
        let network = Network::default();
        let (mut nodes, replicas, leader, leads) = one_rested(&network).await;
        nodes[leads].crash_and_restart().await;
        let restarted = nodes[leads].create(1, leader_replica(leads)).await;
        let mut replicas = others(&replicas, &leader);
        replicas.push(restarted);
        let successor = leader_of(&replicas).await;
        let written = propose(&successor, "after").await;
        applied_everywhere(&replicas, written.index).await;
    });
}

#[test]
fn a_group_alone_rests_too() {
    simulate(async {
        let network = Network::default();
        let mut node = TestNode::start(1, &network);
        let group = node.create(1, 11).await;
        group.initialize(&[(ReplicaId(11), NodeId(1))]).await.unwrap();
        propose(&leader_of(std::slice::from_ref(&group)).await, "before").await;
        pause(15).await;
        assert!(group.status().resting);
        propose(&group, "after").await;
        assert!(!group.status().resting);
    });
}
