//! The node's one listener: it judges callers and hands each connection to the
//! protocol it asks for.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use quorate_gossip::Driver;
use quorate_meta::NodeState;
use quorate_raft::Lane;
use quorate_raft::tcp::{AddressBook, Mesh, MeshError, Service};
use quorate_types::hello::{self, Hello, HelloError, Protocol};
use quorate_types::runtime::{self, BoxFuture};
use quorate_types::{ClusterId, NodeId};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::directory::Directory;
use crate::error::NodeError;
use crate::network::{Introduce, LinkError, Network, Switch};

/// Handshakes under way at a time; a flood of callers waits in the kernel.
const HANDSHAKES_MAX: usize = 256;
/// How long a caller may take to introduce itself.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// How long a first introduction may take before the peer counts as down.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);

/// The production network: raft's mesh.
pub(crate) struct MeshNetwork(pub(crate) Mesh);

const fn lane_number(lane: Lane) -> u8 {
    match lane {
        Lane::Heartbeat => 0,
        Lane::Data => 1,
        Lane::Snapshot => 2,
    }
}

impl Network for MeshNetwork {
    fn call(
        &self,
        to: NodeId,
        lane: Lane,
        channel: u8,
        payload: Bytes,
        deadline: Duration,
    ) -> BoxFuture<Result<Bytes, LinkError>> {
        let call = self.0.call(to, lane_number(lane), channel, payload, deadline);
        Box::pin(async move {
            call.await.map_err(|error| match error {
                MeshError::Deadline(_) | MeshError::Disconnected(_) | MeshError::Closed => {
                    LinkError::NoReply
                }
                MeshError::Refused { .. } | MeshError::TooLarge { .. } | MeshError::Busy(_) => {
                    LinkError::Refused(error.to_string())
                }
                MeshError::NoAddress(_) | MeshError::Unreachable { .. } => {
                    LinkError::Unreachable(error.to_string())
                }
            })
        })
    }

    fn send(&self, to: NodeId, lane: Lane, channel: u8, payload: Bytes) {
        // Messages are repeated by their senders' timers.
        drop(self.0.send(to, lane_number(lane), channel, payload));
    }

    fn introduce(&self, address: &str, ours: Hello) -> BoxFuture<Result<Option<Hello>, NodeError>> {
        Box::pin(probe(address.to_owned(), Hello { protocol: Protocol::Mesh, ..ours }))
    }
}

/// Finds nodes for the mesh, and keeps it from talking to impostors.
pub(crate) struct Book {
    pub(crate) directory: Arc<Directory>,
    pub(crate) introduce: Introduce,
}

impl AddressBook for Book {
    fn address(&self, node: NodeId) -> Option<String> {
        self.directory.address(node)
    }

    fn judge(&self, theirs: &Hello) -> Result<(), String> {
        judge(&self.directory, (self.introduce)().cluster, theirs)
    }
}

/// Decides about a peer by what the metadata knows of it.
pub(crate) fn judge(
    directory: &Directory,
    ours: Option<ClusterId>,
    theirs: &Hello,
) -> Result<(), String> {
    if let (Some(ours), Some(theirs)) = (ours, theirs.cluster)
        && ours != theirs
    {
        return Err(format!("this node belongs to cluster {ours}, not {theirs}"));
    }
    let view = directory.view();
    if let Some(known) = view.node(theirs.node) {
        if known.disk != theirs.disk {
            let node = theirs.node;
            return Err(format!(
                "{node} joined with another disk; this disk is not the one that joined; join \
                 under a new id"
            ));
        }
        if known.state == NodeState::Removed {
            return Err(format!("{} was removed; join under a new id", theirs.node));
        }
    }
    Ok(())
}

/// What the accept loop hands connections to.
pub(crate) struct Listener {
    pub(crate) mesh: Mesh,
    pub(crate) gossip: Arc<Driver>,
    pub(crate) switch: Arc<Switch>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) introduce: Introduce,
    pub(crate) connections: Mutex<Vec<AbortHandle>>,
}

impl Listener {
    /// Cuts every connection, as the end of the process would.
    pub(crate) fn close(&self) {
        for connection in self.connections.lock().drain(..) {
            connection.abort();
        }
        self.mesh.shutdown();
    }

    /// Accepts until the task is dropped.
    pub(crate) async fn run(self: Arc<Self>, listener: TcpListener) {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        loop {
            let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let this = Arc::clone(&self);
                    let connection = runtime::spawn(async move {
                        let greeted = this.greet(stream).await;
                        drop(permit);
                        if let Some((stream, hello)) = greeted {
                            this.serve(stream, hello).await;
                        }
                    });
                    let mut connections = self.connections.lock();
                    connections.retain(|task| !task.is_finished());
                    connections.push(connection.abort_handle());
                }
                Err(error) => {
                    // Out of file descriptors, most likely; they come back.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(HANDSHAKE_DEADLINE).await;
                }
            }
        }
    }

    async fn greet(&self, mut stream: TcpStream) -> Option<(TcpStream, Hello)> {
        stream.set_nodelay(true).ok()?;
        let verdict = |theirs: &Hello| {
            let ours = (self.introduce)();
            judge(&self.directory, ours.cluster, theirs)?;
            match theirs.protocol {
                Protocol::Mesh => Ok(Hello { protocol: Protocol::Mesh, ..ours }),
                Protocol::Gossip => self.gossip.judge(theirs),
            }
        };
        match hello::answer(&mut stream, HANDSHAKE_DEADLINE, verdict).await {
            Ok(hello) => Some((stream, hello)),
            Err(error) => {
                tracing::debug!(%error, "a handshake failed");
                None
            }
        }
    }

    async fn serve(&self, stream: TcpStream, hello: Hello) {
        if let Ok(address) = std::str::from_utf8(&hello.address) {
            self.directory.learn_address(hello.node, address);
        }
        let outcome = match hello.protocol {
            Protocol::Mesh => {
                let service: Arc<dyn Service> = Arc::<Switch>::clone(&self.switch);
                self.mesh.serve(stream, hello, service).await.map_err(|error| error.to_string())
            }
            Protocol::Gossip => self.gossip.serve(stream, &hello, BytesMut::new()),
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "an inbound connection ended");
        }
    }
}

async fn probe(address: String, ours: Hello) -> Result<Option<Hello>, NodeError> {
    let connecting = tokio::time::timeout(PROBE_DEADLINE, TcpStream::connect(address)).await;
    let Ok(Ok(mut stream)) = connecting else { return Ok(None) };
    match hello::dial(&mut stream, &ours, PROBE_DEADLINE).await {
        Ok(theirs) => Ok(Some(theirs)),
        Err(HelloError::Refused(reason)) => Err(NodeError::Refused(reason)),
        Err(HelloError::Io(_) | HelloError::Malformed(_)) => Ok(None),
    }
}
