//! What operators write down of a cluster to be, on each of its first nodes.

use quorate_types::{ClusterId, NodeId};

use crate::bootstrap::Bootstrap;
use crate::limits::INITIAL_SHARDS_MAX;
use crate::nodes::NodeSpec;

/// The metadata and sequencer groups have at most so many founding voters:
/// three survive the loss of any one.
const SYSTEM_VOTERS_MAX: usize = 3;

/// A cluster to be. It must be the same on all nodes that found it, which
/// compare its [`digest`](InitialCluster::digest).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct InitialCluster {
    /// The founding nodes and where they listen; none for a cluster of one.
    pub members: Vec<(NodeId, String)>,
    /// How many shards it starts with.
    pub shards: u32,
    /// How many replicas each shard has, where there are nodes enough.
    pub replicas: u32,
    /// The keys at which the shards are cut, one fewer than there are shards;
    /// none to cut evenly by the first two bytes.
    pub split_keys: Vec<Vec<u8>>,
}

/// What makes an [`InitialCluster`] impossible.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InitialFlaw {
    /// No shard, or more than [`INITIAL_SHARDS_MAX`].
    #[error("shards must be between 1 and {INITIAL_SHARDS_MAX}")]
    Shards,
    /// No replica.
    #[error("replicas must be at least 1")]
    Replicas,
    /// Another number of cuts than shards ask for.
    #[error("split_keys must name one key fewer than there are shards")]
    SplitKeys,
}

impl InitialCluster {
    /// Whether this can be founded.
    ///
    /// # Errors
    /// The first [`InitialFlaw`].
    pub fn check(&self) -> Result<(), InitialFlaw> {
        let shards = self.shards as usize;
        if !(1..=INITIAL_SHARDS_MAX).contains(&shards) {
            return Err(InitialFlaw::Shards);
        }
        if self.replicas == 0 {
            return Err(InitialFlaw::Replicas);
        }
        if !self.split_keys.is_empty() && self.split_keys.len() + 1 != shards {
            return Err(InitialFlaw::SplitKeys);
        }
        Ok(())
    }

    /// Everything that must be the same on all founding nodes, in short.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut text = format!("{}/{}", self.shards, self.replicas);
        let mut members = self.members.clone();
        members.sort();
        for (node, address) in members {
            text.push_str(&format!(" {node}={address}"));
        }
        for key in self.cuts() {
            text.push_str(&format!(" {}", key.escape_ascii()));
        }
        // FNV-1a: spreads a short text, keeps no secrets.
        text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    /// The keys that cut the shards.
    #[must_use]
    pub fn cuts(&self) -> Vec<Vec<u8>> {
        if !self.split_keys.is_empty() {
            return self.split_keys.clone();
        }
        (1..self.shards)
            .filter_map(|cut| u16::try_from(u64::from(cut) * 65_536 / u64::from(self.shards)).ok())
            .map(|prefix| prefix.to_be_bytes().to_vec())
            .collect()
    }

    /// The founding nodes as `own` sees them, ascending: itself, if none are
    /// listed. The first of them founds the cluster.
    #[must_use]
    pub fn founders(&self, own: NodeId) -> Vec<NodeId> {
        let mut founders: Vec<NodeId> = match self.members.as_slice() {
            [] => vec![own],
            listed => listed.iter().map(|(node, _)| *node).collect(),
        };
        founders.sort_unstable();
        founders.dedup();
        founders
    }

    /// The founding nodes that replicate the metadata and the sequencer.
    #[must_use]
    pub fn system_voters(&self, own: NodeId) -> Vec<NodeId> {
        self.founders(own).into_iter().take(SYSTEM_VOTERS_MAX).collect()
    }

    /// The first command of the cluster, out of what its founders reported to
    /// the first of them, `own`.
    #[must_use]
    pub fn bootstrap(&self, own: &NodeSpec, reported: Vec<NodeSpec>) -> Bootstrap {
        let voters = self.system_voters(own.node);
        let founders = u32::try_from(self.founders(own.node).len()).unwrap_or(u32::MAX);
        Bootstrap {
            // Drawn from the founding node's disk, so that a founding that is
            // interrupted goes on with the same identity.
            cluster: ClusterId(own.disk.0),
            nodes: reported.into(),
            metadata_voters: voters.iter().copied().collect(),
            sequencer_voters: voters.into_iter().collect(),
            replicas_per_shard: self.replicas.min(founders),
            split_keys: self.cuts().into_iter().map(Into::into).collect(),
        }
    }
}
