//! A node's listener: it judges callers and hands each connection to the
//! protocol it asks for.

use std::sync::Arc;

use quorate_types::hello::{self, Hello, Protocol};
use quorate_types::runtime::spawn;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::mesh::Mesh;
use super::serve::Service;

/// Receives callers. A function from an introduction to a verdict is one that
/// speaks nothing but the mesh's protocol.
pub trait Reception: Send + Sync + 'static {
    /// Decides about a caller: our own introduction, or a refusal for its
    /// operator to read.
    ///
    /// # Errors
    /// The refusal.
    fn judge(&self, theirs: &Hello) -> Result<Hello, String>;

    /// Takes note of a caller that is welcome.
    fn welcomed(&self, _theirs: &Hello) {}

    /// Takes over the connection of a welcome caller that does not speak the
    /// mesh's protocol, without waiting.
    ///
    /// # Errors
    /// Why it was dropped.
    fn take_over(&self, stream: TcpStream, theirs: &Hello) -> Result<(), String>;
}

impl<F> Reception for F
where
    F: Fn(&Hello) -> Result<Hello, String> + Send + Sync + 'static,
{
    fn judge(&self, theirs: &Hello) -> Result<Hello, String> {
        if theirs.protocol != Protocol::Mesh {
            return Err("only the mesh protocol is spoken here".to_owned());
        }
        self(theirs)
    }

    fn take_over(&self, _stream: TcpStream, _theirs: &Hello) -> Result<(), String> {
        Err("only the mesh protocol is spoken here".to_owned())
    }
}

/// What a connection counts for: one of the handshakes, then one of the
/// connections. A flood of callers waits in the operating system's queue.
struct Permits {
    handshake: OwnedSemaphorePermit,
    connection: OwnedSemaphorePermit,
}

impl Mesh {
    /// Accepts connections for as long as the mesh lives, asks `reception`
    /// about each caller, serves those that are welcome and hands over those
    /// that speak another protocol.
    pub fn listen(
        &self,
        listener: TcpListener,
        service: Arc<dyn Service>,
        reception: Arc<dyn Reception>,
    ) {
        let accepting = spawn(accept(self.clone(), listener, service, reception));
        self.inner.tasks.lock().push(accepting.abort_handle());
    }

    fn greet(
        &self,
        stream: TcpStream,
        service: Arc<dyn Service>,
        reception: Arc<dyn Reception>,
        permits: Permits,
    ) {
        let mesh = self.clone();
        let serving = spawn(async move {
            if let Err(error) = mesh.receive(stream, service, &*reception, permits).await {
                tracing::debug!(%error, "an inbound connection ended");
            }
        });
        let mut tasks = self.inner.tasks.lock();
        tasks.retain(|task| !task.is_finished());
        tasks.push(serving.abort_handle());
    }

    async fn receive(
        &self,
        mut stream: TcpStream,
        service: Arc<dyn Service>,
        reception: &dyn Reception,
        permits: Permits,
    ) -> Result<(), String> {
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let deadline = self.inner.config.handshake_deadline;
        let judged = hello::answer(&mut stream, deadline, |theirs| reception.judge(theirs)).await;
        let theirs = judged.map_err(|error| error.to_string())?;
        drop(permits.handshake);
        reception.welcomed(&theirs);
        match theirs.protocol {
            Protocol::Mesh => {
                let _counted = permits.connection;
                self.serve(stream, theirs, service).await.map_err(|error| error.to_string())
            }
            Protocol::Gossip => reception.take_over(stream, &theirs),
        }
    }
}

async fn accept(
    mesh: Mesh,
    listener: TcpListener,
    service: Arc<dyn Service>,
    reception: Arc<dyn Reception>,
) {
    let config = Arc::clone(&mesh.inner.config);
    let handshakes = Arc::new(Semaphore::new(config.inbound_handshakes_max.max(1)));
    let connections = Arc::new(Semaphore::new(config.inbound_connections_max.max(1)));
    loop {
        let Ok(handshake) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let Ok(connection) = Arc::clone(&connections).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let permits = Permits { handshake, connection };
                mesh.greet(stream, Arc::clone(&service), Arc::clone(&reception), permits);
            }
            Err(error) => {
                // Out of file descriptors, most likely; they come back.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(config.backoff_max).await;
            }
        }
    }
}
