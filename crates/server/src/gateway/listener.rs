//! Accepts connections.

use std::sync::Arc;
use std::time::Duration;

use quorate_types::{runtime, watch};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection::{Connection, Shared};
use super::limits::GatewayLimits;
use super::roster::Roster;
use crate::backend::Backend;
use crate::metrics::Metrics;

/// The pause after a failed accept: out of file descriptors, trying again at
/// once would only burn the processor.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// How long a stopping gateway waits for answers under way.
const DRAIN: Duration = Duration::from_secs(5);

const TOO_MANY: &[u8] = b"-ERR max number of clients reached\r\n";

/// A node's gateway: any key, on any node, over the Redis protocol.
pub struct Gateway {
    shared: Arc<Shared>,
}

impl Gateway {
    /// A gateway in front of a backend.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, limits: GatewayLimits, metrics: Metrics) -> Self {
        let roster = Arc::new(Roster::default());
        Self { shared: Arc::new(Shared { backend, limits, metrics, roster }) }
    }

    /// Serves connections until `stop` becomes true or its sender is gone;
    /// then answers what was received, within a bounded time.
    pub async fn serve(self, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let connections_max = self.shared.limits.connections_max.min(Semaphore::MAX_PERMITS);
        let places = Arc::new(Semaphore::new(connections_max));
        let mut id = 0;
        while !*stop.borrow() {
            tokio::select! {
                biased;
                changed = stop.changed() => {
                    if changed.is_err() {
                        break;
                    }
                }
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        id += 1;
                        self.accept(stream, id, &places, &stop);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_RETRY).await;
                    }
                },
            }
        }
        drop(listener);
        let all = u32::try_from(connections_max).unwrap_or(u32::MAX);
        if tokio::time::timeout(DRAIN, places.acquire_many(all)).await.is_err() {
            tracing::warn!("connections were still open when the gateway stopped");
        }
    }

    fn accept(
        &self,
        stream: TcpStream,
        id: u64,
        places: &Arc<Semaphore>,
        stop: &watch::Receiver<bool>,
    ) {
        match Arc::clone(places).try_acquire_owned() {
            Ok(place) => {
                let shared = Arc::clone(&self.shared);
                drop(runtime::spawn(serve_one(shared, stream, id, place, stop.clone())));
            }
            Err(_) => {
                self.shared.metrics.connection_refused();
                refuse(stream);
            }
        }
    }
}

async fn serve_one(
    shared: Arc<Shared>,
    stream: TcpStream,
    id: u64,
    place: OwnedSemaphorePermit,
    stop: watch::Receiver<bool>,
) {
    let _open = OpenConnection::count(shared.metrics.clone());
    // Without it small answers would wait for the client's acknowledgement;
    // where it fails the connection is only slower.
    let _ = stream.set_nodelay(true);
    if let Err(error) = Connection::new(shared, stream, id).serve(stop).await {
        tracing::debug!(%error, id, "a connection broke");
    }
    drop(place);
}

/// Counts a connection as open for as long as it lives.
struct OpenConnection(Metrics);

impl OpenConnection {
    fn count(metrics: Metrics) -> Self {
        metrics.connection_opened();
        Self(metrics)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connection_closed();
    }
}

/// Tells a client that there is no place. The text fits the socket's empty
/// buffer, so nobody waits for it.
fn refuse(stream: TcpStream) {
    drop(runtime::spawn(async move {
        let mut stream = stream;
        let _ = stream.write_all(TOO_MANY).await;
        let _ = stream.shutdown().await;
    }));
}
