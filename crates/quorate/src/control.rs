//! Control of the cluster: what nodes ask of each other besides transactions.

use std::sync::Arc;

use bytes::Bytes;
use quorate_meta::Membership;
pub(crate) use quorate_meta::shard_of;
use quorate_types::codec::{self, CodecError};
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, GroupId, MigrationId, NodeId, ReplicaId, Seq, ShardId};
use zerompk::{FromMessagePack, ToMessagePack};

/// The newest format of control messages.
const FORMAT: u8 = 1;

/// A control request.
#[derive(Clone, Debug, ToMessagePack, FromMessagePack)]
pub(crate) enum ControlRequest {
    /// Something for a group's leader.
    Group {
        /// The group.
        group: GroupId,
        /// What.
        change: GroupChange,
        /// On whose behalf, if a migration asks.
        fence: Option<WireFence>,
    },
    /// Destroy a replica that is no member any more.
    Destroy {
        /// Its group.
        group: GroupId,
        /// The replica.
        replica: ReplicaId,
    },
    /// The key in the middle of a shard's data, from a node with a replica.
    MiddleKey(ShardId),
}

/// Which attempt of a migration asks: the leader refuses what an older one
/// asked for late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub(crate) struct WireFence {
    /// The migration.
    pub(crate) migration: MigrationId,
    /// Its coordinator's term.
    pub(crate) term: u64,
    /// Its attempt.
    pub(crate) attempt: u32,
}

/// What a group's leader is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub(crate) enum GroupChange {
    /// Report progress.
    Progress,
    /// Add a learner.
    AddLearner(ReplicaId, NodeId),
    /// Change the voters relative to what they are.
    Voters(Option<ReplicaId>, Option<ReplicaId>),
    /// Remove a learner.
    RemoveLearner(ReplicaId),
    /// Transfer the leadership.
    Transfer(ReplicaId),
}

/// The answer to a [`ControlRequest`].
#[derive(Clone, Debug, ToMessagePack, FromMessagePack)]
pub(crate) enum ControlReply {
    /// A group's progress.
    Progress(GroupProgress),
    /// Done; for a transfer, how many microseconds the group took no writes.
    Done(u64),
    /// The key in the middle of a shard's data, if it has one.
    Key(Option<Blob>),
    /// Not the leader.
    NotLeader(Option<NodeId>),
    /// No; it did not happen.
    Refused(Blob),
    /// No answer now; it may have happened.
    Unavailable(Blob),
}

/// A group as its leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub(crate) struct GroupProgress {
    /// The leading replica.
    pub(crate) leader: ReplicaId,
    /// The leader's last log index.
    pub(crate) last_log: u64,
    /// Members.
    pub(crate) members: Seq<MemberProgress>,
    /// The voters being left, while the membership is joint.
    pub(crate) outgoing: Option<Seq<ReplicaId>>,
}

/// One member of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub(crate) struct MemberProgress {
    /// The replica.
    pub(crate) replica: ReplicaId,
    /// Whether it votes.
    pub(crate) is_voter: bool,
    /// The last index known to equal the leader's.
    pub(crate) matched: u64,
    /// Whether it answered lately.
    pub(crate) is_fresh: bool,
}

/// Handles control requests.
pub(crate) trait Control: Send + Sync {
    /// Handles one to its reply.
    fn handle(&self, request: ControlRequest) -> BoxFuture<ControlReply>;

    /// What handles requests about the metadata.
    fn membership(&self) -> Arc<Membership>;
}

fn seal<T: ToMessagePack>(value: &T) -> Bytes {
    let body = codec::encode(value);
    let mut sealed = Vec::with_capacity(1 + body.len());
    sealed.push(FORMAT);
    sealed.extend_from_slice(&body);
    sealed.into()
}

fn open<T: for<'a> FromMessagePack<'a>>(bytes: &[u8]) -> Result<T, CodecError> {
    let (format, body) = bytes.split_first().ok_or(CodecError::Truncated(0))?;
    if *format > FORMAT {
        return Err(CodecError::Newer { found: *format, known: FORMAT });
    }
    codec::decode(body)
}

impl ControlRequest {
    pub(crate) fn to_bytes(&self) -> Bytes {
        seal(self)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        open(bytes)
    }
}

impl ControlReply {
    pub(crate) fn to_bytes(&self) -> Bytes {
        seal(self)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        open(bytes)
    }
}
