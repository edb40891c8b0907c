//! Fuzz targets: the planner over clusters that nobody would build, and the
//! scheduler's core, told anything by anybody.
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
use std::sync::Arc;
use std::time::Duration;

use cluster::Situation;
use quorate_placement::safety;
use quorate_placement::{
    Action, Authority, InFlight, LexicographicPolicy, NodeState, Operator, OperatorId,
    PlacementError, Plan, Policy, Refused, SchedulerConfig, SchedulerCore, plan,
};
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

/// What a driver may have to answer.
const REFUSALS: [Refused; 6] = [
    Refused::NotLeader,
    Refused::Precondition,
    Refused::GroupBusy,
    Refused::Limit,
    Refused::Unsupported,
    Refused::Unknown,
];

/// Views that have nothing to do with each other, lists of operators that it
/// never proposed, refusals of every kind, terms that come and go: nothing goes
/// out without authority, in another term, while it is paused, or twice for one
/// group at a time.
#[test]
fn the_scheduler_keeps_its_rules_whatever_it_is_told() {
    let mut proposals = 0;
    quorate_testkit::fuzz!(Corpus::random(2_400), |input| {
        let mut choices = Choices::new(input);
        let policy = Arc::new(LexicographicPolicy::new(Policy::default()).unwrap());
        let config = SchedulerConfig::default();
        let mut core = SchedulerCore::new(policy, config.clone(), 7).unwrap();
        let (mut now, mut authority, mut is_paused) = (Duration::ZERO, None, false);
        let (mut accepted, mut next_id) = (Vec::<InFlight>::new(), 1_u64);
        for _ in 0..1 + choices.below(40) {
            now += Duration::from_secs(choices.below(40) as u64);
            match choices.below(8) {
                0 => {
                    let term = choices.below(4) as u64;
                    authority = (term > 0).then_some(Authority { term });
                    core.handle_authority(authority);
                }
                1 => {
                    is_paused = choices.below(3) == 0;
                    core.handle_pause(is_paused);
                }
                2 => core.handle_kick(),
                3 => core.handle_look(now, Err(PlacementError::ViewUnavailable("no".into()))),
                _ => {
                    let Situation { view, mut in_flight, .. } = Situation::draw(&mut choices);
                    let listed = accepted.iter().filter(|_| choices.below(2) == 0).cloned();
                    in_flight.extend(listed.collect::<Vec<_>>());
                    core.handle_look(now, Ok((view, in_flight)));
                }
            }
            let mut changed = BTreeSet::new();
            while let Some(action) = core.poll_action() {
                assert!(!is_paused, "nothing goes out while it is paused");
                let (Action::Propose(by, _) | Action::Cancel(by, _)) = &action;
                assert_eq!(Some(*by), authority, "nothing goes out without authority");
                match action {
                    Action::Cancel(_, id) => core.handle_cancelled(id, Err(Refused::Unknown)),
                    Action::Propose(by, proposal) => {
                        proposals += 1;
                        assert!(proposal.operator.is_executed(), "{} is advice", proposal.operator);
                        for group in proposal.operator.groups() {
                            assert!(changed.insert(group), "{group} is changed twice");
                        }
                        let refused = choices.pick(&REFUSALS).copied();
                        let answer = match refused.filter(|_| choices.below(2) == 0) {
                            Some(refused) => Err(refused),
                            None => {
                                let id = OperatorId(u128::from(next_id));
                                next_id += 1;
                                let operator = proposal.operator.clone();
                                accepted.push(InFlight { id, operator });
                                Ok(id)
                            }
                        };
                        core.handle_proposed(now, by, &proposal, answer);
                        if answer == Err(Refused::NotLeader) {
                            assert_eq!(core.poll_action(), None, "who leads no more acts no more");
                        }
                    }
                }
            }
            assert!(changed.len() <= 2 * config.proposals_per_look_max as usize);
            assert!(core.wake_at(now) >= now);
            assert!(core.status().blocked.len() <= 10_000);
        }
    });
    assert!(proposals > 0);
}
