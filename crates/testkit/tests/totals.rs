//! The checkers that add up: bank, durability, exactly once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::BTreeMap;

use common::{Op, append, failed, ok, operations, unknown};
use quorate_testkit::check::bank::{self, Bank};
use quorate_testkit::check::durability::{self, Writes};
use quorate_testkit::check::{AnomalyKind, Verdict, exactly_once};
use quorate_testkit::history::{Datum, Key, MicroOp};

fn bank() -> Bank {
    Bank {
        accounts: vec!["a".into(), "b".into()],
        total: 10,
        allows_negative: false,
        needs_final_read: true,
    }
}

fn balances(a: i64, b: i64) -> Vec<MicroOp> {
    vec![MicroOp::saw_int("a", a), MicroOp::saw_int("b", b)]
}

fn transfer(amount: i64) -> Vec<MicroOp> {
    vec![MicroOp::transfer("a", "b", amount)]
}

fn audit(ops: &[Op]) -> Verdict {
    bank::check(&operations(ops), &bank())
}

#[test]
fn a_bank_whose_money_stays() {
    let verdict = audit(&[
        ok(1, 1, 2, balances(10, 0)),
        ok(1, 3, 4, transfer(3)),
        unknown(2, 5, 6, transfer(1)),
        ok(1, 7, 8, balances(7, 3)),
    ]);
    assert_eq!(verdict, Verdict::Valid);
}

#[test]
fn a_read_in_the_middle_of_a_transfer() {
    let verdict = audit(&[ok(1, 1, 10, transfer(3)), ok(2, 2, 9, balances(7, 0))]);
    assert!(verdict.has(AnomalyKind::WrongTotal), "{verdict}");
}

#[test]
fn an_overdrawn_account() {
    let verdict = audit(&[ok(1, 1, 2, balances(-1, 11))]);
    assert!(verdict.has(AnomalyKind::NegativeBalance), "{verdict}");
    let generous = Bank { allows_negative: true, ..bank() };
    assert!(bank::check(&operations(&[ok(1, 1, 2, balances(-1, 11))]), &generous).is_valid());
}

#[test]
fn a_partial_read_says_nothing_about_the_total() {
    let partial = vec![MicroOp::saw_int("a", 4)];
    let verdict = audit(&[ok(1, 1, 2, partial), ok(1, 3, 4, balances(5, 5))]);
    assert_eq!(verdict, Verdict::Valid);
}

#[test]
fn without_a_read_of_everything_the_bank_is_undecided() {
    assert!(matches!(audit(&[ok(1, 1, 2, transfer(3))]), Verdict::Undecided(_)));
    let early = audit(&[ok(1, 1, 2, balances(10, 0)), ok(1, 3, 4, transfer(3))]);
    assert!(matches!(early, Verdict::Undecided(_)), "{early}");
}

fn at_end<const N: usize>(data: [(&str, Datum); N]) -> BTreeMap<Key, Datum> {
    data.into_iter().map(|(key, datum)| (Key::from(key), datum)).collect()
}

fn survives(ops: &[Op], last: &BTreeMap<Key, Datum>, writes: Writes) -> Verdict {
    durability::check(&operations(ops), last, writes)
}

#[test]
fn all_acknowledged_appends_are_there() {
    let ops = [
        ok(1, 1, 2, vec![append("x", 1)]),
        unknown(2, 3, 4, vec![append("x", 2)]),
        unknown(3, 3, 4, vec![append("x", 3)]).later(1),
        failed(4, 9, 10, vec![append("x", 4)]),
    ];
    let last = at_end([("x", Datum::List(vec![3, 1]))]);
    assert_eq!(survives(&ops, &last, Writes::Latest), Verdict::Valid);
}

#[test]
fn an_acknowledged_append_is_gone() {
    let verdict = survives(&[ok(1, 1, 2, vec![append("x", 1)])], &at_end([]), Writes::Latest);
    assert!(verdict.has(AnomalyKind::LostWrite), "{verdict}");
}

#[test]
fn a_failed_append_is_there() {
    let last = at_end([("x", Datum::List(vec![1]))]);
    let verdict = survives(&[failed(1, 1, 2, vec![append("x", 1)])], &last, Writes::Latest);
    assert!(verdict.has(AnomalyKind::UnexpectedValue), "{verdict}");
}

#[test]
fn an_append_is_there_twice() {
    let last = at_end([("x", Datum::List(vec![1, 1]))]);
    let verdict = survives(&[ok(1, 1, 2, vec![append("x", 1)])], &last, Writes::Latest);
    assert!(verdict.has(AnomalyKind::DuplicateElement), "{verdict}");
}

#[test]
fn the_latest_write_stays() {
    let write = |value| vec![MicroOp::write("x", value)];
    let ops = [
        ok(1, 1, 2, write(1)),
        ok(2, 3, 10, write(2)),
        ok(3, 4, 9, write(3)),
        unknown(4, 5, 6, write(4)),
        failed(5, 7, 8, write(5)),
    ];
    for value in [2, 3, 4] {
        let last = at_end([("x", Datum::Int(value))]);
        assert_eq!(survives(&ops, &last, Writes::Latest), Verdict::Valid, "{value}");
    }
    let old = survives(&ops, &at_end([("x", Datum::Int(1))]), Writes::Latest);
    assert!(old.has(AnomalyKind::LostWrite), "{old}");
    let failed = survives(&ops, &at_end([("x", Datum::Int(5))]), Writes::Latest);
    assert!(failed.has(AnomalyKind::UnexpectedValue), "{failed}");
}

#[test]
fn the_greatest_write_stays() {
    let write = |value| vec![MicroOp::write("x", value)];
    let ops = [ok(1, 1, 2, write(7)), ok(1, 3, 4, write(5)), unknown(1, 5, 6, write(9))];
    for value in [7, 9] {
        let last = at_end([("x", Datum::Int(value))]);
        assert_eq!(survives(&ops, &last, Writes::Greatest), Verdict::Valid, "{value}");
    }
    let lost = survives(&ops, &at_end([("x", Datum::Int(5))]), Writes::Greatest);
    assert!(lost.has(AnomalyKind::LostWrite), "{lost}");
}

fn counts(ops: &[Op], value: i64) -> Verdict {
    exactly_once::check(&operations(ops), &BTreeMap::from([(Key::from("n"), value)]))
}

fn add(delta: i64, request: &str) -> Vec<MicroOp> {
    vec![MicroOp::add_once("n", delta, request)]
}

#[test]
fn a_counter_lies_between_acknowledged_and_attempted() {
    let ops = [
        ok(1, 1, 2, add(1, "a")),
        unknown(1, 3, 4, add(1, "b")),
        failed(1, 5, 6, add(1, "c")),
        ok(1, 7, 8, add(1, "d")),
    ];
    assert!(counts(&ops, 1).has(AnomalyKind::LostExecution));
    assert!(counts(&ops, 2).is_valid());
    assert!(counts(&ops, 3).is_valid());
    assert!(counts(&ops, 4).has(AnomalyKind::DoubleExecution));
}

#[test]
fn a_retry_under_the_same_id_counts_once() {
    let ops = [unknown(1, 1, 2, add(1, "a")), ok(1, 3, 4, add(1, "a"))];
    assert!(counts(&ops, 1).is_valid());
    assert!(counts(&ops, 2).has(AnomalyKind::DoubleExecution));
}

#[test]
fn a_retry_without_an_id_may_count_twice() {
    let plain = || vec![MicroOp::add("n", 1)];
    let ops = [unknown(1, 1, 2, plain()), ok(1, 3, 4, plain())];
    assert!(counts(&ops, 2).is_valid());
}

#[test]
fn one_id_for_two_increments_is_undecided() {
    let ops = [ok(1, 1, 2, add(1, "a")), ok(1, 3, 4, add(2, "a"))];
    assert!(matches!(counts(&ops, 3), Verdict::Undecided(_)));
}

impl Op {
    fn later(self, by: u64) -> Self {
        Self { from: self.from + 2 * by, to: self.to + 2 * by, ..self }
    }
}
