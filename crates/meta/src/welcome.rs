//! Who is let in: the registry's verdict on a caller.

use quorate_types::ClusterId;
use quorate_types::hello::Hello;

use crate::nodes::NodeState;
use crate::view::ClusterView;

impl ClusterView {
    /// Decides about a peer by what is known of it. Whoever is not known yet
    /// is welcome: it may be about to join.
    ///
    /// # Errors
    /// The refusal, for the peer's operator to read: it is of another cluster
    /// than `ours`, came with another disk than it joined with, or was removed.
    pub fn judge(&self, ours: Option<ClusterId>, theirs: &Hello) -> Result<(), String> {
        if let (Some(ours), Some(theirs)) = (ours, theirs.cluster)
            && ours != theirs
        {
            return Err(format!("this node belongs to cluster {ours}, not {theirs}"));
        }
        let node = theirs.node;
        match self.node(node) {
            Some(known) if known.disk != theirs.disk => Err(format!(
                "{node} joined with another disk; this disk is not the one that joined; join \
                 under a new id"
            )),
            Some(known) if known.state == NodeState::Removed => {
                Err(format!("{node} was removed; join under a new id"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
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
}
