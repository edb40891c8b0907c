use std::time::Duration;

use bytes::Bytes;
use quorate_types::NodeId;
use quorate_types::runtime::BoxFuture;

use super::mesh::{Mesh, MeshError};
use super::serve::Service;
use crate::host::Host;
use crate::transport::{Lane, Transport, TransportError};

/// [`Transport`] over one channel of a [`Mesh`].
#[derive(Clone, Debug)]
pub struct TcpTransport {
    mesh: Mesh,
    channel: u8,
}

impl TcpTransport {
    /// The lanes a transport uses; the mesh's other lanes are free.
    pub const LANES: [u8; 3] = [0, 1, 2];

    /// Messages go to the service behind `channel`, a [`RaftService`] or what
    /// passes them on to [`Host::handle`].
    #[must_use]
    pub const fn new(mesh: Mesh, channel: u8) -> Self {
        Self { mesh, channel }
    }
}

impl Transport for TcpTransport {
    fn call(
        &self,
        to: NodeId,
        lane: Lane,
        payload: Bytes,
        deadline: Duration,
    ) -> BoxFuture<Result<Bytes, TransportError>> {
        let [heartbeat, data, snapshot] = Self::LANES;
        let lane = match lane {
            Lane::Heartbeat => heartbeat,
            Lane::Data => data,
            Lane::Snapshot => snapshot,
        };
        let call = self.mesh.call(to, lane, self.channel, payload, deadline);
        Box::pin(async move {
            call.await.map_err(|error| match error {
                MeshError::Deadline(to) | MeshError::Disconnected(to) => {
                    TransportError::Deadline { to }
                }
                MeshError::Busy(to) => TransportError::Busy { to },
                MeshError::Refused { .. } | MeshError::TooLarge { .. } => {
                    TransportError::Rejected { to, reason: error.to_string() }
                }
                MeshError::NoAddress(_) | MeshError::Unreachable { .. } | MeshError::Closed => {
                    TransportError::Unreachable { to, reason: error.to_string() }
                }
            })
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
