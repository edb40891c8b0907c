//! The simulated network as a node's own: one message type for all layers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use quorate::types::NodeId;
use quorate::types::frame::{FRAME_PAYLOAD_BYTES_MAX, Frame};
use quorate::types::hello::Hello;
use quorate::types::runtime::{self, BoxFuture};
use quorate::{Network, Service, TransportError};
use quorate_gossip::{Connection, Destination, Inbound, Transmit};
use quorate_raft::Lane;
use quorate_testkit::sim::{CallError, SimNetwork, SimNode, Trace};
use tokio::sync::{Semaphore, mpsc};

use super::ledger::Tap;

/// Gossip's channel, next to those of the facade.
const GOSSIP: u8 = 0;
/// The channel on which somebody asks who is there.
const INTRODUCTION: u8 = u8::MAX;
/// The facade's channels of Raft and of the transaction services. What is
/// asked of the metadata goes over any other.
const RAFT_AND_SERVICES: [u8; 4] = [1, 2, 3, 4];
/// The channel of the services' one-way messages.
const MESSAGES: u8 = 3;
/// How long a frame of gossip may be under way before its peer counts as out
/// of reach.
const GOSSIP_DEADLINE: Duration = Duration::from_secs(1);
/// As many frames as a node's own queue takes.
const INBOUND_MAX: usize = 1024;
/// What a node answers that has no room.
const NO_ROOM: &str = "no room";
/// What it answers when the caller has stopped waiting.
const TOO_LATE: &str = "too late";

/// Where a node listens.
pub(super) fn address(node: NodeId) -> String {
    format!("node-{}", node.0)
}

fn node_at(address: &str) -> NodeId {
    NodeId(address.strip_prefix("node-").unwrap().parse().unwrap())
}

/// What a node may be deaf to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ear {
    /// Everything that gossip says.
    Gossip,
    /// What the metadata group answers, and whoever else is asked for control.
    Control,
}

/// Who hears nothing of what. Clones are the same.
#[derive(Clone, Default)]
pub struct Deafness(Arc<Mutex<BTreeSet<(NodeId, Ear)>>>);

impl Deafness {
    /// From now on.
    pub fn begin(&self, node: NodeId, ear: Ear) {
        self.0.lock().insert((node, ear));
    }

    /// Hears everything again.
    pub fn end(&self, node: NodeId) {
        self.0.lock().retain(|(deaf, _)| *deaf != node);
    }

    fn has(&self, node: NodeId, ear: Ear) -> bool {
        self.0.lock().contains(&(node, ear))
    }
}

/// What ports are opened on.
pub(super) struct Medium {
    pub(super) network: SimNetwork,
    pub(super) deafness: Deafness,
    pub(super) trace: Trace,
    /// Requests of one channel of one peer that a node works on.
    pub(super) room: usize,
}

/// One life of a node, as seen by the network.
pub(super) struct Port {
    medium: Medium,
    node: NodeId,
    life: u64,
    service: OnceLock<Arc<dyn Service>>,
    inbound: mpsc::Sender<Inbound>,
    /// The lives of peers that have introduced themselves.
    met: Mutex<BTreeMap<NodeId, u64>>,
    /// What is left of each peer's room, by channel.
    rooms: Mutex<BTreeMap<(NodeId, u8), Arc<Semaphore>>>,
    is_closed: AtomicBool,
    tap: Option<Tap>,
}

impl Port {
    pub(super) fn open(
        medium: Medium,
        node: &Arc<SimNode>,
        tap: Option<Tap>,
    ) -> (Arc<Self>, mpsc::Receiver<Inbound>) {
        let (inbound, queue) = mpsc::channel(INBOUND_MAX);
        let port = Arc::new(Self {
            medium,
            node: node.id(),
            life: node.life(),
            service: OnceLock::new(),
            inbound,
            met: Mutex::default(),
            rooms: Mutex::default(),
            is_closed: AtomicBool::new(false),
            tap,
        });
        let receiver = Arc::clone(&port);
        port.medium.network.register(
            node,
            Arc::new(move |from, message| {
                let port = Arc::clone(&receiver);
                Box::pin(async move { port.receive(from, message).await })
            }),
        );
        (port, queue)
    }

    /// Lets requests arrive.
    pub(super) fn serve(&self, service: Arc<dyn Service>) {
        assert!(self.service.set(service).is_ok(), "a life serves once");
    }

    async fn receive(&self, from: NodeId, mut message: Bytes) -> Result<Bytes, String> {
        let channel = message.get_u8();
        match channel {
            GOSSIP if self.medium.deafness.has(self.node, Ear::Gossip) => {
                return Err("deaf".to_owned());
            }
            GOSSIP if self.is_closed.load(Ordering::Relaxed) => return Err("closed".to_owned()),
            GOSSIP => return self.receive_gossip(from, message),
            INTRODUCTION => return Ok(Bytes::new()),
            _ => {}
        }
        let patience = Duration::from_millis(message.get_u64());
        let service = self.service.get().ok_or("the node is starting")?;
        let handling = service.handle(from, channel, message);
        let handled = if patience.is_zero() {
            handling.await
        } else {
            let Ok(_room) = self.room(from, channel).try_acquire_owned() else {
                self.medium.trace.record(format_args!("{NO_ROOM} on channel {channel}"));
                return Err(NO_ROOM.to_owned());
            };
            tokio::time::timeout(patience, handling).await.map_err(|_| TOO_LATE)?
        };
        handled.map_err(|refusal| String::from_utf8_lossy(&refusal).into_owned())
    }

    fn room(&self, from: NodeId, channel: u8) -> Arc<Semaphore> {
        let mut rooms = self.rooms.lock();
        let room = rooms
            .entry((from, channel))
            .or_insert_with(|| Arc::new(Semaphore::new(self.medium.room)));
        Arc::clone(room)
    }

    fn receive_gossip(&self, from: NodeId, mut message: Bytes) -> Result<Bytes, String> {
        let lane = quorate_gossip::Lane::from_number(message.get_u8()).unwrap();
        self.meet(from, message.get_u64(), None);
        let frame = Frame::decode(&mut BytesMut::from(message), FRAME_PAYLOAD_BYTES_MAX);
        self.bring_in(Inbound::Frame { from, lane, frame: frame.unwrap().unwrap() });
        let mut introduction = BytesMut::new();
        introduction.put_u64(self.life);
        Ok(introduction.freeze())
    }

    /// Tells gossip about a peer's introduction: the first of each life, and
    /// every one that a seed's address led to.
    fn meet(&self, node: NodeId, life: u64, seed: Option<String>) {
        let is_known = self.met.lock().insert(node, life) == Some(life);
        if !is_known || seed.is_some() {
            let (address, incarnation) = (address(node), life);
            let met = Connection::Established { node, address, incarnation, seed };
            self.bring_in(Inbound::Connection(met));
        }
    }

    fn bring_in(&self, inbound: Inbound) {
        // A full queue loses it, as gossip allows.
        let _ = self.inbound.try_send(inbound);
    }

    fn seal(&self, channel: u8, payload: &[u8]) -> Bytes {
        let mut message = BytesMut::with_capacity(payload.len() + 1);
        message.put_u8(channel);
        message.put_slice(payload);
        message.freeze()
    }

    /// A message to a service. How long its caller waits is said of requests
    /// only, as their lane asks: there they end then, or are refused.
    fn address(&self, lane: Lane, channel: u8, patience: Duration, payload: &[u8]) -> Bytes {
        let mut message = BytesMut::with_capacity(payload.len() + 9);
        message.put_u8(channel);
        let millis = if lane == Lane::Request { patience.as_millis().max(1) } else { 0 };
        message.put_u64(u64::try_from(millis).unwrap());
        message.put_slice(payload);
        message.freeze()
    }
}

/// The port as the facade's network and as gossip's transport.
pub(super) struct Ways(pub(super) Arc<Port>);

impl Network for Ways {
    fn call(
        &self,
        to: NodeId,
        lane: Lane,
        channel: u8,
        payload: Bytes,
        deadline: Duration,
    ) -> BoxFuture<Result<Bytes, TransportError>> {
        let is_control = !RAFT_AND_SERVICES.contains(&channel);
        if is_control && self.0.medium.deafness.has(self.0.node, Ear::Control) {
            let deaf = TransportError::Unreachable { to, reason: "deaf".to_owned() };
            return Box::pin(std::future::ready(Err(deaf)));
        }
        let message = self.0.address(lane, channel, deadline, &payload);
        let (network, from) = (&self.0.medium.network, self.0.node);
        // Whoever refuses a request says that nobody has begun it.
        let call = match lane {
            Lane::Request => network.call(from, to, message, deadline),
            _ => network.call_repeatedly(from, to, message, deadline),
        };
        Box::pin(async move {
            call.await.map_err(|error| match error {
                CallError::NotDelivered { reason, .. } => {
                    TransportError::Unreachable { to, reason }
                }
                CallError::Unknown { .. } => TransportError::Deadline { to },
                CallError::Rejected { reason, .. } if reason == NO_ROOM => {
                    TransportError::Busy { to }
                }
                CallError::Rejected { reason, .. } if reason == TOO_LATE => {
                    TransportError::Deadline { to }
                }
                CallError::Rejected { reason, .. } => TransportError::Rejected { to, reason },
            })
        })
    }

    fn send(&self, to: NodeId, lane: Lane, channel: u8, payload: Bytes) {
        if let Some(tap) = self.0.tap.as_ref().filter(|_| channel == MESSAGES) {
            tap.sent(&payload);
        }
        let message = self.0.address(lane, channel, Duration::ZERO, &payload);
        self.0.medium.network.send(self.0.node, to, message);
    }

    /// Who is there follows from the address; whether they are has to be asked.
    fn introduce(&self, to: &str, ours: Hello) -> BoxFuture<Result<Option<Hello>, String>> {
        let (node, question) = (node_at(to), self.0.seal(INTRODUCTION, &[]));
        let call = self.0.medium.network.call(self.0.node, node, question, GOSSIP_DEADLINE);
        let theirs = Hello { node, address: to.into(), ..ours };
        Box::pin(async move { Ok(call.await.ok().map(|_| theirs)) })
    }
}

impl quorate_gossip::Transport for Ways {
    fn send(&self, transmit: Transmit) {
        let port = Arc::clone(&self.0);
        if port.is_closed.load(Ordering::Relaxed) {
            return;
        }
        let (to, seed) = match transmit.to {
            Destination::Node { node, .. } => (node, None),
            Destination::Seed(address) => (node_at(&address), Some(address)),
        };
        let mut message = BytesMut::new();
        message.put_u8(GOSSIP);
        message.put_u8(transmit.lane.number());
        message.put_u64(port.life);
        transmit.frame.encode(&mut message).unwrap();
        let (network, message) = (&port.medium.network, message.freeze());
        let call = network.call_repeatedly(port.node, to, message, GOSSIP_DEADLINE);
        drop(runtime::spawn(async move {
            match call.await {
                Ok(mut introduction) => port.meet(to, introduction.get_u64(), seed),
                Err(_) => port.bring_in(Inbound::Connection(Connection::Unreachable(to))),
            }
        }));
    }

    fn flushed(&self) -> BoxFuture<()> {
        Box::pin(std::future::ready(()))
    }

    fn close(&self) {
        self.0.is_closed.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
