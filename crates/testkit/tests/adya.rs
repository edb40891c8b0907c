//! A second opinion on transactions over lists and registers: that of the
//! package adya, written by somebody else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::time::Duration;

use adya::{Opts, Report, Valid, Workload};
use common::{
    Op, Shape, append, assign_processes, execution, failed, history, ok, operations,
    register_execution, saw, unknown,
};
use quorate_testkit::check::linearizable::STEPS_MAX_DEFAULT;
use quorate_testkit::check::list_append::{self, Consistency};
use quorate_testkit::check::{AnomalyKind, CycleClass, Verdict, registers};
use quorate_testkit::history::{Datum, EventKind, Key, MicroOp, Outcome};
use quorate_types::env::{Rng, SplitMix};

/// The name of the level there.
fn model(consistency: Consistency) -> String {
    match consistency {
        Consistency::Serializable => "serializable",
        Consistency::StrictSerializable => "strict-serializable",
    }
    .to_owned()
}

fn theirs_of(ops: &[Op], workload: Workload, opts: &Opts) -> Report {
    let mut lines = Vec::new();
    history(ops).write_json(&mut lines).unwrap();
    let history = adya::History::from_json(std::str::from_utf8(&lines).unwrap()).unwrap();
    adya::check(&history, workload, opts)
}

fn theirs(ops: &[Op], consistency: Consistency) -> Report {
    // Without a limit of time the verdict depends on nothing else.
    let timeout = Duration::from_secs(3600);
    let opts = Opts { models: vec![model(consistency)], timeout, ..Opts::default() };
    theirs_of(ops, Workload::ListAppend, &opts)
}

fn ours(ops: &[Op], consistency: Consistency) -> Verdict {
    list_append::check(&operations(ops), consistency)
}

/// Both call it good, or both bad. Where no two transactions depend on each
/// other they say that they do not know, and we that nothing is wrong.
#[track_caller]
fn assert_agreement(what: &str, ops: &[Op], consistency: Consistency) -> bool {
    let (ours, theirs) = (ours(ops, consistency), theirs(ops, consistency));
    let is_empty = theirs.anomaly_types == ["empty-transaction-graph"];
    let is_good_there = theirs.valid == Valid::True || is_empty;
    assert!(is_good_there || theirs.valid == Valid::False, "{what}: {:?}", theirs.anomaly_types);
    assert_eq!(ours.is_valid(), is_good_there, "{what}: {ours}\n{:?}", theirs.anomaly_types);
    assert_eq!(ours.is_invalid(), !is_good_there, "{what}: {ours}");
    is_good_there
}

#[test]
fn good_executions_are_good_to_both() {
    for seed in 0..150 {
        let mut chance = SplitMix::new(seed);
        let shape = Shape {
            operations: 1 + chance.below(300),
            keys: 1 + chance.below(6),
            steps_max: 1 + chance.below(4),
            overlap: 1 + chance.below(400),
            shift: 0,
        };
        let ops = execution(seed, shape);
        assert!(assert_agreement(&format!("seed {seed}"), &ops, Consistency::StrictSerializable));
    }
}

/// Small histories whose effects lie outside their ends and whose reads miss
/// what was there: most are bad, each in a way of its own.
#[test]
fn random_histories_are_judged_alike() {
    for consistency in [Consistency::Serializable, Consistency::StrictSerializable] {
        let mut verdicts = [0; 2];
        for seed in 0..3_000 {
            let ops = broken(seed);
            let what = format!("seed {seed}");
            verdicts[usize::from(assert_agreement(&what, &ops, consistency))] += 1;
        }
        assert!(verdicts.iter().all(|count| *count > 300), "{verdicts:?} prove little");
    }
}

fn broken(seed: u64) -> Vec<Op> {
    let mut chance = SplitMix::new(seed);
    let shape = Shape {
        operations: 1 + chance.below(14),
        keys: 1 + chance.below(3),
        steps_max: 1 + chance.below(4),
        overlap: 1 + chance.below(60),
        shift: chance.below(60),
    };
    let mut ops = execution(seed, shape);
    let last = ops.len() - 1;
    for op in &mut ops[..last] {
        for step in &mut op.txn {
            if let MicroOp::Read { seen: Some(Datum::List(list)), .. } = step
                && chance.below(10) == 0
            {
                list.pop();
            }
        }
    }
    ops
}

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Planted {
    WriteCycle,
    AbortedRead,
    IntermediateRead,
    CircularFlow,
    ReadSkew,
    LostUpdate,
    WriteSkew,
    LongFork,
    StaleRead,
    LostAppend,
    Duplicate,
    OtherOrder,
    OwnAppendMissed,
    OwnAppendForeseen,
}

impl Planted {
    const ALL: [Self; 14] = [
        Self::WriteCycle,
        Self::AbortedRead,
        Self::IntermediateRead,
        Self::CircularFlow,
        Self::ReadSkew,
        Self::LostUpdate,
        Self::WriteSkew,
        Self::LongFork,
        Self::StaleRead,
        Self::LostAppend,
        Self::Duplicate,
        Self::OtherOrder,
        Self::OwnAppendMissed,
        Self::OwnAppendForeseen,
    ];

    /// Whether we call it by one of its names.
    fn is_named(self, kind: AnomalyKind) -> bool {
        use AnomalyKind as Kind;
        let is_cycle = |classes: &[CycleClass]| matches!(kind, Kind::Cycle(class, _) if classes.contains(&class));
        match self {
            Self::WriteCycle => is_cycle(&[CycleClass::G0]),
            Self::AbortedRead => kind == Kind::AbortedRead,
            Self::IntermediateRead => kind == Kind::IntermediateRead,
            Self::CircularFlow => is_cycle(&[CycleClass::G0, CycleClass::G1c]),
            Self::ReadSkew | Self::StaleRead => is_cycle(&[CycleClass::GSingle]),
            // The appends of both stand in the list, in one order.
            Self::LostUpdate => is_cycle(&[CycleClass::GSingle, CycleClass::G2]),
            Self::WriteSkew | Self::LongFork => is_cycle(&[CycleClass::G2]),
            Self::LostAppend => kind == Kind::LostAppend,
            Self::Duplicate => kind == Kind::DuplicateElement,
            Self::OtherOrder => kind == Kind::IncompatibleOrder,
            Self::OwnAppendMissed | Self::OwnAppendForeseen => kind == Kind::Internal,
        }
    }
}

/// Lists on one thread, and what clients saw of them.
struct World {
    chance: SplitMix,
    lists: [Vec<i64>; 3],
    moment: u64,
    value: i64,
    ops: Vec<Op>,
}

impl World {
    fn new(seed: u64) -> Self {
        let lists = [Vec::new(), Vec::new(), Vec::new()];
        Self { chance: SplitMix::new(seed), lists, moment: 1000, value: 0, ops: Vec::new() }
    }

    fn value(&mut self) -> i64 {
        self.value += 1;
        self.value
    }

    fn saw(&self, list: usize) -> MicroOp {
        MicroOp::saw_list(Key::from(list as u64), self.lists[list].clone())
    }

    fn append(&mut self, list: usize) -> MicroOp {
        let value = self.value();
        self.lists[list].push(value);
        Self::appended(list, value)
    }

    fn appended(list: usize, value: i64) -> MicroOp {
        MicroOp::append(Key::from(list as u64), value)
    }

    /// Transactions that were under way together.
    fn together<const N: usize>(&mut self, txns: [Vec<MicroOp>; N]) {
        for txn in txns {
            let from = self.moment - 1 - self.chance.below(9);
            let to = self.moment + 1 + self.chance.below(9);
            self.ops.push(ok(0, from, to, txn));
        }
        self.moment += 10;
    }

    /// A transaction after all that are over.
    fn then(&mut self, txn: Vec<MicroOp>) {
        self.moment += 30;
        self.together([txn]);
    }

    fn ordinary(&mut self) {
        let steps = 1 + self.chance.below(3);
        let txn = (0..steps).map(|_| {
            let list = self.chance.below(3) as usize;
            if self.chance.below(2) == 0 { self.append(list) } else { self.saw(list) }
        });
        let txn = txn.collect();
        self.together([txn]);
    }

    fn plant(&mut self, planted: Planted) {
        self.moment += 30;
        match planted {
            Planted::WriteCycle => {
                let (first, second) = ([self.value(), self.value()], [self.value(), self.value()]);
                self.lists[0].extend([first[0], second[0]]);
                self.lists[1].extend([second[1], first[1]]);
                let txn = |values: [i64; 2]| {
                    vec![Self::appended(0, values[0]), Self::appended(1, values[1])]
                };
                self.together([txn(first), txn(second)]);
            }
            Planted::AbortedRead => {
                let txn = vec![self.append(0)];
                self.ops.push(failed(0, self.moment, self.moment + 1, txn));
                let read = vec![self.saw(0)];
                self.then(read);
            }
            Planted::IntermediateRead => {
                let (first, read) = (self.append(0), vec![self.saw(0)]);
                let txn = vec![first, self.append(0)];
                self.together([txn, read]);
            }
            Planted::CircularFlow => {
                let appends = [self.append(0), self.append(1)];
                let [first, second] = appends;
                self.together([vec![first, self.saw(1)], vec![second, self.saw(0)]]);
            }
            Planted::ReadSkew => {
                let before = self.saw(1);
                let txn = vec![self.append(0), self.append(1)];
                self.together([txn, vec![self.saw(0), before]]);
            }
            Planted::LostUpdate => {
                let before = self.saw(0);
                let txns = [vec![before.clone(), self.append(0)], vec![before, self.append(0)]];
                self.together(txns);
            }
            Planted::WriteSkew => {
                let before = [self.saw(0), self.saw(1)];
                let [first, second] = before;
                let txns = [vec![first, self.append(1)], vec![second, self.append(0)]];
                self.together(txns);
            }
            Planted::LongFork => {
                let [first, second] = [self.saw(0), self.saw(1)];
                let txns = [vec![self.append(0)], vec![self.append(1)]];
                let [one, other] = txns;
                let readers = [vec![self.saw(0), second], vec![first, self.saw(1)]];
                let [this, that] = readers;
                self.together([one, other, this, that]);
            }
            Planted::StaleRead => {
                let before = vec![self.saw(0)];
                let txn = vec![self.append(0)];
                self.together([txn]);
                self.then(before);
            }
            Planted::LostAppend => {
                let txn = vec![Self::appended(0, 999)];
                self.together([txn]);
            }
            Planted::Duplicate => {
                let txn = vec![self.append(0)];
                let again = self.value;
                self.lists[0].push(again);
                self.together([txn]);
            }
            Planted::OtherOrder => {
                let txns = [vec![self.append(0)], vec![self.append(0)]];
                let [one, other] = txns;
                let mut list = self.lists[0].clone();
                let last = list.len() - 1;
                list.swap(last, last - 1);
                let read = vec![MicroOp::saw_list(Key::from(0), list)];
                self.together([one, other, read]);
            }
            Planted::OwnAppendMissed => {
                let before = self.saw(0);
                let txn = vec![self.append(0), before];
                self.together([txn]);
            }
            Planted::OwnAppendForeseen => {
                let append = self.append(0);
                let txn = vec![self.saw(0), append];
                self.together([txn]);
            }
        }
        self.moment += 30;
    }

    /// Reads everything after everything.
    fn finish(mut self) -> Vec<Op> {
        let all = (0..3).map(|list| self.saw(list)).collect();
        self.then(all);
        self.ops.sort_by_key(|op| op.from);
        assign_processes(&mut self.ops);
        self.ops
    }
}

#[test]
fn each_planted_anomaly_is_found_by_both_and_named_by_us() {
    for planted in Planted::ALL {
        for seed in 0..20 {
            let mut world = World::new(seed);
            let before = world.chance.below(60);
            (0..before).for_each(|_| world.ordinary());
            world.plant(planted);
            let after = world.chance.below(60);
            (0..after).for_each(|_| world.ordinary());
            let ops = world.finish();
            let what = format!("{planted:?}, seed {seed}");
            assert!(!assert_agreement(&what, &ops, Consistency::StrictSerializable));
            let verdict = ours(&ops, Consistency::StrictSerializable);
            let is_named = verdict.anomalies().iter().any(|found| planted.is_named(found.kind));
            assert!(is_named, "{what}: {verdict}");
        }
    }
}

#[test]
fn only_what_goes_against_real_time_is_serializable_to_both() {
    for planted in Planted::ALL {
        let mut world = World::new(1);
        (0..10).for_each(|_| world.ordinary());
        world.plant(planted);
        let ops = world.finish();
        let is_good = assert_agreement(&format!("{planted:?}"), &ops, Consistency::Serializable);
        let is_against_time = matches!(planted, Planted::StaleRead | Planted::LostAppend);
        assert_eq!(is_good, is_against_time, "{planted:?}");
    }
}

// Where the two differ, and why.

#[test]
fn difference_what_nobody_appended_is_passed_over_there() {
    let ops = [ok(1, 1, 2, vec![append("x", 1)]), ok(2, 3, 4, vec![saw("x", [7, 1])])];
    let verdict = ours(&ops, Consistency::StrictSerializable);
    assert!(verdict.has(AnomalyKind::PhantomElement), "{verdict}");
    assert_eq!(theirs(&ops, Consistency::StrictSerializable).valid, Valid::True);
}

/// They give such a history up without looking at it, and call it valid: only
/// histories whose elements are unique have a second opinion.
#[test]
fn difference_a_failed_append_may_be_tried_again_here() {
    let history = |seen| {
        [
            failed(1, 1, 2, vec![append("x", 1)]),
            ok(1, 3, 4, vec![append("x", 1)]),
            ok(2, 5, 6, vec![seen]),
        ]
    };
    let (good, bad) = (history(saw("x", [1])), history(saw("x", [])));
    assert_eq!(ours(&good, Consistency::StrictSerializable), Verdict::Valid);
    let verdict = ours(&bad, Consistency::StrictSerializable);
    assert!(verdict.has(AnomalyKind::LostAppend), "{verdict}");
    assert_eq!(theirs(&bad, Consistency::StrictSerializable).valid, Valid::True);
}

#[test]
fn difference_nothing_that_depends_is_unknown_there() {
    let ops = [ok(1, 1, 2, vec![append("x", 1)])];
    assert_eq!(ours(&ops, Consistency::StrictSerializable), Verdict::Valid);
    let report = theirs(&ops, Consistency::StrictSerializable);
    assert_eq!(report.valid, Valid::Unknown);
    assert_eq!(report.anomaly_types, ["empty-transaction-graph"]);
}

#[test]
fn difference_an_invocation_without_an_end_is_unknown_here_and_ignored_there() {
    let ops = [
        unknown(1, 1, 2, vec![append("x", 1), append("y", 1)]),
        ok(2, 3, 4, vec![saw("x", [1]), saw("y", [])]),
    ];
    assert!(!assert_agreement("with its end", &ops, Consistency::StrictSerializable));
    let mut cut = history(&ops);
    cut.events.retain(|event| event.kind != EventKind::Info);
    let verdict = list_append::check(&cut.operations().unwrap(), Consistency::StrictSerializable);
    assert!(verdict.is_invalid(), "{verdict}");
    let mut lines = Vec::new();
    cut.write_json(&mut lines).unwrap();
    let theirs = adya::History::from_json(std::str::from_utf8(&lines).unwrap()).unwrap();
    let report = adya::check(&theirs, Workload::ListAppend, &Opts::default());
    assert_ne!(report.valid, Valid::False, "{:?}", report.anomaly_types);
}

// Registers, which forget: their inference is incomplete, ours with the search
// behind it is not.

fn registers_there(ops: &[Op]) -> Report {
    let opts = Opts {
        timeout: Duration::from_secs(3600),
        wfr_keys: true,
        linearizable_keys: true,
        ..Opts::default()
    };
    theirs_of(ops, Workload::RwRegister, &opts)
}

fn registers_here(ops: &[Op]) -> Verdict {
    registers::check(&operations(ops), &Default::default(), STEPS_MAX_DEFAULT)
}

/// They know reads and writes only.
fn without_comparisons(mut op: Op) -> Op {
    let is_answered = op.outcome == Outcome::Ok;
    let steps = op.txn.into_iter().flat_map(|step| match step {
        MicroOp::CompareAndSet { key, expected, new } => {
            let seen = is_answered.then_some(Datum::Int(expected));
            vec![MicroOp::Read { key: key.clone(), seen }, MicroOp::write(key, new)]
        }
        other => vec![other],
    });
    op.txn = steps.collect();
    op
}

#[test]
fn what_is_bad_on_registers_there_is_bad_here() {
    let mut verdicts = [[0; 2]; 2];
    for seed in 0..1_500 {
        let mut chance = SplitMix::new(seed);
        let shape = Shape {
            operations: 1 + chance.below(12),
            keys: 1 + chance.below(3),
            steps_max: 1 + chance.below(3),
            overlap: 1 + chance.below(60),
            shift: chance.below(60),
        };
        let ops = register_execution(seed, shape).into_iter().map(without_comparisons);
        let ops: Vec<Op> = ops.collect();
        let here = registers_here(&ops);
        assert_ne!(here.is_valid(), here.is_invalid(), "seed {seed}: {here}");
        let there = registers_there(&ops);
        let is_bad_there = there.valid == Valid::False;
        assert!(here.is_invalid() || !is_bad_there, "seed {seed}: {:?}", there.anomaly_types);
        verdicts[usize::from(here.is_valid())][usize::from(!is_bad_there)] += 1;
    }
    let [[both_bad, _], [_, both_good]] = verdicts;
    assert!(both_bad > 100 && both_good > 100, "{verdicts:?} prove little");
}

#[test]
fn the_blind_overwrite_is_found_by_both() {
    let write = |key: &str, value| MicroOp::write(key, value);
    let nothing = |key: &str| MicroOp::saw(key, Datum::Nil);
    let ops = [
        ok(1, 1, 20, vec![nothing("b"), write("a", 1)]),
        ok(2, 2, 5, vec![write("b", 2)]),
        ok(2, 6, 9, vec![nothing("a")]),
    ];
    assert!(registers_here(&ops).is_invalid());
    let there = registers_there(&ops);
    assert_eq!(there.valid, Valid::False, "{:?}", there.anomaly_types);
}
