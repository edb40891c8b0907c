use quorate::Transaction;
use quorate_testkit::check::AnomalyKind;

use super::*;

fn answer(committed: bool) -> Told {
    Told::Answer(Answer { committed, ..Answer::default() })
}

fn id(sequence: u64) -> RequestKey {
    (ClientId(1), sequence)
}

fn put(key: &str) -> Call {
    Transaction::new().put(key, "1").call()
}

/// Two calls, one after the other, with what they were told.
fn told(first: Told, second: Told) -> Calls {
    let calls = Calls::default();
    for (sequence, told) in [(1, first), (2, second)] {
        let invoked = calls.moment();
        calls.note(id(sequence), invoked, told);
    }
    calls
}

#[track_caller]
fn assert_finds(kind: AnomalyKind, verdict: &Verdict) {
    assert!(verdict.has(kind), "{verdict}");
}

#[test]
fn o9_an_order_against_real_time_is_found() {
    let calls = told(answer(true), answer(true));
    assert_eq!(calls.judge(vec![(id(1), put("a")), (id(2), put("z"))]), Verdict::Valid);
    let turned = calls.judge(vec![(id(2), put("z")), (id(1), put("a"))]);
    assert_finds(AnomalyKind::OrderAgainstRealTime, &turned);
}

#[test]
fn calls_that_were_under_way_together_may_come_in_any_order() {
    let calls = Calls::default();
    let begun = [calls.moment(), calls.moment()];
    calls.note(id(1), begun[0], answer(true));
    calls.note(id(2), begun[1], answer(true));
    assert_eq!(calls.judge(vec![(id(2), put("z")), (id(1), put("a"))]), Verdict::Valid);
}

#[test]
fn o9_what_a_client_was_told_is_held_against_the_order() {
    let order = || vec![(id(1), put("a")), (id(2), put("z"))];
    let wrong = told(answer(true), answer(false)).judge(order());
    assert_finds(AnomalyKind::WrongReply, &wrong);
    let refused = told(answer(true), Told::Refused).judge(order());
    assert_finds(AnomalyKind::RefusedCommand, &refused);
    let lost = told(answer(true), answer(true)).judge(vec![(id(1), put("a"))]);
    assert_finds(AnomalyKind::LostCommand, &lost);
    assert_eq!(told(answer(true), Told::Nothing).judge(order()), Verdict::Valid);
    let happened = told(answer(true), Told::Nothing).judge(vec![(id(1), put("a"))]);
    assert_eq!(happened, Verdict::Valid);
}
