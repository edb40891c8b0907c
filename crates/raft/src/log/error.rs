use std::fmt;
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
    /// What is stored is not what was written. Restore this disk from nothing:
    /// remove the replica and add a new one.
    #[error("log file {file}: {place} is damaged: {what}")]
    Damaged {
        /// The file.
        file: Arc<str>,
        /// Where in it.
        place: Place,
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
    /// The log of this directory is kept in another way than was asked for.
    #[error(
        "{file} is the log of this directory, and is no {wanted}: configure the medium that it is \
         kept in, or move it away if nothing in it is needed"
    )]
    Medium {
        /// The file that is there.
        file: Arc<str>,
        /// What was asked for.
        wanted: &'static str,
    },
    /// The file was written by a newer build.
    #[error("{file} has format {format}, which this build does not know: use a newer one")]
    Newer {
        /// The file.
        file: Arc<str>,
        /// Its format.
        format: u8,
    },
    /// Entries that the log knows of are not on disk any more, however often they
    /// are looked for.
    #[error("{group}: the entries from index {index} on are not where they were written")]
    Missing {
        /// The group.
        group: GroupId,
        /// The first of them.
        index: u64,
    },
    /// An entry is too large to be stored.
    #[error("{group}: an entry of {bytes} bytes, and the log takes {bytes_max}")]
    TooLarge {
        /// The group.
        group: GroupId,
        /// The bytes of the entry's payload.
        bytes: usize,
        /// The most that there may be.
        bytes_max: usize,
    },
    /// The rows of all groups would take more of the log's segments than they
    /// may. Nothing has changed, and the log goes on for the groups that it has.
    #[error(
        "the rows of all groups need {bytes} bytes, and the log's segments have room for \
         {bytes_max} beside its entries: configure larger segments"
    )]
    Crowded {
        /// What the rows take, with what those of a running log may grow by.
        bytes: u64,
        /// The most that they may.
        bytes_max: u64,
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

    pub(crate) fn damaged(file: &Arc<str>, place: Place, what: impl ToString) -> Self {
        Self::Damaged { file: Arc::clone(file), place, what: what.to_string().into() }
    }

    /// A row that cannot be read.
    pub(crate) fn unread(file: &Arc<str>, row: u64, error: CodecError) -> Self {
        match error {
            CodecError::Newer { found, .. } => {
                Self::Newer { file: Arc::clone(file), format: found }
            }
            error => Self::damaged(file, Place::Row(row), error),
        }
    }

    pub(crate) fn not_ours(file: &Arc<str>, source: OwnerError) -> Self {
        Self::Owner { file: Arc::clone(file), source: Arc::new(source) }
    }
}

/// A place in a log's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The row with this key: its sequence number, or the group for a group row.
    Row(u64),
    /// So many bytes from the start.
    Offset(u64),
    /// The segment with this number.
    Segment(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row(key) => write!(f, "row {key}"),
            Self::Offset(offset) => write!(f, "offset {offset}"),
            Self::Segment(number) => write!(f, "segment {number}"),
        }
    }
}

impl From<LogError> for io::Error {
    fn from(error: LogError) -> Self {
        Self::other(error)
    }
}
