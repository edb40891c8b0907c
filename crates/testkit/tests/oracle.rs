//! The oracle: an order of commands, replayed and held against what was seen.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use proptest::prelude::*;
use quorate_testkit::check::oracle::{Call, End, Model, Witness, replay};
use quorate_testkit::check::{AnomalyKind, Verdict};
use quorate_types::env::{Rng, SplitMix};

/// Counters by part: a command adds to one and is told the sum.
#[derive(Default, Clone)]
struct Sums([u64; 2]);

impl Model for Sums {
    type Command = (usize, u64);
    type Reply = u64;

    fn apply(&mut self, (part, by): &(usize, u64)) -> u64 {
        self.0[*part] += by;
        self.0[*part]
    }

    fn digest(&self, part: u64) -> u64 {
        self.0[part as usize]
    }
}

/// Commands by their ids, the calls for them, and states.
#[derive(Clone)]
struct Run {
    order: Vec<(u32, (usize, u64))>,
    calls: Vec<Call<u32, u64>>,
    witnesses: Vec<Witness<&'static str>>,
}

fn replied(id: u32, invoked: u64, at: u64, reply: u64) -> Call<u32, u64> {
    Call { id, invoked, end: End::Replied { at, reply } }
}

fn witness(who: &'static str, position: usize, part: u64, digest: u64) -> Witness<&'static str> {
    Witness { position, who, part, digest }
}

/// Three commands one after the other, and two replicas of each part.
fn good() -> Run {
    Run {
        order: vec![(1, (0, 5)), (2, (1, 7)), (3, (0, 1))],
        calls: vec![replied(1, 10, 20, 5), replied(2, 30, 40, 7), replied(3, 50, 60, 6)],
        witnesses: vec![
            witness("n1", 3, 0, 6),
            witness("n2", 0, 0, 0),
            witness("n2", 1, 0, 5),
            witness("n2", 3, 1, 7),
        ],
    }
}

impl Run {
    fn judge(&self) -> Verdict {
        replay(&mut Sums::default(), self.order.iter().cloned(), &self.calls, &self.witnesses)
    }
}

#[track_caller]
fn assert_finds(kind: AnomalyKind, calls: &[usize], run: &Run) {
    let verdict = run.judge();
    assert_eq!(verdict.anomalies().len(), 1, "{verdict}");
    assert_eq!(verdict.anomalies()[0].kind, kind, "{verdict}");
    assert_eq!(verdict.anomalies()[0].operations, calls, "{verdict}");
}

#[test]
fn a_good_run_is_valid_and_leaves_the_final_state() {
    assert_eq!(good().judge(), Verdict::Valid);
    let (run, mut model) = (good(), Sums::default());
    let commands = run.order.iter().map(|(id, command)| (*id, command));
    assert!(replay(&mut model, commands, &run.calls, &run.witnesses).is_valid());
    assert_eq!(model.0, [6, 7]);
}

#[test]
fn a_reply_that_is_not_the_models() {
    let mut run = good();
    run.calls[2] = replied(3, 50, 60, 7);
    assert_finds(AnomalyKind::WrongReply, &[2], &run);
    assert!(run.judge().to_string().contains("3 was told 7; executed at 2 the model says 6"));
}

#[test]
fn an_order_that_real_time_contradicts() {
    let mut run = good();
    run.order.swap(0, 1);
    run.witnesses.clear();
    assert_finds(AnomalyKind::OrderAgainstRealTime, &[0, 1], &run);
    let text = run.judge().to_string();
    assert!(text.contains("1 was over at 20, before 2 was sent at 30"), "{text}");
}

#[test]
fn commands_at_the_same_time_may_stand_in_either_order() {
    let mut run = good();
    run.order.swap(0, 1);
    run.witnesses.clear();
    run.calls[1].invoked = 20;
    assert_eq!(run.judge(), Verdict::Valid);
}

#[test]
fn an_unknown_command_may_come_late_but_not_before_it_was_sent() {
    let mut run = good();
    run.witnesses.clear();
    run.calls[1].end = End::Unknown;
    run.order = vec![(1, (0, 5)), (3, (0, 1)), (2, (1, 7))];
    assert_eq!(run.judge(), Verdict::Valid);
    run.order = vec![(2, (1, 7)), (1, (0, 5)), (3, (0, 1))];
    assert_finds(AnomalyKind::OrderAgainstRealTime, &[0, 1], &run);
    run.order = vec![(1, (0, 5)), (3, (0, 1))];
    assert_eq!(run.judge(), Verdict::Valid);
}

#[test]
fn an_acknowledged_command_that_is_missing() {
    let mut run = good();
    run.order.remove(1);
    run.witnesses.clear();
    assert_finds(AnomalyKind::LostCommand, &[1], &run);
    run.calls[1].end = End::Acknowledged { at: 40 };
    assert_finds(AnomalyKind::LostCommand, &[1], &run);
}

#[test]
fn a_command_that_is_executed_twice() {
    let mut run = good();
    run.order.push((2, (1, 7)));
    assert_finds(AnomalyKind::RepeatedCommand, &[1], &run);
}

#[test]
fn a_refused_command_that_is_executed() {
    let mut run = good();
    run.calls[1].end = End::Refused;
    assert_finds(AnomalyKind::RefusedCommand, &[1], &run);
}

#[test]
fn attempts_under_one_id_are_one_command() {
    let mut run = good();
    // Refused, then unknown, then told.
    run.calls[1].end = End::Refused;
    run.calls.push(Call { id: 2, invoked: 41, end: End::Unknown });
    run.calls.push(replied(2, 70, 80, 7));
    assert_eq!(run.judge(), Verdict::Valid);
    // A later attempt gets another reply.
    run.calls.push(replied(2, 90, 95, 14));
    assert_finds(AnomalyKind::WrongReply, &[5], &run);
    // The first answer is what it was over with.
    run.calls.pop();
    run.calls[4] = replied(2, 42, 45, 7);
    run.order.swap(1, 2);
    run.witnesses.clear();
    assert_finds(AnomalyKind::OrderAgainstRealTime, &[1, 3, 4, 2], &run);
}

#[test]
fn a_state_that_differs() {
    let mut run = good();
    run.witnesses[2].digest = 4;
    assert_finds(AnomalyKind::DivergedState, &[], &run);
    let text = run.judge().to_string();
    assert!(text.contains("after 1 commands the digest of part 0 is 0x0000000000000004 at n2"));
    // What follows from it is not told again.
    run.witnesses.push(witness("n2", 3, 0, 5));
    assert_finds(AnomalyKind::DivergedState, &[], &run);
    run.witnesses.push(witness("n1", 2, 1, 5));
    assert_eq!(run.judge().anomalies().len(), 2);
}

#[test]
fn a_state_beyond_the_order() {
    let mut run = good();
    run.witnesses.push(witness("n3", 4, 0, 6));
    assert_finds(AnomalyKind::DivergedState, &[], &run);
}

#[test]
fn commands_of_the_system_itself_constrain_nothing() {
    let mut run = good();
    run.order.insert(1, (99, (1, 0)));
    run.witnesses.clear();
    assert_eq!(run.judge(), Verdict::Valid);
}

/// Commands that took effect between their ends, in the order of their effects.
fn run(seed: u64, count: u32) -> Run {
    let mut chance = SplitMix::new(seed);
    let mut model = Sums::default();
    let mut run = Run { order: Vec::new(), calls: Vec::new(), witnesses: Vec::new() };
    for id in 0..count {
        let effect = 1000 + 10 * u64::from(id);
        let command = (chance.below(2) as usize, chance.below(9));
        let invoked = effect - 1 - chance.below(200);
        let at = effect + 1 + chance.below(200);
        let end = match chance.below(10) {
            0 => End::Refused,
            1 => End::Unknown,
            2 => End::Acknowledged { at },
            _ => End::Replied { at, reply: 0 },
        };
        if end == End::Refused || (end == End::Unknown && chance.below(2) == 0) {
            run.calls.push(Call { id, invoked, end });
            continue;
        }
        run.order.push((id, command));
        let reply = model.apply(&command);
        let end = if matches!(end, End::Replied { .. }) { End::Replied { at, reply } } else { end };
        run.calls.push(Call { id, invoked, end });
        let part = chance.below(2);
        run.witnesses.push(witness("n1", run.order.len(), part, model.digest(part)));
    }
    run
}

/// The definition, pair by pair.
fn contradicts_real_time(run: &Run) -> bool {
    let call = |id: u32| run.calls.iter().find(|call| call.id == id).unwrap();
    run.order.iter().enumerate().any(|(place, (later, _))| {
        let over = match call(*later).end {
            End::Replied { at, .. } | End::Acknowledged { at } => at,
            End::Refused | End::Unknown => return false,
        };
        run.order[..place].iter().any(|(earlier, _)| over < call(*earlier).invoked)
    })
}

proptest! {
    #[test]
    fn every_execution_on_one_thread_is_valid(seed: u64, count in 1..300_u32) {
        prop_assert_eq!(run(seed, count).judge(), Verdict::Valid);
    }

    #[test]
    fn real_time_is_judged_as_defined(
        seed: u64,
        count in 2..60_u32,
        from: prop::sample::Index,
        to: prop::sample::Index,
    ) {
        let mut run = run(seed, count);
        prop_assume!(run.order.len() > 1);
        let moved = run.order.remove(from.index(run.order.len()));
        run.order.insert(to.index(run.order.len() + 1), moved);
        let verdict = run.judge();
        let found = verdict.has(AnomalyKind::OrderAgainstRealTime);
        prop_assert_eq!(found, contradicts_real_time(&run), "{}", verdict);
    }

    #[test]
    fn any_other_reply_is_caught(seed: u64, count in 1..60_u32, pick: prop::sample::Index) {
        let mut run = run(seed, count);
        let mut replies: Vec<_> = run
            .calls
            .iter_mut()
            .filter_map(|call| match &mut call.end {
                End::Replied { reply, .. } => Some(reply),
                _ => None,
            })
            .collect();
        prop_assume!(!replies.is_empty());
        let place = pick.index(replies.len());
        *replies[place] += 1;
        prop_assert!(run.judge().has(AnomalyKind::WrongReply));
    }
}
