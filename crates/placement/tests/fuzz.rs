//! Fuzz target: the planner over clusters that nobody would build.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

#[path = "fuzz/cluster.rs"]
mod cluster;

use std::collections::BTreeSet;

use cluster::Situation;
use quorate_placement::safety;
use quorate_placement::{NodeState, Operator, Plan, plan};
use quorate_testkit::fuzz::{Choices, Corpus};

quorate_testkit::fuzz_allocator!();

fn plan_of(situation: &Situation) -> Plan {
    let Situation { view, policy, in_flight, history, .. } = situation;
    plan(view, policy, in_flight, history)
}

#[test]
fn no_cluster_gets_an_invalid_plan() {
    let (mut plans, mut reasons) = (0, BTreeSet::new());
    quorate_testkit::fuzz!(Corpus::random(1_200), |input| {
        let mut situation = Situation::draw(&mut Choices::new(input));
        let plan = plan_of(&situation);
        assert_eq!(plan, plan_of(&situation), "the same input, the same plan");
        assert!(plan.merges.iter().all(|proposal| !proposal.operator.is_executed()));
        assert!(plan.blocked.len() <= situation.policy.limits.blocked_total as usize);
        if situation.is_nonsense {
            return;
        }
        assert_valid(&situation, &plan);
        assert_within_limits(&situation, &plan);
        situation.view.nodes.reverse();
        situation.view.shards.reverse();
        for shard in &mut situation.view.shards {
            shard.members.voters.reverse();
            shard.members.learners.reverse();
        }
        assert_eq!(plan, plan_of(&situation), "the order of lists carries no meaning");
        plans += 1;
        reasons.extend(plan.operators.iter().chain(&plan.merges).map(|proposal| proposal.reason));
    });
    if plans > 5_000 {
        assert!(reasons.len() >= 12, "of thirteen reasons only {reasons:?}");
    }
}

fn assert_valid(situation: &Situation, plan: &Plan) {
    let Situation { view, in_flight, history, .. } = situation;
    let mut changed = BTreeSet::new();
    for proposal in &plan.operators {
        let operator = &proposal.operator;
        assert!(operator.is_executed(), "{operator} is advice");
        assert_eq!(safety::check(view, in_flight, operator), Ok(()), "{operator}");
        assert_eq!(safety::expect(view, in_flight, &proposal.preconditions), Ok(()));
        for group in operator.groups() {
            assert!(changed.insert(group), "{group} is changed twice");
            assert!(!history.is_resting(group), "{group} rests");
            assert!(proposal.preconditions.iter().any(|expected| expected.group == group));
        }
    }
    for cancelled in &plan.cancels {
        assert!(in_flight.iter().any(|running| running.id == *cancelled));
    }
    for node in &plan.drained {
        let state = view.nodes.iter().find(|known| known.id == *node).map(|known| known.state);
        assert_eq!(state, Some(NodeState::Draining));
        let holds = |shard: &quorate_placement::ShardView| shard.members.voters.contains(node);
        assert!(!view.shards.iter().any(holds), "{node} is not empty");
    }
    for merge in &plan.merges {
        let Operator::Merge { left, right } = merge.operator else { panic!("no merge") };
        assert_ne!(left, right);
    }
}

/// Of what is planned; what is in flight may exceed limits of today.
fn assert_within_limits(situation: &Situation, plan: &Plan) {
    let limits = &situation.policy.limits;
    let count = |wanted: fn(&Operator) -> bool| {
        plan.operators.iter().filter(|proposal| wanted(&proposal.operator)).count()
    };
    let moves = count(|operator| {
        matches!(
            operator,
            Operator::MoveReplica { .. }
                | Operator::AddReplica { .. }
                | Operator::RemoveReplica { .. }
        )
    });
    let transfers = count(|operator| matches!(operator, Operator::TransferLeader { .. }));
    let splits = count(|operator| matches!(operator, Operator::Split { .. }));
    assert!(moves <= limits.moves_total as usize);
    assert!(transfers <= limits.leader_transfers_total as usize);
    assert!(splits <= limits.splits_total as usize);
}
