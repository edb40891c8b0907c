//! The transport over TCP. A connection is written by the one who dialed it
//! and read by the one who accepted it, one per (peer, lane) and direction:
//! nothing has to be agreed about duplicates, and a peer that cannot be
//! dialed back is found out instead of half working.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use parking_lot::Mutex;
use quorate_types::frame::{Frame, read_frame, write_frame};
use quorate_types::hello::{self, Hello, Protocol};
use quorate_types::runtime::{self, BoxFuture};
use quorate_types::{ClusterId, NodeId, watch};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::Judge;
use super::link::LinkQueue;
use crate::config::TcpConfig;
use crate::transport::{Connection, Destination, Inbound, Lane, Transmit, Transport};
use crate::wire::FRAME_BYTES_MAX;

/// Bytes read from a connection at a time, at least.
const READ_BUFFER_BYTES: usize = 4 << 10;

/// The outgoing side of one peer and lane.
struct Link {
    queue: Arc<LinkQueue>,
    task: AbortHandle,
}

/// An incoming connection.
struct Served {
    id: u64,
    task: Option<AbortHandle>,
}

impl Served {
    fn abort(self) {
        if let Some(task) = self.task {
            task.abort();
        }
    }
}

#[derive(Default)]
struct Connections {
    links: BTreeMap<(Destination, Lane), Link>,
    served: BTreeMap<NodeId, Vec<Served>>,
    served_count: usize,
    next_id: u64,
    closed: bool,
}

/// All connections of a node.
pub(crate) struct Tcp {
    hello: Mutex<Hello>,
    config: TcpConfig,
    inbound: mpsc::Sender<Inbound>,
    connections: Arc<Mutex<Connections>>,
    unwritten: watch::Sender<usize>,
}

impl Tcp {
    pub(crate) fn new(hello: Hello, config: TcpConfig, inbound: mpsc::Sender<Inbound>) -> Self {
        let hello = Hello { protocol: Protocol::Gossip, ..hello };
        let (unwritten, _) = watch::channel(0);
        let connections = Arc::default();
        Self { hello: Mutex::new(hello), config, inbound, connections, unwritten }
    }

    pub(crate) fn set_cluster(&self, cluster: ClusterId) {
        self.hello.lock().cluster = Some(cluster);
    }

    /// The answer to a caller, or what is wrong with it.
    pub(crate) fn judge(&self, theirs: &Hello) -> Result<Hello, String> {
        let ours = Hello { lane: theirs.lane, ..self.hello.lock().clone() };
        if theirs.protocol != Protocol::Gossip || Lane::from_number(theirs.lane).is_none() {
            return Err("this connection is for gossip, lanes 0 and 1".to_owned());
        }
        if strangers(&ours, theirs) {
            return Err("this node belongs to another cluster".to_owned());
        }
        if theirs.node == ours.node && theirs.disk != ours.disk {
            return Err(format!("{} is this node's id; choose another", ours.node));
        }
        Ok(ours)
    }

    pub(crate) async fn listen(self: Arc<Self>, listener: TcpListener, judge: Judge) {
        let handshakes = Arc::new(Semaphore::new(self.config.handshakes_max));
        loop {
            let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
            let (mut stream, _) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, or a caller that vanished: the
                    // listener outlives both.
                    tracing::warn!(%error, "accept failed");
                    sleep(self.config.backoff_min).await;
                    continue;
                }
            };
            let (tcp, judge) = (Arc::clone(&self), Arc::clone(&judge));
            drop(runtime::spawn(async move {
                let verdict = |theirs: &Hello| {
                    let ours = tcp.judge(theirs)?;
                    judge(theirs).map(|()| ours)
                };
                let deadline = tcp.config.dial_deadline;
                let answered = hello::answer(&mut stream, deadline, verdict).await;
                drop(permit);
                let served = match &answered {
                    Ok(theirs) => tcp.serve(stream, theirs, BytesMut::new()),
                    Err(error) => Err(error.to_string()),
                };
                if let Err(reason) = served {
                    tracing::debug!(reason, "caller turned away");
                }
            }));
        }
    }

    /// Reads a connection whose handshake is done, in a task of its own.
    pub(crate) fn serve<C>(&self, stream: C, theirs: &Hello, buffer: BytesMut) -> Result<(), String>
    where
        C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let lane = Lane::from_number(theirs.lane).ok_or("no such lane")?;
        let node = theirs.node;
        let place = self.take_place(node)?;
        let id = place.id;
        let reader = Reader {
            node,
            lane,
            config: self.config.clone(),
            inbound: self.inbound.clone(),
            introduction: introduction(theirs, None),
            _place: place,
        };
        // Not under the lock: a runtime that is shutting down drops the task,
        // and with it the place, right here.
        let task = runtime::spawn(reader.run(stream, buffer)).abort_handle();
        let mut connections = self.connections.lock();
        let served = connections.served.get_mut(&node);
        match served.and_then(|served| served.iter_mut().find(|served| served.id == id)) {
            Some(served) => served.task = Some(task),
            // Evicted, or all is closed.
            None => task.abort(),
        }
        Ok(())
    }

    fn take_place(&self, node: NodeId) -> Result<Place, String> {
        let mut connections = self.connections.lock();
        if connections.closed || connections.served_count >= self.config.inbound_max {
            return Err("too many connections".to_owned());
        }
        let id = connections.next_id;
        connections.next_id += 1;
        connections.served_count += 1;
        let served = connections.served.entry(node).or_default();
        served.push(Served { id, task: None });
        if served.len() > self.config.inbound_per_peer_max {
            // Left over from a life or a network that is gone.
            served.remove(0).abort();
        }
        Ok(Place { connections: Arc::clone(&self.connections), node, id })
    }

    fn link(&self, to: &Destination, lane: Lane) -> Link {
        let queue = Arc::new(LinkQueue::new(
            self.unwritten.clone(),
            self.config.queue_frames_max,
            self.config.queue_bytes_max,
        ));
        let ours = Hello { lane: lane.number(), ..self.hello.lock().clone() };
        let writer = Writer {
            to: to.clone(),
            lane,
            ours,
            queue: Arc::clone(&queue),
            config: self.config.clone(),
            inbound: self.inbound.clone(),
            connections: Arc::clone(&self.connections),
        };
        Link { queue, task: runtime::spawn(writer.run()).abort_handle() }
    }
}

impl Transport for Tcp {
    fn send(&self, transmit: Transmit) {
        let Transmit { to, lane, frame } = transmit;
        let mut connections = self.connections.lock();
        if connections.closed {
            return;
        }
        let key = (to, lane);
        if let Some(link) = connections.links.get(&key)
            && link.queue.push(frame.clone())
        {
            return;
        }
        let link = self.link(&key.0, lane);
        link.queue.push(frame);
        connections.links.insert(key, link);
    }

    fn flushed(&self) -> BoxFuture<()> {
        let mut unwritten = self.unwritten.subscribe();
        Box::pin(async move {
            // An error means that nobody is left to write.
            let _ = unwritten.wait_for(|unwritten| *unwritten == 0).await;
        })
    }

    fn close(&self) {
        let mut connections = self.connections.lock();
        connections.closed = true;
        let links = std::mem::take(&mut connections.links);
        let served = std::mem::take(&mut connections.served);
        drop(connections);
        links.into_values().for_each(|link| link.task.abort());
        served.into_values().flatten().for_each(Served::abort);
        // What waited will not be written.
        self.unwritten.send(0);
    }
}

/// Whether two nodes are known to belong to different clusters.
fn strangers(ours: &Hello, theirs: &Hello) -> bool {
    matches!((ours.cluster, theirs.cluster), (Some(ours), Some(theirs)) if ours != theirs)
}

fn introduction(theirs: &Hello, seed: Option<String>) -> Inbound {
    Inbound::Connection(Connection::Established {
        node: theirs.node,
        address: String::from_utf8_lossy(&theirs.address).into_owned(),
        incarnation: theirs.incarnation,
        seed,
    })
}

/// Gives an incoming connection's place back, however its task ends.
struct Place {
    connections: Arc<Mutex<Connections>>,
    node: NodeId,
    id: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut connections = self.connections.lock();
        connections.served_count = connections.served_count.saturating_sub(1);
        if let Some(served) = connections.served.get_mut(&self.node) {
            served.retain(|served| served.id != self.id);
            if served.is_empty() {
                connections.served.remove(&self.node);
            }
        }
    }
}

/// The task behind one incoming connection.
struct Reader {
    node: NodeId,
    lane: Lane,
    config: TcpConfig,
    inbound: mpsc::Sender<Inbound>,
    introduction: Inbound,
    _place: Place,
}

impl Reader {
    async fn run<C: AsyncRead + Unpin>(self, mut stream: C, mut buffer: BytesMut) {
        if self.inbound.send(self.introduction.clone()).await.is_err() {
            return;
        }
        let ended = self.read(&mut stream, &mut buffer).await;
        if let Err(error) = ended {
            tracing::debug!(node = %self.node, lane = ?self.lane, %error, "connection dropped");
        }
        if self.lane == Lane::Control {
            let closed = Inbound::Connection(Connection::Closed(self.node));
            let _ = self.inbound.send(closed).await;
        }
    }

    /// Until the connection ends. A queue that is full makes the peer wait,
    /// and only this peer.
    async fn read<C: AsyncRead + Unpin>(
        &self,
        stream: &mut C,
        buffer: &mut BytesMut,
    ) -> io::Result<()> {
        loop {
            if buffer.is_empty() {
                // Between frames a peer may be silent for long.
                buffer.reserve(READ_BUFFER_BYTES);
                let idle = self.config.idle_timeout.saturating_mul(2);
                if timeout(idle, stream.read_buf(buffer)).await?? == 0 {
                    return Ok(());
                }
            }
            let frame = read_frame(stream, buffer, FRAME_BYTES_MAX);
            let Some(frame) = timeout(self.config.frame_deadline, frame).await?? else {
                return Ok(());
            };
            let inbound = Inbound::Frame { from: self.node, lane: self.lane, frame };
            if self.inbound.send(inbound).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// The task behind one outgoing connection: dials when there is something to
/// say, and again, after a growing pause, when that fails.
struct Writer {
    to: Destination,
    lane: Lane,
    ours: Hello,
    queue: Arc<LinkQueue>,
    config: TcpConfig,
    inbound: mpsc::Sender<Inbound>,
    connections: Arc<Mutex<Connections>>,
}

/// How a connection came to its end.
enum Ending {
    /// Nothing to say for long.
    Idle,
    /// The peer closed it, or writing failed.
    Broken,
}

impl Writer {
    async fn run(self) {
        let mut pause = self.config.backoff_min;
        loop {
            let Ok(first) = timeout(self.config.idle_timeout, self.queue.next()).await else {
                if self.retire() {
                    return;
                }
                continue;
            };
            match self.dial().await {
                Ok(stream) => {
                    pause = self.config.backoff_min;
                    if matches!(self.write(stream, first).await, Ending::Broken) {
                        self.report_closed().await;
                    }
                }
                Err(reason) => {
                    tracing::debug!(to = ?self.to, lane = ?self.lane, reason, "dial failed");
                    self.queue.done();
                    // What was meant for then is not worth sending later.
                    self.queue.clear();
                    self.report_unreachable().await;
                    sleep(pause).await;
                    pause = (pause * 2).min(self.config.backoff_max);
                }
            }
            if matches!(self.to, Destination::Seed(_)) && self.retire() {
                return;
            }
        }
    }

    /// Ends the link unless something waits. Its place goes only if no
    /// successor has taken it.
    fn retire(&self) -> bool {
        let mut connections = self.connections.lock();
        if !self.queue.close_if_empty() {
            return false;
        }
        let key = (self.to.clone(), self.lane);
        let mine = |link: &Link| Arc::ptr_eq(&link.queue, &self.queue);
        if connections.links.get(&key).is_some_and(mine) {
            connections.links.remove(&key);
        }
        true
    }

    async fn dial(&self) -> Result<TcpStream, String> {
        let (address, seed) = match &self.to {
            Destination::Node { address, .. } => (address, None),
            Destination::Seed(address) => (address, Some(address.clone())),
        };
        let shaken = async {
            let mut stream =
                TcpStream::connect(address).await.map_err(|error| error.to_string())?;
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            let theirs = hello::dial(&mut stream, &self.ours, self.config.dial_deadline)
                .await
                .map_err(|error| error.to_string())?;
            Ok::<_, String>((stream, theirs))
        };
        let (stream, theirs) =
            timeout(self.config.dial_deadline, shaken).await.map_err(|_| "timed out")??;
        if strangers(&self.ours, &theirs) {
            return Err("belongs to another cluster".to_owned());
        }
        if matches!(&self.to, Destination::Node { node, .. } if *node != theirs.node) {
            return Err(format!("{} answers at its address", theirs.node));
        }
        let _ = self.inbound.send(introduction(&theirs, seed)).await;
        Ok(stream)
    }

    /// Writes until the connection ends or, for a seed, nothing waits.
    async fn write(&self, mut stream: TcpStream, first: Frame) -> Ending {
        let mut next = Some(first);
        loop {
            if let Some(frame) = next.take() {
                let written =
                    timeout(self.config.frame_deadline, write_frame(&mut stream, &frame)).await;
                self.queue.done();
                if !matches!(written, Ok(Ok(()))) {
                    return Ending::Broken;
                }
            }
            if matches!(self.to, Destination::Seed(_)) && self.queue.close_if_empty() {
                return Ending::Idle;
            }
            let mut nothing = [0];
            tokio::select! {
                biased;
                // The peer never writes here: this is its end of the line.
                _ = stream.read(&mut nothing) => return Ending::Broken,
                frame = self.queue.next() => next = Some(frame),
                () = sleep(self.config.idle_timeout) => return Ending::Idle,
            }
        }
    }

    async fn report_closed(&self) {
        if let (Destination::Node { node, .. }, Lane::Control) = (&self.to, self.lane) {
            let _ = self.inbound.send(Inbound::Connection(Connection::Closed(*node))).await;
        }
    }

    async fn report_unreachable(&self) {
        if let Destination::Node { node, .. } = &self.to {
            let unreachable = Connection::Unreachable(*node);
            let _ = self.inbound.send(Inbound::Connection(unreachable)).await;
        }
    }
}

#[cfg(test)]
mod tests;
