//! Requests and replies, each `[format u8][msgpack]`.

use bytes::Bytes;
use quorate_types::membership::{Fence, GroupProgress, VoterChange};
use quorate_types::{Blob, GroupId, NodeId, ReplicaId};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::consensus::wire::{WireError, open, versioned};

/// The newest format of requests and replies.
const FORMAT: u8 = 1;

/// A change of a group's membership. Relative to the membership that the
/// leader finds, so that a repetition changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub enum MemberChange {
    /// A replica on a node begins to receive the log.
    AddLearner(ReplicaId, NodeId),
    /// A learner becomes a voter, a voter leaves the group, or both.
    Voters(VoterChange),
    /// A replica that does not vote leaves the group.
    RemoveLearner(ReplicaId),
}

/// What the leader of a group, or the home of a replica, is asked.
#[derive(Clone, Debug, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub(crate) enum Task {
    /// How far are the members?
    Progress,
    /// Change the membership.
    Change(MemberChange),
    /// Hand the leadership to a voter.
    Transfer(ReplicaId),
    /// Destroy a replica where it lives: asked of its home, not the leader.
    Destroy(ReplicaId),
}

#[derive(Clone, Debug, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub(crate) struct AdminRequest {
    pub(crate) group: GroupId,
    pub(crate) task: Task,
    pub(crate) fence: Option<Fence>,
}

#[derive(Clone, Debug, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub(crate) enum AdminReply {
    /// The members.
    Progress(GroupProgress),
    /// The membership is as asked.
    Changed,
    /// The leadership is handed over; nobody led for so many microseconds.
    Transferred(u64),
    /// Somebody else has to be asked.
    NotLeader(Option<NodeId>),
    /// It did not happen and would not now.
    Refused(Blob),
    /// It may have happened.
    Unknown(Blob),
    /// The replica is gone for good.
    Destroyed,
    /// It did not happen: a later attempt has acted.
    Fenced,
    /// It did not happen and may well soon.
    NotReady(Blob),
}

impl AdminRequest {
    pub(crate) fn to_bytes(&self) -> Bytes {
        versioned(FORMAT, self)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, WireError> {
        open("administration request", FORMAT, bytes)
    }
}

impl AdminReply {
    pub(crate) fn to_bytes(&self) -> Bytes {
        versioned(FORMAT, self)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, WireError> {
        open("administration reply", FORMAT, bytes)
    }
}
