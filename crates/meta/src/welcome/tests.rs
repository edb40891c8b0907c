use quorate_types::hello::Protocol;
use quorate_types::{Blob, DiskId, NodeId, Seq};

use super::*;
use crate::nodes::Node;

fn view(state: NodeState) -> ClusterView {
    let (disk, address, labels) = (DiskId(7), "a:1".to_owned(), Seq::new());
    let mut view = ClusterView::default();
    let node = Node { disk, address, labels, supports: 1, state, joined_at: 1 };
    view.insert_node(NodeId(2), node);
    view
}

fn hello(node: u64, disk: u128, cluster: Option<ClusterId>) -> Hello {
    Hello {
        protocol: Protocol::Mesh,
        lane: 0,
        cluster,
        node: NodeId(node),
        disk: DiskId(disk),
        incarnation: 1,
        address: Blob::new(),
    }
}

#[test]
fn members_and_strangers_are_welcome() {
    let (view, ours) = (view(NodeState::Draining), Some(ClusterId(1)));
    assert_eq!(view.judge(ours, &hello(2, 7, ours)), Ok(()));
    assert_eq!(view.judge(ours, &hello(3, 8, None)), Ok(()));
    assert_eq!(view.judge(None, &hello(3, 8, Some(ClusterId(5)))), Ok(()), "we are none yet");
}

#[test]
fn another_cluster_another_disk_and_the_removed_hear_why_not() {
    let ours = Some(ClusterId(1));
    let refusal = |state, theirs| view(state).judge(ours, &theirs).unwrap_err();
    let foreign = refusal(NodeState::Active, hello(2, 7, Some(ClusterId(5))));
    assert!(foreign.contains("belongs to cluster"), "{foreign}");
    let wiped = refusal(NodeState::Active, hello(2, 8, ours));
    assert!(wiped.contains("not the one that joined"), "{wiped}");
    let removed = refusal(NodeState::Removed, hello(2, 7, ours));
    assert!(removed.contains("was removed"), "{removed}");
}
