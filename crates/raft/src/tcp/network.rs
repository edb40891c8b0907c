//! The mesh as a node's network.

use std::time::Duration;

use bytes::Bytes;
use quorate_types::NodeId;
use quorate_types::hello::{self, Hello, HelloError, Protocol};
use quorate_types::runtime::BoxFuture;
use tokio::net::TcpStream;

use super::mesh::{Mesh, MeshError};
use super::serve::Service;
use crate::host::Host;
use crate::network::Network;
use crate::transport::{Lane, TransportError};

/// How long a first introduction may take before nobody counts as there.
const INTRODUCTION_DEADLINE: Duration = Duration::from_secs(2);

impl Lane {
    /// Its number on the wire.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Heartbeat => 0,
            Self::Data => 1,
            Self::Snapshot => 2,
            Self::Request => 3,
        }
    }
}

impl Network for Mesh {
    fn call(
        &self,
        to: NodeId,
        lane: Lane,
        channel: u8,
        payload: Bytes,
        deadline: Duration,
    ) -> BoxFuture<Result<Bytes, TransportError>> {
        let call = Self::call(self, to, lane.number(), channel, payload, deadline);
        Box::pin(async move {
            call.await.map_err(|error| match error {
                MeshError::Deadline(to) | MeshError::Disconnected(to) => {
                    TransportError::Deadline { to }
                }
                MeshError::Busy(to) | MeshError::Overloaded(to) => TransportError::Busy { to },
                MeshError::Refused { .. } | MeshError::TooLarge { .. } => {
                    TransportError::Rejected { to, reason: error.to_string() }
                }
                MeshError::NoAddress(_) | MeshError::Unreachable { .. } | MeshError::Closed => {
                    TransportError::Unreachable { to, reason: error.to_string() }
                }
            })
        })
    }

    fn send(&self, to: NodeId, lane: Lane, channel: u8, payload: Bytes) {
        // Messages are repeated by their senders' timers.
        drop(Self::send(self, to, lane.number(), channel, payload));
    }

    fn introduce(&self, address: &str, ours: Hello) -> BoxFuture<Result<Option<Hello>, String>> {
        let address = address.to_owned();
        let ours = Hello { protocol: Protocol::Mesh, ..ours };
        Box::pin(async move {
            let connecting = TcpStream::connect(address);
            let Ok(Ok(mut stream)) = tokio::time::timeout(INTRODUCTION_DEADLINE, connecting).await
            else {
                return Ok(None);
            };
            match hello::dial(&mut stream, &ours, INTRODUCTION_DEADLINE).await {
                Ok(theirs) => Ok(Some(theirs)),
                Err(HelloError::Refused(reason)) => Err(reason),
                Err(HelloError::Io(_) | HelloError::Malformed(_)) => Ok(None),
            }
        })
    }
}

/// A mesh's service that knows raft's channel only.
#[derive(Clone, Debug)]
pub struct RaftService {
    host: Host,
    channel: u8,
}

impl RaftService {
    /// Passes what arrives on `channel` to `host`.
    #[must_use]
    pub const fn new(host: Host, channel: u8) -> Self {
        Self { host, channel }
    }
}

impl Service for RaftService {
    fn handle(&self, from: NodeId, channel: u8, payload: Bytes) -> BoxFuture<Result<Bytes, Bytes>> {
        if channel != self.channel {
            let refusal = Bytes::from_static(b"no such channel");
            return Box::pin(std::future::ready(Err(refusal)));
        }
        let handling = self.host.handle(from, payload);
        Box::pin(async move { handling.await.map_err(|error| error.to_string().into()) })
    }
}
