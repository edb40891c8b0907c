use quorate_types::{GroupId, NodeId};

use crate::log::LogError;
use crate::machine::MachineError;

/// Why a host or a group could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    /// The durable log failed or refused.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The machine failed.
    #[error("the state machine failed: {0}")]
    Machine(#[from] MachineError),
    /// The configuration contradicts itself.
    #[error("configuration: {0}")]
    Config(String),
    /// The group runs on this node already.
    #[error("{0} exists on this node")]
    Exists(GroupId),
    /// The group does not run on this node.
    #[error("{0} is not known on this node")]
    UnknownGroup(GroupId),
    /// The log was purged further than the machine's state reaches: state was
    /// lost. Remove the replica and add a new one.
    #[error("{group}: the log begins after {purged}, the state ends at {applied:?}")]
    StateLost {
        /// The group.
        group: GroupId,
        /// The index up to which the log was purged.
        purged: u64,
        /// The index at which the machine recovered.
        applied: Option<u64>,
    },
    /// Another replica has to be asked.
    #[error("not the leader; the leader is {leader:?}")]
    NotLeader {
        /// Where the leader lives, if known.
        leader: Option<NodeId>,
    },
    /// Another change of membership is under way; nothing was changed.
    #[error("a change of membership is under way")]
    ChangeInProgress,
    /// Not done: a later attempt has acted on the group.
    #[error("a later attempt has acted")]
    Fenced,
    /// Not done, and may well be soon; the text says what it waits for.
    #[error("not now: {0}")]
    NotReady(String),
    /// Not done, and would not be now if tried again; the text says why.
    #[error("refused: {0}")]
    Refused(String),
    /// The deadline passed or the leader changed: it may or may not have been
    /// done. Look before trying again.
    #[error("the outcome is unknown")]
    Unknown,
    /// The replica has stopped for good; the text says why.
    #[error("the replica has halted: {0}")]
    Halted(String),
    /// The host was shut down, or the group on it.
    #[error("shut down")]
    Closed,
    /// Bytes from a peer are not a message.
    #[error("malformed message: {0}")]
    Malformed(String),
}

/// Why a proposal has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Not in the log; the leader has to be asked.
    #[error("not the leader; the leader is {leader:?}")]
    NotLeader {
        /// Where the leader lives, if known.
        leader: Option<NodeId>,
    },
    /// Not in the log.
    #[error("refused: {0}")]
    Refused(Refused),
    /// It may be in the log and may still take effect. Only the command's own
    /// request id makes a retry safe (law 12).
    #[error("the outcome is unknown")]
    Unknown,
}

/// Why a proposal was refused before admission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many proposals as allowed await their outcome; try again shortly.
    #[error("too many proposals are pending")]
    Busy,
    /// The command is too large and always will be.
    #[error("the command has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// This replica has stopped; another may become leader.
    #[error("the replica has halted")]
    Halted,
}

/// Why a read could not be confirmed. Nothing happened; trying again is safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The leader has to be asked.
    #[error("not the leader; the leader is {leader:?}")]
    NotLeader {
        /// Where the leader lives, if known.
        leader: Option<NodeId>,
    },
    /// No quorum confirmed in time, or too many reads are waiting.
    #[error("leadership could not be confirmed")]
    Unavailable,
}
