//! Where requests go: allocations, and the leaders named since.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::collections::BTreeMap;

use parking_lot::Mutex;
use quorate_calvin::{Allocations, Destination, HintedRouter, Route, Router};
use quorate_types::{KeyRange, NodeId, ShardEpoch, ShardId};

const OWN: NodeId = NodeId(2);
const LEFT: ShardId = ShardId(8);
const RIGHT: ShardId = ShardId(3);
const NOWHERE: ShardId = ShardId(99);

/// Two shards, cut at `m`, of which the allocation names one's leader.
#[derive(Default)]
struct Table(Mutex<BTreeMap<ShardId, Route>>);

impl Allocations for Table {
    fn locate(&self, key: &[u8]) -> Option<Route> {
        self.0.lock().values().find(|route| route.range.contains(key)).cloned()
    }

    fn overlapping(&self, range: &KeyRange) -> Vec<Route> {
        let table = self.0.lock();
        table.values().filter(|route| route.range.overlaps(range)).cloned().collect()
    }

    fn shard(&self, shard: ShardId) -> Option<Route> {
        self.0.lock().get(&shard).cloned()
    }

    fn sequencer(&self) -> Vec<NodeId> {
        [1, 2, 3].map(NodeId).to_vec()
    }
}

fn route(shard: ShardId, range: KeyRange, leader: Option<NodeId>) -> (ShardId, Route) {
    let voters = [1, 3, 2].map(NodeId).to_vec();
    (shard, Route { shard, epoch: ShardEpoch(1), range, leader, voters })
}

fn router() -> HintedRouter<Table> {
    let (left, right) = KeyRange::all().split_at(&"m".into()).unwrap();
    let table = [route(LEFT, left, Some(NodeId(1))), route(RIGHT, right, None)];
    HintedRouter::new(OWN, Table(Mutex::new(table.into())))
}

fn leader(router: &impl Router, key: &str) -> Option<NodeId> {
    router.locate(key.as_bytes()).unwrap().leader
}

#[test]
fn a_router_is_complete_once_every_key_has_a_route() {
    let router = router();
    let right = router.0.lock().remove(&RIGHT).unwrap();
    assert!(!router.is_complete());
    router.0.lock().insert(RIGHT, right);
    assert!(router.is_complete());
}

#[test]
fn until_a_leader_is_named_the_allocations_is_taken() {
    let router = router();
    assert_eq!((leader(&router, "a"), leader(&router, "z")), (Some(NodeId(1)), None));
    assert_eq!((router.shard_leader(LEFT), router.shard_leader(NOWHERE)), (None, None));
}

#[test]
fn a_named_leader_goes_before_the_allocations_until_it_is_taken_back() {
    let router = router();
    router.learned(Destination::Shard(LEFT), Some(NodeId(3)));
    assert_eq!(leader(&router, "a"), Some(NodeId(3)));
    router.learned(Destination::Shard(LEFT), None);
    assert_eq!(leader(&router, "a"), Some(NodeId(1)));
}

#[test]
fn a_shard_that_moved_has_no_named_leader_any_more() {
    let router = router();
    router.learned(Destination::Shard(LEFT), Some(NodeId(3)));
    router.learned(Destination::Shard(RIGHT), Some(NodeId(3)));
    router.moved(RIGHT);
    assert_eq!((router.shard_leader(LEFT), router.shard_leader(RIGHT)), (Some(NodeId(3)), None));
}

#[test]
fn the_node_itself_is_the_first_voter() {
    let router = router();
    assert_eq!(router.locate(b"a").unwrap().voters, [2, 3, 1].map(NodeId));
    assert_eq!(Router::sequencer(&router).voters, [2, 1, 3].map(NodeId));
}

#[test]
fn a_node_without_a_replica_leaves_the_voters_as_they_are() {
    let (left, _) = KeyRange::all().split_at(&"m".into()).unwrap();
    let table = Table(Mutex::new([route(LEFT, left, None)].into()));
    let router = HintedRouter::new(NodeId(7), table);
    assert_eq!(router.locate(b"a").unwrap().voters, [1, 3, 2].map(NodeId));
    assert!(router.locate(b"z").is_none());
}

#[test]
fn a_range_is_found_in_key_order_with_the_named_leaders() {
    let router = router();
    router.learned(Destination::Shard(RIGHT), Some(NodeId(3)));
    let found = router.overlapping(&KeyRange::all());
    let found: Vec<_> = found.iter().map(|route| (route.shard, route.leader)).collect();
    assert_eq!(found, [(LEFT, Some(NodeId(1))), (RIGHT, Some(NodeId(3)))]);
}

#[test]
fn a_message_goes_to_the_named_leader_or_to_every_voter() {
    let router = router();
    assert_eq!(router.shard_targets(RIGHT).len(), 3);
    assert_eq!(router.sequencer_targets().len(), 3);
    assert!(router.shard_targets(NOWHERE).is_empty());
    router.learned(Destination::Shard(RIGHT), Some(NodeId(3)));
    router.learned(Destination::Sequencer, Some(NodeId(1)));
    assert_eq!(router.shard_targets(RIGHT), [NodeId(3)]);
    assert_eq!(router.sequencer_targets(), [NodeId(1)]);
    router.learned(Destination::Sequencer, None);
    assert_eq!(router.sequencer_targets().len(), 3);
}

#[test]
fn whom_to_ask_begins_with_the_named_leader_once() {
    let router = router();
    let nodes = [1, 2, 3].map(NodeId).to_vec();
    assert_eq!(router.leader_first(LEFT, nodes.clone()), nodes);
    router.learned(Destination::Shard(LEFT), Some(NodeId(3)));
    assert_eq!(router.leader_first(LEFT, nodes), [3, 1, 2].map(NodeId));
}

#[test]
fn leaders_of_shards_that_are_nowhere_are_dropped_before_they_are_many() {
    const NAMED: u64 = 10_000;
    let router = router();
    router.learned(Destination::Shard(LEFT), Some(NodeId(3)));
    let unknown = 100..100 + NAMED;
    for shard in unknown.clone() {
        router.learned(Destination::Shard(ShardId(shard)), Some(NodeId(1)));
    }
    let kept = unknown.filter(|shard| router.shard_leader(ShardId(*shard)).is_some()).count();
    assert!(kept < 100, "{kept} leaders of shards that no allocation names");
    assert_eq!(router.shard_leader(LEFT), Some(NodeId(3)));
}

#[test]
fn a_leader_named_before_the_allocation_came_is_remembered() {
    let router = router();
    router.learned(Destination::Shard(NOWHERE), Some(NodeId(3)));
    router.0.lock().extend([route(NOWHERE, KeyRange::new("x", "y"), None)]);
    assert_eq!(router.shard_leader(NOWHERE), Some(NodeId(3)));
}
