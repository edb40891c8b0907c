//! Three hosts in one process, on virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use quorate_types::GroupId;
use support::*;

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
