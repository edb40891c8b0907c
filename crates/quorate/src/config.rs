//! What an operator decides about a node.

use std::path::PathBuf;
use std::time::Duration;

use quorate_calvin::{ClientConfig, ServiceConfig};
use quorate_placement::SchedulerConfig;
use quorate_raft::HostConfig;
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
    /// The failure domain the node stands in; replicas are spread over zones.
    pub zone: Option<String>,
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

/// The first two bytes of a key split the key space evenly into at most this
/// many shards.
const SHARDS_MAX: u32 = 16_384;

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
            zone: None,
            shards: 8,
            replicas: 3,
            split_keys: Vec::new(),
            retention: Duration::from_secs(600),
            proposal_deadline: Duration::from_secs(3),
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
        if self.shards == 0 || self.shards > SHARDS_MAX {
            return wrong("shards must be between 1 and 16384");
        }
        if self.replicas == 0 {
            return wrong("replicas must be at least 1");
        }
        if !self.split_keys.is_empty() && self.split_keys.len() + 1 != self.shards as usize {
            return wrong("split_keys must name one key fewer than there are shards");
        }
        let is_listed = self.initial_cluster.iter().any(|(node, _)| *node == self.node);
        if !self.initial_cluster.is_empty() && !is_listed && self.join.is_empty() {
            return wrong("the initial cluster must list this node; to join a running one, say so");
        }
        Ok(())
    }

    /// Everything that must be the same on all founding nodes, in short.
    pub(crate) fn digest(&self) -> u64 {
        let mut text = format!("{}/{}", self.shards, self.replicas);
        let mut members = self.initial_cluster.clone();
        members.sort();
        for (node, address) in members {
            text.push_str(&format!(" {node}={address}"));
        }
        for key in self.split_keys() {
            text.push_str(&format!(" {}", key.escape_ascii()));
        }
        // FNV-1a: spreads a short text, keeps no secrets.
        text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    /// The keys that cut a new cluster's shards.
    pub(crate) fn split_keys(&self) -> Vec<Vec<u8>> {
        if !self.split_keys.is_empty() {
            return self.split_keys.clone();
        }
        (1..self.shards)
            .filter_map(|cut| u16::try_from(u64::from(cut) * 65_536 / u64::from(self.shards)).ok())
            .map(|prefix| prefix.to_be_bytes().to_vec())
            .collect()
    }
}
