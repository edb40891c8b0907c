//! Transactions over several registers, judged by search and by inference.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::BTreeMap;

use common::{
    Op, Shape, Store, assign_processes, execution, failed, ok, operations, register_execution,
    unknown,
};
use proptest::prelude::*;
use quorate_testkit::check::linearizable::{self, STEPS_MAX_DEFAULT};
use quorate_testkit::check::list_append::{self, Consistency};
use quorate_testkit::check::{AnomalyKind, CycleClass, Through, Verdict, registers};
use quorate_testkit::history::{Datum, Key, MicroOp, Outcome};
use quorate_types::env::{Rng, SplitMix};

/// By search alone.
fn search(ops: &[Op]) -> Verdict {
    linearizable::check(&operations(ops), &BTreeMap::new(), STEPS_MAX_DEFAULT)
}

/// By inference, and by search where that leaves it open.
fn judge(ops: &[Op]) -> Verdict {
    registers::check(&operations(ops), &BTreeMap::new(), STEPS_MAX_DEFAULT)
}

#[track_caller]
fn assert_valid(ops: &[Op]) {
    assert_eq!(judge(ops), Verdict::Valid);
    assert_eq!(search(ops), Verdict::Valid);
}

#[track_caller]
fn assert_invalid(ops: &[Op]) {
    let verdict = judge(ops);
    assert!(verdict.is_invalid(), "{verdict}");
    let verdict = search(ops);
    assert!(verdict.has(AnomalyKind::NotLinearizable), "{verdict}");
}

#[track_caller]
fn assert_finds(kind: AnomalyKind, ops: &[Op]) {
    assert_invalid(ops);
    let verdict = judge(ops);
    assert!(verdict.has(kind), "expected {kind}, found {verdict}");
}

fn write(key: &str, value: i64) -> MicroOp {
    MicroOp::write(key, value)
}

fn read(key: &str, value: i64) -> MicroOp {
    MicroOp::saw_int(key, value)
}

fn nothing(key: &str) -> MicroOp {
    MicroOp::saw(key, Datum::Nil)
}

/// T reads b and writes a; while it is under way, b is overwritten by one who
/// did not see T's read, and then a is read without T's write: T is before the
/// overwrite and after the read.
#[test]
fn a_blind_overwrite_that_did_not_wait() {
    let history = |seen| {
        [
            ok(1, 1, 20, vec![nothing("b"), write("a", 1)]),
            ok(2, 2, 5, vec![write("b", 2)]),
            ok(2, 6, 9, vec![seen]),
        ]
    };
    assert_invalid(&history(nothing("a")));
    assert_valid(&history(read("a", 1)));
}

/// The same through a third key: what was overwritten was read, and something
/// else written in turn.
#[test]
fn a_chain_that_did_not_wait() {
    let history = |seen| {
        [
            ok(1, 1, 30, vec![nothing("b"), write("a", 1)]),
            ok(2, 2, 5, vec![write("b", 2)]),
            ok(3, 6, 9, vec![read("b", 2), write("c", 3)]),
            ok(4, 10, 13, vec![read("c", 3)]),
            ok(4, 14, 17, vec![seen]),
        ]
    };
    assert_invalid(&history(nothing("a")));
    assert_valid(&history(read("a", 1)));
}

#[test]
fn a_transaction_of_unknown_outcome_happens_whole_or_not_at_all() {
    let history = |seen: [MicroOp; 2]| {
        [unknown(1, 1, 2, vec![write("a", 1), write("b", 1)]), ok(2, 3, 4, seen.to_vec())]
    };
    assert_valid(&history([nothing("a"), nothing("b")]));
    assert_valid(&history([read("a", 1), read("b", 1)]));
    assert_invalid(&history([read("a", 1), nothing("b")]));
}

#[test]
fn a_refused_condition_is_an_answer() {
    let history = |seen| [ok(1, 1, 2, vec![write("x", 1)]), ok(2, 3, 4, vec![seen])];
    assert_valid(&history(MicroOp::differs("x", 2)));
    assert_invalid(&history(MicroOp::differs("x", 1)));
    // A write that nobody saw may be why the value was another.
    assert_valid(&[
        ok(1, 1, 2, vec![write("x", 1)]),
        unknown(1, 3, 4, vec![write("x", 2)]),
        ok(2, 5, 6, vec![MicroOp::differs("x", 1)]),
    ]);
    assert_valid(&[ok(1, 1, 2, vec![MicroOp::differs("x", 0)])]);
    assert_invalid(&[
        ok(1, 1, 2, vec![MicroOp::add("n", 1)]),
        ok(1, 3, 4, vec![MicroOp::differs("n", 1)]),
    ]);
}

#[test]
fn write_skew_over_registers() {
    assert_invalid(&[
        ok(1, 1, 10, vec![nothing("x"), write("y", 1)]),
        ok(2, 2, 9, vec![nothing("y"), write("x", 1)]),
    ]);
}

#[test]
fn what_is_inferred_is_named_and_told() {
    let ops = [
        ok(1, 1, 20, vec![nothing("b"), write("a", 1)]),
        ok(2, 2, 5, vec![write("b", 2)]),
        ok(2, 6, 9, vec![nothing("a")]),
    ];
    assert_finds(AnomalyKind::Cycle(CycleClass::G2, Through::RealTime), &ops);
    let text = judge(&ops).to_string();
    assert!(text.contains("#0 read b without 2, which #1 wrote"), "{text}");
    assert!(text.contains("#2 read a without 1, which #0 wrote"), "{text}");
}

#[test]
fn reads_of_what_no_transaction_left() {
    let seen = |value| ok(2, 3, 4, vec![read("x", value)]);
    assert_finds(AnomalyKind::AbortedRead, &[failed(1, 1, 2, vec![write("x", 1)]), seen(1)]);
    assert_finds(AnomalyKind::PhantomElement, &[ok(1, 1, 2, vec![write("x", 1)]), seen(7)]);
    assert_finds(
        AnomalyKind::IntermediateRead,
        &[ok(1, 1, 2, vec![write("x", 1), write("x", 2)]), seen(1)],
    );
    assert_finds(AnomalyKind::Internal, &[ok(1, 1, 2, vec![read("x", 1), write("x", 1)])]);
    assert_finds(AnomalyKind::Internal, &[ok(1, 1, 2, vec![write("x", 1), read("x", 2)])]);
}

#[test]
fn what_stood_there_in_the_beginning() {
    let begin = BTreeMap::from([(Key::from("x"), Datum::Int(5))]);
    let judge = |ops: &[Op]| registers::check(&operations(ops), &begin, 1_000);
    let overwrite = || ok(1, 1, 2, vec![MicroOp::compare_and_set("x", 5, 6)]);
    assert_eq!(judge(&[overwrite(), ok(2, 3, 4, vec![read("x", 6)])]), Verdict::Valid);
    assert!(judge(&[overwrite(), ok(2, 3, 4, vec![read("x", 5)])]).is_invalid());
    let verdict = judge(&[ok(2, 3, 4, vec![nothing("x")])]);
    assert!(verdict.has(AnomalyKind::PhantomElement), "{verdict}");
}

#[test]
fn a_chain_of_unknown_outcomes_is_known_by_its_end() {
    let chain = |last| {
        [
            unknown(1, 1, 2, vec![write("x", 1), write("y", 1)]),
            unknown(2, 3, 4, vec![MicroOp::compare_and_set("x", 1, 2)]),
            ok(3, 5, 6, vec![read("x", 2)]),
            ok(3, 7, 8, vec![last]),
        ]
    };
    assert_valid(&chain(read("y", 1)));
    assert_invalid(&chain(nothing("y")));
}

#[test]
fn values_that_may_be_written_twice_are_left_to_the_search() {
    let ops = |seen| {
        [
            ok(1, 1, 2, vec![write("x", 1)]),
            ok(1, 3, 4, vec![write("x", 2)]),
            ok(1, 5, 6, vec![write("x", 1)]),
            ok(1, 7, 8, vec![read("x", seen)]),
        ]
    };
    assert_valid(&ops(1));
    assert_finds(AnomalyKind::NotLinearizable, &ops(2));
}

/// The rules say nothing about two writers of one key until somebody reads;
/// that neither order suits all is seen only by trying.
#[test]
fn what_the_rules_leave_open_is_searched() {
    let verdict = judge(&[
        ok(1, 1, 10, vec![write("a", 1), write("b", 1)]),
        ok(2, 2, 11, vec![write("a", 2), write("b", 2)]),
        ok(3, 3, 12, vec![read("a", 1), MicroOp::differs("b", 1)]),
    ]);
    assert!(verdict.has(AnomalyKind::NotLinearizable), "{verdict}");
}

#[test]
fn a_search_beyond_its_bound_is_undecided() {
    let mut ops: Vec<Op> = (0..24)
        .map(|at| ok(at, at + 1, 100 + at, vec![write("a", at as i64), write("b", at as i64)]))
        .collect();
    ops.push(ok(99, 200, 201, vec![read("a", 1), read("b", 2)]));
    let verdict = linearizable::check(&operations(&ops), &BTreeMap::new(), 10_000);
    assert!(
        matches!(&verdict, Verdict::Undecided(why) if why.contains("10000 steps")),
        "{verdict}"
    );
}

/// Two shards. A direct transaction touches one key and takes effect at one
/// moment; a sequenced one touches both shards and takes effect on each at a
/// moment of its own, though on both in the same order. Without the gate a
/// direct one is answered at once; with it, after all that it stands behind has
/// taken effect everywhere.
fn sharded(seed: u64, count: u64, is_gated: bool, change: fn(Key, i64) -> MicroOp) -> Vec<Op> {
    let empty = if matches!(change("x".into(), 0), MicroOp::Append { .. }) {
        Datum::List(Vec::new())
    } else {
        Datum::Nil
    };
    let mut chance = SplitMix::new(seed);
    let mut drafts: Vec<([u64; 2], Op)> = Vec::new();
    let mut latest = [0; 2];
    for number in 0..count {
        let moment = 1000 + 100 * number;
        let from = moment - 1 - chance.below(300);
        let value = number as i64;
        if chance.below(3) > 0 {
            let key = Key::from(chance.below(4));
            let is_write = chance.below(2) == 0;
            let step = if is_write { change(key, value) } else { MicroOp::read(key) };
            drafts.push(([moment; 2], ok(0, from, moment + 1 + chance.below(100), vec![step])));
            continue;
        }
        let moments = latest.map(|latest: u64| (latest + 1).max(moment + chance.below(900)));
        latest = moments;
        let (near, far) = (2 * chance.below(2), 1 + 2 * chance.below(2));
        let (read, written) = if chance.below(2) == 0 { (near, far) } else { (far, near) };
        let txn = vec![MicroOp::read(Key::from(read)), change(Key::from(written), value)];
        drafts.push((moments, ok(0, from, moments[0].max(moments[1]) + 1, txn)));
    }
    let mut effects: Vec<(u64, usize, usize)> = drafts
        .iter()
        .enumerate()
        .flat_map(|(at, (moments, _))| [(moments[0], at, 0), (moments[1], at, 1)])
        .collect();
    effects.sort_unstable();
    let mut store = Store::new(empty);
    // Of what a shard has taken, the moment when all of it is everywhere.
    let mut settled = [0; 2];
    for (moment, at, shard) in effects {
        let (moments, op) = &mut drafts[at];
        let is_sequenced = op.txn.len() > 1;
        let mut own = op.txn.iter_mut().filter(|step| shard_of(step) == shard).peekable();
        if is_sequenced {
            settled[shard] = settled[shard].max(moments[0].max(moments[1]));
        } else if own.peek().is_some() && is_gated {
            op.to = op.to.max(moment.max(settled[shard]) + 1);
        }
        own.for_each(|step| store.take(step, true));
    }
    let mut ops: Vec<Op> = drafts.into_iter().map(|(_, op)| op).collect();
    ops.sort_by_key(|op| op.from);
    assign_processes(&mut ops);
    ops
}

fn shard_of(step: &MicroOp) -> usize {
    step.keys().next().unwrap().as_str().parse::<usize>().unwrap() % 2
}

/// Lists tell more than registers, which forget: what the search finds on
/// registers, the inference must find on lists.
#[test]
fn replies_that_do_not_wait_for_their_place_are_caught() {
    let mut caught = [0; 2];
    for seed in 0..200 {
        assert_valid(&sharded(seed, 60, true, MicroOp::write));
        let gated = operations(&sharded(seed, 60, true, MicroOp::append));
        let verdict = list_append::check(&gated, Consistency::StrictSerializable);
        assert_eq!(verdict, Verdict::Valid, "seed {seed}");

        let ungated = sharded(seed, 60, false, MicroOp::write);
        let registers = judge(&ungated);
        assert_eq!(registers.is_valid(), search(&ungated).is_valid(), "seed {seed}: {registers}");
        assert!(!matches!(registers, Verdict::Undecided(_)), "seed {seed}: {registers}");
        let lists = operations(&sharded(seed, 60, false, MicroOp::append));
        let lists = list_append::check(&lists, Consistency::StrictSerializable);
        assert!(lists.is_invalid() || registers.is_valid(), "seed {seed}: {registers}");
        caught[0] += usize::from(registers.is_invalid());
        caught[1] += usize::from(lists.is_invalid());
    }
    assert!(caught[0] > 20, "{caught:?} of 200 prove little");
}

/// Some thirty clients at once: beyond any search.
#[test]
fn ten_thousand_transactions_over_tied_registers() {
    let shape = Shape { operations: 10_000, keys: 20, steps_max: 4, overlap: 300, shift: 0 };
    let mut ops = register_execution(7, shape);
    let without_search = |ops: &[Op]| registers::check(&operations(ops), &BTreeMap::new(), 0);
    assert_eq!(without_search(&ops), Verdict::Valid);
    let read = stale_read(&mut ops).expect("some read can be made stale");
    let verdict = without_search(&ops);
    assert!(verdict.is_invalid(), "#{read} sees what was overwritten before: {verdict}");
}

#[test]
fn thousands_of_transactions_of_few_clients_can_be_searched() {
    let shape = Shape { operations: 3_000, keys: 6, steps_max: 4, overlap: 40, shift: 0 };
    let mut ops = register_execution(7, shape);
    assert_valid(&ops);
    stale_read(&mut ops).expect("some read can be made stale");
    assert_invalid(&ops);
}

/// Inference must find exactly what search finds, and prove good what is good.
#[test]
fn inference_agrees_with_exhaustive_search() {
    let mut verdicts = [0; 2];
    let mut searched = 0;
    for seed in 0..6_000 {
        let mut chance = SplitMix::new(seed);
        let shape = Shape {
            operations: 1 + chance.below(14),
            keys: 1 + chance.below(3),
            steps_max: 1 + chance.below(3),
            overlap: 1 + chance.below(80),
            shift: chance.below(80),
        };
        let mut ops = register_execution(seed, shape);
        for step in ops.iter_mut().flat_map(|op| &mut op.txn) {
            if let MicroOp::Read { key, seen: Some(_) } = step
                && chance.below(8) == 0
            {
                *step = MicroOp::differs(key.clone(), 1 + chance.below(10) as i64);
            }
        }
        let operations = operations(&ops);
        let (here, there) = (judge(&ops), search(&ops));
        assert!(!matches!(there, Verdict::Undecided(_)), "seed {seed}: {there}");
        assert_eq!(here.is_valid(), there.is_valid(), "seed {seed}: {here}\n{there}");
        assert_eq!(here.is_invalid(), there.is_invalid(), "seed {seed}: {here}\n{there}");
        verdicts[usize::from(there.is_valid())] += 1;
        let alone = registers::check(&operations, &BTreeMap::new(), 0);
        searched += usize::from(alone != here);
    }
    assert!(verdicts.iter().all(|count| *count > 500), "{verdicts:?} prove little");
    assert!(searched < 600, "the inference alone leaves {searched} of 6000 open");
}

/// Makes a read of the later half see a value whose overwriting was over.
fn stale_read(ops: &mut [Op]) -> Option<usize> {
    let written = |op: &Op, key: &Key| {
        op.txn.iter().find_map(|step| match step {
            MicroOp::Write { key: at, value } if at == key => Some(*value),
            _ => None,
        })
    };
    for at in ops.len() / 2..ops.len() {
        let [MicroOp::Read { key, .. }] = ops[at].txn.as_slice() else { continue };
        if ops[at].outcome != Outcome::Ok {
            continue;
        }
        let key = key.clone();
        let mut over: Vec<&Op> = ops
            .iter()
            .filter(|op| op.outcome == Outcome::Ok && op.to < ops[at].from)
            .filter(|op| written(op, &key).is_some())
            .collect();
        over.sort_by_key(|op| op.to);
        let [.., earlier, later] = over.as_slice() else { continue };
        if earlier.to < later.from {
            let value = written(earlier, &key);
            ops[at].txn = vec![MicroOp::saw_int(key, value?)];
            return Some(at);
        }
    }
    None
}

proptest! {
    #[test]
    fn every_execution_of_registers_is_accepted(
        seed: u64,
        operations in 1..200_u64,
        keys in 1..6_u64,
        steps_max in 1..5_u64,
        overlap in 1..80_u64,
    ) {
        let shape = Shape { operations, keys, steps_max, overlap, shift: 0 };
        prop_assert_eq!(judge(&register_execution(seed, shape)), Verdict::Valid);
    }

    /// A history of registers says less than the same one of lists.
    #[test]
    fn what_is_wrong_on_registers_is_wrong_on_lists(
        seed: u64,
        count in 1..12_u64,
        keys in 1..4_u64,
        shift in 0..60_u64,
    ) {
        let shape = Shape { operations: count, keys, steps_max: 3, overlap: 40, shift };
        let registers = judge(&register_execution(seed, shape));
        prop_assert!(!matches!(registers, Verdict::Undecided(_)), "{}", registers);
        let lists = operations(&execution(seed, shape));
        let lists = list_append::check(&lists, Consistency::StrictSerializable);
        prop_assert!(lists.is_invalid() || registers.is_valid(), "{}", registers);
    }
}
