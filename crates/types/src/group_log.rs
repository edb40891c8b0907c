//! A group's replicated log as one replica sees it: what those who replicate
//! commands and those who replicate logs say to each other.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;

use crate::runtime::BoxFuture;
use crate::{Blob, NodeId, watch};

/// Who leads a group, as this replica sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Leadership {
    /// The newest term seen.
    pub term: u64,
    /// The leader of it, where known.
    pub leader: Option<NodeId>,
    /// This replica leads it and has applied an entry of its own term, so that
    /// its machine reflects everything committed before.
    pub leads: bool,
}

/// Why a proposal has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Not the leader; the command is not in the log and never will be.
    #[error("not the leader")]
    NotLeader(Option<NodeId>),
    /// Not taken, for instance because a queue is full; the command is not in
    /// the log and never will be.
    #[error("refused: {0}")]
    Refused(String),
    /// The command may or may not take effect.
    #[error("outcome unknown")]
    Unknown,
}

/// A confirmed position to read at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadIndex {
    /// The term in which leadership was confirmed.
    pub term: u64,
    /// Everything committed when the confirmation began is at or below.
    pub index: u64,
}

/// A group's log as one replica sees it.
pub trait GroupLog: Send + Sync + 'static {
    /// Appends a command; resolves once it is applied by this replica.
    fn propose(&self, command: Bytes) -> BoxFuture<Result<(), ProposeError>>;

    /// Confirms leadership and learns how far a linearizable read must have
    /// applied; the error names the leader where known.
    fn read_index(&self) -> BoxFuture<Result<ReadIndex, Option<NodeId>>>;

    /// Resolves once the entry is applied here; false when it cannot be any more.
    fn applied(&self, index: u64) -> BoxFuture<bool>;

    /// Who leads.
    fn leadership(&self) -> watch::Receiver<Leadership>;
}

/// What a group's log drives: a state machine over rows of its own. One caller
/// at a time applies; others may read meanwhile.
pub trait GroupMachine: Send + 'static {
    /// Why it had to halt.
    type Halt: Error + Send + Sync + 'static;

    /// Applies committed entries as `(index, command)` and commits their
    /// effects together with a row that belongs to whoever hosts the machine;
    /// one outcome each, for those who proposed them. An entry without a
    /// command is the log's own.
    ///
    /// # Errors
    /// The replica must stop: memory may be ahead of the rows.
    fn apply(
        &self,
        entries: &[(u64, Option<&[u8]>)],
        host_row: Blob,
    ) -> Result<Vec<Bytes>, Self::Halt>;

    /// Lets go of what a late reader must not see together with new rows,
    /// before a snapshot replaces them.
    fn unload(&self) {}

    /// Loads everything anew after a snapshot has replaced the rows, which
    /// reflect the log up to `applied`.
    ///
    /// # Errors
    /// When a row cannot be read.
    fn reload(&self, applied: u64) -> Result<(), Self::Halt>;
}

impl<M: GroupMachine + Sync> GroupMachine for Arc<M> {
    type Halt = M::Halt;

    fn apply(
        &self,
        entries: &[(u64, Option<&[u8]>)],
        host_row: Blob,
    ) -> Result<Vec<Bytes>, M::Halt> {
        M::apply(self, entries, host_row)
    }

    fn unload(&self) {
        M::unload(self);
    }

    fn reload(&self, applied: u64) -> Result<(), M::Halt> {
        M::reload(self, applied)
    }
}
