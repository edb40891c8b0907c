//! Operators: splits and moves, from the command that plans them to their
//! end. At most one works on a group at a time.

use quorate_types::{GroupId, MigrationId};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::limits::{OPERATORS_ENDED_KEPT, OPERATORS_RUNNING_MAX};
use crate::moves::Move;
use crate::registry::Registry;
use crate::reply::{Limited, Refusal, Reply};
use crate::splits::{Split, SplitPhase};

/// What an operator does.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub enum Task {
    /// Cuts a shard in two.
    #[msgpack(key = 0)]
    Split(Split),
    /// Changes the replicas of a group.
    #[msgpack(key = 1)]
    Move(Move),
}

/// Whether an operator has ended, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub enum OperatorState {
    /// Not yet; a new coordinator finds it here and resumes it.
    #[msgpack(key = 0)]
    Running,
    /// It took effect.
    #[msgpack(key = 1)]
    Finished {
        /// The metadata log index of its end.
        at: u64,
    },
    /// It was given up without effect; the ids it was given stay unused.
    #[msgpack(key = 2)]
    Aborted {
        /// The metadata log index of its end.
        at: u64,
    },
}

/// A split or a move.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct Operator {
    /// Its id, drawn by whoever planned it.
    pub id: MigrationId,
    /// The group that it works on.
    pub group: GroupId,
    /// The metadata log index at which it began.
    pub begun_at: u64,
    /// What it does.
    pub task: Task,
    /// Whether it has ended.
    pub state: OperatorState,
}

impl Operator {
    /// Whether it has not ended.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        matches!(self.state, OperatorState::Running)
    }

    /// Whether it is a split whose both halves are in the map.
    pub(crate) const fn is_installed(&self) -> bool {
        matches!(&self.task, Task::Split(split) if matches!(split.phase, SplitPhase::Installed { .. }))
    }

    /// The log index of its end, if it has ended.
    pub(crate) const fn ended_at(&self) -> Option<u64> {
        match self.state {
            OperatorState::Running => None,
            OperatorState::Finished { at } | OperatorState::Aborted { at } => Some(at),
        }
    }
}

impl Registry {
    /// Whether an operator may begin on a group that the caller knew at
    /// `generation`.
    pub(crate) fn check_idle(&self, group: GroupId, generation: u64) -> Result<(), Refusal> {
        let view = self.view();
        let current = view.group(group).ok_or(Refusal::GroupUnknown { group })?.generation;
        if let Some(running) = view.operator_on(group) {
            return Err(Refusal::Busy { group, operator: running.id });
        }
        if generation != current {
            return Err(Refusal::StaleGeneration { group, current });
        }
        if view.running_operators().count() >= OPERATORS_RUNNING_MAX {
            return Err(Limited::Operators.at(OPERATORS_RUNNING_MAX));
        }
        Ok(())
    }

    /// The record of an operator that exists.
    pub(crate) fn known_operator(&self, operator: MigrationId) -> Result<Operator, Refusal> {
        self.view().operator(operator).cloned().ok_or(Refusal::OperatorUnknown { operator })
    }

    /// Records an operator's step that changes no more than its own record.
    pub(crate) fn record_operator(&mut self, operator: Operator) -> Reply {
        self.put_operator(operator.clone());
        self.bump_version();
        Reply::Operator(operator)
    }

    /// Records the end of an operator and forgets the oldest that ended. The
    /// group's generation has risen by the caller's hand.
    pub(crate) fn end_operator(&mut self, operator: Operator) -> Reply {
        let reply = self.record_operator(operator);
        while self.view().ended_operators().count() > OPERATORS_ENDED_KEPT {
            let Some(oldest) = self.view().ended_operators().next().map(|oldest| oldest.id) else {
                break;
            };
            self.remove_operator(oldest);
        }
        reply
    }
}
