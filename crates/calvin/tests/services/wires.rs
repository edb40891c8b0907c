//! The wires between the nodes: everything is encoded, travels a while, and
//! may be held back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_calvin::{
    CallError, Destination, Execute, NodeServices, PeerMessage, Peers, Reply, Request, Route,
    Router, SequencerRoute, ShardMap, Submission,
};
use quorate_types::env::{Rng, SplitMix};
use quorate_types::runtime::{self, BoxFuture};
use quorate_types::{ClientId, KeyRange, NodeId, ShardId, watch};

/// Where the sequencer is.
pub const SEQUENCER: NodeId = NodeId(1_000);
/// Where the clients are.
pub const CLIENTS: NodeId = NodeId(2_000);

/// Where a shard is.
pub const fn node_of(shard: ShardId) -> NodeId {
    NodeId(shard.0)
}

/// Something that does not arrive before it is released.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Held {
    /// A shard's slices, pushed or pulled.
    Slices(ShardId),
    /// The watermarks on their way to a node.
    Watermarks(NodeId),
    /// What other participants read, on its way to a shard.
    Contributions(ShardId),
    /// The replies to a client.
    RepliesTo(ClientId),
}

pub struct Wires {
    map: ShardMap,
    nodes: Mutex<BTreeMap<NodeId, Weak<NodeServices>>>,
    held: watch::Sender<BTreeSet<Held>>,
    chance: Mutex<SplitMix>,
    /// What nodes were asked, in order.
    asked: Mutex<Vec<(NodeId, Request)>>,
}

impl Wires {
    pub fn new(map: ShardMap, seed: u64) -> Arc<Self> {
        let (held, _) = watch::channel(BTreeSet::new());
        Arc::new(Self {
            map,
            nodes: Mutex::default(),
            held,
            chance: Mutex::new(SplitMix::new(seed)),
            asked: Mutex::default(),
        })
    }

    pub fn connect(&self, node: NodeId, services: &Arc<NodeServices>) {
        self.nodes.lock().insert(node, Arc::downgrade(services));
    }

    pub fn hold(&self, what: Held) {
        self.held.modify(|held| held.insert(what));
    }

    pub fn release(&self, what: Held) {
        self.held.modify(|held| held.remove(&what));
    }

    pub fn release_everything(&self) {
        self.held.send(BTreeSet::new());
    }

    pub fn asked(&self) -> Vec<(NodeId, Request)> {
        self.asked.lock().clone()
    }

    /// Passes once nothing holds it back any more, and a little later.
    async fn travel(&self, what: Option<Held>) {
        if let Some(what) = what {
            let mut held = self.held.subscribe();
            held.wait_for(|held| !held.contains(&what)).await.expect("the wires live");
        }
        let millis = self.chance.lock().below(4);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    fn services(&self, node: NodeId) -> Option<Arc<NodeServices>> {
        self.nodes.lock().get(&node).and_then(Weak::upgrade)
    }

    fn targets(&self, to: Destination) -> Vec<NodeId> {
        match to {
            Destination::Shard(shard) => vec![node_of(shard)],
            Destination::Sequencer => vec![SEQUENCER],
            Destination::Everyone => self.nodes.lock().keys().copied().collect(),
        }
    }

    async fn serve(&self, to: NodeId, request: Request) -> Option<Reply> {
        let (there, back) = match &request {
            Request::Slices { shard, .. } => (Some(Held::Slices(*shard)), None),
            Request::Execute(Execute { request, .. })
            | Request::Submit(Submission { request, .. })
            | Request::Await { request, .. }
            | Request::Fence { request, .. } => (None, Some(Held::RepliesTo(request.client))),
            Request::Change(_) | Request::Map | Request::Keys { .. } | Request::MiddleKey(_) => {
                (None, None)
            }
        };
        self.travel(there).await;
        let request = Request::from_bytes(&request.to_bytes()).unwrap();
        let reply = self.services(to)?.serve(request).await;
        let reply = Reply::from_bytes(&reply.to_bytes()).unwrap();
        self.travel(back).await;
        Some(reply)
    }
}

/// The wires as a node holds them.
pub struct End(pub Arc<Wires>);

impl Peers for End {
    fn send(&self, to: Destination, message: PeerMessage) {
        let bytes = message.to_bytes();
        for node in self.0.targets(to) {
            let what = match &message {
                PeerMessage::Slices { to, .. } => Some(Held::Slices(*to)),
                PeerMessage::Contribute { to, .. } => Some(Held::Contributions(*to)),
                PeerMessage::Watermarks { .. } => Some(Held::Watermarks(node)),
                PeerMessage::Ask { .. } | PeerMessage::Report { .. } => None,
            };
            let (wires, bytes) = (Arc::clone(&self.0), bytes.clone());
            drop(runtime::spawn(async move {
                wires.travel(what).await;
                if let Some(services) = wires.services(node) {
                    services.handle(PeerMessage::from_bytes(&bytes).unwrap());
                }
            }));
        }
    }

    fn call(
        &self,
        to: NodeId,
        request: Request,
        deadline: Duration,
    ) -> BoxFuture<Result<Reply, CallError>> {
        self.0.asked.lock().push((to, request.clone()));
        let wires = Arc::clone(&self.0);
        Box::pin(async move {
            // The node that is asked goes on when nobody waits any more.
            let serving = runtime::spawn(async move { wires.serve(to, request).await });
            match tokio::time::timeout(deadline, serving).await {
                Ok(served) => served.expect("no service panics").ok_or(CallError::Unreachable),
                Err(_) => Err(CallError::NoReply),
            }
        })
    }
}

impl Router for End {
    fn locate(&self, key: &[u8]) -> Option<Route> {
        let entry = self.0.map.locate(key)?;
        let node = node_of(entry.shard);
        Some(Route {
            shard: entry.shard,
            epoch: entry.epoch,
            range: entry.range.clone(),
            leader: Some(node),
            voters: vec![node],
        })
    }

    fn overlapping(&self, range: &KeyRange) -> Vec<Route> {
        let shards = self.0.map.overlapping(range);
        shards.filter_map(|shard| self.locate(&shard.range.start)).collect()
    }

    fn sequencer(&self) -> SequencerRoute {
        SequencerRoute { leader: Some(SEQUENCER), voters: vec![SEQUENCER] }
    }

    fn learned(&self, _: Destination, _: Option<NodeId>) {}

    fn moved(&self, _: ShardId) {}
}
