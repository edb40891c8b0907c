//! The node's one network: which bytes belong to which layer.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use quorate_calvin::{CallError, Destination, NodeServices, PeerMessage, Peers, Reply, Request};
use quorate_meta::{BoxError, MembershipError};
use quorate_raft::tcp::Service;
use quorate_raft::{Host, Lane, Transport, TransportError};
use quorate_types::NodeId;
use quorate_types::hello::Hello;
use quorate_types::runtime::BoxFuture;

use crate::control::{Control, ControlReply, ControlRequest};
use crate::directory::Directory;
use crate::error::NodeError;

/// Channels of the mesh.
pub(crate) mod channel {
    /// Raft's messages.
    pub(crate) const RAFT: u8 = 1;
    /// Requests between transaction services.
    pub(crate) const REQUEST: u8 = 2;
    /// One-way messages between transaction services.
    pub(crate) const MESSAGE: u8 = 3;
    /// Control of replicas.
    pub(crate) const CONTROL: u8 = 4;
    /// The metadata: founding, joining, commands, the view.
    pub(crate) const METADATA: u8 = 5;
}

/// Why a call between nodes has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It did not reach the peer.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// It may have reached the peer.
    #[error("no reply in time")]
    NoReply,
    /// The peer refused it unhandled.
    #[error("refused: {0}")]
    Refused(String),
}

/// Requests and messages between nodes (port). Production is
/// [`quorate_raft::tcp::Mesh`]; a simulator brings its own.
pub trait Network: Send + Sync + 'static {
    /// Sends a request and waits for its reply.
    fn call(
        &self,
        to: NodeId,
        lane: Lane,
        channel: u8,
        payload: Bytes,
        deadline: Duration,
    ) -> BoxFuture<Result<Bytes, LinkError>>;

    /// Sends without waiting; may drop.
    fn send(&self, to: NodeId, lane: Lane, channel: u8, payload: Bytes);

    /// Introduces this node at an address and learns who is there: `None`
    /// while nobody answers, [`NodeError::Refused`] if it is not welcome.
    fn introduce(&self, address: &str, ours: Hello) -> BoxFuture<Result<Option<Hello>, NodeError>>;
}

/// How a node introduces itself now.
pub(crate) type Introduce = Arc<dyn Fn() -> Hello + Send + Sync>;

/// Raft's transport over the node's network.
pub(crate) struct RaftTransport(pub(crate) Arc<dyn Network>);

impl Transport for RaftTransport {
    fn call(
        &self,
        to: NodeId,
        lane: Lane,
        payload: Bytes,
        deadline: Duration,
    ) -> BoxFuture<Result<Bytes, TransportError>> {
        let call = self.0.call(to, lane, channel::RAFT, payload, deadline);
        Box::pin(async move {
            call.await.map_err(|error| match error {
                LinkError::Unreachable(reason) => TransportError::Unreachable { to, reason },
                LinkError::NoReply => TransportError::Deadline { to },
                LinkError::Refused(reason) => TransportError::Rejected { to, reason },
            })
        })
    }
}

/// Who handles what arrives.
#[derive(Default)]
pub(crate) struct Switch {
    host: OnceLock<Host>,
    services: OnceLock<Weak<NodeServices>>,
    control: OnceLock<Weak<dyn Control>>,
}

impl Switch {
    pub(crate) fn connect(
        &self,
        host: Host,
        services: &Arc<NodeServices>,
        control: Weak<dyn Control>,
    ) {
        // Set once, when the node is put together.
        let _ = self.host.set(host);
        let _ = self.services.set(Arc::downgrade(services));
        let _ = self.control.set(control);
    }

    fn services(&self) -> Option<Arc<NodeServices>> {
        self.services.get().and_then(Weak::upgrade)
    }

    fn control(&self) -> Option<Arc<dyn Control>> {
        self.control.get().and_then(Weak::upgrade)
    }
}

impl Service for Switch {
    fn handle(&self, from: NodeId, channel: u8, payload: Bytes) -> BoxFuture<Result<Bytes, Bytes>> {
        let host = self.host.get().cloned();
        let (services, control) = (self.services(), self.control());
        Box::pin(async move {
            let (Some(host), Some(services), Some(control)) = (host, services, control) else {
                return Err("the node is starting or stopping".into());
            };
            let handled = dispatch(host, services, control, from, (channel, payload)).await;
            handled.map_err(Bytes::from)
        })
    }
}

async fn dispatch(
    host: Host,
    services: Arc<NodeServices>,
    control: Arc<dyn Control>,
    from: NodeId,
    (channel, payload): (u8, Bytes),
) -> Result<Bytes, String> {
    match channel {
        channel::RAFT => host.handle(from, payload).await.map_err(|error| error.to_string()),
        channel::REQUEST => {
            let request = Request::from_bytes(&payload).map_err(|error| error.to_string())?;
            Ok(services.serve(request).await.to_bytes())
        }
        channel::MESSAGE => {
            let message = PeerMessage::from_bytes(&payload).map_err(|error| error.to_string())?;
            services.handle(message);
            Ok(Bytes::new())
        }
        channel::CONTROL => {
            let request =
                ControlRequest::from_bytes(&payload).map_err(|error| error.to_string())?;
            Ok(control.handle(request).await.to_bytes())
        }
        channel::METADATA => {
            let handled = control.membership().handle(&payload).await;
            handled.map_err(|error| error.to_string())
        }
        other => Err(format!("no such channel: {other}")),
    }
}

/// calvin's peers, and control calls, over the node's network.
pub(crate) struct NodePeers {
    node: NodeId,
    network: Arc<dyn Network>,
    directory: Arc<Directory>,
    introduce: Introduce,
    services: RwLock<Weak<NodeServices>>,
}

impl NodePeers {
    pub(crate) fn new(
        node: NodeId,
        network: Arc<dyn Network>,
        directory: Arc<Directory>,
        introduce: Introduce,
    ) -> Arc<Self> {
        Arc::new(Self { node, network, directory, introduce, services: RwLock::default() })
    }

    /// Lets messages to this very node arrive.
    pub(crate) fn connect(&self, services: &Arc<NodeServices>) {
        *self.services.write() = Arc::downgrade(services);
    }

    fn local(&self) -> Option<Arc<NodeServices>> {
        self.services.read().upgrade()
    }

    fn targets(&self, to: Destination) -> Vec<NodeId> {
        match to {
            Destination::Shard(shard) => self.directory.shard_targets(shard),
            Destination::Sequencer => self.directory.sequencer_targets(),
            Destination::Everyone => self.directory.members(),
        }
    }

    /// A control call to another node.
    pub(crate) async fn control(
        &self,
        to: NodeId,
        request: &ControlRequest,
        deadline: Duration,
    ) -> Result<ControlReply, LinkError> {
        let payload = request.to_bytes();
        let reply = self.network.call(to, Lane::Data, channel::CONTROL, payload, deadline).await?;
        ControlReply::from_bytes(&reply).map_err(|error| LinkError::Refused(error.to_string()))
    }
}

impl quorate_meta::Peers for NodePeers {
    fn ask(
        &self,
        to: NodeId,
        request: Bytes,
        deadline: Duration,
    ) -> BoxFuture<Result<Bytes, BoxError>> {
        let call = self.network.call(to, Lane::Data, channel::METADATA, request, deadline);
        Box::pin(async move { Ok(call.await?) })
    }

    fn introduce(&self, address: &str) -> BoxFuture<Result<Option<NodeId>, MembershipError>> {
        let answer = self.network.introduce(address, (self.introduce)());
        Box::pin(async move {
            match answer.await {
                Ok(theirs) => Ok(theirs.map(|theirs| theirs.node)),
                Err(NodeError::Refused(reason)) => Err(MembershipError::Refused(reason)),
                Err(error) => Err(MembershipError::Failed(error.into())),
            }
        })
    }
}

impl Peers for NodePeers {
    fn send(&self, to: Destination, message: PeerMessage) {
        let targets = self.targets(to);
        let others: Vec<NodeId> =
            targets.iter().copied().filter(|target| *target != self.node).collect();
        if !others.is_empty() {
            let payload = message.to_bytes();
            for target in &others {
                self.network.send(*target, Lane::Data, channel::MESSAGE, payload.clone());
            }
        }
        if others.len() < targets.len()
            && let Some(services) = self.local()
        {
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
            let Some(services) = self.local() else {
                return Box::pin(async { Err(CallError::Unreachable) });
            };
            return Box::pin(async move {
                tokio::time::timeout(deadline, services.serve(request))
                    .await
                    .map_err(|_| CallError::NoReply)
            });
        }
        let payload = request.to_bytes();
        let call = self.network.call(to, Lane::Data, channel::REQUEST, payload, deadline);
        Box::pin(async move {
            match call.await {
                Ok(reply) => Reply::from_bytes(&reply).map_err(|_| CallError::NoReply),
                // A refusal may stand for a reply that did not fit a frame.
                Err(LinkError::NoReply | LinkError::Refused(_)) => Err(CallError::NoReply),
                Err(LinkError::Unreachable(_)) => Err(CallError::Unreachable),
            }
        })
    }
}
