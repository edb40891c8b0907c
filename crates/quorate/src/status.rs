//! What an operator sees and does.

use std::collections::BTreeMap;

use quorate_meta::{METADATA_GROUP, NodeState, OperatorState, SEQUENCER_GROUP, Task, shard_group};
use quorate_migration::{MigrationRow, Outcome};
use quorate_types::{
    Blob, ClusterId, GroupId, KeyRange, MigrationId, NodeId, ReplicaId, ShardEpoch, ShardId,
};

use crate::error::AdminError;
use crate::node::Node;

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its id.
    pub node: NodeId,
    /// Where it listens for nodes.
    pub address: String,
    /// What the metadata wants of it.
    pub state: NodeState,
    /// How this node's gossip takes it to be; `None` while it never heard of it.
    pub liveness: Option<quorate_gossip::Status>,
    /// The shards it leads, by its own report.
    pub leads: Vec<ShardId>,
    /// The shards of which it has a replica.
    pub replicas: Vec<ShardId>,
}

/// A shard, with this node's own replica where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardStatus {
    /// Its id.
    pub shard: ShardId,
    /// Its keys.
    pub range: KeyRange,
    /// Its epoch.
    pub epoch: ShardEpoch,
    /// Its leader, where known.
    pub leader: Option<NodeId>,
    /// Its replicas, their nodes, and whether they vote.
    pub replicas: Vec<(ReplicaId, NodeId, bool)>,
    /// The log index that this node's replica has applied.
    pub applied: Option<u64>,
    /// The hash of this node's replica at [`ShardStatus::applied`], over all
    /// its data and system rows as stored.
    pub state_hash: Option<u128>,
    /// Rows of this node's replica, estimated.
    pub rows: Option<u64>,
    /// Their bytes, estimated.
    pub bytes: Option<u64>,
    /// The term this node's replica is in.
    pub term: Option<u64>,
}

/// A replica move or split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationStatus {
    /// Its id.
    pub id: MigrationId,
    /// Its group.
    pub group: GroupId,
    /// The shard of the group, unless it is a system group.
    pub shard: Option<ShardId>,
    /// How often it was started.
    pub attempt: u64,
    /// What it does, in words.
    pub task: String,
    /// How far it is, in words.
    pub phase: String,
    /// Whether it is over.
    pub is_finished: bool,
    /// The longest write pause it caused so far, in microseconds.
    pub write_pause_micros: Option<u64>,
    /// From which node.
    pub from: Option<NodeId>,
    /// To which node.
    pub to: Option<NodeId>,
}

impl Node {
    /// The members as this node knows them.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeStatus> {
        let view = self.inner.directory.view();
        let members = self.inner.gossip.members();
        let liveness =
            |node| members.iter().find(|member| member.node == node).map(|member| member.status);
        let loads: BTreeMap<NodeId, _> = self.inner.loads().into_iter().collect();
        view.nodes()
            .map(|(node, record)| NodeStatus {
                node,
                address: record.address.clone(),
                state: record.state,
                liveness: liveness(node),
                leads: loads
                    .get(&node)
                    .map(|load| {
                        let leading = load.shards.iter().filter(|shard| shard.leader);
                        leading.map(|shard| shard.shard).collect()
                    })
                    .unwrap_or_default(),
                replicas: view
                    .replicas_on(node)
                    .filter_map(|(group, _)| crate::control::shard_of(group))
                    .collect(),
            })
            .collect()
    }

    /// The shards as this node knows them. The hashes are computed now, from
    /// the stored rows.
    ///
    /// # Errors
    /// [`AdminError::Unavailable`] when a stored row cannot be read.
    pub fn shards(&self) -> Result<Vec<ShardStatus>, AdminError> {
        let view = self.inner.directory.view();
        view.shards().map(|(shard, _)| self.shard(shard)).collect()
    }

    fn shard(&self, shard: ShardId) -> Result<ShardStatus, AdminError> {
        let view = self.inner.directory.view();
        let record = view.shard(shard).ok_or_else(|| no_shard(shard))?;
        let members = view.group(record.group).map(|group| group.replicas.iter());
        let replicas = members
            .into_iter()
            .flatten()
            .map(|replica| (replica.id, replica.node, replica.role == quorate_meta::Role::Voter))
            .collect();
        let raft = self.inner.host.group(record.group).map(|group| group.status());
        let engine = &self.inner.engine;
        let failed =
            |error: quorate_engine::EngineError| AdminError::Unavailable(error.to_string());
        let is_here = raft.is_some() && engine.range(shard).map_err(failed)?.is_some();
        let hash = if is_here { Some(engine.hash(shard).map_err(failed)?) } else { None };
        let size = if is_here { Some(engine.status(shard).map_err(failed)?) } else { None };
        Ok(ShardStatus {
            shard,
            range: record.range.clone(),
            epoch: record.epoch,
            leader: self.inner.directory.shard_leader(shard),
            replicas,
            applied: hash.map(|hash| hash.index),
            state_hash: hash.map(|hash| hash.hash),
            rows: size.as_ref().map(|size| size.rows_estimate),
            bytes: size.as_ref().map(|size| size.bytes_estimate),
            term: raft.map(|raft| raft.term),
        })
    }

    /// Moves and splits, the ended ones included for as long as they are kept.
    #[must_use]
    pub fn migrations(&self) -> Vec<MigrationStatus> {
        let view = self.inner.directory.view();
        let running = view.running_operators();
        running
            .chain(view.ended_operators())
            .map(|operator| {
                let row = view.journal_row(operator.id).and_then(|stored| {
                    MigrationRow::open(&operator.id.0.to_be_bytes(), &stored.row).ok()
                });
                let (task, from, to) = match &operator.task {
                    Task::Split(split) => (format!("split at {:?}", split.at), None, None),
                    Task::Move(planned) => {
                        let (from, to) = (planned.change.from(), planned.change.to());
                        (format!("{:?}", planned.change), from, to)
                    }
                };
                let phase = match (&operator.task, &row) {
                    (Task::Split(split), _) => format!("{:?}", split.phase),
                    (Task::Move(_), Some(row)) => match row.outcome() {
                        Some(Outcome::Aborted { reason, .. }) => format!("Aborted: {reason:?}"),
                        _ => row.phase().to_string(),
                    },
                    (Task::Move(_), None) => "Planned".to_owned(),
                };
                MigrationStatus {
                    id: operator.id,
                    group: operator.group,
                    shard: crate::control::shard_of(operator.group),
                    attempt: row.as_ref().map_or(1, |row| u64::from(row.attempt)),
                    task,
                    phase,
                    is_finished: !matches!(operator.state, OperatorState::Running),
                    write_pause_micros: row.map(|row| row.pause.longest_micros),
                    from,
                    to,
                }
            })
            .collect()
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
        self.known(shard)?;
        self.inner.begin_move(shard_group(shard), from, to).await
    }

    /// Hands a shard's leadership to a node.
    ///
    /// # Errors
    /// [`AdminError`] says what stands in the way.
    pub async fn transfer_leader(&self, shard: ShardId, to: NodeId) -> Result<(), AdminError> {
        self.known(shard)?;
        self.inner.transfer(shard_group(shard), to).await.map(drop)
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
        self.known(shard)?;
        self.inner.begin_split(shard, at).await
    }

    /// Asks the placement to empty a node.
    ///
    /// # Errors
    /// [`AdminError`] says what stands in the way.
    pub async fn drain_node(&self, node: NodeId) -> Result<(), AdminError> {
        let state = NodeState::Draining;
        let command = quorate_meta::Command::SetNodeState { node, state };
        self.inner.metadata.run(&command).await.map(drop)
    }

    /// The replica that this node has of a group, and who leads it: a view for
    /// tests and metrics.
    #[must_use]
    pub fn groups(&self) -> Vec<(GroupId, ReplicaId, Option<NodeId>)> {
        let groups = self.inner.host.groups();
        let seen = groups.iter().map(|group| group.status());
        seen.map(|seen| (seen.group, seen.replica, seen.leader.map(|(_, node)| node))).collect()
    }

    /// The cluster's identity, once the node is a member.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.inner.cluster()
    }

    /// How many shards there are.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.inner.directory.view().shards().count()
    }

    /// The version of the metadata's map.
    #[must_use]
    pub fn map_version(&self) -> u64 {
        self.inner.directory.view().version()
    }

    /// How many replicas a node still holds, system groups included.
    #[must_use]
    pub fn replicas_on(&self, node: NodeId) -> usize {
        self.inner.directory.view().replicas_on(node).count()
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

    /// Counters of the Raft host.
    #[must_use]
    pub fn raft_metrics(&self) -> quorate_raft::HostMetrics {
        self.inner.host.metrics()
    }

    /// The watermarks as this node knows them.
    #[must_use]
    pub fn watermarks(&self) -> quorate_calvin::sequencer::Watermarks {
        self.inner.gate.known()
    }

    /// The shard that holds a key, its leader and its voters, by the
    /// allocation table.
    #[must_use]
    pub fn route(&self, key: &[u8]) -> Option<(ShardId, Option<NodeId>, Vec<NodeId>)> {
        let route = quorate_calvin::Router::locate(&*self.inner.directory, key)?;
        Some((route.shard, route.leader, route.voters))
    }

    fn known(&self, shard: ShardId) -> Result<(), AdminError> {
        let view = self.inner.directory.view();
        view.shard(shard).map(drop).ok_or_else(|| no_shard(shard))
    }
}

fn no_shard(shard: ShardId) -> AdminError {
    AdminError::NotFound(format!("there is no shard {}", shard.0))
}
