//! Faults between simulated nodes: their shapes, their ends, their determinism.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use proptest::prelude::*;
use quorate_testkit::sim::{
    LinkConfig, Sim, SimNetwork, SimNode, SwizzleStep, Trace, majority_ring_cuts, run, swizzle,
};
use quorate_types::NodeId;
use tokio::time::{Instant, sleep};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);
const DEADLINE: Duration = Duration::from_millis(100);

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Nodes that answer every call and note when each message came, and from whom.
struct Nodes {
    sim: Sim,
    network: SimNetwork,
    heard: Arc<Mutex<Vec<(NodeId, Bytes, Instant)>>>,
    _lives: Vec<Arc<SimNode>>,
}

impl Nodes {
    async fn reaches(&self, from: NodeId, to: NodeId) -> bool {
        self.network.call(from, to, Bytes::new(), DEADLINE).await.is_ok()
    }

    /// Sends from A to B and says how long it took, if it came within a second.
    async fn takes(&self, from: NodeId, to: NodeId) -> Option<Duration> {
        let begun = Instant::now();
        self.heard.lock().clear();
        self.network.send(from, to, Bytes::new());
        sleep(millis(1000)).await;
        self.heard.lock().first().map(|(_, _, at)| *at - begun)
    }

    /// Who hears whom, of nodes with ids from 1.
    async fn views(&self, count: u64) -> Vec<BTreeSet<u64>> {
        let mut views = Vec::new();
        for to in 1..=count {
            let mut view = BTreeSet::new();
            for from in 1..=count {
                self.heard.lock().clear();
                self.network.send(NodeId(from), NodeId(to), Bytes::new());
                sleep(millis(10)).await;
                view.extend(self.heard.lock().iter().map(|(from, ..)| from.0));
            }
            views.push(view);
        }
        views
    }
}

fn with_nodes<F: Future<Output = ()>>(
    count: u64,
    link: LinkConfig,
    test: impl FnOnce(Nodes) -> F,
) -> Trace {
    let finished = run(17, |sim| {
        let network = SimNetwork::new(&sim, link);
        let heard: Arc<Mutex<Vec<_>>> = Arc::default();
        let lives = (1..=count).map(|id| {
            let node = SimNode::new(NodeId(id), sim.seed());
            let heard = Arc::clone(&heard);
            network.register(
                &node,
                Arc::new(move |from, payload| {
                    heard.lock().push((from, payload.clone(), Instant::now()));
                    Box::pin(async move { Ok(payload) })
                }),
            );
            node
        });
        let _lives = lives.collect();
        test(Nodes { sim, network, heard, _lives })
    });
    finished.unwrap().trace
}

fn nodes<F: Future<Output = ()>>(count: u64, test: impl FnOnce(Nodes) -> F) -> Trace {
    with_nodes(count, LinkConfig::default(), test)
}

const fn exactly(millis_each: u64) -> LinkConfig {
    LinkConfig {
        latency_min: millis(millis_each),
        latency_max: millis(millis_each),
        loss_per_mille: 0,
        duplicate_per_mille: 0,
        is_ordered: true,
    }
}

#[test]
fn a_direction_may_behave_unlike_all_others() {
    with_nodes(3, exactly(2), |nodes| async move {
        nodes.network.set_link_of(A, B, exactly(50));
        assert_eq!(nodes.takes(A, B).await, Some(millis(50)));
        assert_eq!(nodes.takes(B, A).await, Some(millis(2)));
        nodes.network.set_link(exactly(7));
        assert_eq!(nodes.takes(A, B).await, Some(millis(50)));
        assert_eq!(nodes.takes(A, C).await, Some(millis(7)));
        nodes.network.reset_link_of(A, B);
        assert_eq!(nodes.takes(A, B).await, Some(millis(7)));
        let lossy = LinkConfig { loss_per_mille: 1000, ..exactly(2) };
        nodes.network.set_link_of(C, A, lossy);
        assert_eq!(nodes.takes(C, A).await, None);
        assert_eq!(nodes.takes(A, C).await, Some(millis(7)));
        let doubling = LinkConfig { duplicate_per_mille: 1000, ..exactly(2) };
        nodes.network.set_link_of(C, B, doubling);
        nodes.takes(C, B).await;
        assert_eq!(nodes.heard.lock().len(), 2);
    });
}

#[test]
fn a_spike_slows_what_is_sent_during_it_and_ends_by_itself() {
    with_nodes(3, exactly(2), |nodes| async move {
        nodes.network.spike(A, B, millis(300), millis(10));
        assert_eq!(nodes.takes(A, B).await, Some(millis(302)));
        assert_eq!(nodes.takes(A, B).await, Some(millis(2)));
        nodes.network.spike(A, B, millis(300), millis(5000));
        assert_eq!(nodes.takes(B, A).await, Some(millis(2)));
        nodes.network.spike_node(B, millis(100), millis(5000));
        assert_eq!(nodes.takes(B, A).await, Some(millis(102)));
        assert_eq!(nodes.takes(C, B).await, Some(millis(102)));
        assert_eq!(nodes.takes(A, B).await, Some(millis(402)), "spikes add up");
        assert_eq!(nodes.takes(A, C).await, Some(millis(2)));
    });
}

#[test]
fn behind_a_spike_an_ordered_link_keeps_its_order() {
    nodes(2, |nodes| async move {
        nodes.network.spike(A, B, millis(300), millis(1));
        nodes.network.send(A, B, Bytes::from_static(b"first"));
        sleep(millis(20)).await;
        nodes.network.send(A, B, Bytes::from_static(b"second"));
        sleep(millis(100)).await;
        assert!(nodes.heard.lock().is_empty());
        sleep(millis(500)).await;
        let said: Vec<Bytes> = nodes.heard.lock().iter().map(|(_, it, _)| it.clone()).collect();
        assert_eq!(said, ["first", "second"]);
    });
}

#[test]
fn a_one_way_partition_makes_a_set_mute_and_not_deaf() {
    nodes(4, |nodes| async move {
        nodes.network.partition_one_way(&[A, B], &[C, NodeId(4)]);
        let all = BTreeSet::from([1, 2, 3, 4]);
        let right = BTreeSet::from([3, 4]);
        assert_eq!(nodes.views(4).await, [all.clone(), all, right.clone(), right]);
    });
}

#[test]
fn a_single_cut_and_a_single_isolation_can_be_ended() {
    nodes(3, |nodes| async move {
        nodes.network.partition(&[A], &[B]);
        nodes.network.mend_one_way(A, B);
        assert_eq!(nodes.takes(B, A).await, None);
        assert!(nodes.takes(A, B).await.is_some());
        nodes.network.isolate(C);
        nodes.network.isolate(B);
        nodes.network.rejoin(B);
        assert!(nodes.reaches(B, C).await.eq(&false) && nodes.takes(A, B).await.is_some());
    });
}

#[test]
fn healing_ends_every_fault() {
    with_nodes(3, exactly(2), |nodes| async move {
        let network = &nodes.network;
        network.partition(&[A], &[B]);
        network.isolate(C);
        network.spike(A, B, millis(300), millis(100_000));
        network.spike_node(B, millis(300), millis(100_000));
        network.set_link_of(B, C, exactly(80));
        network.hold(C, A);
        network.send(A, C, Bytes::new());
        network.heal();
        for (from, to) in [(A, B), (B, A), (B, C), (C, A), (A, C)] {
            assert_eq!(nodes.takes(from, to).await, Some(millis(2)), "{from} -> {to}");
        }
    });
}

#[test]
fn healing_releases_what_was_held() {
    nodes(2, |nodes| async move {
        nodes.network.hold(A, B);
        (0..9_u8).for_each(|number| nodes.network.send(A, B, vec![number].into()));
        sleep(millis(100)).await;
        assert!(nodes.heard.lock().is_empty());
        nodes.network.heal();
        sleep(millis(1)).await;
        let said: Vec<u8> = nodes.heard.lock().iter().map(|(_, it, _)| it[0]).collect();
        assert_eq!(said, (0..9).collect::<Vec<_>>());
    });
}

/// What each node sees when `cuts` are made among nodes with ids from 1.
fn views_with(count: u64, cuts: &[(NodeId, NodeId)]) -> Vec<BTreeSet<u64>> {
    let sees = |a: u64, b: u64| {
        !cuts.contains(&(NodeId(a), NodeId(b))) && !cuts.contains(&(NodeId(b), NodeId(a)))
    };
    (1..=count).map(|a| (1..=count).filter(|b| a == *b || sees(a, *b)).collect()).collect()
}

#[test]
fn in_a_majority_ring_each_sees_a_majority_and_no_two_the_same() {
    for count in 3..=40 {
        let ring: Vec<NodeId> = (1..=count).map(NodeId).collect();
        let views = views_with(count, &majority_ring_cuts(&ring));
        let majority = usize::try_from(count / 2 + 1).unwrap();
        // Of an odd number some must see one more than a majority, where the
        // number of peers in it is odd too.
        let spare = usize::from(count % 4 == 3);
        for view in &views {
            assert!(view.len() >= majority && view.len() <= majority + spare, "{count}: {view:?}");
        }
        assert_eq!(views.iter().collect::<BTreeSet<_>>().len(), views.len(), "{count}");
    }
}

#[test]
fn one_or_two_nodes_have_no_majority_ring() {
    for count in 0..3 {
        let ring: Vec<NodeId> = (1..=count).map(NodeId).collect();
        assert_eq!(majority_ring_cuts(&ring), []);
    }
}

#[test]
fn a_majority_ring_holds_on_the_network() {
    nodes(5, |nodes| async move {
        let ring: Vec<NodeId> = [3, 1, 4, 2, 5].map(NodeId).into();
        nodes.network.majority_ring(&ring);
        let expected = [[1, 3, 4], [2, 4, 5], [1, 3, 5], [1, 2, 4], [2, 3, 5]];
        let expected: Vec<BTreeSet<u64>> = expected.into_iter().map(BTreeSet::from).collect();
        assert_eq!(nodes.views(5).await, expected);
    });
}

proptest! {
    #[test]
    fn a_swizzle_isolates_each_node_once_and_heals_in_another_order(
        count in 0_u64..9,
        seed: u64,
    ) {
        let nodes: Vec<NodeId> = (1..=count).map(NodeId).collect();
        let steps = swizzle(&nodes, seed);
        prop_assert_eq!(&steps, &swizzle(&nodes, seed));
        let (leaving, rejoining) = steps.split_at(nodes.len());
        let leaving: Vec<NodeId> = leaving.iter().map(|step| match step {
            SwizzleStep::Isolate(node) => *node,
            SwizzleStep::Rejoin(node) => panic!("{node} rejoins before all have left"),
        }).collect();
        let rejoining: Vec<NodeId> = rejoining.iter().map(|step| match step {
            SwizzleStep::Rejoin(node) => *node,
            SwizzleStep::Isolate(node) => panic!("{node} leaves late"),
        }).collect();
        prop_assert!(count < 2 || leaving != rejoining);
        for order in [leaving, rejoining] {
            let mut sorted = order;
            sorted.sort_unstable();
            prop_assert_eq!(&sorted, &nodes);
        }
    }
}

#[test]
fn every_seed_may_swizzle_in_another_order() {
    let nodes = [A, B, C];
    let orders: Vec<_> = (0..200).map(|seed| swizzle(&nodes, seed)).collect();
    let first_out: BTreeSet<_> = orders.iter().map(|steps| format!("{:?}", steps[0])).collect();
    let first_back: BTreeSet<_> = orders.iter().map(|steps| format!("{:?}", steps[3])).collect();
    assert_eq!((first_out.len(), first_back.len()), (3, 3));
}

#[test]
fn a_swizzle_ends_with_everyone_back() {
    nodes(3, |nodes| async move {
        let steps = swizzle(&[A, B], 5);
        for step in &steps[..2] {
            nodes.network.swizzle_step(*step);
        }
        let alone = |id| BTreeSet::from([id]);
        assert_eq!(nodes.views(3).await, [alone(1), alone(2), alone(3)]);
        for step in &steps[2..] {
            nodes.network.swizzle_step(*step);
        }
        assert_eq!(nodes.views(3).await, vec![BTreeSet::from([1, 2, 3]); 3]);
    });
}

/// Everything at once, for a while.
async fn everything(nodes: Nodes) {
    let (network, all) = (&nodes.network, [A, B, C, NodeId(4), NodeId(5)]);
    let chatter = |times| async move {
        for _ in 0..times {
            for (from, to) in all.iter().flat_map(|from| all.iter().map(move |to| (*from, *to))) {
                network.send(from, to, Bytes::from_static(b"chatter"));
            }
            sleep(millis(3)).await;
        }
    };
    network.set_link_of(A, B, LinkConfig { is_ordered: false, loss_per_mille: 400, ..exactly(9) });
    network.spike_node(C, millis(40), millis(10));
    network.spike(B, A, millis(7), millis(4));
    network.majority_ring(&all);
    chatter(10).await;
    network.heal();
    for step in swizzle(&all, nodes.sim.seed()) {
        network.swizzle_step(step);
        chatter(2).await;
    }
    network.hold(A, B);
    network.partition_one_way(&[A, B], &[C]);
    chatter(3).await;
    network.heal();
    chatter(3).await;
}

#[test]
fn one_seed_of_faults_is_one_trace_and_each_is_in_it() {
    let bad = LinkConfig { loss_per_mille: 50, duplicate_per_mille: 50, ..LinkConfig::default() };
    let (first, second) = (with_nodes(5, bad, everything), with_nodes(5, bad, everything));
    assert_eq!(first.difference(&second), None);
    assert!(first.count() > 1000);
    let lines = first.lines();
    for said in [
        "n1 -> n2: LinkConfig",
        "spike n3, 40ms for 10ms",
        "spike n2 -> n1, 7ms for 4ms",
        "cut n1 -> n3",
        "isolate n5",
        "rejoin n5",
        "hold n1 -> n2",
        "heal",
    ] {
        assert!(lines.iter().any(|line| line.contains(said)), "{said}");
    }
}
