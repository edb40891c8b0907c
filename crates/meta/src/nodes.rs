//! The members: who they are, which disk they are bound to, and whether they
//! take replicas.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::{DiskId, NodeId, Seq};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::limits::{
    ADDRESS_BYTES_MAX, LABEL_BYTES_MAX, LABELS_MAX, NODE_IDS_MAX, NODES_MAX,
    REFUSAL_NODES_NAMED_MAX,
};
use crate::registry::Registry;
use crate::reply::{Limited, Refusal, Reply};

/// The label that names a node's failure domain.
pub const ZONE_LABEL: &str = "zone";

/// A property of a node that placement may ask for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, ToMessagePack, FromMessagePack)]
pub struct Label {
    /// What is described, such as [`ZONE_LABEL`].
    pub name: String,
    /// How it is on this node.
    pub value: String,
}

/// What a node says of itself when it joins.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct NodeSpec {
    /// Its id, chosen by the operator.
    pub node: NodeId,
    /// Its disk, drawn when the directory was first opened.
    pub disk: DiskId,
    /// Where other nodes reach it.
    pub address: String,
    /// Its properties.
    pub labels: Seq<Label>,
    /// The newest cluster version that its build supports.
    pub supports: u32,
}

/// Whether a node takes part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
#[msgpack(c_enum)]
#[repr(u8)]
pub enum NodeState {
    /// Holds replicas and takes new ones.
    Active = 1,
    /// Holds replicas and takes none; placement moves what it holds away.
    Draining = 2,
    /// Gone for ever. The record stays, so that its id and its disk are
    /// recognized should they return.
    Removed = 3,
}

/// A node as the cluster knows it.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct Node {
    /// The disk that its id is bound to for life.
    pub disk: DiskId,
    /// Where other nodes reach it.
    pub address: String,
    /// Its properties; none once it is removed.
    pub labels: Seq<Label>,
    /// The newest cluster version that its build supports.
    pub supports: u32,
    /// Whether it takes part.
    pub state: NodeState,
    /// The metadata log index at which it first joined.
    pub joined_at: u64,
}

impl Node {
    /// The value of the label `name`.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|label| label.name == name).map(|label| label.value.as_str())
    }
}

/// The newest cluster version that this build supports.
pub const CLUSTER_VERSION: u32 = 1;

impl NodeSpec {
    /// What a node of this build says of itself.
    #[must_use]
    pub fn new(
        node: NodeId,
        disk: DiskId,
        address: String,
        labels: BTreeMap<String, String>,
    ) -> Self {
        let labels = labels.into_iter().map(|(name, value)| Label { name, value }).collect();
        Self { node, disk, address, labels, supports: CLUSTER_VERSION }
    }

    /// The record of a node that joins at `index`.
    pub(crate) fn admitted(&self, index: u64) -> Node {
        Node {
            disk: self.disk,
            address: self.address.clone(),
            labels: self.labels.clone(),
            supports: self.supports,
            state: NodeState::Active,
            joined_at: index,
        }
    }

    /// Whether a node of the cluster says all this of itself.
    #[must_use]
    pub fn describes(&self, node: &Node) -> bool {
        let Self { address, labels, supports, .. } = self;
        (&node.address, &node.labels, &node.supports) == (address, labels, supports)
    }

    /// Address and labels within their bounds.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        if !is_text(&self.address, ADDRESS_BYTES_MAX) {
            return Err(Refusal::AddressInvalid);
        }
        let names: BTreeSet<&str> = self.labels.iter().map(|label| label.name.as_str()).collect();
        let printable = self.labels.iter().all(|label| {
            is_text(&label.name, LABEL_BYTES_MAX) && is_text(&label.value, LABEL_BYTES_MAX)
        });
        if self.labels.len() > LABELS_MAX || names.len() != self.labels.len() || !printable {
            return Err(Refusal::LabelsInvalid);
        }
        Ok(())
    }
}

/// Whether `text` has something to show and no more than `bytes_max` bytes.
pub(crate) fn is_text(text: &str, bytes_max: usize) -> bool {
    !text.is_empty() && text.len() <= bytes_max && !text.chars().any(char::is_control)
}

impl Registry {
    pub(crate) fn join(&mut self, index: u64, spec: &NodeSpec) -> Result<Reply, Refusal> {
        spec.check()?;
        let cluster = self.view().cluster_version();
        if spec.supports < cluster {
            return Err(Refusal::NodeBehind { supports: spec.supports, cluster });
        }
        match self.view().node(spec.node) {
            Some(known) => {
                let known = known.clone();
                self.rejoin(spec, &known)
            }
            None => self.join_new(index, spec),
        }
    }

    fn rejoin(&mut self, spec: &NodeSpec, known: &Node) -> Result<Reply, Refusal> {
        let node = spec.node;
        if known.state == NodeState::Removed {
            return Err(Refusal::NodeRemoved { node });
        }
        if known.disk != spec.disk {
            return Err(Refusal::OtherDisk { node, disk: known.disk });
        }
        let now = Node { state: known.state, ..spec.admitted(known.joined_at) };
        if now != *known {
            self.put_node(node, now);
            self.bump_version();
        }
        Ok(self.done())
    }

    fn join_new(&mut self, index: u64, spec: &NodeSpec) -> Result<Reply, Refusal> {
        if let Some(node) = self.view().node_of_disk(spec.disk) {
            return Err(Refusal::DiskKnown { node });
        }
        if self.view().nodes().count() >= NODE_IDS_MAX {
            return Err(Limited::NodeIds.at(NODE_IDS_MAX));
        }
        if self.view().members().count() >= NODES_MAX {
            return Err(Limited::Nodes.at(NODES_MAX));
        }
        self.put_node(spec.node, spec.admitted(index));
        self.bump_version();
        Ok(self.done())
    }

    pub(crate) fn set_node_state(
        &mut self,
        node: NodeId,
        state: NodeState,
    ) -> Result<Reply, Refusal> {
        let mut record = self.view().node(node).cloned().ok_or(Refusal::NodeUnknown { node })?;
        if record.state == state {
            return Ok(self.done());
        }
        if record.state == NodeState::Removed {
            return Err(Refusal::NodeRemoved { node });
        }
        if state == NodeState::Removed {
            let replicas = self.view().replicas_on(node).count() as u64;
            if replicas > 0 {
                return Err(Refusal::NodeHoldsReplicas { node, replicas });
            }
            record.labels = Seq::new();
        }
        record.state = state;
        self.put_node(node, record);
        self.bump_version();
        Ok(self.done())
    }

    pub(crate) fn set_cluster_version(&mut self, version: u32) -> Result<Reply, Refusal> {
        let current = self.view().cluster_version();
        if version < current {
            return Err(Refusal::VersionBackward { current });
        }
        let behind: Seq<NodeId> = self
            .view()
            .members()
            .filter(|(_, node)| node.supports < version)
            .map(|(id, _)| id)
            .take(REFUSAL_NODES_NAMED_MAX)
            .collect();
        if !behind.is_empty() {
            return Err(Refusal::NodesBehind { version, nodes: behind });
        }
        self.header_mut().cluster_version = version;
        Ok(self.done())
    }
}
