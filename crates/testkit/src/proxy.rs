//! A TCP proxy between real processes that misbehaves on demand. It needs no
//! privileges, unlike traffic control or packet filters.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quorate_types::runtime::spawn;
use quorate_types::watch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

/// More connections than this through one proxy are refused.
pub const CONNECTIONS_MAX: usize = 1024;

/// What is read at once.
const CHUNK_BYTES: usize = 16 << 10;

/// Chunks that wait in one direction of one connection: bytes in flight on a
/// slow link. Beyond, the sender is not read from and feels it.
const CHUNKS_WAITING_MAX: usize = 64;

/// How long to wait after the system refused to accept, say for want of file
/// descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What happens to bytes in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// They pass.
    #[default]
    Pass,
    /// They wait, and pass later: a partition that heals before TCP gives up.
    Stall,
    /// They vanish, and nobody is told. A connection that lost bytes is closed
    /// when they may pass again; TCP would never deliver the rest without them.
    Drop,
}

/// How a proxy behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Behaviour {
    /// New connections are closed at once.
    pub refuses: bool,
    /// From the client to the server.
    pub to_server: Flow,
    /// From the server to the client.
    pub to_client: Flow,
    /// How long bytes take in either direction.
    pub delay: Duration,
}

impl Behaviour {
    /// Everything passes.
    #[must_use]
    pub fn healthy() -> Self {
        Self::default()
    }

    /// Nothing passes, and what was under way is lost.
    #[must_use]
    pub fn black_hole() -> Self {
        Self { to_server: Flow::Drop, to_client: Flow::Drop, ..Self::default() }
    }

    /// Nothing passes until it heals.
    #[must_use]
    pub fn stalled() -> Self {
        Self { to_server: Flow::Stall, to_client: Flow::Stall, ..Self::default() }
    }
}

/// Listens on a free loopback port and forwards to one server. Dropping it
/// closes the port and every connection.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    control: watch::Sender<Control>,
    connections: Arc<AtomicUsize>,
    listening: AbortHandle,
}

#[derive(Debug, Clone, Copy, Default)]
struct Control {
    behaviour: Behaviour,
    /// Connections made before the last increase are closed.
    generation: u64,
}

impl FaultProxy {
    /// Starts a healthy proxy to `server`.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (control, changes) = watch::channel(Control::default());
        let connections = Arc::new(AtomicUsize::new(0));
        let listening = spawn(listen(listener, server, changes, Arc::clone(&connections)));
        Ok(Self { address, control, connections, listening: listening.abort_handle() })
    }

    /// Where clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes how it behaves, open connections included.
    pub fn set(&self, behaviour: Behaviour) {
        self.control.modify(|control| {
            control.behaviour = behaviour;
            true
        });
    }

    /// How it behaves.
    #[must_use]
    pub fn behaviour(&self) -> Behaviour {
        self.control.borrow().behaviour
    }

    /// Resets every open connection.
    pub fn close_connections(&self) {
        self.control.modify(|control| {
            control.generation += 1;
            true
        });
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        // The connections end with their view of `control`.
        self.listening.abort();
    }
}

async fn listen(
    listener: TcpListener,
    server: SocketAddr,
    changes: watch::Receiver<Control>,
    connections: Arc<AtomicUsize>,
) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let open = Open::new(&connections);
        if changes.borrow().behaviour.refuses || open.count > CONNECTIONS_MAX {
            // A reset rather than an orderly end; without one it still ends.
            let _ = client.set_zero_linger();
            continue;
        }
        let changes = changes.clone();
        drop(spawn(async move {
            serve(client, server, changes).await;
            drop(open);
        }));
    }
}

/// Counts a connection while it is open.
struct Open {
    connections: Arc<AtomicUsize>,
    count: usize,
}

impl Open {
    fn new(connections: &Arc<AtomicUsize>) -> Self {
        let count = connections.fetch_add(1, Ordering::Relaxed) + 1;
        Self { connections: Arc::clone(connections), count }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Forwards both ways until either direction fails, both have ended, the
/// connection is closed on demand, or the proxy is gone.
async fn serve(mut client: TcpStream, server: SocketAddr, mut changes: watch::Receiver<Control>) {
    let generation = changes.get().generation;
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    // Without it bytes only take longer.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let is_orderly = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let there = Direction { changes: changes.clone(), flow: |behaviour| behaviour.to_server };
        let back = Direction { changes: changes.clone(), flow: |behaviour| behaviour.to_client };
        let forward = async {
            tokio::try_join!(there.pump(from_client, to_server), back.pump(from_server, to_client))
        };
        let closed = changes.wait_for(|control| control.generation > generation);
        tokio::select! {
            biased;
            _ = closed => false,
            end = forward => end.is_ok(),
        }
    };
    if !is_orderly {
        // Both ends get a reset; failing that, an end.
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

struct Direction {
    changes: watch::Receiver<Control>,
    flow: fn(&Behaviour) -> Flow,
}

impl Direction {
    async fn pump(self, from: ReadHalf<'_>, to: WriteHalf<'_>) -> io::Result<()> {
        let (chunks, waiting) = mpsc::channel(CHUNKS_WAITING_MAX);
        let delays = self.changes.clone();
        tokio::try_join!(read(from, chunks, delays), self.write(to, waiting)).map(drop)
    }

    async fn write(mut self, mut to: WriteHalf<'_>, mut waiting: Chunks) -> io::Result<()> {
        let mut lost_bytes = false;
        while let Some((due, chunk)) = waiting.recv().await {
            sleep_until(due).await;
            let is_open = |flow: Flow| flow != Flow::Stall;
            let flow = self.flow;
            let control = self.changes.wait_for(|control| is_open(flow(&control.behaviour))).await;
            let control = control.map_err(|_| io::ErrorKind::ConnectionReset)?;
            if flow(&control.behaviour) == Flow::Drop {
                lost_bytes = true;
            } else if lost_bytes {
                return Err(io::ErrorKind::ConnectionReset.into());
            } else {
                to.write_all(&chunk).await?;
            }
        }
        // The end of the stream passes as bytes do.
        let flow = self.flow;
        let control = self.changes.wait_for(|control| flow(&control.behaviour) == Flow::Pass).await;
        control.map_err(|_| io::ErrorKind::ConnectionReset)?;
        if lost_bytes { Err(io::ErrorKind::ConnectionReset.into()) } else { to.shutdown().await }
    }
}

type Chunks = mpsc::Receiver<(Instant, Vec<u8>)>;

async fn read(
    mut from: ReadHalf<'_>,
    chunks: mpsc::Sender<(Instant, Vec<u8>)>,
    delays: watch::Receiver<Control>,
) -> io::Result<()> {
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        let read = from.read(&mut chunk).await?;
        if read == 0 {
            return Ok(());
        }
        chunk.truncate(read);
        let due = Instant::now() + delays.borrow().behaviour.delay;
        if chunks.send((due, chunk)).await.is_err() {
            return Ok(());
        }
    }
}
