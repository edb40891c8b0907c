//! Groups are administered from any node.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_raft::admin::{AdminClient, Fence, MemberChange, VoterChange};

use quorate_raft::{Home, Host, Lane, MachineError, RaftError, Transport, TransportError};
use quorate_types::runtime::BoxFuture;
use quorate_types::{GroupId, MigrationId, NodeId, ReplicaId, watch};
use support::*;

const GROUP: GroupId = GroupId(1);
const LEARNER: ReplicaId = ReplicaId(14);

/// Carries requests to the hosts that a test's network reaches.
struct Way {
    from: NodeId,
    network: Network,
    /// Whether its callers leave as soon as the work over there has begun.
    is_hasty: bool,
}

impl Transport for Way {
    fn call(
        &self,
        to: NodeId,
        _lane: Lane,
        payload: Bytes,
        _deadline: Duration,
    ) -> BoxFuture<Result<Bytes, TransportError>> {
        let host = self.network.route(self.from, to);
        let is_hasty = self.is_hasty;
        Box::pin(async move {
            let cut = || TransportError::Unreachable { to, reason: "cut".to_owned() };
            let mut work = host.ok_or_else(cut)?.administer(payload);
            if is_hasty {
                for _ in 0..2 {
                    assert!(futures_util::poll!(&mut work).is_pending());
                    tokio::task::yield_now().await;
                }
                return Err(TransportError::Deadline { to });
            }
            let reply = work.await;
            reply.map_err(|error| TransportError::Rejected { to, reason: error.to_string() })
        })
    }
}

fn client(node: &TestNode, network: &Network) -> AdminClient {
    let way = Way { from: node.id, network: network.clone(), is_hasty: false };
    client_by(node, way)
}

fn client_by(node: &TestNode, way: Way) -> AdminClient {
    AdminClient::new(node.id, node.host.clone(), Arc::new(way), |_| (1..=3).map(NodeId).collect())
}

fn fence(term: u64, attempt: u32) -> Fence {
    Fence { migration: MigrationId(5), term, attempt }
}

#[test]
fn a_change_is_made_wherever_the_leader_is() {
    simulate(async {
        let network = Network::default();
        let nodes = seeded_cluster(&network, &[1]).await;
        let leader = leader_of(&groups_of(&nodes, 1)).await;
        for node in &nodes {
            let client = client(node, &network);
            let add = MemberChange::AddLearner(LEARNER, NodeId(4));
            client.change(GROUP, add, fence(1, 1)).await.unwrap();
            let seen = client.progress(GROUP).await.unwrap();
            assert_eq!(seen.leader, leader.replica());
            assert_eq!(seen.replicas(true).count(), 3);
            assert_eq!(seen.replicas(false).collect::<Vec<_>>(), [LEARNER]);
            assert_eq!(seen.outgoing, None);
            let own = seen.members.iter().find(|member| member.replica == seen.leader).unwrap();
            assert_eq!((own.matched, own.is_fresh), (seen.last_log, true));
            let remove = MemberChange::RemoveLearner(LEARNER);
            client.change(GROUP, remove, fence(1, 1)).await.unwrap();
            assert_eq!(client.progress(GROUP).await.unwrap().replicas(false).count(), 0);
        }
    });
}

#[test]
fn a_voter_leaves_and_comes_relative_to_the_membership_found() {
    simulate(async {
        let network = Network::default();
        let nodes = seeded_cluster(&network, &[1]).await;
        let leader = leader_of(&groups_of(&nodes, 1)).await;
        let gone = nodes.iter().find(|node| node.id != NodeId(leader.replica().0 - 10)).unwrap();
        let replica = ReplicaId(10 + gone.id.0);
        let client = client(gone, &network);
        for _ in 0..2 {
            let change = MemberChange::Voters(VoterChange { add: None, remove: Some(replica) });
            client.change(GROUP, change, fence(1, 1)).await.unwrap();
        }
        let seen = client.progress(GROUP).await.unwrap();
        assert_eq!(seen.replicas(true).count(), 2);
        assert!(!seen.replicas(true).any(|voter| voter == replica));
    });
}

#[test]
fn the_leadership_is_handed_over_and_the_pause_measured() {
    simulate(async {
        let network = Network::default();
        let nodes = seeded_cluster(&network, &[1]).await;
        let leader = leader_of(&groups_of(&nodes, 1)).await;
        propose(&leader, "so that followers have answered").await;
        let to = nodes.iter().find(|node| ReplicaId(10 + node.id.0) != leader.replica()).unwrap();
        let successor = ReplicaId(10 + to.id.0);
        let client = client(to, &network);
        client.progress(GROUP).await.unwrap();
        let pause = client.transfer(GROUP, successor, None).await.unwrap();
        assert!(pause > Duration::ZERO);
        assert_eq!(leader_of(&groups_of(&nodes, 1)).await.replica(), successor);
        let again = client.transfer(GROUP, successor, None).await.unwrap();
        assert_eq!(again, Duration::ZERO, "the answer was lost and it is asked again");
        let refused = client.transfer(GROUP, LEARNER, None).await;
        assert!(matches!(refused, Err(RaftError::Refused(_))), "{refused:?}");
    });
}

#[test]
fn a_late_request_of_an_earlier_attempt_is_refused() {
    simulate(async {
        let network = Network::default();
        let nodes = seeded_cluster(&network, &[1]).await;
        leader_of(&groups_of(&nodes, 1)).await;
        let client = client(&nodes[0], &network);
        let add = || MemberChange::AddLearner(LEARNER, NodeId(4));
        let remove = || MemberChange::RemoveLearner(LEARNER);
        client.change(GROUP, add(), fence(2, 1)).await.unwrap();
        client.change(GROUP, remove(), fence(2, 2)).await.unwrap();
        let late = client.change(GROUP, add(), fence(2, 1)).await;
        assert!(matches!(late, Err(RaftError::Fenced)), "{late:?}");
        assert_eq!(client.progress(GROUP).await.unwrap().replicas(false).count(), 0);
    });
}

#[test]
fn without_a_leader_that_answers_the_outcome_is_unknown() {
    simulate(async {
        let network = Network::default();
        let nodes = seeded_cluster(&network, &[1]).await;
        let leader = leader_of(&groups_of(&nodes, 1)).await;
        let asking = nodes.iter().find(|node| node.id.0 + 10 != leader.replica().0).unwrap();
        let client = client(asking, &network);
        network.isolate(asking.id);
        let lost = client.progress(GROUP).await;
        assert!(matches!(lost, Err(RaftError::Unknown)), "{lost:?}");
        let nowhere = client.progress(GroupId(9)).await;
        assert!(matches!(nowhere, Err(RaftError::Unknown)), "{nowhere:?}");
    });
}

#[test]
fn the_leader_removes_the_learners_that_are_named() {
    simulate(async {
        let network = Network::default();
        let nodes = seeded_cluster(&network, &[1]).await;
        let leader = leader_of(&groups_of(&nodes, 1)).await;
        for learner in [LEARNER, ReplicaId(15)] {
            leader.add_learner(learner, NodeId(4)).await.unwrap();
        }
        let learners = || leader.status().learners.into_iter().map(|(learner, _)| learner);
        for group in groups_of(&nodes, 1) {
            if group.replica() != leader.replica() {
                group.remove_strangers(|_| true).await.unwrap();
            }
        }
        assert_eq!(learners().count(), 2, "those who do not lead remove nobody");
        for _ in 0..2 {
            leader.remove_strangers(|learner| learner == LEARNER).await.unwrap();
            assert_eq!(learners().collect::<Vec<_>>(), [ReplicaId(15)]);
        }
        let leads_at = NodeId(leader.replica().0 - 10);
        network.isolate(leads_at);
        let alone = leader.remove_strangers(|_| true).await;
        assert!(alone.is_err(), "{alone:?}");
    });
}

#[test]
fn whoever_asked_learns_of_each_new_leader() {
    simulate(async {
        let network = Network::default();
        let nodes = seeded_cluster(&network, &[1]).await;
        let leader = leader_of(&groups_of(&nodes, 1)).await;
        propose(&leader, "so that followers have answered").await;
        let to = nodes.iter().find(|node| ReplicaId(10 + node.id.0) != leader.replica()).unwrap();
        let (learned, mut learns) = watch::channel(None);
        leader.on_leader(move |node| learned.send(node));
        let client = client(to, &network);
        client.transfer(GROUP, ReplicaId(10 + to.id.0), None).await.unwrap();
        learns.wait_for(|node| *node == Some(to.id)).await.unwrap();
        // The replica's end is the end of it.
        let home =
            nodes.iter().find(|node| node.host.group(GROUP).unwrap().replica() == leader.replica());
        drop(leader);
        home.unwrap().host.remove(GROUP).await.unwrap();
        while learns.changed().await.is_ok() {}
    });
}

/// A home that remembers what it was asked, and whose rows stay at first.
struct TestHome {
    host: Host,
    calls: Mutex<Vec<String>>,
    failures: Mutex<usize>,
}

impl TestHome {
    fn of(node: &TestNode, failures: usize) -> Arc<Self> {
        let (host, failures) = (node.host.clone(), Mutex::new(failures));
        let home = Arc::new(Self { host, calls: Mutex::default(), failures });
        let given = Arc::downgrade(&home);
        node.host.belong_to(given);
        home
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock())
    }
}

impl Home for TestHome {
    fn close(&self, group: GroupId) {
        let runs = self.host.group(group).is_some();
        self.calls.lock().push(format!("close {}, runs: {runs}", group.0));
    }

    fn erase(&self, group: GroupId) -> BoxFuture<Result<(), MachineError>> {
        let runs = self.host.group(group).is_some();
        self.calls.lock().push(format!("erase {}, runs: {runs}", group.0));
        let mut failures = self.failures.lock();
        let outcome = match *failures {
            0 => Ok(()),
            _ => Err(MachineError::new("the rows stay")),
        };
        *failures = failures.saturating_sub(1);
        Box::pin(std::future::ready(outcome))
    }
}

#[test]
fn a_replica_is_destroyed_at_its_home_from_any_node() {
    simulate(async {
        let network = Network::default();
        let nodes = seeded_cluster(&network, &[1]).await;
        for (asking, home) in [(0, 2), (1, 1)] {
            let (from, at) = (&nodes[asking], &nodes[home]);
            let (test_home, replica) = (TestHome::of(at, 1), ReplicaId(10 + at.id.0));
            let client = client(from, &network);
            let failed = client.destroy(at.id, GROUP, replica).await;
            assert!(matches!(failed, Err(RaftError::Unknown)), "{failed:?}");
            assert_eq!(test_home.calls(), ["close 1, runs: true", "erase 1, runs: false"]);
            assert!(at.host.log().is_tombstoned(GROUP, replica));
            // What was interrupted is finished, and asking once more is fine.
            for _ in 0..2 {
                client.destroy(at.id, GROUP, replica).await.unwrap();
                assert_eq!(test_home.calls(), ["close 1, runs: false", "erase 1, runs: false"]);
            }
        }
    });
}

#[test]
fn no_row_goes_before_the_tombstone_is_durable() {
    simulate(async {
        let network = Network::default();
        let nodes = seeded_cluster(&network, &[1]).await;
        let (node, home) = (&nodes[1], TestHome::of(&nodes[1], 0));
        node.disk.fail();
        // The first attempt takes the group out of memory, and no further.
        for _ in 0..3 {
            let failed = node.host.destroy(GROUP, ReplicaId(12)).await;
            assert!(matches!(failed, Err(RaftError::Log(_))), "{failed:?}");
        }
        let calls = home.calls();
        assert!(calls.iter().all(|call| call.starts_with("close")), "{calls:?}");
    });
}

#[test]
fn a_removal_whose_caller_has_left_is_carried_through() {
    simulate(async {
        let network = Network::default();
        let nodes = seeded_cluster(&network, &[1]).await;
        let home = TestHome::of(&nodes[1], 0);
        let way = Way { from: NodeId(1), network: network.clone(), is_hasty: true };
        let left = client_by(&nodes[0], way).destroy(NodeId(2), GROUP, ReplicaId(12)).await;
        assert!(matches!(left, Err(RaftError::Unknown)), "{left:?}");
        while home.calls.lock().len() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await; // Virtual time.
        }
        assert_eq!(home.calls(), ["close 1, runs: true", "erase 1, runs: false"]);
        assert!(nodes[1].host.log().is_tombstoned(GROUP, ReplicaId(12)));
    });
}

#[test]
fn a_late_request_to_destroy_spares_the_later_replica() {
    simulate(async {
        let network = Network::default();
        let mut nodes = seeded_cluster(&network, &[1]).await;
        let home = TestHome::of(&nodes[0], 0);
        let client = client(&nodes[1], &network);
        client.destroy(NodeId(1), GROUP, ReplicaId(11)).await.unwrap();
        home.calls();
        nodes[0].stores.remove(&GROUP);
        nodes[0].create(1, 14).await;
        client.destroy(NodeId(1), GROUP, ReplicaId(11)).await.unwrap();
        assert_eq!(home.calls(), Vec::<String>::new());
        assert_eq!(nodes[0].host.group(GROUP).unwrap().replica(), LEARNER);
    });
}

#[test]
fn without_a_home_or_a_way_to_it_nothing_is_destroyed() {
    simulate(async {
        let network = Network::default();
        let nodes = seeded_cluster(&network, &[1]).await;
        let client = client(&nodes[0], &network);
        let homeless = client.destroy(NodeId(2), GROUP, ReplicaId(12)).await;
        assert!(matches!(homeless, Err(RaftError::Refused(_))), "{homeless:?}");
        drop(TestHome::of(&nodes[1], 0));
        let gone = client.destroy(NodeId(2), GROUP, ReplicaId(12)).await;
        assert!(matches!(gone, Err(RaftError::Refused(_))), "{gone:?}");
        network.isolate(NodeId(2));
        let cut = client.destroy(NodeId(2), GROUP, ReplicaId(12)).await;
        assert!(matches!(cut, Err(RaftError::Unknown)), "{cut:?}");
        assert!(nodes[1].host.group(GROUP).is_some());
    });
}

#[test]
fn what_is_no_request_is_refused() {
    simulate(async {
        let network = Network::default();
        let nodes = seeded_cluster(&network, &[1]).await;
        for junk in [&b""[..], &[1], &[9, 1, 2], &[1, 0xc1, 0xff]] {
            let refused = nodes[0].host.administer(Bytes::copy_from_slice(junk)).await;
            assert!(matches!(refused, Err(RaftError::Malformed(_))), "{refused:?}");
        }
    });
}
