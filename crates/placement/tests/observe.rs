//! What a node observes, and what a proposal expects.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_placement::{
    ClusterView, Group, InFlight, Members, NodeState, Operator, OperatorId, Precondition,
    RateMeter, Refused, ReplicaReport, ShardView, Silences, SystemGroupView, safety,
};
use quorate_types::{KeyRange, NodeId, ShardEpoch, ShardId};

const SHARD: ShardId = ShardId(1);

fn at(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn ids<const N: usize>(nodes: [u64; N]) -> Vec<NodeId> {
    nodes.map(NodeId).to_vec()
}

fn members(voters: Vec<NodeId>) -> Members {
    Members { voters, ..Members::default() }
}

fn report(node: u64, leads: bool, term: u64) -> ReplicaReport {
    ReplicaReport { node: NodeId(node), leads, term, bytes: term * 10, rows: term, load_ops: 1 }
}

fn shard(reports: impl IntoIterator<Item = ReplicaReport>) -> ShardView {
    ShardView::reported(SHARD, KeyRange::all(), ShardEpoch(3), members(ids([3, 1, 2])), reports)
}

#[test]
fn a_silence_lasts_until_a_sign_of_life_and_begins_anew_after_it() {
    let mut silences = Silences::default();
    let everyone = ids([1, 2, 3]);
    let mut seen = |now, alive: &[NodeId]| silences.observe(at(now), &everyone, alive);
    assert_eq!(seen(10, &ids([1, 3])), BTreeMap::from([(NodeId(2), at(0))]));
    let both = BTreeMap::from([(NodeId(2), at(5)), (NodeId(3), at(0))]);
    assert_eq!(seen(15, &ids([1])), both);
    assert_eq!(seen(16, &everyone), BTreeMap::new());
    assert_eq!(seen(20, &ids([1, 3])), BTreeMap::from([(NodeId(2), at(0))]));
    assert_eq!(silences.observe(at(30), &ids([1]), &ids([1])), BTreeMap::new(), "no member");
}

#[test]
fn a_rate_is_what_a_counter_rose_by() {
    let mut meter = RateMeter::default();
    let mut rate = |count: u64, millis| {
        let now = Duration::from_millis(millis);
        meter.measure(BTreeMap::from([(SHARD, count)]), now)[&SHARD]
    };
    assert_eq!(rate(1_000, 7_000), 0, "new");
    assert_eq!(rate(1_050, 7_500), 100);
    assert_eq!(rate(1_150, 9_500), 50, "a late look");
    assert_eq!(rate(7, 10_000), 0, "the replica was replaced");
    assert_eq!(rate(8, 10_500), 2);
    assert_eq!(rate(9, 10_500), 1_000, "no time has passed");
    assert_eq!(meter.measure(BTreeMap::new(), at(11)), BTreeMap::new());
    assert_eq!(meter.measure(BTreeMap::from([(SHARD, 19)]), at(12))[&SHARD], 0, "it was away");
}

#[test]
fn of_two_leaders_the_one_of_the_later_term_is_believed() {
    let seen = shard([report(1, true, 4), report(2, true, 5), report(3, false, 6)]);
    assert_eq!((seen.members.leader, seen.bytes, seen.rows), (Some(NodeId(2)), 50, 5));
    let without = shard([report(3, false, 6)]);
    assert_eq!((without.members.leader, without.bytes, without.load_ops), (None, 0, 0));
}

#[test]
fn a_silent_node_counts_as_dead_even_if_it_was_to_be_emptied() {
    let dead = NodeState::Dead { duration: at(3) };
    assert_eq!(NodeState::observed(Some(at(3)), true), dead);
    assert_eq!(NodeState::observed(None, true), NodeState::Draining);
    assert_eq!(NodeState::observed(None, false), NodeState::Active);
}

#[test]
fn a_proposal_is_refused_when_what_it_expected_has_passed() {
    let view = ClusterView {
        metadata: Some(SystemGroupView::as_found(members(ids([1, 2, 3])))),
        shards: vec![shard([])],
        ..ClusterView::default()
    };
    let expected = |group, epoch, voters| Precondition { group, epoch, voters, leader: None };
    let of_shard = || expected(Group::Shard(SHARD), Some(ShardEpoch(3)), ids([1, 2, 3]));
    let of_metadata = expected(Group::Metadata, None, ids([1, 2, 3]));
    let holds = |condition: Precondition| safety::expect(&view, &[], &[condition]);
    assert_eq!(holds(of_shard()), Ok(()));
    assert_eq!(holds(of_metadata), Ok(()));
    assert_eq!(
        holds(Precondition { epoch: Some(ShardEpoch(2)), ..of_shard() }),
        Err(Refused::Precondition)
    );
    assert_eq!(
        holds(Precondition { voters: ids([1, 2, 4]), ..of_shard() }),
        Err(Refused::Precondition)
    );
    let unknown = expected(Group::Shard(ShardId(9)), Some(ShardEpoch(1)), ids([1]));
    assert_eq!(holds(unknown), Err(Refused::Precondition));
    let operator = Operator::Split { shard: SHARD, at: None };
    let busy = InFlight { id: OperatorId(1), operator };
    assert_eq!(safety::expect(&view, &[busy], &[of_shard()]), Err(Refused::GroupBusy));
}
