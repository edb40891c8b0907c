//! The node's one network: which bytes belong to which layer.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use quorate_calvin::{CallError, Destination, Purpose, Reply, Wire};
use quorate_meta::{BoxError, MembershipError};
use quorate_raft::tcp::Service;
use quorate_raft::{Lane, Network, RaftError, TransportError};
use quorate_types::NodeId;
use quorate_types::codec::CodecError;
use quorate_types::hello::Hello;
use quorate_types::runtime::BoxFuture;

use crate::directory::Directory;
use crate::node::NodeInner;

/// Channels of the mesh.
pub(crate) mod channel {
    /// Raft's messages.
    pub(crate) const RAFT: u8 = 1;
    /// Clients' requests to transaction services.
    pub(crate) const REQUEST: u8 = 2;
    /// One-way messages between transaction services.
    pub(crate) const MESSAGE: u8 = 3;
    /// Requests between transaction services that clients' wait for.
    pub(crate) const PROGRESS: u8 = 4;
    /// The metadata: founding, joining, commands, the view.
    pub(crate) const METADATA: u8 = 5;
    /// Administration of groups: members, leaders, the end of replicas.
    pub(crate) const ADMIN: u8 = 6;
}

/// How a node introduces itself now.
pub(crate) type Introduce = Arc<dyn Fn() -> Hello + Send + Sync>;

/// Hands what arrives to the layer that its channel belongs to.
pub(crate) struct Switch(pub(crate) Weak<NodeInner>);

impl Service for Switch {
    fn handle(&self, from: NodeId, channel: u8, payload: Bytes) -> BoxFuture<Result<Bytes, Bytes>> {
        let inner = self.0.upgrade();
        Box::pin(async move {
            let inner = inner.ok_or("the node is stopping")?;
            dispatch(&inner, from, channel, payload).await.map_err(Bytes::from)
        })
    }
}

async fn dispatch(
    inner: &NodeInner,
    from: NodeId,
    channel: u8,
    payload: Bytes,
) -> Result<Bytes, String> {
    let malformed = |error: CodecError| error.to_string();
    let failed = |error: RaftError| error.to_string();
    match channel {
        channel::RAFT => inner.host.handle(from, payload).await.map_err(failed),
        channel::ADMIN => inner.host.administer(payload).await.map_err(failed),
        channel::REQUEST | channel::PROGRESS => {
            inner.services.answer(&payload).await.map_err(malformed)
        }
        channel::MESSAGE => {
            inner.services.receive(&payload).map_err(malformed)?;
            Ok(Bytes::new())
        }
        channel::METADATA => {
            let handled = inner.membership.handle(&payload).await;
            handled.map_err(|error| error.to_string())
        }
        other => Err(format!("no such channel: {other}")),
    }
}

/// What carries calvin's and meta's bytes over the node's network.
pub(crate) struct NodePeers {
    pub(crate) network: Arc<dyn Network>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) introduce: Introduce,
}

impl quorate_meta::Peers for NodePeers {
    fn ask(
        &self,
        to: NodeId,
        request: Bytes,
        deadline: Duration,
    ) -> BoxFuture<Result<Bytes, BoxError>> {
        let call = self.network.call(to, Lane::Request, channel::METADATA, request, deadline);
        Box::pin(async move { Ok(call.await?) })
    }

    fn introduce(&self, address: &str) -> BoxFuture<Result<Option<NodeId>, MembershipError>> {
        let answer = self.network.introduce(address, (self.introduce)());
        Box::pin(async move {
            let theirs = answer.await.map_err(MembershipError::Refused)?;
            Ok(theirs.map(|theirs| theirs.node))
        })
    }
}

impl Wire for NodePeers {
    fn targets(&self, to: Destination) -> Vec<NodeId> {
        match to {
            Destination::Shard(shard) => self.directory.shard_targets(shard),
            Destination::Sequencer => self.directory.sequencer_targets(),
            Destination::Everyone => self.directory.members(),
        }
    }

    fn send(&self, to: NodeId, message: Bytes) {
        self.network.send(to, Lane::Data, channel::MESSAGE, message);
    }

    fn call(
        &self,
        to: NodeId,
        purpose: Purpose,
        request: Bytes,
        deadline: Duration,
    ) -> BoxFuture<Result<Bytes, CallError>> {
        let channel = match purpose {
            Purpose::Client => channel::REQUEST,
            Purpose::Progress => channel::PROGRESS,
        };
        let call = self.network.call(to, Lane::Request, channel, request, deadline);
        Box::pin(async move {
            call.await.or_else(|error| match error {
                // What its services would say: not executed, and who leads is where it was.
                TransportError::Busy { .. } => {
                    Ok(Reply::Busy(error.to_string().as_str().into()).to_bytes())
                }
                TransportError::Unreachable { .. } => Err(CallError::Unreachable),
                // A refusal may stand for a reply that did not fit a frame.
                _ => Err(CallError::NoReply),
            })
        })
    }
}
