//! What nodes say to each other for all their groups together.

use bytes::Bytes;
use quorate_types::Seq;
use zerompk::{FromMessagePack, ToMessagePack};

use crate::consensus::wire::{WireError, open, versioned};
use crate::heartbeats::Together;
use crate::quiescence::{Beat, Lull};

/// The first byte of a [`NodeCall`], which tells it from a replica's message.
pub(crate) const NODE_CALL: u8 = 2;

/// A request from one node to another.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) enum NodeCall {
    /// The leaders here that rest are in office.
    Beat(Beat),
    /// Leaders here want to rest: whoever follows them is to rest, too.
    Lull(Seq<Lull>),
    /// Leaders here that do not rest are in office.
    Heartbeats(Together),
}

impl NodeCall {
    pub(crate) fn to_bytes(&self) -> Bytes {
        versioned(NODE_CALL, self)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, WireError> {
        open("call of a node", NODE_CALL, bytes)
    }
}
