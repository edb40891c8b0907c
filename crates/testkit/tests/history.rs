//! Recording, pairing, and history files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::time::Duration;

use proptest::prelude::*;
use quorate_testkit::TestkitError;
use quorate_testkit::history::{
    Datum, Event, EventKind, History, Key, MicroOp, Outcome, ProcessId, Recorder,
};

const fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn invocations_pair_with_their_ends() {
    let recorder = Recorder::default();
    let first = recorder.invoke(ProcessId(1), at(1), "txn", vec![MicroOp::read("x")]).unwrap();
    let second =
        recorder.invoke(ProcessId(2), at(2), "txn", vec![MicroOp::append("x", 1)]).unwrap();
    second.unknown(at(3), "deadline");
    first.ok(at(4), vec![MicroOp::saw_list("x", [1])]);
    let third = recorder.invoke(ProcessId(2), at(5), "txn", Vec::new()).unwrap();
    third.fail(at(6), "refused");

    let operations = recorder.history().operations().unwrap();
    let outcomes: Vec<_> = operations.iter().map(|operation| operation.outcome).collect();
    assert_eq!(outcomes, [Outcome::Ok, Outcome::Unknown, Outcome::Fail]);
    assert_eq!(operations[0].txn, [MicroOp::saw_list("x", [1])]);
    assert!(operations[0].precedes(&operations[2]) && !operations[1].precedes(&operations[2]));
}

#[test]
fn an_abandoned_invocation_is_unknown() {
    let recorder = Recorder::default();
    drop(recorder.invoke(ProcessId(1), at(1), "txn", Vec::new()).unwrap());
    recorder.invoke(ProcessId(1), at(2), "txn", Vec::new()).unwrap().ok(at(3), Vec::new());
    let operations = recorder.history().operations().unwrap();
    assert_eq!(operations[0].outcome, Outcome::Unknown);
    assert_eq!(operations[1].outcome, Outcome::Ok);
}

#[test]
fn a_full_recorder_refuses_what_it_could_not_end() {
    let recorder = Recorder::new(3);
    let first = recorder.invoke(ProcessId(1), at(1), "txn", Vec::new()).unwrap();
    let refused = recorder.invoke(ProcessId(2), at(2), "txn", Vec::new());
    assert!(matches!(refused, Err(TestkitError::HistoryFull { events_max: 3 })));
    first.ok(at(3), Vec::new());
    assert_eq!(recorder.history().events.len(), 2);
}

#[test]
fn a_process_has_one_operation_in_flight() {
    let event = |kind| Event {
        kind,
        process: ProcessId(1),
        time: at(1),
        f: "txn".into(),
        txn: Vec::new(),
        error: None,
    };
    let twice = History { events: vec![event(EventKind::Invoke), event(EventKind::Invoke)] };
    assert!(matches!(twice.operations(), Err(TestkitError::MalformedHistory { position: 1, .. })));
    let end_only = History { events: vec![event(EventKind::Ok)] };
    assert!(end_only.operations().is_err());
}

#[test]
fn merging_takes_simultaneous_events_for_concurrent() {
    let one = |process, from, to| {
        let recorder = Recorder::default();
        let invocation = recorder.invoke(ProcessId(process), at(from), "txn", Vec::new());
        invocation.unwrap().ok(at(to), Vec::new());
        recorder.history()
    };
    let merged = History::merged([one(1, 1, 5), one(2, 5, 6), one(3, 6, 7)]);
    let operations = merged.operations().unwrap();
    assert!(!operations[0].precedes(&operations[1]));
    assert!(operations[0].precedes(&operations[2]));
}

#[test]
fn reads_what_jepsen_writes_and_passes_over_the_nemesis() {
    let file = r#"
{"type":"invoke","f":"txn","value":[["r",5,null],["append",6,1]],"process":0,"time":12,"index":0}
{"type":"info","f":"start","value":"partition","process":"nemesis","time":13,"index":1}
{"type":"ok","f":"txn","value":[["r",5,[1,2]],["append",6,1]],"process":0,"time":14,"index":2,"extra":true}
"#;
    let history = History::read_json(&mut file.as_bytes()).unwrap();
    let operations = history.operations().unwrap();
    assert_eq!(operations.len(), 1);
    assert_eq!(operations[0].txn, [MicroOp::saw_list("5", [1, 2]), MicroOp::append("6", 1)]);
    assert_eq!(operations[0].invoked.time, Duration::from_nanos(12));
}

#[test]
fn a_broken_line_is_named() {
    for line in [
        "{",
        "[]",
        r#"{"process":1}"#,
        r#"{"type":"ok","process":1,"time":1,"f":"t","value":[["frob",1]]}"#,
    ] {
        let file = format!("\n{line}\n");
        let error = History::read_json(&mut file.as_bytes()).unwrap_err();
        assert!(matches!(error, TestkitError::HistoryFile { line: 2, .. }), "{error}");
    }
}

fn key() -> impl Strategy<Value = Key> {
    "[a-z\"\\\\é]{1,4}".prop_map(Key::from)
}

fn seen() -> impl Strategy<Value = Option<Datum>> {
    prop_oneof![
        Just(Some(Datum::Nil)),
        any::<i64>().prop_map(|value| Some(Datum::Int(value))),
        prop::collection::vec(any::<i64>(), 0..5).prop_map(|list| Some(Datum::List(list))),
    ]
}

fn step() -> impl Strategy<Value = MicroOp> {
    let number = any::<i64>;
    prop_oneof![
        (key(), number()).prop_map(|(key, value)| MicroOp::Append { key, value }),
        (key(), number()).prop_map(|(key, value)| MicroOp::Write { key, value }),
        (key(), seen()).prop_map(|(key, seen)| MicroOp::Read { key, seen }),
        (key(), number(), number()).prop_map(|(key, expected, new)| MicroOp::CompareAndSet {
            key,
            expected,
            new
        }),
        (key(), number(), prop::option::of(key())).prop_map(|(key, delta, request)| MicroOp::Add {
            key,
            delta,
            request
        }),
        (key(), number()).prop_map(|(key, unexpected)| MicroOp::Differs { key, unexpected }),
        (key(), key(), number()).prop_map(|(from, to, amount)| MicroOp::Transfer {
            from,
            to,
            amount
        }),
    ]
}

proptest! {
    #[test]
    fn a_history_survives_its_file(
        txns in prop::collection::vec(prop::collection::vec(step(), 0..4), 0..10),
        error in prop::option::of(".{0,9}"),
    ) {
        let events = txns.into_iter().zip(0..).map(|(txn, process)| Event {
            kind: EventKind::Ok,
            process: ProcessId(process),
            time: at(process),
            f: "txn".into(),
            txn,
            error: error.clone(),
        });
        let history = History { events: events.collect() };
        let mut file = Vec::new();
        history.write_json(&mut file).unwrap();
        prop_assert_eq!(History::read_json(&mut file.as_slice()).unwrap(), history);
    }

    #[test]
    fn hostile_lines_do_not_panic(bytes: Vec<u8>) {
        drop(History::read_json(&mut bytes.as_slice()));
    }
}
