//! What an operator decides about a node.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use quorate_calvin::{ClientConfig, ServiceConfig};
use quorate_meta::InitialCluster;
use quorate_placement::SchedulerConfig;
use quorate_raft::{HostConfig, LogMedium};
use quorate_types::NodeId;

use crate::error::NodeError;

/// A node's configuration. The defaults suit one data centre.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The node's id; unique in the cluster and bound to its directory for life.
    pub node: NodeId,
    /// Where everything is stored.
    pub directory: PathBuf,
    /// Where the node listens for other nodes, and where they find it.
    pub address: String,
    /// The members of the initial cluster with their addresses, this node
    /// included; the same on each of them. Ignored once the node is a member.
    pub initial_cluster: Vec<(NodeId, String)>,
    /// Addresses of running members, for a further node.
    pub join: Vec<String>,
    /// What the node says of itself to the others. Replicas are spread over the
    /// values of [`ZONE_LABEL`](quorate_meta::ZONE_LABEL), the failure domain.
    pub labels: BTreeMap<String, String>,
    /// How many shards a new cluster starts with.
    pub shards: u32,
    /// How many replicas each shard has, where there are nodes enough.
    pub replicas: u32,
    /// The keys at which a new cluster's shards are cut; one fewer than
    /// [`NodeConfig::shards`], or empty to cut evenly by the first two bytes.
    pub split_keys: Vec<Vec<u8>>,
    /// How long requests are remembered at least, so that a retry is safe.
    pub retention: Duration,
    /// How long a proposal may be pending before its outcome counts as unknown.
    pub proposal_deadline: Duration,
    /// What Raft's log is kept on; a directory keeps to what it was begun with.
    pub log: LogMedium,
    /// Raft's limits and timings.
    pub raft: HostConfig,
    /// The transaction services' limits.
    pub services: ServiceConfig,
    /// The client's deadlines.
    pub client: ClientConfig,
    /// Gossip's clocks and limits.
    pub gossip: quorate_gossip::Config,
    /// The placement scheduler's intervals; `None` turns it off.
    pub scheduler: Option<SchedulerConfig>,
}

impl NodeConfig {
    /// A single-node cluster in `directory`, listening on a free port of the
    /// loopback interface.
    #[must_use]
    pub fn new(node: NodeId, directory: impl Into<PathBuf>) -> Self {
        Self {
            node,
            directory: directory.into(),
            address: "127.0.0.1:0".to_owned(),
            initial_cluster: Vec::new(),
            join: Vec::new(),
            labels: BTreeMap::new(),
            shards: 8,
            replicas: 3,
            split_keys: Vec::new(),
            retention: Duration::from_secs(600),
            proposal_deadline: Duration::from_secs(3),
            log: LogMedium::default(),
            raft: HostConfig::default(),
            services: ServiceConfig::default(),
            client: ClientConfig::default(),
            gossip: quorate_gossip::Config::default(),
            scheduler: Some(SchedulerConfig {
                interval: Duration::from_secs(2),
                jitter_max: Duration::from_millis(500),
                ..SchedulerConfig::default()
            }),
        }
    }

    pub(crate) fn validate(&self) -> Result<(), NodeError> {
        let wrong = |text: &str| Err(NodeError::Config(text.to_owned()));
        if self.node == NodeId(0) {
            return wrong("node ids start at 1");
        }
        self.initial().check().map_err(|flaw| NodeError::Config(flaw.to_string()))?;
        let is_listed = self.initial_cluster.iter().any(|(node, _)| *node == self.node);
        if !self.initial_cluster.is_empty() && !is_listed && self.join.is_empty() {
            return wrong("the initial cluster must list this node; to join a running one, say so");
        }
        Ok(())
    }

    /// What must be the same on all founding nodes.
    pub(crate) fn initial(&self) -> InitialCluster {
        InitialCluster {
            members: self.initial_cluster.clone(),
            shards: self.shards,
            replicas: self.replicas,
            split_keys: self.split_keys.clone(),
        }
    }
}
