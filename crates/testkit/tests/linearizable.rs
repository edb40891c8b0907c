//! The search for linearizations against histories whose answer is known.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::BTreeMap;

use common::{Op, Shape, append, execution, failed, ok, operations, saw, unknown};
use proptest::prelude::*;
use quorate_testkit::check::linearizable::{STEPS_MAX_DEFAULT, check};
use quorate_testkit::check::{AnomalyKind, Verdict};
use quorate_testkit::history::{Datum, Key, MicroOp, Outcome};
use quorate_types::env::{Rng, SplitMix};

fn judge(ops: &[Op]) -> Verdict {
    check(&operations(ops), &BTreeMap::new(), STEPS_MAX_DEFAULT)
}

#[track_caller]
fn assert_valid(ops: &[Op]) {
    assert_eq!(judge(ops), Verdict::Valid);
}

#[track_caller]
fn assert_invalid(ops: &[Op]) {
    let verdict = judge(ops);
    assert!(verdict.has(AnomalyKind::NotLinearizable), "{verdict}");
}

fn write(value: i64) -> Vec<MicroOp> {
    vec![MicroOp::write("x", value)]
}

fn read(value: i64) -> Vec<MicroOp> {
    vec![MicroOp::saw_int("x", value)]
}

fn read_nothing() -> Vec<MicroOp> {
    vec![MicroOp::saw("x", Datum::Nil)]
}

fn cas(expected: i64, new: i64) -> Vec<MicroOp> {
    vec![MicroOp::compare_and_set("x", expected, new)]
}

#[test]
fn nothing_at_all_is_linearizable() {
    assert_valid(&[]);
}

#[test]
fn a_register_read_after_its_write() {
    assert_valid(&[ok(1, 1, 2, read_nothing()), ok(1, 3, 4, write(1)), ok(2, 5, 6, read(1))]);
}

#[test]
fn a_stale_read() {
    assert_invalid(&[ok(1, 1, 2, write(1)), ok(1, 3, 4, write(2)), ok(2, 5, 6, read(1))]);
}

#[test]
fn a_read_of_what_was_never_written() {
    assert_invalid(&[ok(1, 1, 2, write(1)), ok(2, 3, 4, read(9))]);
}

#[test]
fn concurrent_reads_may_straddle_a_write() {
    assert_valid(&[ok(1, 1, 10, write(1)), ok(2, 2, 4, read_nothing()), ok(3, 5, 7, read(1))]);
}

#[test]
fn new_then_old_during_one_write() {
    assert_invalid(&[ok(1, 1, 10, write(1)), ok(2, 2, 4, read(1)), ok(3, 5, 7, read_nothing())]);
}

#[test]
fn an_unknown_write_may_take_effect_late() {
    assert_valid(&[
        unknown(1, 1, 2, write(1)),
        ok(2, 3, 4, read_nothing()),
        ok(2, 5, 6, write(2)),
        ok(2, 7, 8, read(1)),
    ]);
}

#[test]
fn an_unknown_write_takes_effect_once() {
    assert_invalid(&[
        unknown(1, 1, 2, write(1)),
        ok(2, 3, 4, read(1)),
        ok(2, 5, 6, write(2)),
        ok(2, 7, 8, read(1)),
    ]);
}

#[test]
fn a_failed_write_is_not_read() {
    assert_invalid(&[failed(1, 1, 2, write(1)), ok(2, 3, 4, read(1))]);
}

#[test]
fn two_compare_and_sets_cannot_both_win() {
    assert_invalid(&[ok(1, 1, 2, write(0)), ok(1, 3, 10, cas(0, 1)), ok(2, 4, 9, cas(0, 2))]);
}

#[test]
fn an_unknown_compare_and_set_may_never_have_won() {
    assert_valid(&[
        ok(1, 1, 2, write(0)),
        unknown(1, 3, 4, cas(0, 1)),
        ok(2, 5, 6, cas(0, 2)),
        ok(2, 7, 8, read(2)),
    ]);
}

#[test]
fn a_counter_begins_at_zero_and_counts() {
    assert_valid(&[
        ok(1, 1, 2, vec![MicroOp::saw("n", Datum::Nil)]),
        ok(1, 3, 10, vec![MicroOp::add("n", 2)]),
        unknown(2, 4, 5, vec![MicroOp::add("n", 3)]),
        ok(3, 11, 12, vec![MicroOp::saw_int("n", 5)]),
    ]);
}

#[test]
fn a_counter_that_counted_twice() {
    assert_invalid(&[
        ok(1, 1, 2, vec![MicroOp::add("n", 2)]),
        ok(3, 3, 4, vec![MicroOp::saw_int("n", 4)]),
    ]);
}

#[test]
fn a_list_nobody_appended_to_is_empty() {
    assert_valid(&[ok(1, 1, 2, vec![saw("x", [])])]);
}

#[test]
fn a_transfer_is_seen_whole() {
    let begin = BTreeMap::from([(Key::from("a"), Datum::Int(10)), (Key::from("b"), Datum::Int(0))]);
    let both = |a, b| vec![MicroOp::saw_int("a", a), MicroOp::saw_int("b", b)];
    let history = |seen| [ok(1, 1, 10, vec![MicroOp::transfer("a", "b", 3)]), ok(2, 2, 9, seen)];
    for seen in [both(10, 0), both(7, 3)] {
        assert!(check(&operations(&history(seen)), &begin, 1000).is_valid());
    }
    for seen in [both(7, 0), both(10, 3)] {
        assert!(check(&operations(&history(seen)), &begin, 1000).is_invalid());
    }
}

#[test]
fn write_skew_over_two_keys() {
    assert_invalid(&[
        ok(1, 1, 10, vec![saw("x", []), append("y", 1)]),
        ok(2, 2, 9, vec![saw("y", []), append("x", 1)]),
    ]);
}

#[test]
fn keys_are_searched_apart() {
    let on = |key: &str, at: u64| {
        [
            ok(at, at, at + 1, vec![MicroOp::write(key, 1)]),
            ok(at, at + 2, at + 3, vec![MicroOp::saw_int(key, 2)]),
        ]
    };
    let verdict = judge(&[on("a", 1), on("b", 11)].concat());
    assert_eq!(verdict.anomalies().len(), 2, "{verdict}");
}

#[test]
fn too_large_a_search_is_undecided() {
    let mut ops: Vec<Op> = (0..30).map(|at| ok(at, at + 1, 100 + at, write(at as i64))).collect();
    ops.push(ok(99, 200, 201, read(77)));
    let verdict = check(&operations(&ops), &BTreeMap::new(), 500);
    assert!(matches!(verdict, Verdict::Undecided(_)), "{verdict}");
}

#[test]
fn the_explanation_names_what_is_stuck() {
    let verdict = judge(&[ok(1, 1, 2, write(1)), ok(1, 3, 4, write(2)), ok(2, 5, 6, read(1))]);
    let text = verdict.to_string();
    assert!(text.contains("has 2 of them, leaves x = 2, and cannot go on with #2"), "{text}");
}

/// A register on one thread, dressed up as concurrent clients.
fn register_execution(seed: u64, count: u64) -> Vec<Op> {
    let mut chance = SplitMix::new(seed);
    let mut value: Option<i64> = None;
    let mut ops = Vec::new();
    for number in 0..count {
        let moment = 1_000 + number * 10;
        let new = i64::try_from(chance.below(4)).unwrap();
        let txn = match (chance.below(3), value) {
            (0, _) => {
                value = Some(new);
                write(new)
            }
            (1, Some(expected)) => {
                value = Some(new);
                cas(expected, new)
            }
            (_, Some(value)) => read(value),
            (_, None) => read_nothing(),
        };
        let is_read = txn[0].is_read();
        let from = (moment - 1 - chance.below(60)) * 1000 + number;
        let to = (moment + 1 + chance.below(60)) * 1000 + 500 + number;
        let is_unknown = !is_read && chance.below(10) == 0;
        let outcome = if is_unknown { Outcome::Unknown } else { Outcome::Ok };
        ops.push(Op { process: number, from, to, outcome, txn });
    }
    ops
}

proptest! {
    #[test]
    fn every_execution_of_a_register_is_accepted(seed: u64, count in 1..200_u64) {
        prop_assert_eq!(judge(&register_execution(seed, count)), Verdict::Valid);
    }

    #[test]
    fn a_read_of_another_value_at_the_end_is_caught(seed: u64, count in 1..60_u64) {
        let mut ops = register_execution(seed, count);
        for op in &mut ops {
            op.outcome = Outcome::Ok;
        }
        // Two reads after everything that see different values.
        ops.push(ok(9_001, 10_000_000, 10_000_001, read(0)));
        ops.push(ok(9_001, 10_000_002, 10_000_003, read(1)));
        prop_assert!(judge(&ops).is_invalid());
    }

    #[test]
    fn every_execution_of_lists_is_accepted(seed: u64, operations in 1..40_u64, keys in 1..4_u64) {
        let shape = Shape { operations, keys, steps_max: 3, overlap: 50, shift: 0 };
        prop_assert_eq!(judge(&execution(seed, shape)), Verdict::Valid);
    }
}
