//! What nodes ask of each other about the metadata, as bytes.

use bytes::Bytes;
use quorate_types::codec::{decode, encode};
use quorate_types::{Blob, ClusterId, NodeId};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::command::{unversioned, versioned};
use crate::error::MetaError;
use crate::nodes::NodeSpec;

/// The newest format of requests and responses that this build knows.
const WIRE_VERSION: u8 = 1;

/// Something that a node asks another one.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub enum Request {
    /// A member of the initial cluster presents itself to the founding node.
    #[msgpack(key = 0)]
    Report {
        /// Who.
        spec: NodeSpec,
        /// [`InitialCluster::digest`](crate::InitialCluster::digest) of its
        /// configuration.
        digest: u64,
    },
    /// A further node wants to join.
    #[msgpack(key = 1)]
    Join(NodeSpec),
    /// An encoded [`Command`](crate::Command), for the leader.
    #[msgpack(key = 2)]
    Propose(Blob),
    /// The metadata, if newer than an applied index.
    #[msgpack(key = 3)]
    View(u64),
}

/// The answer to a [`Request`].
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub enum Response {
    /// The cluster, once there is one: to a report or to one who joins.
    #[msgpack(key = 0)]
    Cluster(Option<ClusterId>),
    /// An encoded [`Reply`](crate::Reply) to a command.
    #[msgpack(key = 1)]
    Proposed(Blob),
    /// The encoded registry; empty if nothing is newer.
    #[msgpack(key = 2)]
    View(Blob),
    /// Not the leader, or no replica.
    #[msgpack(key = 3)]
    NotLeader(Option<NodeId>),
    /// No; it did not happen, and asking again will not help.
    #[msgpack(key = 4)]
    Refused(String),
    /// No answer now; it may have happened.
    #[msgpack(key = 5)]
    Unavailable(String),
}

impl Request {
    /// The request as bytes, `[version u8][zerompk]`.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        versioned(WIRE_VERSION, &encode(self))
    }

    /// Reads a request back.
    ///
    /// # Errors
    /// [`MetaError::Encoding`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MetaError> {
        Ok(decode(unversioned(WIRE_VERSION, bytes)?)?)
    }
}

impl Response {
    /// The response as bytes, `[version u8][zerompk]`.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        versioned(WIRE_VERSION, &encode(self))
    }

    /// Reads a response back.
    ///
    /// # Errors
    /// [`MetaError::Encoding`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MetaError> {
        Ok(decode(unversioned(WIRE_VERSION, bytes)?)?)
    }
}
