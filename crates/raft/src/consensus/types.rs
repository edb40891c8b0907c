//! The types with which openraft is instantiated.

use std::fmt;

use bytes::Bytes;
use openraft::vote::RaftVote;
use openraft::vote::leader_id_std::{CommittedLeaderId, LeaderId};
use quorate_types::{NodeId, ReplicaId};
use serde::{Deserialize, Serialize};

use crate::log::{LogPosition, Vote};
use crate::runtime::QuorateRuntime;

openraft::declare_raft_types!(
    pub(crate) TypeConfig:
        D = Command,
        R = Outcome,
        NodeId = u64,
        Node = Member,
        LeaderId = LeaderId<u64, u64>,
        AsyncRuntime = QuorateRuntime,
);

pub(crate) type RaftOf = openraft::Raft<TypeConfig, super::applier::Applier>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type RaftVoteOf = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type RaftEntry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type Payload = openraft::type_config::alias::PayloadOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, Member>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;

/// A proposed command, as the payload that the log stores for it: made once, and
/// shared by whoever stores, sends and applies it. openraft wants its data types to
/// have serde codecs; they are never used, our formats are in [`super::wire`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<u8>", into = "Vec<u8>")]
pub(crate) struct Command(pub(crate) Bytes);

/// What the machine answered.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<u8>", into = "Vec<u8>")]
pub(crate) struct Outcome(pub(crate) Bytes);

/// The node on which a replica lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) node: u64,
}

impl Member {
    pub(crate) fn node_id(self) -> NodeId {
        NodeId(self.node)
    }
}

impl From<NodeId> for Member {
    fn from(node: NodeId) -> Self {
        Self { node: node.0 }
    }
}

macro_rules! opaque_bytes {
    ($name:ident) => {
        impl From<Vec<u8>> for $name {
            fn from(bytes: Vec<u8>) -> Self {
                Self(bytes.into())
            }
        }

        impl From<$name> for Vec<u8> {
            fn from(value: $name) -> Self {
                value.0.into()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} bytes", self.0.len())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self, f)
            }
        }
    };
}

opaque_bytes!(Command);
opaque_bytes!(Outcome);

pub(crate) fn log_id(position: LogPosition) -> LogId {
    LogId::new(CommittedLeaderId::new(position.term), position.index)
}

pub(crate) fn position(log_id: &LogId) -> LogPosition {
    LogPosition { term: log_id.leader_id.term, index: log_id.index }
}

pub(crate) fn raft_vote(vote: Vote) -> RaftVoteOf {
    let leader = LeaderId { term: vote.term, voted_for: vote.candidate.0 };
    RaftVoteOf::from_leader_id(leader, vote.committed)
}

pub(crate) fn our_vote(vote: &RaftVoteOf) -> Vote {
    Vote {
        term: vote.leader_id.term,
        candidate: ReplicaId(vote.leader_id.voted_for),
        committed: vote.committed,
    }
}
