//! One test per way in which earlier planners went wrong.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_placement::conformance::ModelCluster;
use quorate_placement::{
    Group, LexicographicPolicy, Limits, NodeState, Obstacle, Operator, Plan, Policy, Reason,
};
use quorate_types::{Blob, NodeId};

const ROUND: Duration = Duration::from_secs(10);

/// `nodes` nodes in zones of their own, holding nothing.
fn cluster(nodes: u64, replicas: u32) -> ModelCluster {
    let mut cluster = ModelCluster::new(replicas);
    for id in 1..=nodes {
        cluster.add_node(id, &format!("zone {id}"));
    }
    cluster
}

fn policy() -> LexicographicPolicy {
    LexicographicPolicy::default()
}

fn plan(cluster: &mut ModelCluster) -> Plan {
    cluster.plan(&policy())
}

/// Plans and executes until nothing is left to do.
fn settle(cluster: &mut ModelCluster) -> Vec<Operator> {
    let mut done = Vec::new();
    for _ in 0..10_000 {
        cluster.advance(ROUND);
        let plan = cluster.plan(&policy());
        if plan.is_idle() {
            return done;
        }
        plan.cancels.iter().for_each(|id| cluster.cancel(*id));
        for proposal in &plan.operators {
            cluster.accept(proposal).unwrap();
            done.push(proposal.operator.clone());
        }
        cluster.run_all().unwrap();
    }
    panic!("no rest");
}

fn add(cluster: &mut ModelCluster, voters: &[u64]) {
    cluster.add_shard(voters);
}

fn accept(cluster: &mut ModelCluster, plan: &Plan) {
    for proposal in &plan.operators {
        cluster.accept(proposal).unwrap();
    }
}

fn hosted(cluster: &ModelCluster, node: u64) -> usize {
    let holds = |voters: &[NodeId]| voters.contains(&NodeId(node));
    cluster.view.shards.iter().filter(|shard| holds(&shard.members.voters)).count()
}

fn led(cluster: &ModelCluster, node: u64) -> usize {
    let leader = Some(NodeId(node));
    cluster.view.shards.iter().filter(|shard| shard.members.leader == leader).count()
}

fn reasons(plan: &Plan) -> BTreeSet<Reason> {
    plan.operators.iter().map(|proposal| proposal.reason).collect()
}

fn dead() -> NodeState {
    NodeState::Dead { duration: Duration::ZERO }
}

#[test]
fn empty_node_receives_shards() {
    let mut cluster = cluster(3, 1);
    (0..6).for_each(|i| add(&mut cluster, &[1 + i % 2]));
    settle(&mut cluster);
    assert_eq!([1, 2, 3].map(|node| hosted(&cluster, node)), [2, 2, 2]);
}

#[test]
fn an_empty_node_in_a_large_cluster_receives_shards_though_no_peak_is_high() {
    let mut cluster = cluster(31, 1);
    (0..30 * 20).for_each(|i| add(&mut cluster, &[1 + i % 30]));
    settle(&mut cluster);
    assert!(hosted(&cluster, 31) >= 18);
}

#[test]
fn a_newcomer_causes_no_moves_between_old_nodes() {
    let mut cluster = cluster(11, 1);
    for node in 1..=10 {
        (0..9 + node % 3).for_each(|_| add(&mut cluster, &[node]));
    }
    let done = settle(&mut cluster);
    assert!(!done.is_empty());
    for operator in done {
        if let Operator::MoveReplica { to, .. } = operator {
            assert_eq!(to, NodeId(11));
        }
    }
}

#[test]
fn hot_shard_in_balanced_cluster_splits() {
    let mut cluster = cluster(2, 1);
    for node in [1, 2] {
        cluster.add_shard(&[node]).load_ops = 20_000;
    }
    let plan = plan(&mut cluster);
    assert_eq!(reasons(&plan), BTreeSet::from([Reason::ShardTooHot]));
    assert_eq!(plan.operators.len(), 2);
}

#[test]
fn a_hot_shard_in_an_unbalanced_cluster_splits_too() {
    let mut cluster = cluster(2, 1);
    cluster.add_shard(&[1]).load_ops = 20_000;
    (0..8).for_each(|_| add(&mut cluster, &[1]));
    let reasons = reasons(&plan(&mut cluster));
    assert!(reasons.contains(&Reason::ShardTooHot) && reasons.contains(&Reason::Imbalance));
}

#[test]
fn all_shards_hot_does_not_starve_balance() {
    let mut cluster = cluster(2, 1);
    (0..40).for_each(|_| cluster.add_shard(&[1]).load_ops = 20_000);
    assert!(reasons(&plan(&mut cluster)).contains(&Reason::Imbalance));
}

#[test]
fn a_split_cuts_the_data_and_not_the_key_space() {
    let mut cluster = cluster(1, 1);
    let shard = cluster.add_shard(&[1]);
    shard.bytes = 1 << 30;
    let mut key = shard.range.start.to_vec();
    key.push(7);
    shard.split_key = Some(Blob::from(key.clone()));
    let plan = plan(&mut cluster);
    let at = Some(Blob::from(key));
    assert!(matches!(&plan.operators[0].operator, Operator::Split { at: cut, .. } if *cut == at));
}

#[test]
fn a_stale_split_key_is_left_to_the_executor() {
    let mut cluster = cluster(1, 1);
    let shard = cluster.add_shard(&[1]);
    shard.bytes = 1 << 30;
    shard.split_key = Some(shard.range.start.clone());
    let plan = plan(&mut cluster);
    assert!(matches!(plan.operators[0].operator, Operator::Split { at: None, .. }));
}

#[test]
fn a_single_hot_row_is_not_cut() {
    let mut cluster = cluster(1, 1);
    let shard = cluster.add_shard(&[1]);
    (shard.load_ops, shard.rows) = (1_000_000, 1);
    assert!(plan(&mut cluster).is_idle());
}

#[test]
fn a_shard_that_was_just_cut_is_left_alone_until_it_is_measured() {
    let mut cluster = cluster(1, 1);
    cluster.add_shard(&[1]).load_ops = 1_000_000;
    let first = plan(&mut cluster);
    cluster.accept(&first.operators[0]).unwrap();
    cluster.run_all().unwrap();
    assert!(plan(&mut cluster).is_idle());
    cluster.advance(Policy::default().split.quiet);
    assert_eq!(plan(&mut cluster).operators.len(), 2);
}

#[test]
fn three_two_split_stays() {
    let mut cluster = cluster(2, 1);
    (0..3).for_each(|_| add(&mut cluster, &[1]));
    (0..2).for_each(|_| add(&mut cluster, &[2]));
    assert!(plan(&mut cluster).is_idle());
}

#[test]
fn at_most_half_the_gap_moves_even_when_all_moves_are_planned_at_once() {
    let mut cluster = cluster(2, 1);
    (0..10).for_each(|_| add(&mut cluster, &[1]));
    let limits = Limits { moves_per_source: 99, moves_per_destination: 99, ..Limits::default() };
    let policy = LexicographicPolicy::new(Policy { limits, ..Policy::default() }).unwrap();
    assert_eq!(cluster.plan(&policy).operators.len(), 5);
}

#[test]
fn moves_in_flight_are_counted_where_they_end() {
    let mut cluster = cluster(2, 1);
    (0..4).for_each(|_| add(&mut cluster, &[1]));
    let first = plan(&mut cluster);
    accept(&mut cluster, &first);
    assert_eq!(first.operators.len(), 2);
    assert!(plan(&mut cluster).is_idle(), "2 and 2 as soon as the moves land");
}

#[test]
fn moves_in_flight_fill_the_disk_where_they_end() {
    let mut cluster = cluster(2, 1);
    cluster.view.nodes[1].disk_total_bytes = 100;
    (0..4).for_each(|_| cluster.add_shard(&[1]).bytes = 50);
    let plan = plan(&mut cluster);
    assert_eq!(plan.operators.len(), 1, "the second would fill it beyond the target");
}

#[test]
fn plan_does_not_conflict_with_itself() {
    let mut cluster = cluster(4, 3);
    *cluster.state_mut(NodeId(1)).unwrap() = NodeState::Draining;
    for _ in 0..40 {
        let shard = cluster.add_shard(&[1, 2, 3]);
        (shard.bytes, shard.load_ops) = (1 << 30, 20_000);
    }
    let plan = plan(&mut cluster);
    let groups: BTreeSet<Group> = plan.operators.iter().map(|p| p.operator.group()).collect();
    assert_eq!(groups.len(), plan.operators.len());
    assert!(reasons(&plan).len() >= 3, "drains and splits: {:?}", reasons(&plan));
}

#[test]
fn limits_hold_at_both_ends_and_in_total() {
    let mut cluster = cluster(6, 1);
    for node in 1..=3 {
        (0..40).for_each(|_| add(&mut cluster, &[node]));
    }
    let limits = Limits {
        moves_total: 9,
        balance_moves_total: 5,
        moves_per_source: 2,
        moves_per_destination: 2,
        leader_transfers_total: 1,
        ..Limits::default()
    };
    let policy = LexicographicPolicy::new(Policy { limits, ..Policy::default() }).unwrap();
    for _ in 0..3 {
        let plan = cluster.plan(&policy);
        accept(&mut cluster, &plan);
    }
    let moves: Vec<_> = cluster.in_flight().into_iter().map(|o| o.operator).collect();
    assert_eq!(moves.len(), 5);
    for node in 1..=6 {
        let node = NodeId(node);
        let sends = moves
            .iter()
            .filter(|o| matches!(o, Operator::MoveReplica { from, .. } if *from == node));
        let takes =
            moves.iter().filter(|o| matches!(o, Operator::MoveReplica { to, .. } if *to == node));
        assert!(sends.count() <= 2 && takes.count() <= 2);
    }
}

#[test]
fn repairs_do_not_wait_for_balance() {
    let mut cluster = cluster(5, 3);
    (0..60).for_each(|_| add(&mut cluster, &[1, 2, 3]));
    let limits = Limits { moves_total: 6, balance_moves_total: 4, ..Limits::default() };
    let policy = LexicographicPolicy::new(Policy { limits, ..Policy::default() }).unwrap();
    let plan = cluster.plan(&policy);
    accept(&mut cluster, &plan);
    *cluster.state_mut(NodeId(1)).unwrap() = dead();
    cluster.elect();
    cluster.advance(Policy::default().dead_grace);
    let repairs = cluster.plan(&policy);
    assert_eq!(reasons(&repairs), BTreeSet::from([Reason::VoterDead]));
}

#[test]
fn a_dead_node_is_replaced_after_the_grace_and_not_before() {
    let mut cluster = cluster(4, 3);
    cluster.add_shard(&[1, 2, 3]);
    *cluster.state_mut(NodeId(3)).unwrap() = dead();
    assert!(plan(&mut cluster).is_idle());
    cluster.advance(Policy::default().dead_grace);
    let plan = plan(&mut cluster);
    assert!(matches!(
        plan.operators[0].operator,
        Operator::MoveReplica { from: NodeId(3), to: NodeId(4), .. }
    ));
}

#[test]
fn a_group_without_quorum_is_reported_and_not_touched() {
    let mut cluster = cluster(5, 3);
    cluster.add_shard(&[1, 2, 3]);
    for node in [2, 3] {
        *cluster.state_mut(NodeId(node)).unwrap() = dead();
    }
    cluster.advance(Policy::default().dead_grace);
    let plan = plan(&mut cluster);
    assert!(plan.operators.is_empty());
    assert_eq!(plan.blocked[0].obstacle, Obstacle::NoQuorum);
}

#[test]
fn a_move_to_a_node_that_died_is_cancelled() {
    let mut cluster = cluster(4, 3);
    cluster.add_shard(&[1, 2, 3]);
    *cluster.state_mut(NodeId(1)).unwrap() = NodeState::Draining;
    settle_leaders(&mut cluster);
    let first = plan(&mut cluster);
    let id = cluster.accept(&first.operators[0]).unwrap();
    *cluster.state_mut(NodeId(4)).unwrap() = dead();
    cluster.advance(Policy::default().dead_grace);
    assert_eq!(plan(&mut cluster).cancels, [id]);
}

/// Executes leader transfers until the plan asks for something else.
fn settle_leaders(cluster: &mut ModelCluster) {
    loop {
        let plan = cluster.plan(&policy());
        let Some(first) = plan.operators.first() else { return };
        if !matches!(first.operator, Operator::TransferLeader { .. }) {
            return;
        }
        cluster.accept(first).unwrap();
        cluster.run_all().unwrap();
    }
}

#[test]
fn a_growing_cluster_adds_voters_by_odd_numbers() {
    let mut cluster = cluster(2, 3);
    cluster.add_shard(&[1]);
    cluster.set_metadata(3, &[1]);
    assert!(plan(&mut cluster).is_idle(), "two voters tolerate no more than one");
    cluster.add_node(3, "zone 3");
    settle(&mut cluster);
    let metadata = cluster.view.metadata.as_ref().unwrap();
    assert_eq!(metadata.members.sorted_voters().len(), 3);
    assert_eq!(cluster.view.shards[0].members.sorted_voters().len(), 3);
}

#[test]
fn surplus_voters_are_removed_the_dead_one_first() {
    let mut cluster = cluster(4, 3);
    cluster.add_shard(&[1, 2, 3, 4]);
    *cluster.state_mut(NodeId(3)).unwrap() = dead();
    cluster.advance(Policy::default().dead_grace);
    let plan = plan(&mut cluster);
    assert!(matches!(plan.operators[0].operator, Operator::RemoveReplica { from: NodeId(3), .. }));
}

#[test]
fn a_surplus_voter_stays_while_the_rest_could_not_decide_without_it() {
    let mut cluster = cluster(5, 3);
    cluster.add_shard(&[1, 2, 3, 4, 5]);
    for node in [4, 5] {
        let duration = Duration::ZERO;
        *cluster.state_mut(NodeId(node)).unwrap() = NodeState::Suspect { duration };
    }
    assert!(plan(&mut cluster).is_idle());
}

#[test]
fn voters_that_share_a_zone_are_spread() {
    let mut cluster = ModelCluster::new(3);
    for (id, zone) in [(1, "a"), (2, "a"), (3, "b"), (4, "c")] {
        cluster.add_node(id, zone);
    }
    cluster.add_shard(&[1, 2, 3]);
    settle(&mut cluster);
    let voters = cluster.view.shards[0].members.sorted_voters();
    assert!(voters.contains(&NodeId(3)) && voters.contains(&NodeId(4)));
}

#[test]
fn balance_never_costs_spread() {
    let mut cluster = ModelCluster::new(2);
    for (id, zone) in [(1, "a"), (2, "b"), (3, "b")] {
        cluster.add_node(id, zone);
    }
    (0..30).for_each(|i| add(&mut cluster, &[1, 2 + i % 2]));
    settle(&mut cluster);
    assert_eq!(hosted(&cluster, 1), 30, "the only node of its zone keeps one replica of each");
}

#[test]
fn a_draining_node_is_emptied_leaders_first_system_voters_last() {
    let mut cluster = cluster(5, 3);
    *cluster.state_mut(NodeId(1)).unwrap() = NodeState::Draining;
    (0..12).for_each(|_| add(&mut cluster, &[1, 2, 3]));
    cluster.set_metadata(3, &[1, 2, 3]);
    cluster.set_sequencer(3, &[2, 1, 3]);
    let first = plan(&mut cluster);
    assert_eq!(first.operators[0].reason, Reason::LeaderDraining);
    let done = settle(&mut cluster);
    let from_one =
        |operator: &Operator| matches!(operator, Operator::MoveReplica { from: NodeId(1), .. });
    let last_shard = done.iter().rposition(|o| from_one(o) && o.group().shard().is_some());
    let last_system = done.iter().rposition(|o| from_one(o) && o.group().shard().is_none());
    assert!(last_shard < last_system);
    assert_eq!(plan(&mut cluster).drained, [NodeId(1)]);
}

#[test]
fn a_drain_without_a_destination_says_so() {
    let mut cluster = cluster(3, 3);
    *cluster.state_mut(NodeId(1)).unwrap() = NodeState::Draining;
    cluster.add_shard(&[2, 1, 3]);
    let plan = plan(&mut cluster);
    assert!(plan.is_idle() && plan.drained.is_empty());
    assert_eq!(plan.blocked[0].obstacle, Obstacle::NoDestination);
}

#[test]
fn a_nearly_full_disk_is_relieved_and_stays_relieved() {
    let mut cluster = cluster(2, 1);
    for node in &mut cluster.view.nodes {
        (node.disk_total_bytes, node.disk_used_bytes) =
            (1_000, 90 * u64::from(node.id == NodeId(1)) * 10);
    }
    (0..9).for_each(|_| cluster.add_shard(&[1]).bytes = 100);
    // Balance alone would leave everything: node 2 carries as many shards.
    (0..9).for_each(|_| add(&mut cluster, &[2]));
    let plan = plan(&mut cluster);
    assert_eq!(plan.operators[0].reason, Reason::DiskNearlyFull);
    settle(&mut cluster);
    assert!(cluster.view.nodes.iter().all(|node| node.disk_used_bytes <= 850));
}

#[test]
fn a_nearly_full_disk_is_not_relieved_at_the_cost_of_the_next_one() {
    let mut cluster = cluster(2, 1);
    for (node, used) in cluster.view.nodes.iter_mut().zip([900, 750]) {
        (node.disk_total_bytes, node.disk_used_bytes) = (1_000, used);
    }
    cluster.add_shard(&[1]).bytes = 100;
    let plan = plan(&mut cluster);
    assert!(plan.is_idle());
    assert_eq!(plan.blocked[0].obstacle, Obstacle::NoDestination);
}

#[test]
fn imbalance_between_the_thresholds_neither_starts_nor_stops_balancing() {
    // 107 and 93 of a mean of 100: seven percent.
    let build = || {
        let mut cluster = cluster(2, 1);
        (0..107).for_each(|_| add(&mut cluster, &[1]));
        (0..93).for_each(|_| add(&mut cluster, &[2]));
        cluster
    };
    assert!(plan(&mut build()).is_idle());
    let mut balancing = build();
    balancing.history.set_balancing(quorate_placement::Balancing { replicas: true, leaders: true });
    assert!(!plan(&mut balancing).is_idle());
}

#[test]
fn no_reverse_move_within_the_window() {
    let mut cluster = cluster(2, 1);
    cluster.add_shard(&[1]).load_ops = 9_000;
    cluster.add_shard(&[1]).load_ops = 8_000;
    let first = plan(&mut cluster);
    let moved = first.operators[0].clone();
    cluster.accept(&moved).unwrap();
    cluster.run_all().unwrap();
    // The load shifts so that moving it back would look like a gain.
    let Operator::MoveReplica { to, .. } = moved.operator else { panic!("{moved:?}") };
    let moved_id = moved.operator.group().shard().unwrap();
    cluster.add_shard(&[to.0]).load_ops = 9_000;
    cluster.add_shard(&[to.0]).load_ops = 9_000;
    let returns = |plan: &Plan| {
        plan.operators.iter().any(|proposal| proposal.operator.group() == Group::Shard(moved_id))
    };
    cluster.view.shards.iter_mut().find(|s| s.id == moved_id).unwrap().load_ops = 8_500;
    assert!(!returns(&plan(&mut cluster)));
    cluster.advance(Policy::default().reverse_window);
    assert!(returns(&plan(&mut cluster)));
}

#[test]
fn leaders_are_balanced_without_moving_replicas() {
    let mut cluster = cluster(3, 3);
    (0..9).for_each(|_| add(&mut cluster, &[1, 2, 3]));
    let done = settle(&mut cluster);
    assert!(done.iter().all(|operator| matches!(operator, Operator::TransferLeader { .. })));
    assert_eq!([1, 2, 3].map(|node| led(&cluster, node)), [3, 3, 3]);
}

#[test]
fn leaders_are_weighed_by_load() {
    let mut cluster = cluster(3, 3);
    cluster.add_shard(&[1, 2, 3]).load_ops = 5_000;
    (0..6).for_each(|_| add(&mut cluster, &[2, 1, 3]));
    settle(&mut cluster);
    assert_eq!([1, 2, 3].map(|node| led(&cluster, node)), [1, 3, 3]);
}

#[test]
fn a_heavier_node_carries_more() {
    let mut cluster = cluster(2, 1);
    cluster.view.nodes[1].weight = 3;
    (0..40).for_each(|_| add(&mut cluster, &[1]));
    settle(&mut cluster);
    assert_eq!(hosted(&cluster, 2), 30);
}

#[test]
fn merges_are_advice_and_hold_nothing_up() {
    let mut cluster = cluster(2, 1);
    (0..8).for_each(|_| add(&mut cluster, &[1]));
    let plan = plan(&mut cluster);
    assert!(!plan.merges.is_empty() && reasons(&plan).contains(&Reason::Imbalance));
    assert!(plan.operators.iter().all(|proposal| proposal.operator.is_executed()));
    assert_eq!(plan.merges[0].preconditions.len(), 2);
}

#[test]
fn a_resting_group_does_not_use_up_the_plan() {
    let mut cluster = cluster(2, 1);
    let ids: Vec<_> = (0..8).map(|_| cluster.add_shard(&[1]).id).collect();
    for id in &ids[..4] {
        cluster.history.rest(Group::Shard(*id), Duration::from_secs(60));
    }
    let plan = plan(&mut cluster);
    assert_eq!(plan.operators.len(), 2);
    assert!(
        plan.operators.iter().all(|p| !ids[..4].contains(&p.operator.group().shard().unwrap()))
    );
}

#[test]
fn a_voter_that_the_registry_does_not_know_is_not_counted_on() {
    let mut cluster = cluster(3, 3);
    cluster.add_shard(&[1, 98, 99]);
    let plan = plan(&mut cluster);
    assert!(plan.operators.is_empty());
    assert_eq!(plan.blocked[0].obstacle, Obstacle::NoQuorum);
}

#[test]
fn an_empty_view_gives_an_empty_plan() {
    assert_eq!(plan(&mut ModelCluster::default()), Plan::default());
}
