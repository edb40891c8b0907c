//! A node that hosts groups and does nothing else.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use quorate_types::disk::DirectoryDisk;
use quorate_types::hello::{Hello, Protocol};
use quorate_types::{Blob, DiskId, NodeId, runtime};
use tokio::net::TcpListener;

use super::mesh::{Mesh, MeshConfig};
use super::network::RaftService;
use crate::config::HostConfig;
use crate::error::RaftError;
use crate::host::Host;
use crate::log::{DurableLog, LogConfig, LogEngine};
use crate::network::ChannelTransport;

/// The one channel of such a node.
const CHANNEL: u8 = 1;

/// A node whose members and addresses are known when it starts: a directory, a log
/// in it, a mesh and a host, put together with defaults. A node with a registry,
/// traffic of its own or several clusters on its network composes the same parts
/// itself.
///
/// It believes whoever calls to be who they say they are: the network is trusted.
#[derive(Debug, Clone)]
pub struct Standalone {
    /// This node.
    pub node: NodeId,
    /// Where the others listen, as `host:port`.
    pub peers: BTreeMap<NodeId, String>,
    /// Where its log lies; created when missing, and nobody else's.
    pub directory: PathBuf,
    /// Limits and timings of its groups.
    pub host: HostConfig,
    /// Limits of its log, and what it is kept on. Without an
    /// [owner](LogConfig::owner) an empty log begins where another was deleted:
    /// a directory that has lost its log must not be started again, since its replicas
    /// may vote twice in a term. Remove them from their groups and add new ones.
    pub log: LogConfig,
    /// Limits of its connections.
    pub mesh: MeshConfig,
}

impl Standalone {
    /// A node with everything at its defaults.
    #[must_use]
    pub fn new(
        node: NodeId,
        peers: BTreeMap<NodeId, String>,
        directory: impl Into<PathBuf>,
    ) -> Self {
        Self {
            node,
            peers,
            directory: directory.into(),
            host: HostConfig::default(),
            log: LogConfig::default(),
            mesh: MeshConfig::default(),
        }
    }

    /// Opens its log, and serves the others on `listener` until the mesh is
    /// [shut down](Mesh::shutdown), which is to be done behind the host. Groups are to
    /// be [created](Host::create), those of an earlier life too.
    ///
    /// # Errors
    /// [`RaftError::Config`] when the directory cannot be opened, or what is
    /// configured does not fit; [`RaftError::Log`] when the log cannot be opened.
    pub fn start(self, listener: TcpListener) -> Result<(Host, Mesh), RaftError> {
        let disk = DirectoryDisk::open(&self.directory).map_err(|error| {
            RaftError::Config(format!("cannot open {}: {error}", self.directory.display()))
        })?;
        let log = DurableLog::open(Arc::new(disk), "raft", self.log.clone())?;
        self.start_on(Arc::new(log), listener)
    }

    /// The same over another log.
    ///
    /// # Errors
    /// [`RaftError::Config`] when what is configured does not fit.
    pub fn start_on(
        self,
        log: Arc<dyn LogEngine>,
        listener: TcpListener,
    ) -> Result<(Host, Mesh), RaftError> {
        let hello = Hello {
            protocol: Protocol::Mesh,
            lane: 0,
            cluster: None,
            node: self.node,
            disk: DiskId::random(),
            incarnation: runtime::random(),
            address: Blob::new(),
        };
        let (ours, peers) = (hello.clone(), self.peers);
        let address = move |node: NodeId| peers.get(&node).cloned();
        let mesh = Mesh::new(self.mesh, move || ours.clone(), address);
        let transport = ChannelTransport::new(Arc::new(mesh.clone()), CHANNEL);
        let host = Host::open(self.host, log, Arc::new(transport))?;
        let service = Arc::new(RaftService::new(host.clone(), CHANNEL));
        mesh.listen(listener, service, Arc::new(move |_: &Hello| Ok(hello.clone())));
        Ok((host, mesh))
    }
}
