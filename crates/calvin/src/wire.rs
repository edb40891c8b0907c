//! What the services of different nodes say to each other. Versioned like the
//! log's commands.

use bytes::Bytes;
use quorate_types::codec::CodecError;
use quorate_types::{Blob, Epoch, NodeId, RequestId, Seq, ShardEpoch, ShardId, TxnId};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::command::{Contribution, MapChange, ShardMap, Slice, Submission, open, seal};
use crate::procedure::Call;
use crate::sequencer::Watermarks;
use crate::shard::Verdict;

/// A one-way message.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub enum PeerMessage {
    /// To a shard's leader: another participant's reads.
    Contribute {
        /// The receiving shard.
        to: ShardId,
        /// The shard that read.
        from: ShardId,
        /// The transaction.
        txn: TxnId,
        /// What was read.
        contribution: Contribution,
    },
    /// To a shard's leader: send your reads.
    Ask {
        /// The shard asked.
        to: ShardId,
        /// The shard that needs them.
        from: ShardId,
        /// The transaction.
        txn: TxnId,
    },
    /// To a shard's leader: work from the sequencer.
    Slices {
        /// The shard.
        to: ShardId,
        /// In chain order.
        slices: Seq<Slice>,
    },
    /// To the sequencer's leader: how far a shard is.
    Report {
        /// The shard.
        shard: ShardId,
        /// Its applied cursor.
        cursor: Epoch,
        /// Everything at or below is done there.
        done: Epoch,
    },
    /// To everyone: how far the order is.
    Watermarks {
        /// The sequencer's leader.
        leader: NodeId,
        /// The facts.
        marks: Watermarks,
    },
}

/// A request to a node.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub enum Request {
    /// Run a single-shard transaction. One that only reads is not logged
    /// unless it must be.
    Execute(Execute),
    /// Order a transaction.
    Submit(Submission),
    /// Tell the decision of an ordered transaction, once there is one.
    Await {
        /// The home.
        shard: ShardId,
        /// The request.
        request: RequestId,
        /// Its place.
        txn: TxnId,
    },
    /// Resolve a request at its old home.
    Fence {
        /// The home.
        shard: ShardId,
        /// The request.
        request: RequestId,
        /// Its call's home key.
        home: Blob,
    },
    /// Hand over slices after a cursor.
    Slices {
        /// The shard.
        shard: ShardId,
        /// Its cursor.
        after: Epoch,
    },
    /// Sequence a map change.
    Change(MapChange),
    /// Tell the sequencer's map, with every change that was acknowledged.
    Map,
    /// List live keys of a shard from a key on: the one weak read.
    Keys {
        /// The shard.
        shard: ShardId,
        /// Where to begin.
        from: Blob,
        /// How many at the most.
        limit: u32,
    },
    /// Tell the key in the middle of a shard's data, by any replica.
    MiddleKey(ShardId),
}

/// See [`Request::Execute`].
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct Execute {
    /// The shard.
    pub shard: ShardId,
    /// Its epoch by the caller's map.
    pub epoch: ShardEpoch,
    /// The request.
    pub request: RequestId,
    /// The transaction.
    pub call: Call,
}

/// The answer to a [`Request`]. Every reply that tells of the state has passed
/// the reply gate.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub enum Reply {
    /// The decision.
    Verdict(Verdict),
    /// The request's place.
    Ordered {
        /// The place.
        txn: TxnId,
        /// The home when it was ordered.
        home: ShardId,
    },
    /// Slices, in chain order.
    Slices(Seq<Slice>),
    /// Keys in order, and where the next page begins: in this shard or at its
    /// end. `None` at the end of all keys.
    Keys(Seq<Blob>, Option<Blob>),
    /// The epoch of the map change.
    Changed(Epoch),
    /// The sequencer's map.
    Map(ShardMap),
    /// The map change does not fit the sequencer's map.
    NotChanged(Blob),
    /// Not the leader; nothing was done by this request.
    NotLeader(Option<NodeId>),
    /// The shard does not own the keys at that epoch; nothing was done.
    Moved,
    /// A limit is reached; nothing was done by this request.
    Busy(Blob),
    /// The call is larger than any may be, or names more shards; nothing was
    /// done.
    TooLarge,
    /// The request is older than what is remembered.
    Expired,
    /// A fence came first; the direct command will never run.
    Poisoned,
    /// What a transaction without writes read is no longer kept; it may be
    /// asked again under a new request id.
    Gone,
    /// Nothing can be said; ask again with the same request id.
    Unknown,
    /// The key in the middle of a shard's data, if there are two rows.
    MiddleKey(Option<Blob>),
}

macro_rules! wire_format {
    ($name:ty) => {
        impl $name {
            /// The encoding.
            #[must_use]
            pub fn to_bytes(&self) -> Bytes {
                seal(self).0
            }

            /// Reads an encoding.
            ///
            /// # Errors
            /// When the bytes are damaged, hostile or of a newer format.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
                open(bytes)
            }
        }
    };
}

wire_format!(PeerMessage);
wire_format!(Request);
wire_format!(Reply);
