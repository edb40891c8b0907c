//! Moves: the replicas of a group change. Raft makes the change; the registry
//! allocates the id before and records the outcome after. They work alike for
//! shards, the sequencer and the metadata itself.

use quorate_types::{GroupId, MigrationId, NodeId, ReplicaId, planted};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::groups::{Replica, ReplicaGroup, Role};
use crate::limits::REPLICAS_PER_GROUP_MAX;
use crate::nodes::NodeState;
use crate::operators::{Operator, OperatorState, Task};
use crate::registry::Registry;
use crate::reply::{Limited, Refusal, Reply};
use crate::view::ClusterView;

/// What becomes of a group's replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub enum ReplicaChange {
    /// A new replica takes the place of one.
    #[msgpack(key = 0)]
    Replace {
        /// Where a voter leaves.
        from: NodeId,
        /// Where a replica comes.
        to: NodeId,
    },
    /// One replica more, as when a cluster grows from one node to three.
    #[msgpack(key = 1)]
    Add {
        /// Where a replica comes.
        to: NodeId,
    },
    /// One replica less.
    #[msgpack(key = 2)]
    Remove {
        /// Where a voter leaves.
        from: NodeId,
    },
}

impl ReplicaChange {
    /// Where a voter leaves, if one does.
    #[must_use]
    pub const fn from(&self) -> Option<NodeId> {
        match self {
            Self::Replace { from, .. } | Self::Remove { from } => Some(*from),
            Self::Add { .. } => None,
        }
    }

    /// Where a replica comes, if one does.
    #[must_use]
    pub const fn to(&self) -> Option<NodeId> {
        match self {
            Self::Replace { to, .. } | Self::Add { to } => Some(*to),
            Self::Remove { .. } => None,
        }
    }
}

/// Asks for a move.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct BeginMove {
    /// The move's id, freshly drawn.
    pub migration: MigrationId,
    /// The group whose replicas change.
    pub group: GroupId,
    /// How they change.
    pub change: ReplicaChange,
    /// The group's generation that the plan was made on.
    pub generation: u64,
}

/// A move and the ids that it needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct Move {
    /// How the replicas change.
    pub change: ReplicaChange,
    /// The replica that comes: a learner in the map until the move commits,
    /// so that its node creates it.
    pub added: Option<ReplicaId>,
    /// The replica that leaves: a voter in the map until the move commits.
    pub removed: Option<ReplicaId>,
}

impl ClusterView {
    /// The replica that leaves and the one that comes by a move, while the
    /// group has both. `None` for a move that only adds or removes one, and
    /// for what is no move.
    #[must_use]
    pub fn replacement(&self, operator: &Operator) -> Option<(&Replica, &Replica)> {
        let Task::Move(planned) = &operator.task else { return None };
        let group = self.group(operator.group)?;
        Some((group.replica(planned.removed?)?, group.replica(planned.added?)?))
    }
}

impl Registry {
    pub(crate) fn begin_move(&mut self, index: u64, wanted: &BeginMove) -> Result<Reply, Refusal> {
        if let Some(known) = self.view().operator(wanted.migration) {
            return repeated(known, wanted);
        }
        self.check_idle(wanted.group, wanted.generation)?;
        let removed = self.check_move(wanted)?;
        let mut added = wanted.change.to().map(|node| (self.allocate_replica(), node));
        if planted!(ReplicaIdReused)
            && let Some((id, _)) = &mut added
        {
            *id = self.reuse_replica(wanted.group).unwrap_or(*id);
        }
        self.renew_group(wanted.group, |group| {
            if let Some((id, node)) = added {
                group.add_learner(id, node);
            }
        });
        Ok(self.record_operator(Operator {
            id: wanted.migration,
            group: wanted.group,
            begun_at: index,
            task: Task::Move(Move {
                change: wanted.change,
                added: added.map(|(id, _)| id),
                removed,
            }),
            state: OperatorState::Running,
        }))
    }

    /// The replica that would leave, if the change is possible.
    fn check_move(&self, wanted: &BeginMove) -> Result<Option<ReplicaId>, Refusal> {
        let id = wanted.group;
        let group = self.view().group(id).ok_or(Refusal::GroupUnknown { group: id })?;
        let removed = match wanted.change.from() {
            Some(node) => {
                Some(voter_on(group, node).ok_or(Refusal::NoVoterOn { group: id, node })?)
            }
            None => None,
        };
        match wanted.change {
            ReplicaChange::Remove { .. } if group.voters().count() < 2 => {
                return Err(Refusal::LastVoter { group: id });
            }
            ReplicaChange::Add { .. } if group.replicas.len() >= REPLICAS_PER_GROUP_MAX => {
                return Err(Limited::Replicas.at(REPLICAS_PER_GROUP_MAX));
            }
            _ => {}
        }
        if let Some(node) = wanted.change.to() {
            self.check_target(id, group, node)?;
        }
        Ok(removed)
    }

    fn check_target(&self, id: GroupId, group: &ReplicaGroup, node: NodeId) -> Result<(), Refusal> {
        let state = self.view().node(node).ok_or(Refusal::NodeUnknown { node })?.state;
        if state != NodeState::Active {
            return Err(Refusal::NodeNotActive { node, state });
        }
        if group.replica_on(node).is_some() {
            return Err(Refusal::ReplicaOn { group: id, node });
        }
        Ok(())
    }

    pub(crate) fn commit_move(&mut self, index: u64, id: MigrationId) -> Result<Reply, Refusal> {
        let (operator, change) = self.known_move(id)?;
        match operator.state {
            OperatorState::Finished { .. } => return Ok(Reply::Operator(operator)),
            OperatorState::Aborted { .. } => return Err(Refusal::OperatorEnded { operator: id }),
            OperatorState::Running => {}
        }
        self.renew_group(operator.group, |group| {
            if let Some(added) = change.added {
                group.promote(added);
            }
            if let Some(removed) = change.removed {
                group.retire(removed, index);
            }
        });
        let state = OperatorState::Finished { at: index };
        Ok(self.end_operator(Operator { state, ..operator }))
    }

    pub(crate) fn abandon_move(&mut self, index: u64, id: MigrationId) -> Result<Reply, Refusal> {
        let (operator, change) = self.known_move(id)?;
        match operator.state {
            OperatorState::Aborted { .. } => return Ok(Reply::Operator(operator)),
            OperatorState::Finished { .. } => return Err(Refusal::OperatorEnded { operator: id }),
            OperatorState::Running => {}
        }
        self.renew_group(operator.group, |group| {
            if let Some(added) = change.added {
                if planted!(MoveHalfAborted) {
                    return group.promote(added);
                }
                group.retire(added, index);
            }
        });
        let state = OperatorState::Aborted { at: index };
        Ok(self.end_operator(Operator { state, ..operator }))
    }

    fn known_move(&self, id: MigrationId) -> Result<(Operator, Move), Refusal> {
        let operator = self.known_operator(id)?;
        match operator.task {
            Task::Move(change) => Ok((operator, change)),
            Task::Split(_) => Err(Refusal::OperatorMismatch { operator: id }),
        }
    }
}

fn voter_on(group: &ReplicaGroup, node: NodeId) -> Option<ReplicaId> {
    group.replica_on(node).filter(|replica| replica.role == Role::Voter).map(|replica| replica.id)
}

/// The answer to a move that was asked for before.
fn repeated(known: &Operator, wanted: &BeginMove) -> Result<Reply, Refusal> {
    match &known.task {
        Task::Move(change) if known.group == wanted.group && change.change == wanted.change => {
            Ok(Reply::Operator(known.clone()))
        }
        _ => Err(Refusal::OperatorMismatch { operator: wanted.migration }),
    }
}
