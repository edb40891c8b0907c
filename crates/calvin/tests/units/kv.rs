use quorate_calvin::kv::{Answer, KeyValue, Transaction};
use quorate_calvin::{Call, Inputs, Outcome, Procedures, Read};
use quorate_types::Blob;

fn inputs(rows: &[(&str, &str)]) -> Inputs {
    let read = |(key, value): &(&str, &str)| {
        let (key, value) = (Blob::from(*key), Some(Blob::from(*value)));
        (key.clone(), Read { key, version: 1, value, expires_millis: None })
    };
    Inputs { reads: rows.iter().map(read).collect(), scans: Vec::new() }
}

fn run(call: &Call, inputs: &Inputs) -> Outcome {
    KeyValue.run(call, inputs, 0, 0)
}

/// Moves 40 from alice to bob, if alice has exactly 100.
fn transfer() -> Transaction {
    Transaction::new()
        .expect("alice", Some("100".into()))
        .put("alice", "60")
        .put("bob", "40")
        .delete("pending")
        .get("bob")
}

#[test]
fn the_footprint_names_all_that_is_looked_at_and_all_that_is_written() {
    let footprint = transfer().call().footprint;
    assert_eq!(footprint.reads.0, ["alice", "bob"].map(Blob::from));
    assert_eq!(footprint.writes.0, ["alice", "bob", "pending"].map(Blob::from));
}

#[test]
fn all_writes_happen_where_all_conditions_hold() {
    let outcome = run(&transfer().call(), &inputs(&[("alice", "100"), ("bob", "7")]));
    let written: Vec<_> =
        outcome.writes.into_iter().map(|write| (write.key, write.value)).collect();
    let expected = [("alice", Some("60")), ("bob", Some("40")), ("pending", None)];
    assert_eq!(written, expected.map(|(key, value)| (key.into(), value.map(Blob::from))));
    let answer = Answer::of(&outcome.result).unwrap();
    assert!(answer.committed);
    assert_eq!(answer.values.0, [Some("7".into())], "what was read before the writes");
}

#[test]
fn a_failed_condition_writes_nothing_and_still_reads() {
    let outcome = run(&transfer().call(), &inputs(&[("alice", "99"), ("bob", "7")]));
    assert_eq!(outcome.writes, []);
    let answer = Answer::of(&outcome.result).unwrap();
    assert!(!answer.committed);
    assert_eq!(answer.values.0, [Some("7".into())]);
}

#[test]
fn a_key_can_be_required_to_be_missing() {
    let create = Transaction::new().expect("alice", None).put("alice", "1").call();
    assert_eq!(run(&create, &inputs(&[])).writes.len(), 1);
    assert_eq!(run(&create, &inputs(&[("alice", "1")])).writes, []);
}

#[test]
fn arguments_that_are_no_transaction_do_nothing() {
    let call = Call { args: "\u{1}no transaction".into(), ..transfer().call() };
    assert_eq!(run(&call, &inputs(&[])), Outcome::default());
    assert!(Answer::of(b"no answer").is_err());
}

/// A key that is asked for often is read once but answered often; the answer
/// would be built on every replica, within apply.
#[test]
fn an_answer_that_could_not_be_sent_is_not_built() {
    use quorate_calvin::limits::READ_RESULT_BYTES_MAX;
    let value = "v".repeat(1 << 20);
    let asked = (0..100_000).fold(Transaction::new().put("b", "1"), |it, _| it.get("a"));
    let outcome = run(&asked.call(), &inputs(&[("a", &value)]));
    assert_eq!(outcome.result.len(), READ_RESULT_BYTES_MAX + 1, "which is an abort");
    assert_eq!(outcome.writes, []);
    let asked = (0..7).fold(Transaction::new(), |it, _| it.get("a"));
    let outcome = run(&asked.call(), &inputs(&[("a", &value)]));
    assert_eq!(Answer::of(&outcome.result).unwrap().values.len(), 7);
}
