//! Placement's eyes and hands: the cluster as gossip and metadata see it, and
//! operators as metadata commands.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use quorate_crdt::NodeLoad;
use quorate_meta::{
    METADATA_GROUP, Operator as Running, ReplicaChange, Role, SEQUENCER_GROUP, Task, ZONE_LABEL,
    shard_group, shard_of,
};
use quorate_placement::{
    Authority, ClusterSource, ClusterView, Executor, Group, InFlight, Members, NodeState, NodeView,
    Operator, OperatorId, PlacementError, Refused, ReplicaReport, ShardView, Silences,
    SystemGroupView,
};
use quorate_raft::RaftError;
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, GroupId, MigrationId, NodeId, ShardId};

use crate::error::AdminError;
use crate::node::NodeInner;

/// The share of a machine that an unconfigured node counts for.
const DEFAULT_WEIGHT: u32 = 100;

/// The cluster as this node sees it, and what it may begin there.
pub(crate) struct Placing {
    node: Weak<NodeInner>,
    silences: Mutex<Silences>,
}

impl Placing {
    pub(crate) fn new(node: Weak<NodeInner>) -> Self {
        Self { node, silences: Mutex::default() }
    }

    fn inner(&self) -> Result<Arc<NodeInner>, PlacementError> {
        let stopping = || PlacementError::ViewUnavailable("the node is stopping".into());
        self.node.upgrade().ok_or_else(stopping)
    }

    fn look(&self, inner: &NodeInner) -> ClusterView {
        let view = inner.directory.view();
        let (now, members) = (inner.clock.monotonic(), inner.directory.members());
        let silences = self.silences.lock().observe(now, &members, &inner.gossip.alive());
        let loads = inner.registry.lock().readable_loads();
        let node = |(node, record): (NodeId, &quorate_meta::Node)| NodeView {
            id: node,
            zone: record.label(ZONE_LABEL).unwrap_or_default().to_owned(),
            state: NodeState::observed(
                silences.get(&node).copied(),
                record.state == quorate_meta::NodeState::Draining,
            ),
            weight: DEFAULT_WEIGHT,
            disk_used_bytes: loads.get(&node).map_or(0, |load| load.used_bytes),
            disk_total_bytes: loads.get(&node).map_or(0, |load| load.capacity_bytes),
        };
        let shard = |(shard, record): (ShardId, &quorate_meta::Shard)| {
            let members = members_of(&view, record.group, None);
            let reports = loads.values().flat_map(|load| reports(load, shard));
            ShardView::reported(shard, record.range.clone(), record.epoch, members, reports)
        };
        let system =
            |group, leader| Some(SystemGroupView::as_found(members_of(&view, group, leader)));
        let sequencer = quorate_calvin::Router::sequencer(&*inner.directory).leader;
        ClusterView {
            nodes: view.members().map(node).collect(),
            metadata: system(METADATA_GROUP, Some(inner.node)),
            sequencer: system(SEQUENCER_GROUP, sequencer),
            shards: view.shards().map(shard).collect(),
            shard_replicas: u32::try_from(view.target_replicas()).unwrap_or(u32::MAX),
        }
    }
}

impl ClusterSource for Placing {
    fn view(&self) -> BoxFuture<Result<ClusterView, PlacementError>> {
        let view = self.inner().map(|inner| self.look(&inner));
        Box::pin(std::future::ready(view))
    }

    fn authority(&self) -> Option<Authority> {
        let term = self.node.upgrade()?.metadata.authority()?;
        Some(Authority { term })
    }
}

impl Executor for Placing {
    fn in_flight(&self) -> Result<Vec<InFlight>, PlacementError> {
        let view = self.inner()?.directory.view();
        Ok(view.running_operators().filter_map(translate).collect())
    }

    fn begin(&self, operator: Operator) -> BoxFuture<Result<OperatorId, Refused>> {
        let inner = self.inner().map_err(|_| Refused::NotLeader);
        Box::pin(async move { inner?.begin(operator).await.map(|id| OperatorId(id.0)) })
    }

    fn cancel(&self, id: OperatorId) {
        if let Some(inner) = self.node.upgrade() {
            inner.tell_executor(|executor| executor.cancel(MigrationId(id.0)));
        }
    }
}

fn members_of(view: &quorate_meta::ClusterView, group: GroupId, leader: Option<NodeId>) -> Members {
    let of = |role| view.nodes_with(group, role);
    Members { leader, voters: of(Role::Voter), learners: of(Role::Learner) }
}

fn reports(load: &NodeLoad, shard: ShardId) -> impl Iterator<Item = ReplicaReport> {
    let found = load.shards.iter().filter(move |report| report.shard == shard);
    found.map(|report| ReplicaReport {
        node: load.node,
        leads: report.leader,
        term: report.term,
        bytes: report.bytes,
        rows: report.rows,
        load_ops: report.operations_per_second,
    })
}

fn placement_group(group: GroupId) -> Option<Group> {
    match shard_of(group) {
        Some(shard) => Some(Group::Shard(shard)),
        None if group == METADATA_GROUP => Some(Group::Metadata),
        None if group == SEQUENCER_GROUP => Some(Group::Sequencer),
        None => None,
    }
}

const fn raft_group(group: Group) -> GroupId {
    match group {
        Group::Metadata => METADATA_GROUP,
        Group::Sequencer => SEQUENCER_GROUP,
        Group::Shard(shard) => shard_group(shard),
    }
}

fn translate(running: &Running) -> Option<InFlight> {
    let group = placement_group(running.group)?;
    let operator = match &running.task {
        Task::Split(split) => Operator::Split { shard: split.shard, at: Some(split.at.clone()) },
        Task::Move(planned) => match planned.change {
            ReplicaChange::Replace { from, to } => Operator::MoveReplica { group, from, to },
            ReplicaChange::Add { to } => Operator::AddReplica { group, to },
            ReplicaChange::Remove { from } => Operator::RemoveReplica { group, from },
        },
    };
    Some(InFlight { id: OperatorId(running.id.0), operator })
}

impl NodeInner {
    /// Begins an operator that placement proposes; returns its id.
    async fn begin(&self, operator: Operator) -> Result<MigrationId, Refused> {
        let begun = match operator {
            Operator::MoveReplica { group, from, to } => {
                self.begin_move(raft_group(group), from, to).await
            }
            Operator::TransferLeader { group, to, .. } => {
                self.transfer(raft_group(group), to).await.map(|()| MigrationId::random())
            }
            Operator::Split { shard, at } => self.begin_split(shard, at).await,
            Operator::AddReplica { .. }
            | Operator::RemoveReplica { .. }
            | Operator::Merge { .. } => return Err(Refused::Unsupported),
        };
        begun.map_err(|error| match error {
            AdminError::Unavailable(_) => Refused::Unknown,
            AdminError::NotFound(_) | AdminError::Refused(_) => Refused::Precondition,
        })
    }

    /// Begins to move a group's replica.
    pub(crate) async fn begin_move(
        &self,
        group: GroupId,
        from: NodeId,
        to: NodeId,
    ) -> Result<MigrationId, AdminError> {
        self.metadata.begin_move(group, ReplicaChange::Replace { from, to }).await
    }

    /// Begins to split a shard, at the middle of its data unless told where.
    pub(crate) async fn begin_split(
        &self,
        shard: ShardId,
        at: Option<Blob>,
    ) -> Result<MigrationId, AdminError> {
        let at = match at {
            Some(at) => at,
            None => self.services.middle_key(shard).await.ok_or_else(|| {
                AdminError::Refused(format!("shard {} has too few keys to split", shard.0))
            })?,
        };
        self.metadata.begin_split(shard, at).await
    }

    /// Hands a group's leadership to the voter on a node.
    pub(crate) async fn transfer(&self, group: GroupId, to: NodeId) -> Result<(), AdminError> {
        let replica = self.directory.view().replica_to_lead(group, to)?;
        let transferred = self.groups.transfer(group, replica, None).await;
        transferred.map(drop).map_err(|error| match error {
            RaftError::Refused(reason) | RaftError::NotReady(reason) => {
                AdminError::Refused(format!("the group refused: {reason}"))
            }
            error => AdminError::Unavailable(error.to_string()),
        })
    }
}
