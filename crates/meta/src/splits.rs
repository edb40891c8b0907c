//! Splits: one shard becomes two.
//!
//! The metadata holds the intent and the ids, the sequencer's log holds the
//! order in which the cut takes effect, the shard's log holds the index of
//! the cut (rule 14). The phases here are written *before* the effects
//! that they announce, so that a new coordinator knows what may have happened.

use std::fmt;

use quorate_types::{
    Blob, Epoch, GroupId, MigrationId, NodeId, ReplicaId, Seq, ShardEpoch, ShardId, sometimes,
};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::groups::{ReplicaGroup, shard_group};
use crate::limits::{SHARDS_MAX, SPLIT_KEY_BYTES_MAX};
use crate::operators::{Operator, OperatorState, Task};
use crate::registry::Registry;
use crate::reply::{Limited, Refusal, Reply};
use crate::shards::{Lineage, Shard};
use crate::view::ClusterView;

/// Asks for a split.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct BeginSplit {
    /// The split's id, freshly drawn.
    pub operator: MigrationId,
    /// The shard to cut.
    pub shard: ShardId,
    /// The first key of the new shard.
    pub at: Blob,
    /// The shard's epoch that the plan was made on.
    pub epoch: ShardEpoch,
    /// The generation of the shard's group that the plan was made on.
    pub generation: u64,
}

/// How far a split has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub enum SplitPhase {
    /// Ids are allocated; nothing has happened outside the metadata.
    #[msgpack(key = 0)]
    Planned,
    /// The map change may have been proposed to the sequencer. Written before
    /// the proposal. To abort from here the coordinator must know that no
    /// proposal of the change, be it an old one that is still on its way, will
    /// ever be ordered.
    #[msgpack(key = 1)]
    Ordering,
    /// The sequencer has ordered the map change; only forward from here.
    #[msgpack(key = 2)]
    Ordered {
        /// Its position in the sequencer's log.
        epoch: Epoch,
    },
    /// Both ranges are in the map. The split runs on until a majority of the
    /// child's replicas holds its first state: until then that state may come
    /// from the parent's replicas only, which therefore must stay where they
    /// are.
    #[msgpack(key = 3)]
    Installed {
        /// The epoch of the shrunken parent.
        parent: ShardEpoch,
        /// The epoch of the child.
        child: ShardEpoch,
    },
    /// It was given up, and nothing was cut.
    #[msgpack(key = 4)]
    Refused {
        /// Why it never will be.
        reason: CutRefusal,
    },
}

impl fmt::Display for SplitPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Planned => "Planned",
            Self::Ordering => "Ordering",
            Self::Ordered { .. } => "Ordered",
            Self::Installed { .. } => "Installed",
            Self::Refused { .. } => "Refused",
        })
    }
}

/// Why a cut will never be ordered: what the sequencer's map shows, and every
/// later one will.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub enum CutRefusal {
    /// The child's id belongs to what another cut made.
    #[msgpack(key = 0)]
    ChildTaken,
    /// The key is not inside the shard's range, or is its first.
    #[msgpack(key = 1)]
    KeyOutside,
    /// The shard's epoch is not below the one that the cut would give it.
    #[msgpack(key = 2)]
    EpochPassed,
}

/// A replica that the cut will create beside the parent's on the same node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct ChildReplica {
    /// Its id.
    pub id: ReplicaId,
    /// The node, where a voter of the parent lives.
    pub node: NodeId,
}

/// A split and all ids that it needs.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct Split {
    /// The shard that is cut.
    pub shard: ShardId,
    /// The first key of the child.
    pub at: Blob,
    /// The shard that the cut creates.
    pub child: ShardId,
    /// Its group.
    pub child_group: GroupId,
    /// Its replicas, one beside each voter of the parent.
    pub child_replicas: Seq<ChildReplica>,
    /// The version of the map that this split made when it was planned: the
    /// name of the map change in the sequencer's log. Later splits have
    /// higher ones; gaps mean nothing.
    pub change: u64,
    /// How far it has come.
    pub phase: SplitPhase,
}

impl ClusterView {
    /// The splits whose child has its ids and is not in the map yet.
    pub(crate) fn promised_children(&self) -> impl Iterator<Item = &Split> {
        self.running_operators().filter_map(|operator| match &operator.task {
            Task::Split(Split { phase: SplitPhase::Installed { .. }, .. }) | Task::Move(_) => None,
            Task::Split(split) => Some(split),
        })
    }
}

impl Registry {
    pub(crate) fn begin_split(&mut self, index: u64, wanted: BeginSplit) -> Result<Reply, Refusal> {
        if let Some(known) = self.view().operator(wanted.operator) {
            return repeated(known, &wanted);
        }
        let group = self.check_split(&wanted)?;
        let voters: Vec<NodeId> = self
            .view()
            .group(group)
            .map(|group| group.voters().map(|voter| voter.node).collect())
            .unwrap_or_default();
        let child = self.allocate_shard();
        let child_replicas = voters
            .into_iter()
            .map(|node| ChildReplica { id: self.allocate_replica(), node })
            .collect();
        let split = Split {
            shard: wanted.shard,
            at: wanted.at,
            child,
            child_group: shard_group(child),
            child_replicas,
            change: self.view().version() + 1,
            phase: SplitPhase::Planned,
        };
        self.renew_group(group, |_| {});
        Ok(self.record_operator(Operator {
            id: wanted.operator,
            group,
            begun_at: index,
            task: Task::Split(split),
            state: OperatorState::Running,
        }))
    }

    /// The group of a shard that may be split as wanted.
    fn check_split(&self, wanted: &BeginSplit) -> Result<GroupId, Refusal> {
        let view = self.view();
        let id = wanted.shard;
        let shard = view.shard(id).ok_or(Refusal::ShardUnknown { shard: id })?;
        if shard.epoch != wanted.epoch {
            return Err(Refusal::StaleEpoch { shard: id, current: shard.epoch });
        }
        self.check_idle(shard.group, wanted.generation)?;
        if wanted.at.len() > SPLIT_KEY_BYTES_MAX {
            return Err(Limited::SplitKeyBytes.at(SPLIT_KEY_BYTES_MAX));
        }
        if shard.range.split_at(&wanted.at).is_none() {
            return Err(Refusal::SplitKeyOutside { shard: id });
        }
        let planned = view.promised_children().count();
        if view.shards().len() + planned >= SHARDS_MAX {
            return Err(Limited::Shards.at(SHARDS_MAX));
        }
        Ok(shard.group)
    }

    pub(crate) fn advance_split(
        &mut self,
        id: MigrationId,
        from: SplitPhase,
        to: SplitPhase,
    ) -> Result<Reply, Refusal> {
        let (operator, split) = self.known_split(id)?;
        let current = split.phase;
        if current == to {
            return Ok(Reply::Operator(operator));
        }
        if !operator.is_running() {
            return Err(Refusal::OperatorEnded { operator: id });
        }
        if current != from {
            return Err(Refusal::PhaseMismatch { current });
        }
        let is_next = matches!(
            (from, to),
            (SplitPhase::Planned, SplitPhase::Ordering)
                | (SplitPhase::Ordering, SplitPhase::Ordered { .. })
        );
        if !is_next {
            return Err(Refusal::PhaseOrder { current });
        }
        let task = Task::Split(Split { phase: to, ..split });
        Ok(self.record_operator(Operator { task, ..operator }))
    }

    pub(crate) fn install_split(
        &mut self,
        id: MigrationId,
        parent: ShardEpoch,
        child: ShardEpoch,
    ) -> Result<Reply, Refusal> {
        let (operator, split) = self.known_split(id)?;
        let installed = SplitPhase::Installed { parent, child };
        if split.phase == installed {
            return Ok(Reply::Operator(operator));
        }
        if !operator.is_running() {
            return Err(Refusal::OperatorEnded { operator: id });
        }
        if split.phase == SplitPhase::Planned {
            return Err(Refusal::PhaseOrder { current: split.phase });
        }
        self.divide(&split, parent, child)?;
        let task = Task::Split(Split { phase: installed, ..split });
        Ok(self.record_operator(Operator { task, ..operator }))
    }

    pub(crate) fn finish_split(&mut self, index: u64, id: MigrationId) -> Result<Reply, Refusal> {
        let (operator, split) = self.known_split(id)?;
        match operator.state {
            OperatorState::Finished { .. } => return Ok(Reply::Operator(operator)),
            OperatorState::Aborted { .. } => return Err(Refusal::OperatorEnded { operator: id }),
            OperatorState::Running => {}
        }
        if !matches!(split.phase, SplitPhase::Installed { .. }) {
            return Err(Refusal::PhaseOrder { current: split.phase });
        }
        self.renew_group(operator.group, |_| {});
        let state = OperatorState::Finished { at: index };
        Ok(self.end_operator(Operator { state, ..operator }))
    }

    /// Shrinks the parent and adds the child with its seeded replicas.
    fn divide(
        &mut self,
        split: &Split,
        parent_epoch: ShardEpoch,
        child_epoch: ShardEpoch,
    ) -> Result<(), Refusal> {
        let id = split.shard;
        let parent = self.view().shard(id).cloned().ok_or(Refusal::ShardUnknown { shard: id })?;
        if parent_epoch <= parent.epoch || child_epoch <= parent.epoch {
            return Err(Refusal::EpochNotAbove { current: parent.epoch });
        }
        let (left, right) =
            parent.range.split_at(&split.at).ok_or(Refusal::SplitKeyOutside { shard: id })?;
        let child = Shard {
            group: split.child_group,
            range: right,
            epoch: child_epoch,
            parent: Some(Lineage { shard: id, at: split.at.clone() }),
        };
        let members = split.child_replicas.iter().map(|replica| (replica.id, replica.node));
        self.put_group(split.child_group, ReplicaGroup::seeded(members));
        self.put_shard(id, Shard { range: left, epoch: parent_epoch, ..parent });
        self.put_shard(split.child, child);
        Ok(())
    }

    pub(crate) fn abort_split(
        &mut self,
        index: u64,
        id: MigrationId,
        expected: SplitPhase,
        reason: CutRefusal,
    ) -> Result<Reply, Refusal> {
        let (operator, split) = self.known_split(id)?;
        match operator.state {
            OperatorState::Aborted { .. } => return Ok(Reply::Operator(operator)),
            OperatorState::Finished { .. } => {
                return Err(Refusal::OperatorEnded { operator: id });
            }
            OperatorState::Running => {}
        }
        let current = split.phase;
        if current != expected {
            return Err(Refusal::PhaseMismatch { current });
        }
        if !matches!(current, SplitPhase::Planned | SplitPhase::Ordering) {
            return Err(Refusal::PhaseOrder { current });
        }
        sometimes!("a split is given up");
        self.renew_group(operator.group, |_| {});
        let task = Task::Split(Split { phase: SplitPhase::Refused { reason }, ..split });
        let state = OperatorState::Aborted { at: index };
        Ok(self.end_operator(Operator { task, state, ..operator }))
    }

    fn known_split(&self, id: MigrationId) -> Result<(Operator, Split), Refusal> {
        let operator = self.known_operator(id)?;
        match &operator.task {
            Task::Split(split) => {
                let split = split.clone();
                Ok((operator, split))
            }
            Task::Move(_) => Err(Refusal::OperatorMismatch { operator: id }),
        }
    }
}

/// The answer to a split that was asked for before.
fn repeated(known: &Operator, wanted: &BeginSplit) -> Result<Reply, Refusal> {
    match &known.task {
        Task::Split(split) if split.shard == wanted.shard && split.at == wanted.at => {
            Ok(Reply::Operator(known.clone()))
        }
        _ => Err(Refusal::OperatorMismatch { operator: wanted.operator }),
    }
}
