//! Placement's eyes and hands: the cluster as gossip and metadata see it, and
//! operators as metadata commands.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_crdt::NodeLoad;
use quorate_meta::{
    Command, METADATA_GROUP, Operator as Running, ReplicaChange, Role, SEQUENCER_GROUP, Task,
    ZONE_LABEL, shard_group, shard_of,
};
use quorate_placement::{
    Authority, ClusterSource, ClusterView, Group, InFlight, Members, NodeState, NodeView, Operator,
    OperatorId, PlacementError, Proposal, Proposer, Refused, ReplicaReport, ShardView, Silences,
    SystemGroupView, safety,
};
use quorate_raft::RaftError;
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, GroupId, MigrationId, NodeId, ShardId};

use crate::error::AdminError;
use crate::node::NodeInner;

/// The share of a machine that an unconfigured node counts for.
const DEFAULT_WEIGHT: u32 = 100;

/// The cluster as this node sees it.
pub(crate) struct Eyes {
    node: Weak<NodeInner>,
    silences: Mutex<Silences>,
}

impl Eyes {
    pub(crate) fn new(node: Weak<NodeInner>) -> Self {
        Self { node, silences: Mutex::default() }
    }

    /// How long gossip has missed each silent node.
    fn silences(&self, inner: &NodeInner) -> BTreeMap<NodeId, Duration> {
        let (now, members) = (inner.clock.monotonic(), inner.directory.members());
        self.silences.lock().observe(now, &members, &inner.gossip.alive())
    }
}

impl ClusterSource for Eyes {
    fn view(&self) -> BoxFuture<Result<ClusterView, PlacementError>> {
        let view = self.node.upgrade().map(|inner| look(&inner, &self.silences(&inner)));
        Box::pin(async move {
            view.ok_or_else(|| PlacementError::ViewUnavailable("the node is stopping".into()))
        })
    }

    fn authority(&self) -> Option<Authority> {
        let term = self.node.upgrade()?.metadata.authority()?;
        Some(Authority { term })
    }
}

fn look(inner: &NodeInner, silences: &BTreeMap<NodeId, Duration>) -> ClusterView {
    let view = inner.directory.view();
    let loads = inner.loads();
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
        let members = members(&view, record.group, None);
        let reports = loads.values().flat_map(|load| reports(load, shard));
        ShardView::reported(shard, record.range.clone(), record.epoch, members, reports)
    };
    let system = |group, leader| Some(SystemGroupView::as_found(members(&view, group, leader)));
    let sequencer = quorate_calvin::Router::sequencer(&*inner.directory).leader;
    ClusterView {
        nodes: view.members().map(node).collect(),
        metadata: system(METADATA_GROUP, Some(inner.node)),
        sequencer: system(SEQUENCER_GROUP, sequencer),
        shards: view.shards().map(shard).collect(),
        shard_replicas: u32::try_from(view.target_replicas()).unwrap_or(u32::MAX),
    }
}

fn members(view: &quorate_meta::ClusterView, group: GroupId, leader: Option<NodeId>) -> Members {
    let replicas = view.group(group).map(|group| group.replicas.0.as_slice()).unwrap_or_default();
    let of = |role| {
        let replicas = replicas.iter().filter(move |replica| replica.role == role);
        replicas.map(|replica| replica.node).collect()
    };
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

/// Turns proposals into metadata operators.
pub(crate) struct Hands(pub(crate) Weak<NodeInner>);

impl Proposer for Hands {
    fn propose(
        &self,
        authority: Authority,
        proposal: Proposal,
    ) -> BoxFuture<Result<OperatorId, Refused>> {
        let inner = self.0.upgrade();
        Box::pin(async move {
            let inner = inner.ok_or(Refused::NotLeader)?;
            if inner.metadata.authority() != Some(authority.term) {
                return Err(Refused::NotLeader);
            }
            let view = look(&inner, &BTreeMap::new());
            safety::expect(&view, &in_flight(&inner), &proposal.preconditions)?;
            inner.begin(&proposal.operator).await.map(|id| OperatorId(id.0)).map_err(|error| {
                match error {
                    AdminError::Unavailable(_) => Refused::NotLeader,
                    AdminError::NotFound(_) | AdminError::Refused(_) => Refused::Precondition,
                }
            })
        })
    }

    fn operators(&self) -> BoxFuture<Result<Vec<InFlight>, PlacementError>> {
        let inner = self.0.upgrade();
        Box::pin(async move {
            let inner = inner
                .ok_or_else(|| PlacementError::ViewUnavailable("the node is stopping".into()))?;
            Ok(in_flight(&inner))
        })
    }

    fn cancel(&self, _authority: Authority, id: OperatorId) -> BoxFuture<Result<(), Refused>> {
        let inner = self.0.upgrade();
        Box::pin(async move {
            let inner = inner.ok_or(Refused::NotLeader)?;
            inner.cancel_migration(MigrationId(id.0));
            Ok(())
        })
    }
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

fn in_flight(inner: &NodeInner) -> Vec<InFlight> {
    inner.directory.view().running_operators().filter_map(translate).collect()
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
    /// Begins an operator; returns its id.
    pub(crate) async fn begin(&self, operator: &Operator) -> Result<MigrationId, AdminError> {
        match operator {
            Operator::MoveReplica { group, from, to } => {
                self.begin_move(raft_group(*group), *from, *to).await
            }
            Operator::TransferLeader { group, to, .. } => {
                self.transfer(raft_group(*group), *to).await.map(|_| MigrationId::random())
            }
            Operator::Split { shard, at } => self.begin_split(*shard, at.clone()).await,
            Operator::AddReplica { .. }
            | Operator::RemoveReplica { .. }
            | Operator::Merge { .. } => {
                Err(AdminError::Refused("this operator is not carried out yet".into()))
            }
        }
    }

    /// Begins to move a group's replica.
    pub(crate) async fn begin_move(
        &self,
        group: GroupId,
        from: NodeId,
        to: NodeId,
    ) -> Result<MigrationId, AdminError> {
        let (id, change) = (MigrationId::random(), ReplicaChange::Replace { from, to });
        let command = self.directory.view().plan_move(id, group, change);
        self.begin_operator(command.ok_or_else(|| no_group(group))?).await
    }

    /// Begins to split a shard, at the middle of its data unless told where.
    pub(crate) async fn begin_split(
        &self,
        shard: ShardId,
        at: Option<Blob>,
    ) -> Result<MigrationId, AdminError> {
        let view = self.directory.view();
        let at = match at {
            Some(at) => at,
            None => self.services.middle_key(shard).await.ok_or_else(|| {
                AdminError::Refused(format!("shard {} has too few keys to split", shard.0))
            })?,
        };
        let command = view.plan_split(MigrationId::random(), shard, at);
        let missing = || AdminError::NotFound(format!("there is no shard {shard}"));
        self.begin_operator(command.ok_or_else(missing)?).await
    }

    async fn begin_operator(&self, command: Command) -> Result<MigrationId, AdminError> {
        match self.metadata.run(&command).await? {
            quorate_meta::Reply::Operator(operator) => {
                self.wake_executor();
                Ok(operator.id)
            }
            other => Err(AdminError::Unavailable(format!("unexpected reply {other:?}"))),
        }
    }

    /// Hands a group's leadership to the voter on a node.
    pub(crate) async fn transfer(&self, group: GroupId, to: NodeId) -> Result<(), AdminError> {
        let view = self.directory.view();
        let replica = view
            .group(group)
            .ok_or_else(|| no_group(group))?
            .replica_on(to)
            .ok_or_else(|| AdminError::Refused(format!("{to} has no replica of {group}")))?;
        let transferred = self.groups.transfer(group, replica.id, None).await;
        transferred.map(drop).map_err(|error| match error {
            RaftError::Refused(reason) => {
                AdminError::Refused(format!("the group refused: {reason}"))
            }
            error => AdminError::Unavailable(error.to_string()),
        })
    }
}

fn no_group(group: GroupId) -> AdminError {
    AdminError::NotFound(format!("there is no group {group}"))
}
