//! A group as the port that transaction services know.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_raft::{Group, RaftLog};
use quorate_types::conformance::{Replica, group_log_suite};
use quorate_types::group_log::{GroupLog, ProposeError};
use quorate_types::runtime::BoxFuture;
use support::*;

#[test]
fn a_leader_serves_and_others_name_it() {
    simulate(async {
        let network = Network::default();
        let nodes = seeded_cluster(&network, &[1]).await;
        let groups = groups_of(&nodes, 1);
        let leader = leader_of(&groups).await;
        let leads = RaftLog::new(leader.clone(), DEADLINE);
        leads.leadership().wait_for(|now| now.leads).await.unwrap();
        leads.propose(Bytes::from_static(b"a")).await.unwrap();
        let confirmed = leads.read_index().await.unwrap();
        assert!(leads.applied(confirmed.index).await);

        let node = nodes.iter().find(|node| node.id.0 + 10 == leader.replica().0).unwrap();
        let other = groups.iter().find(|group| group.replica() != leader.replica()).unwrap();
        let follows = RaftLog::new(other.clone(), DEADLINE);
        assert!(follows.applied(confirmed.index).await);
        assert!(!follows.leadership().borrow().leads);
        let refused = follows.propose(Bytes::from_static(b"b")).await;
        assert_eq!(refused, Err(ProposeError::NotLeader(Some(node.id))));
        assert_eq!(follows.read_index().await, Err(Some(node.id)));
    });
}

#[test]
fn without_a_quorum_a_proposal_ends_unknown_and_after_the_end_nothing_is_applied() {
    simulate(async {
        let network = Network::default();
        let nodes = seeded_cluster(&network, &[1]).await;
        let leader = leader_of(&groups_of(&nodes, 1)).await;
        let log = RaftLog::new(leader.clone(), std::time::Duration::from_millis(500));
        let node = nodes.iter().find(|node| node.id.0 + 10 == leader.replica().0).unwrap();
        network.isolate(node.id);
        assert_eq!(log.propose(Bytes::from_static(b"a")).await, Err(ProposeError::Unknown));
        let large = Bytes::from(vec![0; 64 << 20]);
        assert!(matches!(log.propose(large).await, Err(ProposeError::Refused(_))));
        node.host.shutdown().await.unwrap();
        assert!(!log.applied(u64::MAX).await);
        assert!(!log.leadership().borrow().leads);
    });
}

/// A group of three, whose nodes live as long as somebody looks at one.
async fn replicas() -> Vec<Replica> {
    let network = Network::default();
    let nodes = Arc::new(Mutex::new(seeded_cluster(&network, &[1]).await));
    let groups = groups_of(&nodes.lock(), 1);
    let replica = |(at, group): (usize, Group)| {
        let (shown, ending) = (Arc::clone(&nodes), Arc::clone(&nodes));
        let end = move || -> BoxFuture<()> {
            let host = ending.lock()[at].host.clone();
            Box::pin(async move { host.shutdown().await.unwrap() })
        };
        let node = nodes.lock()[at].id;
        Replica {
            node,
            log: Arc::new(RaftLog::new(group, DEADLINE)),
            applied: Box::new(move || shown.lock()[at].tape(1)),
            end: Some(Box::new(end)),
        }
    };
    groups.into_iter().enumerate().map(replica).collect()
}

#[test]
fn a_group_conforms() {
    simulate(group_log_suite(replicas));
}
