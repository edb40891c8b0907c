//! [`Peers`] over whatever carries bytes between nodes.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use quorate_types::NodeId;
use quorate_types::codec::CodecError;
use quorate_types::runtime::BoxFuture;

use super::node::NodeServices;
use crate::ports::{CallError, Destination, Peers};
use crate::wire::{PeerMessage, Reply, Request};

/// For whom a request is. Those of clients may wait for what the cluster's own
/// ask for, in any number, and so must never take their room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// A client's transaction or listing.
    Client,
    /// The progress of everybody's: slices, maps.
    Progress,
}

impl Request {
    const fn purpose(&self) -> Purpose {
        match self {
            Self::Execute(_)
            | Self::Submit(_)
            | Self::Await { .. }
            | Self::Fence { .. }
            | Self::Keys { .. } => Purpose::Client,
            Self::Slices { .. } | Self::Change(_) | Self::Map | Self::MiddleKey(_) => {
                Purpose::Progress
            }
        }
    }
}

/// Bytes to other nodes (port). Requests go to [`NodeServices::answer`] over
/// there, messages to [`NodeServices::receive`].
pub trait Wire: Send + Sync + 'static {
    /// The nodes that a one-way message goes to now.
    fn targets(&self, to: Destination) -> Vec<NodeId>;

    /// Sends a message without waiting; may drop.
    fn send(&self, to: NodeId, message: Bytes);

    /// Sends a request and waits for its reply.
    fn call(
        &self,
        to: NodeId,
        purpose: Purpose,
        request: Bytes,
        deadline: Duration,
    ) -> BoxFuture<Result<Bytes, CallError>>;
}

/// [`Peers`] over a [`Wire`]. What is for this very node goes to its services
/// directly.
pub struct WirePeers {
    node: NodeId,
    wire: Arc<dyn Wire>,
    services: RwLock<Weak<NodeServices>>,
}

impl WirePeers {
    /// The peers of `node`, which has no services yet.
    #[must_use]
    pub fn new(node: NodeId, wire: Arc<dyn Wire>) -> Self {
        Self { node, wire, services: RwLock::default() }
    }

    /// Lets messages to this very node arrive.
    pub fn connect(&self, services: &Arc<NodeServices>) {
        *self.services.write() = Arc::downgrade(services);
    }

    fn services(&self) -> Option<Arc<NodeServices>> {
        self.services.read().upgrade()
    }
}

impl Peers for WirePeers {
    fn send(&self, to: Destination, message: PeerMessage) {
        let targets = self.wire.targets(to);
        let mut is_for_us = false;
        let mut payload = None;
        for target in targets {
            if target == self.node {
                is_for_us = true;
                continue;
            }
            let payload = payload.get_or_insert_with(|| message.to_bytes());
            self.wire.send(target, payload.clone());
        }
        if is_for_us && let Some(services) = self.services() {
            services.handle(message);
        }
    }

    fn call(
        &self,
        to: NodeId,
        request: Request,
        deadline: Duration,
    ) -> BoxFuture<Result<Reply, CallError>> {
        if to == self.node {
            let services = self.services();
            return Box::pin(async move {
                let services = services.ok_or(CallError::Unreachable)?;
                let served = tokio::time::timeout(deadline, services.serve(request)).await;
                served.map_err(|_| CallError::NoReply)
            });
        }
        let call = self.wire.call(to, request.purpose(), request.to_bytes(), deadline);
        Box::pin(async move { Reply::from_bytes(&call.await?).map_err(|_| CallError::NoReply) })
    }
}

impl NodeServices {
    /// Answers a request that a [`Wire`] carried here.
    ///
    /// # Errors
    /// When the bytes are damaged, hostile or of a newer format.
    pub async fn answer(&self, request: &[u8]) -> Result<Bytes, CodecError> {
        let request = Request::from_bytes(request)?;
        Ok(self.serve(request).await.to_bytes())
    }

    /// Handles a one-way message that a [`Wire`] carried here.
    ///
    /// # Errors
    /// As for [`Self::answer`].
    pub fn receive(&self, message: &[u8]) -> Result<(), CodecError> {
        self.handle(PeerMessage::from_bytes(message)?);
        Ok(())
    }
}
