use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_types::NodeId;
use quorate_types::hello::Hello;
use quorate_types::runtime::BoxFuture;
use tokio::time::Instant;

use super::frames::BODY_BYTES_MAX;
use super::link::{Link, Outgoing};
use super::load::Held;
use crate::deadlines::{self, Deadlines};
use crate::transport::Lane;

/// Limits and timings of a [`Mesh`].
#[derive(Clone, Debug)]
pub struct MeshConfig {
    /// Messages that may wait for one connection, and requests of one channel
    /// that may wait for their turn on it. Beyond it the caller is refused, so
    /// that a slow peer costs memory only up to here.
    pub queued_messages_max: usize,
    /// Bytes that may wait likewise. A single larger message passes when
    /// nothing else waits.
    pub queued_bytes_max: usize,
    /// Requests of one channel of one inbound connection that may be in work.
    /// Beyond it a request on [`Lane::Request`](crate::Lane::Request) is
    /// refused at once; any other lane is not read until one has ended, and
    /// the caller's queue fills.
    pub inbound_requests_max: usize,
    /// Bytes of requests that may be in work likewise, and of one-way messages. A
    /// single larger one passes when nothing else is in work.
    pub inbound_bytes_max: usize,
    /// Requests of one channel that may be under way to one peer on
    /// [`Lane::Request`](crate::Lane::Request). Further ones wait for their
    /// turn, first come, first served, until their deadlines. Fewer than the
    /// peer takes in: it learns later than we do that a caller gave up.
    pub outbound_requests_max: usize,
    /// Bytes that may be under way likewise.
    pub outbound_bytes_max: usize,
    /// The longest that a request on [`Lane::Request`](crate::Lane::Request)
    /// is worked on, whatever its caller says of its own patience.
    pub inbound_work_max: Duration,
    /// One-way messages of one inbound connection that may be in work. Beyond
    /// it they are dropped, as their senders must expect. Most are done when
    /// they are first looked at and never count.
    pub inbound_messages_max: usize,
    /// Inbound connections that [`Mesh::listen`] holds at a time: four of
    /// each node of a large cluster, and what peers that vanished left behind.
    pub inbound_connections_max: usize,
    /// Callers that may introduce themselves at a time.
    pub inbound_handshakes_max: usize,
    /// How long a caller may take to introduce itself.
    pub handshake_deadline: Duration,
    /// The time to connect and to be welcomed.
    pub connect_deadline: Duration,
    /// The first pause after a failed connection; it doubles with each.
    pub backoff_min: Duration,
    /// The longest pause. Shorter than the silence after which elections
    /// begin, so that a peer that is back is heard before they do.
    pub backoff_max: Duration,
    /// A connection on which replies are due but none arrives for so long, not
    /// even to a ping, is given up: the peer or the way to it is dead. So for one
    /// over which only messages go that nobody answers.
    pub silence_max: Duration,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            queued_messages_max: 16 << 10,
            queued_bytes_max: 64 << 20,
            inbound_requests_max: 1024,
            inbound_bytes_max: 64 << 20,
            outbound_requests_max: 768,
            outbound_bytes_max: 48 << 20,
            inbound_work_max: Duration::from_secs(60),
            inbound_messages_max: 1024,
            inbound_connections_max: 6 << 10,
            inbound_handshakes_max: 256,
            handshake_deadline: Duration::from_secs(5),
            connect_deadline: Duration::from_secs(3),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            silence_max: Duration::from_secs(10),
        }
    }
}

/// Why a call brought no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeshError {
    /// Not sent: nobody knows the peer's address.
    #[error("the address of {0} is not known")]
    NoAddress(NodeId),
    /// Not sent: the peer could not be reached, or is left alone for a moment
    /// because it could not be reached just now.
    #[error("{to} cannot be reached: {reason}")]
    Unreachable {
        /// The peer.
        to: NodeId,
        /// Why.
        reason: Arc<str>,
    },
    /// Not sent: too much waits for the peer.
    #[error("too much is queued for {0}")]
    Busy(NodeId),
    /// Sent and not begun: too much is in work over there.
    #[error("{0} is overloaded; the request was not begun")]
    Overloaded(NodeId),
    /// Not sent: larger than any frame may be.
    #[error("a message of {bytes} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// The message's size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Sent, perhaps handled: the connection broke.
    #[error("the connection to {0} broke")]
    Disconnected(NodeId),
    /// Sent, perhaps handled: no reply in time. On a lane of requests the peer
    /// has stopped working on it, or soon will.
    #[error("{0} did not reply in time")]
    Deadline(NodeId),
    /// The service over there refused; the bytes are its own.
    #[error("refused by the service of {to}: {}", String::from_utf8_lossy(.reason))]
    Refused {
        /// The peer.
        to: NodeId,
        /// What its service said.
        reason: Bytes,
    },
    /// This mesh was shut down.
    #[error("the mesh is shut down")]
    Closed,
}

/// Where nodes listen. Asked for every new connection, so answers may change.
pub trait AddressBook: Send + Sync + 'static {
    /// The address of `node`, as text (`host:port`).
    fn address(&self, node: NodeId) -> Option<String>;

    /// Judges whoever answered at that address before anything is sent: an
    /// address may have passed to a node that must not be trusted, for instance
    /// one that lost its disk.
    ///
    /// # Errors
    /// Why nothing may be sent there.
    fn judge(&self, theirs: &Hello) -> Result<(), String> {
        let _ = theirs;
        Ok(())
    }
}

impl<F> AddressBook for F
where
    F: Fn(NodeId) -> Option<String> + Send + Sync + 'static,
{
    fn address(&self, node: NodeId) -> Option<String> {
        self(node)
    }
}

/// Says who we are; asked for every new connection. Lane and protocol are
/// filled in.
pub(super) type Introduction = Arc<dyn Fn() -> Hello + Send + Sync>;

/// Persistent connections to the other nodes, one per peer and lane.
///
/// Requests are pipelined: many may be under way on a connection, and replies
/// come in any order. What is sent on one lane arrives in the order in which it
/// was sent, as long as the connection lives. Nothing connects before the first
/// message; a broken connection is made anew by the next one, after a pause
/// that grows while the peer stays away.
///
/// Clones share the connections.
#[derive(Clone)]
pub struct Mesh {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) config: Arc<MeshConfig>,
    pub(super) introduce: Introduction,
    book: Arc<dyn AddressBook>,
    links: Mutex<BTreeMap<(NodeId, u8), Link>>,
    pub(super) tasks: Mutex<Vec<tokio::task::AbortHandle>>,
    pub(super) is_closed: AtomicBool,
    /// Of requests of both directions; there since the first of them, or since the
    /// first connection came in.
    deadlines: OnceLock<Arc<Deadlines>>,
}

impl Inner {
    pub(super) fn deadlines(&self) -> Arc<Deadlines> {
        Arc::clone(self.deadlines.get_or_init(|| Arc::new(Deadlines::start())))
    }
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh").field("links", &self.inner.links.lock().len()).finish()
    }
}

impl Mesh {
    /// A mesh that has no connection yet.
    pub fn new(
        config: MeshConfig,
        introduce: impl Fn() -> Hello + Send + Sync + 'static,
        book: impl AddressBook,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                config: Arc::new(config),
                introduce: Arc::new(introduce),
                book: Arc::new(book),
                links: Mutex::default(),
                tasks: Mutex::default(),
                is_closed: AtomicBool::new(false),
                deadlines: OnceLock::new(),
            }),
        }
    }

    /// Sends a request to the service behind `channel` at `to` and waits for
    /// its reply. The request takes its place in the lane's queue before this
    /// function returns, unless on [`Lane::Request`](crate::Lane::Request) as
    /// many as allowed are under way already.
    pub fn call(
        &self,
        to: NodeId,
        lane: u8,
        channel: u8,
        payload: Bytes,
        deadline: Duration,
    ) -> BoxFuture<Result<Bytes, MeshError>> {
        let until = deadlines::after(deadline);
        let link = match self.link(to, lane) {
            Ok(link) => link,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        if lane != Lane::Request.number() {
            return self.ask(&link, channel, payload, until, None);
        }
        let turns = link.turns();
        if let Some(turn) = turns.try_take(channel, payload.len()) {
            return self.ask(&link, channel, payload, until, Some(turn));
        }
        let mesh = self.clone();
        Box::pin(async move {
            let turn = tokio::time::timeout_at(until, turns.take(channel, payload.len())).await;
            let Ok(Some(turn)) = turn else { return Err(MeshError::Busy(to)) };
            let link = mesh.link(to, lane)?;
            mesh.ask(&link, channel, payload, until, Some(turn)).await
        })
    }

    /// Queues a request at once and waits for its reply, and holds its turn meanwhile.
    fn ask(
        &self,
        link: &Link,
        channel: u8,
        payload: Bytes,
        until: Instant,
        turn: Option<Held>,
    ) -> BoxFuture<Result<Bytes, MeshError>> {
        let to = link.to();
        let (outgoing, reply) = Outgoing::request(channel, payload, until);
        if let Err(error) = enqueue(link, outgoing) {
            return Box::pin(std::future::ready(Err(error)));
        }
        let deadlines = self.inner.deadlines();
        Box::pin(async move {
            let _turn = turn;
            match deadlines.bound(until, reply).await {
                None => Err(MeshError::Deadline(to)),
                Some(Err(_)) => Err(MeshError::Disconnected(to)),
                Some(Ok(result)) => result,
            }
        })
    }

    /// Sends a message that nobody answers. `Ok` means that it was queued; it
    /// may be lost all the same.
    ///
    /// # Errors
    /// [`MeshError`] when it certainly is not sent.
    pub fn send(&self, to: NodeId, lane: u8, channel: u8, payload: Bytes) -> Result<(), MeshError> {
        enqueue(&self.link(to, lane)?, Outgoing::oneway(channel, payload))
    }

    fn link(&self, to: NodeId, lane: u8) -> Result<Link, MeshError> {
        let mut links = self.inner.links.lock();
        if self.inner.is_closed.load(Ordering::Acquire) {
            return Err(MeshError::Closed);
        }
        Ok(links.entry((to, lane)).or_insert_with(|| self.open_link(to, lane)).clone())
    }

    fn open_link(&self, to: NodeId, lane: u8) -> Link {
        let config = Arc::clone(&self.inner.config);
        let introduce = Arc::clone(&self.inner.introduce);
        Link::open(to, lane, config, introduce, Arc::clone(&self.inner.book))
    }

    /// Closes the connections to a node that has left.
    pub fn forget(&self, node: NodeId) {
        self.inner.links.lock().retain(|&(to, _), link| {
            if to == node {
                link.close();
            }
            to != node
        });
    }

    /// Closes all connections; what is under way ends as `Disconnected`.
    pub fn shutdown(&self) {
        self.inner.is_closed.store(true, Ordering::Release);
        for link in std::mem::take(&mut *self.inner.links.lock()).into_values() {
            link.close();
        }
        for task in self.inner.tasks.lock().drain(..) {
            task.abort();
        }
    }
}

fn enqueue(link: &Link, outgoing: Outgoing) -> Result<(), MeshError> {
    let bytes = outgoing.body_bytes();
    if bytes > BODY_BYTES_MAX {
        return Err(MeshError::TooLarge { bytes, limit: BODY_BYTES_MAX });
    }
    link.enqueue(outgoing)
}
