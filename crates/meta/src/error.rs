//! What stops a replica of the registry. A bad command never does: it gets a
//! [`Refusal`](crate::Refusal) on every replica.

use quorate_types::codec::CodecError;
use quorate_types::{Blob, GroupId, MigrationId, NodeId, ReplicaId, ShardId};

use crate::ports::BoxError;

/// Why the registry cannot go on. All of these mean that this replica must
/// halt loudly: answering instead would let replicas of different builds or
/// with damaged disks diverge (law 7).
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// A stored row is damaged or of a newer format. Restore the replica from
    /// a snapshot of another one, or upgrade this node.
    #[error("metadata row {key:?} cannot be read")]
    Row {
        /// The row's key.
        key: Blob,
        /// What is wrong with it.
        #[source]
        source: CodecError,
    },
    /// A stored row has a key that this build knows no meaning for.
    #[error("metadata row {key:?} is of no kind that this build knows; upgrade this node")]
    UnknownRow {
        /// The row's key.
        key: Blob,
    },
    /// The rows are intact one by one but contradict each other.
    #[error("the metadata contradicts itself")]
    Inconsistent(#[from] Violation),
    /// A committed entry is not a command of this build: damaged, or of a
    /// newer format.
    #[error("metadata log entry {index} cannot be decoded; halting before replicas diverge")]
    Command {
        /// The entry's log index.
        index: u64,
        /// What is wrong with it.
        #[source]
        source: CodecError,
    },
    /// A command is larger than [`COMMAND_BYTES_MAX`](crate::limits::COMMAND_BYTES_MAX);
    /// it was not encoded.
    #[error("command of {bytes} bytes exceeds the limit of {limit}")]
    CommandTooLarge {
        /// Its encoded length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The rows cannot be read or written; what is on disk is unknown.
    #[error("the metadata's rows cannot be read or written")]
    Store(#[source] BoxError),
    /// A reply, or a registry as a whole, that came from another node is
    /// damaged or of a newer format.
    #[error("bytes from another node are not what they should be")]
    Encoding(#[from] CodecError),
    /// An encoded registry is larger than
    /// [`ENCODED_BYTES_MAX`](crate::limits::ENCODED_BYTES_MAX).
    #[error("encoded registry of {bytes} bytes exceeds the limit of {limit}")]
    EncodingTooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

/// An invariant of the registry that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Rows exist, but not the header that every apply writes.
    #[error("rows without a header row")]
    HeaderMissing,
    /// Two rows have one key.
    #[error("two rows with one key")]
    RowRepeated,
    /// An operator's row has the key of another.
    #[error("the row of operator {0} has the key of another one")]
    OperatorMisnamed(MigrationId),
    /// Nodes, groups or shards exist although no cluster was bootstrapped.
    #[error("members without a bootstrapped cluster")]
    NotBootstrapped,
    /// The ranges leave a gap or overlap where this shard begins or ends.
    #[error("the ranges do not partition the keys at shard {0}")]
    RangesDoNotPartition(ShardId),
    /// No shard exists in a bootstrapped cluster.
    #[error("a cluster without shards")]
    ShardsMissing,
    /// A shard's id was never allocated, or its group is not the one that
    /// belongs to the id.
    #[error("shard {0} has an id or a group that was never allocated to it")]
    ShardNotAllocated(ShardId),
    /// A group that must exist does not, or one exists that nothing uses.
    #[error("group {0} is missing or belongs to nothing")]
    GroupMismatch(GroupId),
    /// A group has no voter.
    #[error("group {0} has no voter")]
    NoVoter(GroupId),
    /// Two replicas of a group share a node.
    #[error("group {group} has two replicas on node {node}")]
    TwoOnOneNode {
        /// The group.
        group: GroupId,
        /// The node.
        node: NodeId,
    },
    /// A replica lives on a node that is unknown or removed.
    #[error("group {group} has a replica on node {node}, which is no member")]
    ReplicaOnNoMember {
        /// The group.
        group: GroupId,
        /// The node.
        node: NodeId,
    },
    /// A replica id exists twice or lies above the counter.
    #[error("replica id {0} is used twice or was never allocated")]
    ReplicaNotUnique(ReplicaId),
    /// Learners exist only while a move runs, and then exactly its own.
    #[error("group {0} has a learner that no running move accounts for, or lacks one")]
    StrayLearner(GroupId),
    /// Two unfinished operators work on one group.
    #[error("operator {0} is not the only unfinished one on its group")]
    TwoOperators(MigrationId),
    /// Two node ids claim one disk.
    #[error("node {0} claims a disk that another node id claims as well")]
    DiskShared(NodeId),
}
