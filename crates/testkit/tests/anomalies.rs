//! The checkers of a single anomaly: internal consistency, what only rises,
//! long forks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::{Op, Shape, append, execution, failed, ok, operations, saw, unknown};
use proptest::prelude::*;
use quorate_testkit::check::monotonic::Scope;
use quorate_testkit::check::{AnomalyKind, Verdict, internal, long_fork, monotonic};
use quorate_testkit::history::{Datum, Key, MicroOp, Outcome};
use quorate_types::env::{Rng, SplitMix};

fn read(key: &str, value: i64) -> MicroOp {
    MicroOp::saw_int(key, value)
}

fn nothing(key: &str) -> MicroOp {
    MicroOp::saw(key, Datum::Nil)
}

fn write(key: &str, value: i64) -> MicroOp {
    MicroOp::write(key, value)
}

#[track_caller]
fn assert_undecided(verdict: &Verdict) {
    assert!(matches!(verdict, Verdict::Undecided(_)), "{verdict}");
}

// Internal consistency.

fn alone(txn: Vec<MicroOp>) -> Verdict {
    internal::check(&operations(&[ok(1, 1, 2, txn)]))
}

#[track_caller]
fn assert_consistent(txn: Vec<MicroOp>) {
    assert_eq!(alone(txn), Verdict::Valid);
}

#[track_caller]
fn assert_contradiction(txn: Vec<MicroOp>) {
    let verdict = alone(txn);
    assert!(verdict.has(AnomalyKind::Internal), "{verdict}");
}

#[test]
fn a_transaction_that_sees_what_it_did() {
    assert_consistent(vec![write("x", 1), read("x", 1), write("x", 2), read("x", 2)]);
    assert_consistent(vec![nothing("x"), write("x", 1), nothing("y"), read("x", 1)]);
    assert_consistent(vec![append("x", 5), saw("x", [1, 5]), append("x", 6), saw("x", [1, 5, 6])]);
    assert_consistent(vec![read("n", 3), MicroOp::add("n", 4), read("n", 7)]);
    assert_consistent(vec![MicroOp::compare_and_set("x", 1, 2), read("x", 2)]);
    assert_consistent(vec![read("x", 1), MicroOp::differs("x", 2), read("x", 1)]);
}

#[test]
fn nothing_is_an_empty_list_and_a_counter_at_zero() {
    assert_consistent(vec![nothing("x"), saw("x", []), nothing("x")]);
    assert_consistent(vec![nothing("n"), MicroOp::add("n", 2), read("n", 2)]);
    assert_consistent(vec![nothing("n"), read("n", 0), MicroOp::add("n", 2)]);
    assert_contradiction(vec![nothing("x"), read("x", 0)]);
}

#[test]
fn a_register_that_is_read_twice_and_differently() {
    assert_contradiction(vec![read("x", 1), read("x", 2)]);
    assert_contradiction(vec![read("x", 1), nothing("y"), nothing("x")]);
}

#[test]
fn a_transaction_that_misses_its_own_change() {
    assert_contradiction(vec![read("x", 1), write("x", 2), read("x", 1)]);
    assert_contradiction(vec![append("x", 1), nothing("x")]);
    assert_contradiction(vec![append("x", 1), saw("x", [1, 2])]);
    assert_contradiction(vec![read("n", 3), MicroOp::add("n", 4), read("n", 3)]);
    let transfer = |a, b| {
        let before = [read("a", 5), read("b", 5), MicroOp::transfer("a", "b", 2)];
        [&before[..], &[read("a", a), read("b", b)]].concat()
    };
    assert_consistent(transfer(3, 7));
    assert_contradiction(transfer(3, 5));
}

#[test]
fn a_comparison_that_contradicts_a_read() {
    assert_contradiction(vec![read("x", 1), MicroOp::compare_and_set("x", 2, 3)]);
    assert_contradiction(vec![read("x", 1), MicroOp::differs("x", 1)]);
    assert_contradiction(vec![write("x", 1), MicroOp::differs("x", 1)]);
}

#[test]
fn what_an_increment_without_a_read_leaves_is_not_known() {
    assert_consistent(vec![
        MicroOp::add("n", 4),
        read("n", 90),
        MicroOp::add("n", 1),
        read("n", 91),
    ]);
}

#[test]
fn only_acknowledged_transactions_have_seen_anything() {
    let txn = || vec![read("x", 1), read("x", 2)];
    let operations = operations(&[failed(1, 1, 2, txn()), unknown(2, 3, 4, txn())]);
    assert_eq!(internal::check(&operations), Verdict::Valid);
}

#[test]
fn a_contradiction_is_told() {
    let verdict = alone(vec![write("x", 2), read("x", 1)]);
    assert!(verdict.to_string().contains("leave 2 in x, and it read 1"), "{verdict}");
}

// What only rises.

fn rising(ops: &[Op], scope: Scope) -> Verdict {
    monotonic::check(&operations(ops), |_| true, scope)
}

#[track_caller]
fn assert_rises(ops: &[Op]) {
    assert_eq!(rising(ops, Scope::Process), Verdict::Valid);
    assert_eq!(rising(ops, Scope::RealTime), Verdict::Valid);
}

/// Expects it in real time, and in the process if `in_process`.
#[track_caller]
fn assert_falls(ops: &[Op], in_process: bool) {
    let verdict = rising(ops, Scope::RealTime);
    assert!(verdict.has(AnomalyKind::WentBack), "{verdict}");
    let verdict = rising(ops, Scope::Process);
    assert_eq!(verdict.has(AnomalyKind::WentBack), in_process, "{verdict}");
}

#[test]
fn reads_that_rise_or_stand() {
    let reads = [nothing("x"), read("x", 1), read("x", 1), read("x", 7)];
    let ops = reads.into_iter().zip(0..).map(|(read, at)| ok(1, 2 * at, 2 * at + 1, vec![read]));
    assert_rises(&ops.collect::<Vec<_>>());
}

#[test]
fn a_process_sees_a_value_go_back() {
    assert_falls(&[ok(1, 1, 2, vec![read("x", 2)]), ok(1, 3, 4, vec![read("x", 1)])], true);
    assert_falls(&[ok(1, 1, 2, vec![read("x", 2)]), ok(1, 3, 4, vec![nothing("x")])], true);
    assert_falls(&[ok(1, 1, 2, vec![saw("x", [1, 2])]), ok(1, 3, 4, vec![saw("x", [1])])], true);
}

#[test]
fn another_process_sees_less_than_was_seen_before() {
    assert_falls(&[ok(1, 1, 2, vec![read("x", 2)]), ok(2, 3, 4, vec![read("x", 1)])], false);
}

#[test]
fn reads_at_the_same_time_may_see_either() {
    assert_rises(&[
        ok(1, 1, 10, vec![read("x", 2)]),
        ok(2, 2, 9, vec![read("x", 1)]),
        ok(3, 3, 8, vec![read("x", 2)]),
    ]);
}

#[test]
fn a_read_in_flight_is_held_against_what_was_over_when_it_began() {
    assert_rises(&[
        ok(1, 1, 2, vec![read("x", 1)]),
        ok(2, 3, 10, vec![read("x", 1)]),
        ok(1, 4, 5, vec![read("x", 2)]),
    ]);
}

#[test]
fn a_process_misses_what_it_did_itself() {
    let add = |by| vec![MicroOp::add("n", by)];
    assert_falls(
        &[ok(1, 1, 2, vec![read("n", 5)]), ok(1, 3, 4, add(2)), ok(1, 5, 6, vec![read("n", 6)])],
        true,
    );
    assert_falls(&[ok(1, 1, 2, vec![append("x", 1)]), ok(1, 3, 4, vec![nothing("x")])], true);
    let raise = MicroOp::compare_and_set("v", 3, 4);
    assert_falls(&[ok(1, 1, 2, vec![raise]), ok(1, 3, 4, vec![read("v", 3)])], true);
    let raise = MicroOp::compare_and_set("v", 3, 4);
    assert_falls(&[ok(1, 1, 2, vec![read("v", 4)]), ok(1, 3, 4, vec![raise])], true);
}

#[test]
fn what_is_unknown_may_show_late_or_never() {
    let add = vec![MicroOp::add("n", 2)];
    assert_rises(&[
        ok(1, 1, 2, vec![nothing("n")]),
        unknown(1, 3, 4, add),
        ok(1, 5, 6, vec![read("n", 0)]),
        ok(1, 7, 8, vec![read("n", 2)]),
    ]);
}

#[test]
fn a_retried_increment_raises_once() {
    let add = || vec![MicroOp::add_once("n", 2, "id")];
    assert_rises(&[
        unknown(1, 1, 2, add()),
        ok(1, 3, 4, vec![read("n", 2)]),
        ok(1, 5, 6, add()),
        ok(1, 7, 8, vec![read("n", 2)]),
    ]);
}

#[test]
fn a_failed_increment_raises_nothing() {
    assert_rises(&[
        ok(1, 1, 2, vec![nothing("n")]),
        failed(1, 3, 4, vec![MicroOp::add("n", 2)]),
        ok(1, 5, 6, vec![read("n", 0)]),
    ]);
}

#[test]
fn what_may_fall_without_fault_is_undecided() {
    for scope in [Scope::Process, Scope::RealTime] {
        assert_undecided(&rising(&[ok(1, 1, 2, vec![MicroOp::add("n", -1)])], scope));
        assert_undecided(&rising(&[ok(1, 1, 2, vec![MicroOp::transfer("a", "b", 1)])], scope));
        // The unknown write may take effect after the other.
        let late = [unknown(1, 1, 2, vec![write("x", 1)]), ok(1, 3, 4, vec![write("x", 2)])];
        assert_undecided(&rising(&late, scope));
        let together = [ok(1, 1, 4, vec![write("x", 1)]), ok(2, 2, 3, vec![write("x", 2)])];
        assert_undecided(&rising(&together, scope));
        let both = [ok(1, 1, 4, vec![write("x", 1)]), ok(2, 2, 3, vec![MicroOp::add("x", 2)])];
        assert_undecided(&rising(&both, scope));
    }
}

#[test]
fn writes_one_after_the_other_rise() {
    assert_rises(&[
        ok(1, 1, 2, vec![write("x", 1)]),
        ok(1, 3, 6, vec![write("x", 2)]),
        ok(2, 4, 5, vec![read("x", 1)]),
        unknown(2, 7, 8, vec![write("x", 3)]),
        ok(3, 9, 10, vec![read("x", 2)]),
    ]);
    assert_falls(
        &[
            ok(1, 1, 2, vec![write("x", 1)]),
            ok(1, 3, 4, vec![write("x", 2)]),
            ok(2, 5, 6, vec![read("x", 1)]),
        ],
        false,
    );
}

#[test]
fn keys_that_are_not_said_to_rise_are_passed_over() {
    let ops = [ok(1, 1, 2, vec![read("y", 2)]), ok(1, 3, 4, vec![read("y", 1)])];
    let verdict = monotonic::check(&operations(&ops), |key| key.as_str() == "x", Scope::Process);
    assert_eq!(verdict, Verdict::Valid);
}

#[test]
fn who_saw_more_before_is_told() {
    let ops = [ok(1, 1, 2, vec![read("x", 2)]), ok(2, 3, 4, vec![read("x", 1)])];
    let text = rising(&ops, Scope::RealTime).to_string();
    assert!(text.contains("#1 found x at 1, but it had come to 2 with #0"), "{text}");
}

// Long forks.

fn forks(ops: &[Op]) -> Verdict {
    long_fork::check(&operations(ops), |_| true)
}

fn writers() -> [Op; 2] {
    [ok(1, 1, 20, vec![write("x", 1)]), ok(2, 2, 21, vec![write("y", 1)])]
}

#[test]
fn two_readers_that_see_two_writes_in_one_order() {
    for second in [vec![read("x", 1), read("y", 1)], vec![nothing("x"), nothing("y")]] {
        let readers = [
            ok(3, 3, 18, vec![read("x", 1), nothing("y")]),
            ok(4, 4, 19, second),
            ok(5, 5, 17, vec![read("x", 1), nothing("y")]),
        ];
        assert_eq!(forks(&[&writers()[..], &readers].concat()), Verdict::Valid);
    }
}

#[test]
fn two_readers_that_see_two_writes_in_opposite_orders() {
    let readers = [
        ok(3, 3, 18, vec![read("x", 1), nothing("y")]),
        ok(4, 4, 19, vec![read("y", 1), nothing("x")]),
    ];
    let verdict = forks(&[&writers()[..], &readers].concat());
    assert!(verdict.has(AnomalyKind::LongFork), "{verdict}");
    assert_eq!(verdict.anomalies()[0].operations, [2, 3]);
    let text = verdict.to_string();
    let told = "#2 saw x at 1 and y at nothing, #3 saw them at nothing and 1";
    assert!(text.contains(told), "{text}");
}

#[test]
fn an_unknown_write_forks_as_well() {
    let verdict = forks(&[
        unknown(1, 1, 2, vec![write("x", 1)]),
        unknown(2, 3, 4, vec![write("y", 1)]),
        ok(3, 5, 6, vec![read("x", 1), nothing("y")]),
        ok(4, 7, 8, vec![nothing("x"), read("y", 1)]),
    ]);
    assert!(verdict.has(AnomalyKind::LongFork), "{verdict}");
}

#[test]
fn readers_of_more_keys_fork_on_those_they_share() {
    let verdict = forks(&[
        ok(3, 1, 8, vec![read("u", 1), read("x", 4), read("y", 2)]),
        ok(4, 2, 7, vec![read("x", 3), read("y", 3), read("z", 9)]),
    ]);
    assert!(verdict.has(AnomalyKind::LongFork), "{verdict}");
    let verdict = forks(&[
        ok(3, 1, 8, vec![read("u", 1), read("x", 4)]),
        ok(4, 2, 7, vec![read("x", 3), read("z", 9)]),
        ok(4, 9, 10, vec![read("u", 0), read("z", 8)]),
    ]);
    assert_eq!(verdict, Verdict::Valid);
}

#[test]
fn what_a_transaction_wrote_itself_is_no_sight_of_others() {
    let verdict = forks(&[
        ok(1, 1, 10, vec![nothing("y"), append("x", 1), saw("x", [1])]),
        ok(2, 2, 9, vec![nothing("x"), append("y", 1), saw("y", [1])]),
    ]);
    assert!(!verdict.is_invalid(), "write skew is not a long fork: {verdict}");
}

#[test]
fn without_a_read_of_two_keys_nothing_is_said_about_forks() {
    assert_undecided(&forks(&writers()));
    let together = [ok(1, 1, 4, vec![write("x", 1)]), ok(2, 2, 3, vec![write("x", 2)])];
    assert_undecided(&forks(&together));
    let keys = (0..1 + long_fork::KEYS_READ_MAX as u64).map(|key| read(&key.to_string(), 1));
    assert_undecided(&forks(&[ok(1, 1, 2, keys.collect())]));
}

/// Keys that are written once each, and readers of a few of them, on one
/// thread.
fn snapshots(seed: u64, count: u64) -> Vec<Op> {
    let mut chance = SplitMix::new(seed);
    let mut written: Vec<Key> = Vec::new();
    let mut ops = Vec::new();
    for number in 0..count {
        let (from, to) = (number * 1000, number * 1000 + 1 + chance.below(9000));
        let fresh = Key::from(chance.below(count));
        let txn = if chance.below(2) == 0 && !written.contains(&fresh) {
            written.push(fresh.clone());
            vec![MicroOp::write(fresh, 1)]
        } else {
            let keys = (0..6).map(|_| Key::from(chance.below(count)));
            let sight = |key: Key| match written.contains(&key) {
                true => MicroOp::saw_int(key, 1),
                false => MicroOp::saw(key, Datum::Nil),
            };
            keys.map(sight).collect()
        };
        ops.push(ok(number, from + number, to + number, txn));
    }
    ops
}

proptest! {
    #[test]
    fn no_execution_on_one_thread_contradicts_itself_falls_or_forks(
        seed: u64,
        operations_count in 1..120_u64,
        keys in 2..6_u64,
        overlap in 1..400_u64,
    ) {
        let shape =
            Shape { operations: operations_count, keys, steps_max: 4, overlap, shift: 0 };
        let ops = execution(seed, shape);
        prop_assert_eq!(internal::check(&operations(&ops)), Verdict::Valid);
        prop_assert_eq!(rising(&ops, Scope::Process), Verdict::Valid);
        prop_assert_eq!(rising(&ops, Scope::RealTime), Verdict::Valid);
        // The last operation reads everything.
        prop_assert_eq!(forks(&ops), Verdict::Valid);
    }

    #[test]
    fn snapshots_on_one_thread_do_not_fork(seed: u64, count in 2..200_u64) {
        let ops = snapshots(seed, count);
        let is_read_together = |op: &Op| op.txn.iter().filter(|step| step.is_read()).count() > 1;
        prop_assume!(ops.iter().any(is_read_together));
        prop_assert!(!forks(&ops).is_invalid());
    }

    #[test]
    fn a_list_that_is_read_shorter_at_the_end_is_caught(seed: u64, count in 2..80_u64) {
        let shape = Shape { operations: count, keys: 2, steps_max: 3, overlap: 60, shift: 0 };
        let mut ops = execution(seed, shape);
        let last = ops.last_mut().unwrap();
        let mut again = last.clone();
        let Some(MicroOp::Read { seen: Some(Datum::List(list)), .. }) = again.txn.first_mut() else {
            return Err(TestCaseError::reject("nothing was appended"));
        };
        prop_assume!(list.pop().is_some());
        (again.from, again.to) = (last.to + 1, last.to + 2);
        ops.push(again);
        prop_assert!(rising(&ops, Scope::Process).has(AnomalyKind::WentBack));
    }
}

#[test]
fn a_fork_between_any_two_readers_is_caught() {
    let mut caught = 0;
    for seed in 0..200 {
        let mut ops = snapshots(seed, 60);
        // The last reader misses a key that an earlier reader saw, and saw
        // one that the earlier reader missed.
        let reads = |op: &Op| op.outcome == Outcome::Ok && op.txn.len() == 6;
        let earlier = ops.iter().find(|op| reads(op) && op.txn.iter().any(seen_one));
        let Some(earlier) = earlier.cloned() else { continue };
        let Some(missed) = earlier.txn.iter().find(|step| !seen_one(step)).cloned() else {
            continue;
        };
        let seen = earlier.txn.iter().find(|step| seen_one(step)).cloned().unwrap();
        let end = ops.iter().map(|op| op.to).max().unwrap();
        let key = |step: &MicroOp| step.keys().next().unwrap().clone();
        let txn = vec![MicroOp::saw(key(&seen), Datum::Nil), MicroOp::saw_int(key(&missed), 1)];
        ops.push(ok(10_000, end + 1, end + 2, txn));
        assert!(forks(&ops).has(AnomalyKind::LongFork), "seed {seed}");
        caught += 1;
    }
    assert!(caught > 100, "{caught} prove little");
}

fn seen_one(step: &MicroOp) -> bool {
    matches!(step, MicroOp::Read { seen: Some(Datum::Int(1)), .. })
}
