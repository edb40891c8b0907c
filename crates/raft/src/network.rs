//! A network that a node shares between raft and its other traffic.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_types::NodeId;
use quorate_types::hello::Hello;
use quorate_types::runtime::BoxFuture;

use crate::transport::{Lane, Transport, TransportError};

/// Requests and messages between nodes (port), on numbered channels that the
/// composing node gives out. Production is [`Mesh`](crate::tcp::Mesh); a
/// simulator brings its own.
pub trait Network: Send + Sync + 'static {
    /// Sends a request and waits for its reply. The request is queued when
    /// this function returns, in the order of calls per lane, unless it has to
    /// wait for its turn on [`Lane::Request`].
    fn call(
        &self,
        to: NodeId,
        lane: Lane,
        channel: u8,
        payload: Bytes,
        deadline: Duration,
    ) -> BoxFuture<Result<Bytes, TransportError>>;

    /// Sends without waiting; may drop.
    fn send(&self, to: NodeId, lane: Lane, channel: u8, payload: Bytes);

    /// Introduces this node at an address and learns who is there; `None`
    /// while nobody answers. The error is the refusal of whoever is there, for
    /// the operator to read.
    fn introduce(&self, address: &str, ours: Hello) -> BoxFuture<Result<Option<Hello>, String>>;
}

/// [`Transport`] over one channel of a [`Network`].
#[derive(Clone)]
pub struct ChannelTransport {
    network: Arc<dyn Network>,
    channel: u8,
}

impl ChannelTransport {
    /// Messages go to the service behind `channel`, which passes them on to
    /// [`Host::handle`](crate::Host::handle).
    #[must_use]
    pub const fn new(network: Arc<dyn Network>, channel: u8) -> Self {
        Self { network, channel }
    }
}

impl std::fmt::Debug for ChannelTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChannelTransport").field("channel", &self.channel).finish_non_exhaustive()
    }
}

impl Transport for ChannelTransport {
    fn call(
        &self,
        to: NodeId,
        lane: Lane,
        payload: Bytes,
        deadline: Duration,
    ) -> BoxFuture<Result<Bytes, TransportError>> {
        self.network.call(to, lane, self.channel, payload, deadline)
    }
}
