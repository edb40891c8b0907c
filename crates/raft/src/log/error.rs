use std::io;
use std::sync::Arc;

use quorate_types::codec::CodecError;
use quorate_types::owner::OwnerError;
use quorate_types::{GroupId, ReplicaId};

/// Why the log could not do what it was asked. Cloned to everyone who waits.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// The disk failed. Permanent: nothing since the last success may be
    /// assumed durable.
    #[error("log file {file} failed and must be reopened: {source}")]
    Disk {
        /// The file.
        file: Arc<str>,
        /// What the disk or the store on it said.
        #[source]
        source: Arc<io::Error>,
    },
    /// A row is not what was written. Restore this disk from nothing: remove
    /// the replica and add a new one.
    #[error("log file {file}: row {sequence} is damaged: {what}")]
    Damaged {
        /// The file.
        file: Arc<str>,
        /// The row's key: its sequence number, or the group for a group row.
        sequence: u64,
        /// What is wrong with it.
        what: Arc<str>,
    },
    /// The file is not the one that this directory had.
    #[error("{file}: {source}")]
    Owner {
        /// The file.
        file: Arc<str>,
        /// Why not.
        #[source]
        source: Arc<OwnerError>,
    },
    /// The replica was removed from this node and may never come back.
    #[error("replica {replica} of {group} was removed and must not return")]
    Tombstoned {
        /// The group.
        group: GroupId,
        /// The removed replica.
        replica: ReplicaId,
    },
    /// The group's rows belong to another replica; forget that one first.
    #[error("the log of {group} belongs to replica {owner}")]
    Occupied {
        /// The group.
        group: GroupId,
        /// Whose rows they are.
        owner: ReplicaId,
    },
    /// The group was not admitted.
    #[error("the log has not admitted {0}")]
    UnknownGroup(GroupId),
    /// The entries do not continue the log.
    #[error("{group}: expected an entry at {expected}, got {found}")]
    Gap {
        /// The group.
        group: GroupId,
        /// The index that would continue the log.
        expected: u64,
        /// The index of the entry that was offered.
        found: u64,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

impl LogError {
    pub(crate) fn disk(file: &Arc<str>, source: impl Into<io::Error>) -> Self {
        Self::Disk { file: Arc::clone(file), source: Arc::new(source.into()) }
    }

    pub(crate) fn damaged(file: &Arc<str>, sequence: u64, what: impl ToString) -> Self {
        Self::Damaged { file: Arc::clone(file), sequence, what: what.to_string().into() }
    }

    pub(crate) fn codec(file: &Arc<str>, sequence: u64, error: &CodecError) -> Self {
        Self::damaged(file, sequence, error)
    }
}

impl From<LogError> for io::Error {
    fn from(error: LogError) -> Self {
        Self::other(error)
    }
}
