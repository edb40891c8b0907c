//! Groups are administered from any node.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_raft::admin::{AdminClient, Fence, MemberChange};
use quorate_raft::{Lane, RaftError, Transport, TransportError};
use quorate_types::runtime::BoxFuture;
use quorate_types::{GroupId, MigrationId, NodeId, ReplicaId};
use support::*;

const GROUP: GroupId = GroupId(1);
const LEARNER: ReplicaId = ReplicaId(14);

/// Carries requests to the hosts that a test's network reaches.
struct Way {
    from: NodeId,
    network: Network,
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
        Box::pin(async move {
            let cut = || TransportError::Unreachable { to, reason: "cut".to_owned() };
            let reply = host.ok_or_else(cut)?.administer(payload).await;
            reply.map_err(|error| TransportError::Rejected { to, reason: error.to_string() })
        })
    }
}

fn client(node: &TestNode, network: &Network) -> AdminClient {
    let way = Way { from: node.id, network: network.clone() };
    AdminClient::new(node.id, node.host.clone(), Arc::new(way), |_| (1..=3).map(NodeId).collect())
}

fn fence(term: u64, attempt: u32) -> Fence {
    Fence { who: MigrationId(5), term, attempt }
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
            let change = MemberChange::Voters(None, Some(replica));
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
        assert!(matches!(late, Err(RaftError::Refused(_))), "{late:?}");
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
