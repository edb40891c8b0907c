//! History files: any text is a history or refused with its line.

use std::time::Duration;

use quorate_testkit::TestkitError;
use quorate_testkit::fuzz::{self, Corpus};
use quorate_testkit::history::{History, MicroOp, ProcessId, Recorder};

/// A value of JSON takes a multiple of its text: a number of two characters
/// is 32 bytes in a list that doubles, an object of seven a node of a tree.
const BYTES_PER_BYTE: usize = 128;

fn histories() -> Vec<Vec<u8>> {
    let at = Duration::from_millis;
    let recorder = Recorder::default();
    let steps = vec![
        MicroOp::append("x", 1),
        MicroOp::read("x"),
        MicroOp::Write { key: "r".into(), value: -7 },
        MicroOp::CompareAndSet { key: "r".into(), expected: 1, new: 2 },
        MicroOp::Add { key: "c".into(), delta: 3, request: Some("q".into()) },
        MicroOp::Transfer { from: "a".into(), to: "b".into(), amount: 9 },
    ];
    recorder
        .invoke(ProcessId(1), at(1), "txn", steps)
        .unwrap()
        .ok(at(2), vec![MicroOp::saw_list("x", [1, 2])]);
    recorder.invoke(ProcessId(2), at(3), "txn", vec![]).unwrap().fail(at(4), "refused");
    drop(recorder.invoke(ProcessId(2), at(5), "r", vec![MicroOp::read("x")]).unwrap());
    let mut ours = Vec::new();
    recorder.history().write_json(&mut ours).unwrap();
    let jepsens = br#"{"type":"info","process":"nemesis","time":3,"f":"kill","value":null}

{"index":9,"type":"ok","process":0,"time":12,"f":"txn","value":[["append",5,1],["r","y",null]]}
{"type":"info","process":0,"time":12,"f":"txn","value":null,"error":["timeout",[1.5e3,true,"\ud83d\ude00"]]}
"#;
    vec![ours, jepsens.to_vec()]
}

#[test]
fn any_text_is_a_history_or_is_refused() {
    quorate_testkit::fuzz!(Corpus::of(histories()), |input| {
        let read =
            fuzz::frugal_by(BYTES_PER_BYTE, input.len(), || History::read_json(&mut &input[..]));
        match read {
            Ok(history) => {
                let mut written = Vec::new();
                history.write_json(&mut written).unwrap();
                let again = History::read_json(&mut &written[..]);
                assert_eq!(again.unwrap(), history, "what was written is read");
                // Pairing may refuse it, but is safe to try.
                let _ = history.operations();
            }
            Err(TestkitError::HistoryFile { line, .. }) => assert!(line >= 1),
            Err(other) => panic!("not an error of a history file: {other}"),
        }
    });
}
