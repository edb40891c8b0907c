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
    CallError, ChangeError, ChangeOrder, Destination, MapChange, MapShard, Member, Misfit,
    NeverFits, PeerMessage, Peers, Reply, Request, Route, Router, SequencerRoute, ShardMap,
    order_change,
};
use quorate_types::runtime::BoxFuture;
use quorate_types::{Epoch, KeyRange, NodeId, ReplicaId, ShardEpoch, ShardId};

const PARENT: ShardId = ShardId(1);
const CHILD: ShardId = ShardId(2);

/// Node 1 is down, node 2 follows, node 3 leads with this map and answers a
/// change like this, after the map has become what it is afterwards.
struct Cluster {
    voters: Vec<NodeId>,
    map: Mutex<ShardMap>,
    afterwards: ShardMap,
    answer: Result<Reply, CallError>,
    changes: Mutex<Vec<(NodeId, MapChange)>>,
}

impl Cluster {
    fn new(map: ShardMap, afterwards: ShardMap, answer: Result<Reply, CallError>) -> Self {
        Self {
            voters: [1, 2, 3].map(NodeId).to_vec(),
            map: Mutex::new(map),
            afterwards,
            answer,
            changes: Mutex::default(),
        }
    }

    async fn order(&self) -> Result<ChangeOrder, ChangeError> {
        order_change(self, self, MapChange { version: 0, ..cut() }).await
    }

    /// The versions that were asked for at the leader.
    fn asked(&self) -> Vec<u64> {
        let changes = self.changes.lock();
        assert!(changes.iter().all(|(to, _)| *to == NodeId(3)));
        changes.iter().map(|(_, change)| change.version).collect()
    }
}

/// One shard with all keys.
fn uncut() -> ShardMap {
    let parent = MapShard { shard: PARENT, range: KeyRange::all(), epoch: ShardEpoch(0) };
    ShardMap { version: 7, shards: vec![parent].into() }
}

fn cut() -> MapChange {
    MapChange {
        version: 8,
        parent: PARENT,
        at: "m".into(),
        child: CHILD,
        members: vec![Member { replica: ReplicaId(1), node: NodeId(1) }].into(),
        epoch: ShardEpoch(2),
    }
}

/// The map after a change.
fn after(change: &MapChange) -> ShardMap {
    let mut map = uncut();
    map.change(change).unwrap();
    map
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
            (_, Request::Map) => Ok(Reply::Map(self.map.lock().clone())),
            (_, Request::Change(change)) => {
                self.changes.lock().push((to, change));
                self.map.lock().clone_from(&self.afterwards);
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
    let cluster = Cluster::new(uncut(), after(&cut()), Ok(Reply::Changed(Epoch(9))));
    assert_eq!(cluster.order().await, Ok(ChangeOrder::Now(Epoch(9))));
    assert_eq!(cluster.asked(), [8]);
}

#[tokio::test]
async fn a_cut_that_the_map_shows_is_not_ordered_again() {
    let shown = after(&cut());
    let cluster = Cluster::new(shown.clone(), shown, Ok(Reply::Changed(Epoch(9))));
    assert_eq!(cluster.order().await, Ok(ChangeOrder::Before));
    assert_eq!(cluster.asked(), []);
}

#[tokio::test]
async fn a_refused_copy_of_a_cut_that_the_map_shows_by_then_was_ordered_before() {
    let cluster = Cluster::new(uncut(), after(&cut()), Ok(Reply::NotChanged("no".into())));
    assert_eq!(cluster.order().await, Ok(ChangeOrder::Before));
}

#[tokio::test]
async fn a_lost_answer_is_no_answer() {
    for answer in [Err(CallError::NoReply), Ok(Reply::Unknown), Ok(Reply::NotChanged("no".into()))]
    {
        let cluster = Cluster::new(uncut(), uncut(), answer);
        let outcome = cluster.order().await;
        assert!(matches!(outcome, Err(ChangeError::Unknown(_))), "{outcome:?}");
        assert_eq!(cluster.asked(), [8]);
    }
}

#[tokio::test]
async fn a_success_that_the_map_does_not_show_is_none() {
    let elsewhere = MapChange { child: ShardId(3), at: "t".into(), ..cut() };
    for map in [uncut(), after(&MapChange { epoch: ShardEpoch(1), ..elsewhere.clone() })] {
        let cluster = Cluster::new(uncut(), map, Ok(Reply::Changed(Epoch(9))));
        let outcome = cluster.order().await;
        assert!(matches!(outcome, Err(ChangeError::Unknown(_))), "{outcome:?}");
    }
    let other = MapChange { at: "t".into(), ..cut() };
    let cluster = Cluster::new(uncut(), after(&other), Ok(Reply::Changed(Epoch(9))));
    assert_eq!(cluster.order().await, Ok(ChangeOrder::Never(NeverFits::ChildTaken)));
}

#[tokio::test]
async fn what_the_map_will_never_have_a_place_for_is_told_so_and_not_asked_for() {
    let sibling = MapChange { child: ShardId(3), at: "f".into(), ..cut() };
    let cases = [
        (after(&MapChange { at: "t".into(), ..cut() }), NeverFits::ChildTaken),
        (after(&MapChange { epoch: ShardEpoch(1), ..sibling.clone() }), NeverFits::KeyOutside),
        (after(&MapChange { at: "t".into(), ..sibling }), NeverFits::EpochPassed),
    ];
    for (map, reason) in cases {
        let cluster = Cluster::new(map, uncut(), Ok(Reply::Unknown));
        assert_eq!(cluster.order().await, Ok(ChangeOrder::Never(reason)));
        assert_eq!(cluster.asked(), []);
    }
}

#[tokio::test]
async fn a_parent_that_the_map_does_not_show_may_come_yet() {
    let mut map = uncut();
    map.shards.0[0].shard = ShardId(3);
    let cluster = Cluster::new(map, uncut(), Ok(Reply::Unknown));
    assert_eq!(cluster.order().await, Err(ChangeError::NotYet(Misfit::NoParent)));
    assert_eq!(cluster.asked(), []);
}

#[tokio::test]
async fn without_a_leader_nothing_is_ordered() {
    let mut cluster = Cluster::new(uncut(), uncut(), Ok(Reply::Unknown));
    cluster.voters.pop();
    assert_eq!(cluster.order().await, Err(ChangeError::NoSequencer));
}
