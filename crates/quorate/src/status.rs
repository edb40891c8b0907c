//! What an operator sees of a node and asks of it. The words for it are found
//! by whoever shows it, such as `quorate-server`.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_crdt::NodeLoad;
use quorate_engine::{EngineError, StateHash};
use quorate_meta::{ClusterView, Command, METADATA_GROUP, NodeState, SEQUENCER_GROUP, shard_group};
use quorate_migration::MigrationRow;
use quorate_types::{Blob, ClusterId, MigrationId, NodeId, ShardId};

use crate::error::AdminError;
use crate::node::Node;

impl Node {
    /// The cluster's identity, once the node is a member.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.inner.cluster()
    }

    /// The metadata as this node knows it: members, shards, operators.
    #[must_use]
    pub fn view(&self) -> Arc<ClusterView> {
        self.inner.directory.view()
    }

    /// How gossip takes each node that it ever heard of to be.
    #[must_use]
    pub fn liveness(&self) -> BTreeMap<NodeId, quorate_gossip::Status> {
        let members = self.inner.gossip.members().into_iter();
        members.map(|member| (member.node, member.status)).collect()
    }

    /// What each node last reported to lead and to carry.
    #[must_use]
    pub fn loads(&self) -> BTreeMap<NodeId, NodeLoad> {
        self.inner.registry.lock().readable_loads()
    }

    /// The migrations as this node's table has them, the latest that ended
    /// included.
    #[must_use]
    pub fn migrations(&self) -> BTreeMap<MigrationId, MigrationRow> {
        self.inner.table.lock().rows().clone()
    }

    /// The hash of this node's own replica, where it has one, over all its
    /// data and system rows. It is computed now, from the stored rows.
    ///
    /// # Errors
    /// [`AdminError::Unavailable`] when a stored row cannot be read.
    pub fn state_hash(&self, shard: ShardId) -> Result<Option<StateHash>, AdminError> {
        let engine = &self.inner.engine;
        let failed = |error: EngineError| AdminError::Unavailable(error.to_string());
        let is_here = self.inner.host.group(shard_group(shard)).is_some()
            && engine.range(shard).map_err(failed)?.is_some();
        is_here.then(|| engine.hash(shard).map_err(failed)).transpose()
    }

    /// The presumed leader of a shard.
    #[must_use]
    pub fn shard_leader(&self, shard: ShardId) -> Option<NodeId> {
        self.inner.directory.shard_leader(shard)
    }

    /// Who leads the metadata group and the sequencer, where known.
    #[must_use]
    pub fn system_leaders(&self) -> (Option<NodeId>, Option<NodeId>) {
        let leader = |group| {
            let group = self.inner.host.group(group)?;
            group.status().leader.map(|(_, node)| node)
        };
        let sequencer = quorate_calvin::Router::sequencer(&*self.inner.directory).leader;
        (leader(METADATA_GROUP), leader(SEQUENCER_GROUP).or(sequencer))
    }

    /// The shard that holds a key, its leader and its voters, by the
    /// allocation table.
    #[must_use]
    pub fn route(&self, key: &[u8]) -> Option<(ShardId, Option<NodeId>, Vec<NodeId>)> {
        let route = quorate_calvin::Router::locate(&*self.inner.directory, key)?;
        Some((route.shard, route.leader, route.voters))
    }

    /// How many stored rows were found damaged since the node started. None
    /// was served; the shard's replica here should move away.
    #[must_use]
    pub fn corrupt_rows(&self) -> usize {
        self.inner.engine.corruptions().len()
    }

    /// Counters of the Raft host, and how its groups are.
    #[must_use]
    pub fn raft_metrics(&self) -> (quorate_raft::HostMetrics, Vec<quorate_raft::GroupStatus>) {
        (self.inner.host.metrics(), self.inner.host.statuses())
    }

    /// The watermarks as this node knows them, and what is under way here.
    #[must_use]
    pub fn transactions(&self) -> (quorate_calvin::sequencer::Watermarks, quorate_calvin::Gauges) {
        (self.inner.gate.known(), self.inner.services.gauges())
    }

    /// Begins to move a shard's replica from one node to another.
    ///
    /// # Errors
    /// [`AdminError`] says what stands in the way.
    pub async fn move_replica(
        &self,
        shard: ShardId,
        from: NodeId,
        to: NodeId,
    ) -> Result<MigrationId, AdminError> {
        self.view().named_shard(shard)?;
        self.inner.begin_move(shard_group(shard), from, to).await
    }

    /// Hands a shard's leadership to a node.
    ///
    /// # Errors
    /// [`AdminError`] says what stands in the way.
    pub async fn transfer_leader(&self, shard: ShardId, to: NodeId) -> Result<(), AdminError> {
        self.view().named_shard(shard)?;
        self.inner.transfer(shard_group(shard), to).await
    }

    /// Begins to split a shard, at the middle of its data unless a key is given.
    ///
    /// # Errors
    /// [`AdminError`] says what stands in the way.
    pub async fn split_shard(
        &self,
        shard: ShardId,
        at: Option<Blob>,
    ) -> Result<MigrationId, AdminError> {
        self.view().named_shard(shard)?;
        self.inner.begin_split(shard, at).await
    }

    /// Asks the placement to empty a node.
    ///
    /// # Errors
    /// [`AdminError`] says what stands in the way.
    pub async fn drain_node(&self, node: NodeId) -> Result<(), AdminError> {
        let command = Command::SetNodeState { node, state: NodeState::Draining };
        self.inner.metadata.run(&command).await.map(drop)
    }
}
