//! The key in the middle of a shard's data, from whoever has a replica.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_calvin::{
    CallError, Destination, NodeServices, PeerMessage, Peers, Reply, ReplyGate, Request, Route,
    Router, SequencerRoute, ServiceConfig,
};
use quorate_types::env::SystemClock;
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, KeyRange, NodeId, ShardEpoch, ShardId};

use super::gate::{A, start, write};
use super::wires::{CLIENTS, node_of};
use super::world::run;
use crate::support::blob;

#[test]
fn the_own_replica_tells_and_others_are_asked_only_without_one() {
    run(1, async {
        let world = start().await;
        let (home, elsewhere) = (world.services(node_of(A)), world.services(CLIENTS));
        world.spawn(vec![write(&["a"], "1")]).await.unwrap();
        assert_eq!(elsewhere.middle_key(A).await, None, "one row has no middle");
        world.spawn(vec![write(&["aa"], "1"), write(&["ab"], "1")]).await.unwrap();
        let is_asked = |(_, request): &(NodeId, Request)| *request == Request::MiddleKey(A);
        let asked = || world.wires.asked().iter().filter(|asked| is_asked(asked)).count();
        let asked_before = asked();
        assert_eq!(home.middle_key(A).await, Some(blob("aa")));
        assert_eq!(asked(), asked_before);
        assert_eq!(elsewhere.middle_key(A).await, Some(blob("aa")));
        assert_eq!(asked(), asked_before + 1);
    });
}

/// Nodes that answer like this, the voters of one shard; a node without an
/// answer is down.
#[derive(Default)]
struct Voters {
    replies: BTreeMap<NodeId, Reply>,
    asked: Mutex<Vec<NodeId>>,
}

impl Peers for Voters {
    fn send(&self, _: Destination, _: PeerMessage) {}

    fn call(&self, to: NodeId, _: Request, _: Duration) -> BoxFuture<Result<Reply, CallError>> {
        self.asked.lock().push(to);
        let reply = self.replies.get(&to).cloned().ok_or(CallError::Unreachable);
        Box::pin(std::future::ready(reply))
    }
}

impl Router for Voters {
    fn locate(&self, _: &[u8]) -> Option<Route> {
        None
    }

    fn overlapping(&self, _: &KeyRange) -> Vec<Route> {
        let voters = (1..=5).map(NodeId).collect();
        let (range, epoch) = (KeyRange::all(), ShardEpoch(1));
        vec![Route { shard: A, epoch, range, leader: None, voters }]
    }

    fn sequencer(&self) -> SequencerRoute {
        SequencerRoute::default()
    }

    fn learned(&self, _: Destination, _: Option<NodeId>) {}

    fn moved(&self, _: ShardId) {}
}

/// What node 1, which has no replica, finds, and whom it asked.
async fn found(shard: ShardId, replies: &[(u64, Reply)]) -> (Option<Blob>, Vec<u64>) {
    let replies = replies.iter().map(|(node, reply)| (NodeId(*node), reply.clone()));
    let voters = Arc::new(Voters { replies: replies.collect(), ..Voters::default() });
    let services = NodeServices::new(
        NodeId(1),
        Arc::<Voters>::clone(&voters),
        Arc::<Voters>::clone(&voters),
        Arc::new(ReplyGate::new()),
        SystemClock::shared(),
        ServiceConfig::default(),
    );
    let key = services.middle_key(shard).await;
    let asked = voters.asked.lock().iter().map(|node| node.0).collect();
    (key, asked)
}

#[tokio::test]
async fn voters_are_asked_until_one_tells() {
    let replies = [
        (3, Reply::NotLeader(None)), // Its replica is empty yet.
        (4, Reply::MiddleKey(Some(blob("m")))),
        (5, Reply::MiddleKey(Some(blob("n")))),
    ];
    assert_eq!(found(A, &replies).await, (Some(blob("m")), vec![2, 3, 4]));
}

#[tokio::test]
async fn where_nobody_can_tell_there_is_no_middle() {
    let replies = [(3, Reply::Unknown), (4, Reply::MiddleKey(None))];
    assert_eq!(found(A, &replies).await, (None, vec![2, 3, 4, 5]));
    assert_eq!(found(ShardId(9), &replies).await, (None, Vec::new()), "no route names it");
}
