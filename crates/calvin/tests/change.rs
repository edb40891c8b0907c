//! Bringing a map change into the order when the sequencer moves, repeats
//! itself or falls silent.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::time::Duration;

use parking_lot::Mutex;
use quorate_calvin::{
    CallError, ChangeError, ChangeOrder, Destination, MapChange, MapShard, PeerMessage, Peers,
    Reply, Request, Route, Router, SequencerRoute, ShardMap, order_change,
};
use quorate_types::runtime::BoxFuture;
use quorate_types::{Epoch, KeyRange, NodeId, Seq, ShardEpoch, ShardId};

const PARENT: ShardId = ShardId(1);
const CHILD: ShardId = ShardId(2);

/// Node 1 is down, node 2 follows, node 3 leads with this map and answers a
/// change like this.
struct Cluster {
    voters: Vec<NodeId>,
    map: ShardMap,
    answer: Result<Reply, CallError>,
    changes: Mutex<Vec<(NodeId, MapChange)>>,
}

impl Cluster {
    fn new(shards: &[ShardId], answer: Result<Reply, CallError>) -> Self {
        let shard = |shard: &ShardId| MapShard {
            shard: *shard,
            range: KeyRange::all(),
            epoch: ShardEpoch(1),
        };
        let map = ShardMap { version: 7, shards: shards.iter().map(shard).collect() };
        Self { voters: [1, 2, 3].map(NodeId).to_vec(), map, answer, changes: Mutex::default() }
    }

    async fn order(&self) -> Result<ChangeOrder, ChangeError> {
        let change = MapChange {
            version: 0,
            parent: PARENT,
            at: "m".into(),
            child: CHILD,
            members: Seq::new(),
            epoch: ShardEpoch(2),
        };
        order_change(self, self, change).await
    }
}

impl Peers for Cluster {
    fn send(&self, _to: Destination, _message: PeerMessage) {}

    fn call(
        &self,
        to: NodeId,
        request: Request,
        _deadline: Duration,
    ) -> BoxFuture<Result<Reply, CallError>> {
        let reply = match (to.0, request) {
            (1, _) => Err(CallError::Unreachable),
            (2, _) => Ok(Reply::NotLeader(None)),
            (_, Request::Map) => Ok(Reply::Map(self.map.clone())),
            (_, Request::Change(change)) => {
                self.changes.lock().push((to, change));
                self.answer.clone()
            }
            (_, other) => panic!("{other:?}"),
        };
        Box::pin(async move { reply })
    }
}

impl Router for Cluster {
    fn locate(&self, _key: &[u8]) -> Option<Route> {
        None
    }

    fn overlapping(&self, _range: &KeyRange) -> Vec<Route> {
        Vec::new()
    }

    fn sequencer(&self) -> SequencerRoute {
        SequencerRoute { leader: Some(NodeId(2)), voters: self.voters.clone() }
    }

    fn learned(&self, _of: Destination, _leader: Option<NodeId>) {}

    fn moved(&self, _shard: ShardId) {}
}

#[tokio::test]
async fn a_change_is_ordered_after_the_map_of_whoever_leads() {
    let cluster = Cluster::new(&[PARENT], Ok(Reply::Changed(Epoch(9))));
    assert_eq!(cluster.order().await, Ok(ChangeOrder::Now(Epoch(9))));
    let changes = cluster.changes.lock();
    assert_eq!((changes[0].0, changes[0].1.version, changes.len()), (NodeId(3), 8, 1));
}

#[tokio::test]
async fn a_child_that_the_map_shows_is_not_ordered_again() {
    let cluster = Cluster::new(&[PARENT, CHILD], Ok(Reply::Changed(Epoch(9))));
    assert_eq!(cluster.order().await, Ok(ChangeOrder::Before));
    assert_eq!(cluster.changes.lock().len(), 0);
}

#[tokio::test]
async fn a_lost_answer_is_no_answer() {
    for answer in [Err(CallError::NoReply), Ok(Reply::Unknown), Ok(Reply::NotChanged("no".into()))]
    {
        let cluster = Cluster::new(&[PARENT], answer);
        let outcome = cluster.order().await;
        assert!(matches!(outcome, Err(ChangeError::Unknown(_))), "{outcome:?}");
    }
}

#[tokio::test]
async fn without_a_leader_nothing_is_ordered() {
    let mut cluster = Cluster::new(&[PARENT], Ok(Reply::Unknown));
    cluster.voters.pop();
    assert_eq!(cluster.order().await, Err(ChangeError::NoSequencer));
}
