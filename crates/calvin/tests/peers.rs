//! Calls and messages between the services of nodes, as bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_calvin::sequencer::Watermarks;
use quorate_calvin::{
    CallError, Destination, NodeServices, PeerMessage, Peers, Purpose, ReplyGate, Request, Route,
    Router, SequencerRoute, ServiceConfig, Wire, WirePeers,
};
use quorate_types::env::SystemClock;
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, Epoch, KeyRange, NodeId, ShardId};

const DEADLINE: Duration = Duration::from_secs(5);
const OWN: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);

/// Answers each call with what it was given and remembers who was sent to.
struct TestWire {
    reply: Result<Bytes, CallError>,
    sent: Mutex<Vec<(NodeId, Bytes)>>,
    asked_for: Mutex<Vec<Purpose>>,
}

impl Wire for TestWire {
    fn targets(&self, _to: Destination) -> Vec<NodeId> {
        vec![OWN, OTHER, NodeId(3)]
    }

    fn send(&self, to: NodeId, message: Bytes) {
        self.sent.lock().push((to, message));
    }

    fn call(
        &self,
        _to: NodeId,
        purpose: Purpose,
        _request: Bytes,
        _deadline: Duration,
    ) -> BoxFuture<Result<Bytes, CallError>> {
        self.asked_for.lock().push(purpose);
        Box::pin(std::future::ready(self.reply.clone()))
    }
}

/// Knows nothing.
struct NoRouter;

impl Router for NoRouter {
    fn locate(&self, _key: &[u8]) -> Option<Route> {
        None
    }

    fn overlapping(&self, _range: &KeyRange) -> Vec<Route> {
        Vec::new()
    }

    fn sequencer(&self) -> SequencerRoute {
        SequencerRoute::default()
    }

    fn learned(&self, _of: Destination, _leader: Option<NodeId>) {}

    fn moved(&self, _shard: ShardId) {}
}

struct Node {
    wire: Arc<TestWire>,
    peers: Arc<WirePeers>,
    gate: Arc<ReplyGate>,
    services: Arc<NodeServices>,
}

fn node(reply: Result<Bytes, CallError>) -> Node {
    let wire = Arc::new(TestWire { reply, sent: Mutex::default(), asked_for: Mutex::default() });
    let peers = Arc::new(WirePeers::new(OWN, Arc::clone(&wire) as Arc<dyn Wire>));
    let gate = Arc::new(ReplyGate::new());
    let services = Arc::new(NodeServices::new(
        OWN,
        Arc::clone(&peers) as Arc<dyn Peers>,
        Arc::new(NoRouter),
        Arc::clone(&gate),
        SystemClock::shared(),
        ServiceConfig::default(),
    ));
    Node { wire, peers, gate, services }
}

fn request() -> Request {
    Request::Slices { shard: ShardId(1), after: Epoch(0) }
}

fn watermarks(logged: u64) -> PeerMessage {
    let marks = Watermarks { logged: Epoch(logged), ..Watermarks::default() };
    PeerMessage::Watermarks { leader: OTHER, marks }
}

#[tokio::test]
async fn a_message_goes_to_the_others_as_bytes_and_to_this_node_directly() {
    let node = node(Err(CallError::NoReply));
    node.peers.connect(&node.services);
    node.peers.send(Destination::Everyone, watermarks(7));
    assert_eq!(node.gate.known().logged, Epoch(7));
    let sent = node.wire.sent.lock().clone();
    assert_eq!(sent.iter().map(|(to, _)| to.0).collect::<Vec<_>>(), [2, 3]);
    let receiver = self::node(Err(CallError::NoReply));
    receiver.services.receive(&sent[0].1).unwrap();
    assert_eq!(receiver.gate.known().logged, Epoch(7));
}

#[tokio::test]
async fn a_call_is_answered_the_same_here_and_elsewhere() {
    let elsewhere = node(Err(CallError::NoReply));
    let reply = elsewhere.services.answer(&request().to_bytes()).await.unwrap();
    let node = node(Ok(reply));
    node.peers.connect(&node.services);
    let here = node.peers.call(OWN, request(), DEADLINE).await.unwrap();
    let there = node.peers.call(OTHER, request(), DEADLINE).await.unwrap();
    assert_eq!(format!("{here:?}"), format!("{there:?}"));
}

#[tokio::test]
async fn the_wire_is_told_which_requests_are_clients() {
    let node = node(Err(CallError::NoReply));
    let keys = Request::Keys { shard: ShardId(1), from: Blob::new(), limit: 1 };
    for request in [keys, request(), Request::Map, Request::MiddleKey(ShardId(1))] {
        let _silent = node.peers.call(OTHER, request, DEADLINE).await;
    }
    use Purpose::{Client, Progress};
    assert_eq!(*node.wire.asked_for.lock(), [Client, Progress, Progress, Progress]);
}

#[tokio::test]
async fn a_reply_that_cannot_be_read_is_none_and_silence_stays_what_it_was() {
    let torn = node(Ok(Bytes::from_static(&[1, 0xc1])));
    assert_eq!(torn.peers.call(OTHER, request(), DEADLINE).await.err(), Some(CallError::NoReply));
    let cut = node(Err(CallError::Unreachable));
    let refused = cut.peers.call(OTHER, request(), DEADLINE).await.err();
    assert_eq!(refused, Some(CallError::Unreachable));
    let unconnected = cut.peers.call(OWN, request(), DEADLINE).await.err();
    assert_eq!(unconnected, Some(CallError::Unreachable));
}

#[tokio::test]
async fn hostile_bytes_are_refused() {
    let node = node(Err(CallError::NoReply));
    for junk in [&b""[..], &[1], &[250, 1], &[1, 0xc1, 0xff]] {
        assert!(node.services.answer(junk).await.is_err());
        assert!(node.services.receive(junk).is_err());
    }
}
