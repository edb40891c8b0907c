//! Grows a cluster from three nodes to five, then empties one, printing what
//! the planner asks for in each round. It executes nothing itself: a round
//! simply assumes that every operator succeeded.
//!
//! `cargo run -p quorate-placement --example plan`

use std::time::Duration;

use quorate_placement::{
    ClusterView, Group, History, Members, NodeState, NodeView, Operator, Policy, ShardView, plan,
};
use quorate_types::{KeyRange, NodeId, ShardId};

fn main() {
    let mut view = ClusterView {
        nodes: (1..=3).map(node).collect(),
        shards: (0..24).map(shard).collect(),
        shard_replicas: 3,
        ..ClusterView::default()
    };
    let mut history = History::default();

    view.nodes.extend([node(4), node(5)]);
    println!("two nodes join");
    run(&mut view, &mut history);

    for node in view.nodes.iter_mut().filter(|node| node.id == NodeId(1)) {
        node.state = NodeState::Draining;
    }
    println!("node 1 drains");
    run(&mut view, &mut history);
}

/// Plans and applies until nothing is left to do.
fn run(view: &mut ClusterView, history: &mut History) {
    let policy = Policy::default();
    for round in 1.. {
        history.advance(history.now() + Duration::from_secs(10));
        let plan = plan(view, &policy, &[], history);
        history.set_balancing(plan.balancing);
        if plan.is_idle() {
            println!("  at rest after {} rounds; may be taken away: {:?}", round - 1, plan.drained);
            break;
        }
        for proposal in &plan.operators {
            println!("  round {round}: {} ({})", proposal.operator, proposal.reason);
            history.record(&proposal.operator);
            apply(view, &proposal.operator);
        }
    }
    for node in &view.nodes {
        let hosted = view.shards.iter().filter(|s| s.members.voters.contains(&node.id)).count();
        let led = view.shards.iter().filter(|s| s.members.leader == Some(node.id)).count();
        println!("  {}: {hosted} replicas, leads {led}", node.id);
    }
}

fn apply(view: &mut ClusterView, operator: &Operator) {
    let Group::Shard(id) = operator.group() else { return };
    let Some(shard) = view.shards.iter_mut().find(|shard| shard.id == id) else { return };
    let members = &mut shard.members;
    match operator {
        Operator::MoveReplica { from, to, .. } => {
            members.voters.retain(|voter| voter != from);
            members.voters.push(*to);
            if members.leader == Some(*from) {
                members.leader = Some(*to);
            }
        }
        Operator::TransferLeader { to, .. } => members.leader = Some(*to),
        other => println!("  not expected in this example: {other}"),
    }
}

fn node(id: u64) -> NodeView {
    NodeView {
        id: NodeId(id),
        zone: format!("rack {id}"),
        state: NodeState::Active,
        weight: 1,
        disk_used_bytes: 0,
        disk_total_bytes: 0,
    }
}

fn shard(index: u8) -> ShardView {
    ShardView {
        id: ShardId(u64::from(index) + 1),
        range: KeyRange::new([index].as_slice(), [index + 1].as_slice()),
        epoch: 1.into(),
        members: Members {
            leader: Some(NodeId(u64::from(index % 3) + 1)),
            voters: vec![NodeId(1), NodeId(2), NodeId(3)],
            learners: Vec::new(),
        },
        bytes: 64 << 20,
        rows: 10_000,
        load_ops: 200,
        split_key: None,
    }
}
