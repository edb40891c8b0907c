//! The cluster as a node knows it: the newest metadata it has seen, where
//! nodes listen, and who leads the metadata group. All of it is a hint
//! (law 6).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use quorate_types::{GroupId, NodeId, watch};

use crate::groups::METADATA_GROUP;
use crate::view::ClusterView;

/// See the module.
#[derive(Debug)]
pub struct Directory {
    node: NodeId,
    view: watch::Sender<Arc<ClusterView>>,
    addresses: RwLock<BTreeMap<NodeId, String>>,
    leader: RwLock<Option<NodeId>>,
}

impl Directory {
    /// What `node` knows before it has heard from anybody.
    #[must_use]
    pub fn new(node: NodeId, addresses: BTreeMap<NodeId, String>) -> Self {
        let (view, _) = watch::channel(Arc::new(ClusterView::default()));
        Self { node, view, addresses: RwLock::new(addresses), leader: RwLock::default() }
    }

    /// The node that knows this.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// The newest metadata this node has.
    #[must_use]
    pub fn view(&self) -> Arc<ClusterView> {
        Arc::clone(&self.view.borrow())
    }

    /// Follows the metadata.
    #[must_use]
    pub fn views(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.view.subscribe()
    }

    /// Takes in a view, unless one as new is known.
    pub fn learn_view(&self, view: &ClusterView) {
        self.view.modify(|known| {
            if view.applied() <= known.applied() {
                return false;
            }
            let told = view.nodes().map(|(node, record)| (node, record.address.clone()));
            self.addresses.write().extend(told);
            *known = Arc::new(view.clone());
            true
        });
    }

    /// Where a node listens.
    #[must_use]
    pub fn address(&self, node: NodeId) -> Option<String> {
        self.addresses.read().get(&node).cloned()
    }

    /// Takes in an address that the node itself told.
    pub fn learn_address(&self, node: NodeId, address: &str) {
        let mut addresses = self.addresses.write();
        if addresses.get(&node).is_none_or(|known| known != address) {
            addresses.insert(node, address.to_owned());
        }
    }

    /// Every node that is a member now.
    #[must_use]
    pub fn members(&self) -> Vec<NodeId> {
        self.view().members().map(|(node, _)| node).collect()
    }

    /// The nodes with a replica of a group.
    #[must_use]
    pub fn group_nodes(&self, group: GroupId) -> Vec<NodeId> {
        let view = self.view();
        let replicas = view.group(group).into_iter().flat_map(|group| &group.replicas);
        replicas.map(|replica| replica.node).collect()
    }

    /// The other nodes to ask for the metadata, its presumed leader first.
    #[must_use]
    pub fn targets(&self) -> Vec<NodeId> {
        let mut nodes = self.group_nodes(METADATA_GROUP);
        if nodes.is_empty() {
            // No view yet: anybody may know.
            nodes.extend(self.addresses.read().keys());
        }
        if let Some(leader) = *self.leader.read() {
            nodes.retain(|node| *node != leader);
            nodes.insert(0, leader);
        }
        nodes.retain(|node| *node != self.node);
        nodes
    }

    /// Takes in who leads the metadata group.
    pub fn learn_leader(&self, leader: Option<NodeId>) {
        *self.leader.write() = leader;
    }
}
