//! Control of the cluster: what nodes ask of each other besides transactions.

use bytes::Bytes;
pub(crate) use quorate_meta::shard_of;
use quorate_types::codec::{self, CodecError};
use quorate_types::{Blob, GroupId, NodeId, ReplicaId, ShardId};
use zerompk::{FromMessagePack, ToMessagePack};

/// The newest format of control messages.
const FORMAT: u8 = 1;

/// A control request.
#[derive(Clone, Debug, ToMessagePack, FromMessagePack)]
pub(crate) enum ControlRequest {
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

/// The answer to a [`ControlRequest`].
#[derive(Clone, Debug, ToMessagePack, FromMessagePack)]
pub(crate) enum ControlReply {
    /// Done.
    Done,
    /// The key in the middle of a shard's data, if it has one.
    Key(Option<Blob>),
    /// Not the leader.
    NotLeader(Option<NodeId>),
    /// No; it did not happen.
    Refused(Blob),
    /// No answer now; it may have happened.
    Unavailable(Blob),
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
