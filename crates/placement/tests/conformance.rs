#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use proptest::prelude::*;
use quorate_placement::conformance::{check, check_seed};
use quorate_placement::{Group, LexicographicPolicy, Limits, Policy};

#[test]
fn the_default_policy_conforms() {
    check(&LexicographicPolicy::default(), 0..150).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn safety_and_rest_hold_under_any_limits(
        seed in any::<u64>(),
        moves_total in 1u32..40,
        per_node in 1u32..6,
        enter in 1u32..40,
    ) {
        let policy = Policy {
            enter_imbalance_percent: enter,
            leave_imbalance_percent: enter / 2,
            limits: Limits {
                moves_total,
                balance_moves_total: moves_total.div_ceil(2),
                moves_per_source: per_node,
                moves_per_destination: per_node,
                leader_transfers_per_node: per_node,
                ..Limits::default()
            },
            ..Policy::default()
        };
        let policy = LexicographicPolicy::new(policy).unwrap();
        prop_assert_eq!(check_seed(&policy, seed), Ok(()));
    }
}

#[test]
fn the_suite_can_fail() {
    struct Wrong;
    impl quorate_placement::PlacementPolicy for Wrong {
        fn plan(
            &self,
            view: &quorate_placement::ClusterView,
            _: &[quorate_placement::InFlight],
            _: &quorate_placement::History,
        ) -> quorate_placement::Plan {
            let mut plan = quorate_placement::Plan::default();
            for shard in view.shards.iter().take(1) {
                let node = shard.members.voters[0];
                plan.operators.push(quorate_placement::Proposal {
                    operator: quorate_placement::Operator::MoveReplica {
                        group: Group::Shard(shard.id),
                        from: node,
                        to: node,
                    },
                    preconditions: vec![],
                    reason: quorate_placement::Reason::Imbalance,
                });
            }
            plan
        }
    }
    assert!(check(&Wrong, 0..5).is_err());
}
