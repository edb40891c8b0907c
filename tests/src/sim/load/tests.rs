//! That each judge bites: histories as a flaw would make them.

use std::time::Duration;

use quorate_testkit::check::Verdict;
use quorate_testkit::history::{Datum, MicroOp, ProcessId};

use super::judging::Judgement;
use super::*;

/// Operations one after the other, each by some client.
fn history(steps: impl IntoIterator<Item = (u64, Vec<MicroOp>)>) -> Vec<Operation> {
    let recorder = Recorder::default();
    for (client, txn) in steps {
        let invocation = recorder.invoke(ProcessId(client), Duration::ZERO, "", txn.clone());
        invocation.unwrap().ok(Duration::ZERO, txn);
    }
    recorder.operations()
}

/// Which rules a history breaks.
fn broken(judgement: Judgement) -> Vec<&'static str> {
    let is_bad = |(_, verdict): &(_, Verdict)| verdict.is_invalid();
    judgement.into_iter().filter(is_bad).map(|(rule, _)| rule).collect()
}

fn saw(key: &str, value: i64) -> MicroOp {
    MicroOp::saw_int(key, value)
}

fn nothing(key: &str) -> MicroOp {
    MicroOp::saw(key, Datum::Nil)
}

fn write(key: &str, value: i64) -> MicroOp {
    MicroOp::write(key, value)
}

/// An answer leaves before the other shard has what it depends on (no gate),
/// be it of a read, of a blind write, or of what followed another transaction.
#[test]
fn early_answers_show_in_registers() {
    let good = history([
        (1, vec![write("amber-0", 1), write("lime-0", 1)]),
        (2, vec![saw("amber-0", 1)]),
        (2, vec![saw("lime-0", 1)]),
        (3, vec![nothing("amber-1")]),
    ]);
    assert_eq!(broken(registers::judge(&good)), [] as [&str; 0]);

    let both = vec![write("amber-0", 1), write("lime-0", 1)];
    let unfinished = |rest: Vec<(u64, Vec<MicroOp>)>| {
        let recorder = Recorder::default();
        let first = recorder.invoke(ProcessId(1), Duration::ZERO, "", both.clone()).unwrap();
        for (client, txn) in rest {
            let invocation = recorder.invoke(ProcessId(client), Duration::ZERO, "", txn.clone());
            invocation.unwrap().ok(Duration::ZERO, txn);
        }
        first.ok(Duration::ZERO, both.clone());
        broken(registers::judge(&recorder.operations()))
    };
    let rule = ["registers are strictly serializable"];
    let read = vec![(2, vec![saw("amber-0", 1)]), (2, vec![nothing("lime-0")])];
    assert_eq!(unfinished(read), rule);
    let blind = vec![
        (2, vec![write("amber-0", 2)]),
        (2, vec![nothing("lime-0")]),
        (3, vec![saw("amber-0", 2)]),
        (3, vec![saw("lime-0", 1), saw("amber-0", 2)]),
    ];
    assert_eq!(unfinished(blind), rule);
    let chain = vec![
        (2, vec![saw("amber-0", 1), write("zinc-0", 3)]),
        (3, vec![saw("zinc-0", 3)]),
        (3, vec![nothing("lime-0")]),
    ];
    assert_eq!(unfinished(chain), rule);
}

#[test]
fn groups_of_registers_are_judged_apart() {
    let operations = history([
        (1, vec![write("amber-0", 1)]),
        (1, vec![write("amber-1", 1)]),
        (2, vec![nothing("amber-1")]),
    ]);
    assert_eq!(broken(registers::judge(&operations)), ["registers are strictly serializable"]);
}

#[test]
fn counters_that_fall_and_readers_that_disagree_are_found() {
    let add = |key: &str, before| vec![saw(key, before), MicroOp::add_once(key, 1, "once")];
    let read = |one, other| vec![saw("axle", one), saw("bolt", other)];
    let good = [(1, add("axle", 0)), (2, read(1, 0)), (2, read(1, 0))];
    assert_eq!(broken(counters::judge(&history(good))), [] as [&str; 0]);
    let fell = [(1, add("axle", 0)), (2, read(0, 0))];
    assert_eq!(broken(counters::judge(&history(fell))), ["counters only rise"]);
    let forked = [(2, read(1, 0)), (3, read(0, 1))];
    assert!(broken(counters::judge(&history(forked))).contains(&"readers of counters agree"));
}

#[test]
fn marks_that_go_back_and_torn_reads_are_found() {
    let good = [
        (1, vec![write("amark-1-0-0", 1)]),
        (2, vec![saw("amark-1-0-0", 1), nothing("zmark-2-0-0"), saw("amark-1-0-0", 1)]),
    ];
    assert_eq!(broken(reads::judge(&history(good.clone()))), [] as [&str; 0]);
    let back = good.into_iter().chain([(2, vec![nothing("amark-1-0-0")])]);
    let rules = ["a client sees nothing go back", "what was seen does not go back"];
    assert_eq!(broken(reads::judge(&history(back))), rules);
    let torn = vec![saw("amark-1-0-0", 1), nothing("amark-1-0-0")];
    let torn = broken(reads::judge(&history([(1, vec![write("amark-1-0-0", 1)]), (2, torn)])));
    assert!(torn.contains(&"a transaction agrees with itself"), "{torn:?}");
}

#[test]
fn claims_of_what_is_held_and_writes_in_vain_are_found() {
    let claim = |value| vec![saw("bread-0", 0), MicroOp::compare_and_set("bread-0", 0, value)];
    let free = |value| vec![saw("bread-0", value), MicroOp::compare_and_set("bread-0", value, 0)];
    let late = |held| vec![saw("bread-0", held), MicroOp::differs("bread-0", 0)];
    let rule = ["conditions are linearizable"];
    let good = [(1, claim(7)), (2, late(7)), (1, free(7)), (2, claim(8))];
    assert_eq!(broken(claims::judge(&history(good))), [] as [&str; 0]);
    let twice = [(1, claim(7)), (2, claim(8))];
    assert_eq!(broken(claims::judge(&history(twice))), rule);
    let is_kept = [(1, claim(7)), (1, free(7)), (2, vec![saw("bread-0", 7)])];
    assert_eq!(broken(claims::judge(&history(is_kept))), rule);
    let in_vain = [(1, claim(7)), (2, vec![saw("bread-0", -1)])];
    assert_eq!(broken(claims::judge(&history(in_vain))), rule);
    let should_hold = [(1, vec![saw("bread-0", 0), MicroOp::differs("bread-0", 0)])];
    assert_eq!(broken(claims::judge(&history(should_hold))), rule);
}
