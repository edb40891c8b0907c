//! Placement's eyes and hands: the cluster as gossip and metadata see it, and
//! operators as metadata commands.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_meta::{
    BeginMove, BeginSplit, Command, METADATA_GROUP, Operator as Running, ReplicaChange,
    SEQUENCER_GROUP, Task, ZONE_LABEL, shard_group,
};
use quorate_placement::{
    Authority, ClusterSource, ClusterView, Group, InFlight, Members, NodeState, NodeView, Operator,
    OperatorId, PlacementError, Proposal, Proposer, Refused, ShardView, SystemGroupView,
};
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, GroupId, MigrationId, NodeId, ShardId};

use crate::control::{ControlReply, ControlRequest, GroupChange, shard_of};
use crate::error::AdminError;
use crate::node::NodeInner;

/// How long one call to another node may take.
const CALL_DEADLINE: Duration = Duration::from_secs(3);

/// The share of a machine that an unconfigured node counts for.
const DEFAULT_WEIGHT: u32 = 100;

/// The cluster as this node sees it.
pub(crate) struct Eyes {
    node: Weak<NodeInner>,
    silent_since: Mutex<BTreeMap<NodeId, Duration>>,
}

impl Eyes {
    pub(crate) fn new(node: Weak<NodeInner>) -> Self {
        Self { node, silent_since: Mutex::default() }
    }

    /// How long gossip has missed each silent node.
    fn silences(&self, inner: &NodeInner) -> BTreeMap<NodeId, Duration> {
        let now = inner.clock.monotonic();
        let alive = inner.alive();
        let mut since = self.silent_since.lock();
        let members = inner.directory.members();
        since.retain(|node, _| members.contains(node) && !alive.contains(node));
        for node in members {
            if !alive.contains(&node) {
                since.entry(node).or_insert(now);
            }
        }
        since.iter().map(|(node, from)| (*node, now.saturating_sub(*from))).collect()
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
    let loads: BTreeMap<NodeId, _> = inner.loads().into_iter().collect();
    let nodes = view
        .nodes()
        .filter(|(_, record)| record.state != quorate_meta::NodeState::Removed)
        .map(|(node, record)| NodeView {
            id: node,
            zone: record.label(ZONE_LABEL).unwrap_or_default().to_owned(),
            state: match (silences.get(&node), record.state) {
                (Some(duration), _) => NodeState::Dead { duration: *duration },
                (None, quorate_meta::NodeState::Draining) => NodeState::Draining,
                (None, _) => NodeState::Active,
            },
            weight: DEFAULT_WEIGHT,
            disk_used_bytes: loads.get(&node).map_or(0, |load| load.used_bytes),
            disk_total_bytes: loads.get(&node).map_or(0, |load| load.capacity_bytes),
        })
        .collect();
    let members = |group: GroupId, leader: Option<NodeId>| {
        let record = view.group(group);
        let of = |role| {
            record.map_or_else(Vec::new, |group| {
                let replicas = group.replicas.iter().filter(|replica| replica.role == role);
                replicas.map(|replica| replica.node).collect()
            })
        };
        Members {
            leader,
            voters: of(quorate_meta::Role::Voter),
            learners: of(quorate_meta::Role::Learner),
        }
    };
    let system = |group, leader| {
        let members = members(group, leader);
        let replicas = u32::try_from(members.voters.len()).unwrap_or(u32::MAX);
        Some(SystemGroupView { members, replicas })
    };
    let shards = view
        .shards()
        .map(|(shard, record)| {
            let reports = loads.iter().filter_map(|(node, load)| {
                let report = load.shards.iter().find(|report| report.shard == shard)?;
                Some((*node, report))
            });
            let leading = reports.filter(|(_, report)| report.leader);
            let best = leading.max_by_key(|(_, report)| report.term);
            ShardView {
                id: shard,
                range: record.range.clone(),
                epoch: record.epoch,
                members: members(record.group, best.map(|(node, _)| node)),
                bytes: best.map_or(0, |(_, report)| report.bytes),
                rows: best.map_or(0, |(_, report)| report.rows),
                load_ops: best.map_or(0, |(_, report)| report.operations_per_second),
                // Finding it reads the shard; the executor does when it splits.
                split_key: None,
            }
        })
        .collect();
    ClusterView {
        nodes,
        metadata: system(METADATA_GROUP, Some(inner.node)),
        sequencer: system(
            SEQUENCER_GROUP,
            quorate_calvin::Router::sequencer(&*inner.directory).leader,
        ),
        shards,
        shard_replicas: u32::try_from(view.target_replicas()).unwrap_or(u32::MAX),
    }
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
            inner.check(&proposal)?;
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
            Ok(inner.directory.view().running_operators().filter_map(in_flight).collect())
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

fn in_flight(running: &Running) -> Option<InFlight> {
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
    /// Whether everything a proposal was planned on still holds.
    fn check(&self, proposal: &Proposal) -> Result<(), Refused> {
        let view = self.directory.view();
        for precondition in &proposal.preconditions {
            let group = raft_group(precondition.group);
            if view.operator_on(group).is_some() {
                return Err(Refused::GroupBusy);
            }
            let mut voters: Vec<NodeId> = view
                .group(group)
                .map(|group| group.voters().map(|voter| voter.node).collect())
                .unwrap_or_default();
            voters.sort_unstable();
            let epoch = precondition.group.shard().and_then(|shard| view.shard(shard));
            let epoch_holds = precondition
                .epoch
                .is_none_or(|expected| epoch.is_some_and(|shard| shard.epoch == expected));
            if voters != precondition.voters || !epoch_holds {
                return Err(Refused::Precondition);
            }
        }
        Ok(())
    }

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
        let view = self.directory.view();
        let record = view
            .group(group)
            .ok_or_else(|| AdminError::NotFound(format!("there is no group {group}")))?;
        let command = Command::BeginMove(BeginMove {
            migration: MigrationId::random(),
            group,
            change: ReplicaChange::Replace { from, to },
            generation: record.generation,
        });
        self.begin_operator(&command).await
    }

    /// Begins to split a shard, at the middle of its data unless told where.
    pub(crate) async fn begin_split(
        &self,
        shard: ShardId,
        at: Option<Blob>,
    ) -> Result<MigrationId, AdminError> {
        let view = self.directory.view();
        let record = view
            .shard(shard)
            .ok_or_else(|| AdminError::NotFound(format!("there is no shard {shard}")))?;
        let generation = view.group(record.group).map_or(0, |group| group.generation);
        let at = match at {
            Some(at) => at,
            None => self.middle_key(shard).await.ok_or_else(|| {
                AdminError::Refused(format!("shard {} has too few keys to split", shard.0))
            })?,
        };
        let command = Command::BeginSplit(BeginSplit {
            operator: MigrationId::random(),
            shard,
            at,
            epoch: record.epoch,
            generation,
        });
        self.begin_operator(&command).await
    }

    /// The middle of a shard's data, asked of whoever has a replica.
    async fn middle_key(&self, shard: ShardId) -> Option<Blob> {
        if self.engine.range(shard).ok().flatten().is_some() {
            return self.engine.middle_key(shard).ok().flatten();
        }
        for target in self.directory.group_nodes(shard_group(shard)) {
            let request = ControlRequest::MiddleKey(shard);
            let asked = self.peers.control(target, &request, CALL_DEADLINE);
            if let Ok(ControlReply::Key(Some(key))) = asked.await {
                return Some(key);
            }
        }
        None
    }

    async fn begin_operator(&self, command: &Command) -> Result<MigrationId, AdminError> {
        match self.metadata.run(command).await? {
            quorate_meta::Reply::Operator(operator) => {
                self.wake_executor();
                Ok(operator.id)
            }
            other => Err(AdminError::Unavailable(format!("unexpected reply {other:?}"))),
        }
    }

    /// Hands a group's leadership to the voter on a node.
    pub(crate) async fn transfer(&self, group: GroupId, to: NodeId) -> Result<u64, AdminError> {
        let view = self.directory.view();
        let record = view
            .group(group)
            .ok_or_else(|| AdminError::NotFound(format!("there is no group {group}")))?;
        let replica = record
            .replica_on(to)
            .ok_or_else(|| AdminError::Refused(format!("{to} has no replica of {group}")))?;
        let changed = self.change_group(group, GroupChange::Transfer(replica.id), None).await;
        match changed {
            Ok(ControlReply::Done(micros)) => Ok(micros),
            Ok(_) => Err(AdminError::Unavailable("the group did not answer".into())),
            Err(quorate_migration::ControlError::Refused(reason)) => {
                Err(AdminError::Refused(format!("the group refused: {reason:?}")))
            }
            Err(error) => Err(AdminError::Unavailable(error.to_string())),
        }
    }
}
