//! The port to the network between hosts.

use std::time::Duration;

use bytes::Bytes;
use quorate_types::NodeId;
use quorate_types::runtime::BoxFuture;

/// Which of a node pair's ways a message takes, so that bulk never holds up
/// what keeps a leader in office, and what clients ask for never holds up what
/// their answers wait for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Lane {
    /// Heartbeats, votes, transfers of leadership.
    Heartbeat,
    /// Log entries, and messages that nobody answers. Whoever receives them
    /// waits for its own disk at most, never for another node.
    Data,
    /// Chunks of snapshots.
    Snapshot,
    /// Requests whose answers may wait for other nodes, and so for the other
    /// lanes. Beyond some number they wait for their turn, those that are too
    /// many are refused, and none is worked on longer than its caller waits.
    Request,
}

/// Why a call brought no reply. Raft tolerates each of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The peer cannot be reached now; the message was not sent.
    #[error("{to} is unreachable: {reason}")]
    Unreachable {
        /// The peer.
        to: NodeId,
        /// Why.
        reason: String,
    },
    /// No reply within the deadline; the message may have been handled.
    #[error("no reply from {to} in time")]
    Deadline {
        /// The peer.
        to: NodeId,
    },
    /// Too much waits for this peer, or is in work there; the message was not
    /// sent, or not looked at.
    #[error("{to} has too much to do")]
    Busy {
        /// The peer.
        to: NodeId,
    },
    /// The peer answered, but not with a reply.
    #[error("{to} could not handle the message: {reason}")]
    Rejected {
        /// The peer.
        to: NodeId,
        /// What it said.
        reason: String,
    },
}

/// Carries opaque messages between hosts. Messages may be lost, delayed,
/// repeated and reordered; order on a lane is worth keeping, because a gap in
/// the log costs a round trip. A message on [`Lane::Request`] arrives once at
/// most: that it is refused has to mean that nobody has begun it.
pub trait Transport: Send + Sync + 'static {
    /// Sends `payload` to `to`, where [`Host::handle`](crate::Host::handle)
    /// answers it. The message is queued when this function returns, in the
    /// order of calls per lane, and not when the future is first polled; only
    /// on [`Lane::Request`] it may have to wait for its turn first.
    fn call(
        &self,
        to: NodeId,
        lane: Lane,
        payload: Bytes,
        deadline: Duration,
    ) -> BoxFuture<Result<Bytes, TransportError>>;
}
