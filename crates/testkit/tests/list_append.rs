//! The list-append checker against histories whose anomaly is known.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::{Op, Shape, append, execution, failed, ok, operations, saw, unknown};
use std::collections::BTreeMap;

use proptest::prelude::*;
use quorate_testkit::check::list_append::{Consistency, check};
use quorate_testkit::check::{AnomalyKind, CycleClass, Through, Verdict, linearizable};
use quorate_testkit::history::{Datum, MicroOp, Outcome};
use quorate_types::env::{Rng, SplitMix};

fn judge(ops: &[Op]) -> Verdict {
    check(&operations(ops), Consistency::StrictSerializable)
}

#[track_caller]
fn assert_valid(ops: &[Op]) {
    assert_eq!(judge(ops), Verdict::Valid);
}

#[track_caller]
fn assert_finds(kind: AnomalyKind, ops: &[Op]) {
    let verdict = judge(ops);
    assert!(verdict.has(kind), "expected {kind}, found {verdict}");
}

#[track_caller]
fn assert_cycle(class: CycleClass, through: Through, ops: &[Op]) {
    assert_finds(AnomalyKind::Cycle(class, through), ops);
}

#[test]
fn nothing_at_all_is_valid() {
    assert_valid(&[]);
}

#[test]
fn serial_appends_and_reads_are_valid() {
    assert_valid(&[
        ok(1, 1, 2, vec![append("x", 1)]),
        ok(2, 3, 4, vec![saw("x", [1]), append("x", 2)]),
        ok(1, 5, 6, vec![saw("x", [1, 2]), append("y", 1), saw("y", [1])]),
    ]);
}

#[test]
fn concurrent_appends_may_take_either_order() {
    for order in [[1, 2], [2, 1]] {
        assert_valid(&[
            ok(1, 1, 10, vec![append("x", 1)]),
            ok(2, 2, 9, vec![append("x", 2)]),
            ok(3, 11, 12, vec![saw("x", order)]),
        ]);
    }
}

#[test]
fn a_concurrent_read_may_see_the_append_or_not() {
    assert_valid(&[
        ok(1, 1, 10, vec![append("x", 1)]),
        ok(2, 2, 5, vec![saw("x", [])]),
        ok(3, 3, 8, vec![saw("x", [1])]),
    ]);
}

#[test]
fn g0_write_cycle() {
    assert_cycle(
        CycleClass::G0,
        Through::Data,
        &[
            ok(1, 1, 10, vec![append("x", 1), append("y", 1)]),
            ok(2, 2, 9, vec![append("x", 2), append("y", 2)]),
            ok(3, 11, 12, vec![saw("x", [1, 2]), saw("y", [2, 1])]),
        ],
    );
}

#[test]
fn g1a_aborted_read() {
    assert_finds(
        AnomalyKind::AbortedRead,
        &[failed(1, 1, 2, vec![append("x", 1)]), ok(2, 3, 4, vec![saw("x", [1])])],
    );
}

#[test]
fn g1b_intermediate_read() {
    assert_finds(
        AnomalyKind::IntermediateRead,
        &[
            ok(1, 1, 10, vec![append("x", 1), append("x", 2)]),
            ok(2, 2, 9, vec![saw("x", [1])]),
            ok(3, 11, 12, vec![saw("x", [1, 2])]),
        ],
    );
}

#[test]
fn g1c_circular_information_flow() {
    assert_cycle(
        CycleClass::G1c,
        Through::Data,
        &[
            ok(1, 1, 10, vec![append("x", 1), saw("y", [1])]),
            ok(2, 2, 9, vec![append("y", 1), saw("x", [1])]),
        ],
    );
}

#[test]
fn g_single_read_skew() {
    assert_cycle(
        CycleClass::GSingle,
        Through::Data,
        &[
            ok(1, 1, 10, vec![append("x", 1), append("y", 1)]),
            ok(2, 2, 9, vec![saw("x", [1]), saw("y", [])]),
            ok(3, 11, 12, vec![saw("x", [1]), saw("y", [1])]),
        ],
    );
}

#[test]
fn g_single_lost_update() {
    assert_cycle(
        CycleClass::GSingle,
        Through::Data,
        &[
            ok(1, 1, 10, vec![saw("x", []), append("x", 1)]),
            ok(2, 2, 9, vec![saw("x", []), append("x", 2)]),
            ok(3, 11, 12, vec![saw("x", [1, 2])]),
        ],
    );
}

#[test]
fn lost_update_that_nobody_read_afterwards() {
    assert_cycle(
        CycleClass::G2,
        Through::Data,
        &[
            ok(1, 1, 10, vec![saw("x", []), append("x", 1)]),
            ok(2, 2, 9, vec![saw("x", []), append("x", 2)]),
            ok(3, 3, 8, vec![saw("x", []), append("x", 3)]),
        ],
    );
}

#[test]
fn one_update_that_nobody_read_afterwards_is_valid() {
    assert_valid(&[
        ok(1, 1, 10, vec![saw("x", []), append("x", 1)]),
        ok(2, 2, 9, vec![append("x", 2)]),
        ok(3, 3, 8, vec![saw("x", [])]),
    ]);
}

#[test]
fn g2_write_skew() {
    assert_cycle(
        CycleClass::G2,
        Through::Data,
        &[
            ok(1, 1, 10, vec![saw("x", []), append("y", 1)]),
            ok(2, 2, 9, vec![saw("y", []), append("x", 1)]),
            ok(3, 11, 12, vec![saw("x", [1]), saw("y", [1])]),
        ],
    );
}

#[test]
fn g2_long_fork() {
    assert_cycle(
        CycleClass::G2,
        Through::Data,
        &[
            ok(1, 1, 20, vec![append("x", 1)]),
            ok(2, 2, 21, vec![append("y", 1)]),
            ok(3, 3, 18, vec![saw("x", [1]), saw("y", [])]),
            ok(4, 4, 19, vec![saw("x", []), saw("y", [1])]),
        ],
    );
}

#[test]
fn stale_read_after_the_append_was_acknowledged() {
    let ops = [
        ok(1, 1, 2, vec![append("x", 1)]),
        ok(2, 3, 4, vec![saw("x", [])]),
        ok(3, 5, 6, vec![saw("x", [1])]),
    ];
    assert_cycle(CycleClass::GSingle, Through::RealTime, &ops);
    assert_eq!(check(&operations(&ops), Consistency::Serializable), Verdict::Valid);
}

#[test]
fn read_from_the_future() {
    assert_cycle(
        CycleClass::G1c,
        Through::RealTime,
        &[ok(1, 1, 2, vec![saw("x", [1])]), ok(2, 3, 4, vec![append("x", 1)])],
    );
}

#[test]
fn appends_reordered_against_real_time() {
    assert_cycle(
        CycleClass::G0,
        Through::RealTime,
        &[
            ok(1, 1, 2, vec![append("x", 1)]),
            ok(2, 3, 4, vec![append("x", 2)]),
            ok(3, 5, 6, vec![saw("x", [2, 1])]),
        ],
    );
}

#[test]
fn non_monotonic_reads_of_one_process() {
    assert_cycle(
        CycleClass::GSingle,
        Through::Process,
        &[
            ok(1, 1, 20, vec![append("x", 1)]),
            ok(2, 2, 5, vec![saw("x", [1])]),
            ok(2, 6, 9, vec![saw("x", [])]),
        ],
    );
}

#[test]
fn causal_reverse_the_later_write_is_seen_without_the_earlier() {
    assert_cycle(
        CycleClass::GSingle,
        Through::RealTime,
        &[
            ok(1, 2, 3, vec![append("x", 1)]),
            ok(2, 4, 5, vec![append("y", 1)]),
            ok(3, 1, 6, vec![saw("x", []), saw("y", [1])]),
            ok(4, 7, 8, vec![saw("x", [1])]),
        ],
    );
}

#[test]
fn real_time_passes_through_operations_in_between() {
    assert_cycle(
        CycleClass::GSingle,
        Through::RealTime,
        &[
            ok(1, 1, 2, vec![append("x", 1)]),
            ok(2, 3, 4, vec![append("y", 1)]),
            ok(3, 5, 6, vec![append("z", 1)]),
            ok(4, 7, 8, vec![saw("x", [])]),
            ok(4, 9, 10, vec![saw("x", [1])]),
        ],
    );
}

#[test]
fn internal_a_transaction_misses_its_own_append() {
    assert_finds(AnomalyKind::Internal, &[ok(1, 1, 2, vec![append("x", 1), saw("x", [])])]);
}

#[test]
fn internal_a_transaction_reads_twice_and_differently() {
    assert_finds(
        AnomalyKind::Internal,
        &[ok(1, 1, 10, vec![append("x", 1)]), ok(2, 2, 9, vec![saw("x", []), saw("x", [1])])],
    );
}

#[test]
fn an_element_appears_twice() {
    assert_finds(
        AnomalyKind::DuplicateElement,
        &[ok(1, 1, 2, vec![append("x", 1)]), ok(2, 3, 4, vec![saw("x", [1, 1])])],
    );
}

#[test]
fn an_element_appears_that_nobody_appended() {
    assert_finds(AnomalyKind::PhantomElement, &[ok(2, 3, 4, vec![saw("x", [7])])]);
}

#[test]
fn an_acknowledged_append_is_lost() {
    assert_finds(
        AnomalyKind::LostAppend,
        &[
            ok(1, 1, 2, vec![append("x", 1)]),
            ok(1, 3, 4, vec![append("x", 2)]),
            ok(2, 5, 6, vec![saw("x", [2])]),
        ],
    );
}

#[test]
fn reads_disagree_on_the_order() {
    assert_finds(
        AnomalyKind::IncompatibleOrder,
        &[
            ok(1, 1, 10, vec![append("x", 1)]),
            ok(2, 2, 9, vec![append("x", 2)]),
            ok(3, 3, 8, vec![saw("x", [2])]),
            ok(4, 11, 12, vec![saw("x", [1, 2])]),
        ],
    );
}

#[test]
fn an_unknown_append_may_show_late_or_never() {
    assert_valid(&[
        unknown(1, 1, 2, vec![append("x", 1)]),
        unknown(2, 1, 2, vec![append("x", 2)]).at(3, 4),
        ok(3, 5, 6, vec![saw("x", [])]),
        ok(3, 7, 8, vec![saw("x", [1])]),
    ]);
}

#[test]
fn an_unknown_transaction_that_was_seen_happened_as_a_whole() {
    assert_cycle(
        CycleClass::GSingle,
        Through::Data,
        &[
            unknown(1, 1, 2, vec![append("x", 1), append("y", 1)]),
            ok(2, 3, 4, vec![saw("x", [1]), saw("y", [])]),
        ],
    );
}

#[test]
fn an_unknown_append_may_not_show_before_it_began() {
    assert_cycle(
        CycleClass::G1c,
        Through::RealTime,
        &[ok(1, 1, 2, vec![saw("x", [1])]), unknown(2, 3, 4, vec![append("x", 1)])],
    );
}

#[test]
fn a_process_goes_on_while_its_unknown_operation_is_still_to_happen() {
    assert_valid(&[
        unknown(1, 1, 2, vec![append("x", 1)]),
        ok(1, 3, 4, vec![saw("x", []), append("x", 2)]),
        ok(2, 5, 6, vec![saw("x", [2])]),
        ok(2, 7, 8, vec![saw("x", [2, 1])]),
    ]);
}

#[test]
fn a_failed_append_that_is_retried_is_valid() {
    assert_valid(&[
        failed(1, 1, 2, vec![append("x", 1)]),
        ok(1, 3, 4, vec![append("x", 1)]),
        ok(2, 5, 6, vec![saw("x", [1])]),
    ]);
}

#[test]
fn appending_an_element_twice_leaves_it_undecided() {
    let verdict =
        judge(&[ok(1, 1, 2, vec![append("x", 1)]), unknown(1, 3, 4, vec![append("x", 1)])]);
    assert!(matches!(verdict, Verdict::Undecided(_)), "{verdict}");
}

#[test]
fn the_explanation_names_operations_keys_and_values() {
    let verdict = judge(&[
        ok(1, 1, 2, vec![append("x", 1)]),
        ok(2, 3, 4, vec![saw("x", [])]),
        ok(3, 5, 6, vec![saw("x", [1])]),
    ]);
    let text = verdict.to_string();
    assert!(text.contains("#1 read x without 1, which #0 appended"), "{text}");
    assert!(text.contains("#1 began (at 3ms) after #0 was over (at 2ms)"), "{text}");
    assert_eq!(verdict.anomalies()[0].operations.len(), 2);
}

#[test]
fn a_hundred_thousand_operations() {
    let shape = Shape { operations: 100_000, keys: 2_000, steps_max: 4, overlap: 150, shift: 0 };
    let mut ops = execution(1, shape);
    assert_valid(&ops);
    let read = stale_read(&mut ops).expect("some read can be made stale");
    let verdict = judge(&ops);
    assert!(verdict.anomalies().iter().any(|found| found.operations.contains(&read)), "{verdict}");
}

/// Makes a read miss its last element although that was acknowledged before.
fn stale_read(ops: &mut [Op]) -> Option<usize> {
    let mut acknowledged = BTreeMap::new();
    for op in ops.iter().filter(|op| op.outcome == Outcome::Ok) {
        for step in &op.txn {
            if let MicroOp::Append { key, value } = step {
                acknowledged.insert((key.clone(), *value), op.to);
            }
        }
    }
    let middle = ops.len() / 2;
    let candidates = ops.iter_mut().enumerate().skip(middle);
    for (at, op) in candidates.filter(|(_, op)| op.outcome == Outcome::Ok) {
        let [MicroOp::Read { key, seen: Some(Datum::List(list)) }] = op.txn.as_mut_slice() else {
            continue;
        };
        let Some(last) = list.last() else { continue };
        if acknowledged.get(&(key.clone(), *last)).is_some_and(|to| *to < op.from) {
            list.pop();
            return Some(at);
        }
    }
    None
}

fn shape() -> impl Strategy<Value = Shape> {
    (1..80_u64, 1..6_u64, 1..5_u64, 1..400_u64).prop_map(
        |(operations, keys, steps_max, overlap)| Shape {
            operations,
            keys,
            steps_max,
            overlap,
            shift: 0,
        },
    )
}

/// The acknowledged appends of a history.
fn acknowledged_appends(ops: &[Op]) -> Vec<(String, i64)> {
    let ok = ops.iter().filter(|op| op.outcome == Outcome::Ok);
    let appends = ok.flat_map(|op| &op.txn).filter_map(|step| match step {
        MicroOp::Append { key, value } => Some((key.to_string(), *value)),
        _ => None,
    });
    appends.collect()
}

fn for_each_list(ops: &mut [Op], mut change: impl FnMut(usize, &str, &mut Vec<i64>)) {
    for (at, op) in ops.iter_mut().enumerate() {
        for step in &mut op.txn {
            if let MicroOp::Read { key, seen: Some(Datum::List(list)) } = step {
                change(at, key.as_str(), list);
            }
        }
    }
}

proptest! {
    #[test]
    fn every_execution_on_one_thread_is_accepted(seed: u64, shape in shape()) {
        let ops = execution(seed, shape);
        prop_assert_eq!(judge(&ops), Verdict::Valid);
    }

    #[test]
    fn dropping_an_acknowledged_append_is_caught(seed: u64, shape in shape(), pick: prop::sample::Index) {
        let mut ops = execution(seed, shape);
        let appends = acknowledged_appends(&ops);
        prop_assume!(!appends.is_empty());
        let (dropped_key, dropped) = &appends[pick.index(appends.len())];
        for_each_list(&mut ops, |_, key, list| {
            if key == dropped_key {
                list.retain(|value| value != dropped);
            }
        });
        prop_assert!(judge(&ops).is_invalid());
    }

    #[test]
    fn swapping_two_elements_of_a_read_is_caught(seed: u64, shape in shape(), pick: prop::sample::Index) {
        let mut ops = execution(seed, shape);
        let last = ops.len() - 1;
        let mut places = Vec::new();
        for_each_list(&mut ops, |at, _, list| {
            if at != last && list.len() > 1 {
                places.push(at);
            }
        });
        prop_assume!(!places.is_empty());
        let place = places[pick.index(places.len())];
        let mut is_done = false;
        for_each_list(&mut ops, |at, _, list| {
            if at == place && list.len() > 1 && !is_done {
                list.swap(0, 1);
                is_done = true;
            }
        });
        prop_assert!(judge(&ops).is_invalid());
    }

    #[test]
    fn moving_a_read_before_what_it_saw_is_caught(seed: u64, shape in shape(), pick: prop::sample::Index) {
        let mut ops = execution(seed, shape);
        let last = ops.len() - 1;
        let mut places = Vec::new();
        for_each_list(&mut ops, |at, _, list| {
            if at != last && !list.is_empty() {
                places.push(at);
            }
        });
        prop_assume!(!places.is_empty());
        let place = places[pick.index(places.len())];
        // Before everything, as a process of its own.
        let is_its_own = !acknowledged_appends(&ops[place..=place]).is_empty();
        prop_assume!(!is_its_own);
        ops[place].process = 1_000_000;
        (ops[place].from, ops[place].to) = (1, 2);
        prop_assert!(judge(&ops).is_invalid());
    }
}

/// The two checkers know nothing of each other. With every list read at the
/// end, inference from versions must find exactly what search finds.
#[test]
fn agrees_with_exhaustive_search() {
    let mut verdicts = [0; 2];
    for seed in 0..6_000 {
        let mut chance = SplitMix::new(seed);
        let shape = Shape {
            operations: 1 + chance.below(9),
            keys: 1 + chance.below(3),
            steps_max: 1 + chance.below(3),
            overlap: 1 + chance.below(60),
            shift: chance.below(60),
        };
        let mut ops = execution(seed, shape);
        let last = ops.len() - 1;
        for_each_list(&mut ops, |at, _, list| {
            if at != last && chance.below(8) == 0 {
                list.pop();
            }
        });
        let operations = operations(&ops);
        let searched = linearizable::check(&operations, &BTreeMap::new(), 1_000_000);
        let inferred = check(&operations, Consistency::StrictSerializable);
        assert!(!matches!(searched, Verdict::Undecided(_)), "seed {seed}: {searched}");
        assert_eq!(inferred.is_valid(), searched.is_valid(), "seed {seed}: {inferred}\n{searched}");
        verdicts[usize::from(searched.is_valid())] += 1;
    }
    assert!(verdicts.iter().all(|count| *count > 500), "{verdicts:?} prove little");
}

impl Op {
    fn at(self, from: u64, to: u64) -> Self {
        Self { from, to, ..self }
    }
}
