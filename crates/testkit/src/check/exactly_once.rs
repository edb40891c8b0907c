//! Each increment took effect once, however often it was retried.

use std::collections::BTreeMap;

use super::verdict::Findings;
use super::{AnomalyKind, Verdict};
use crate::history::{Key, MicroOp, Operation, Outcome};

/// Checks each counter's final value, read after everything was over: at least
/// everything acknowledged, at most that and everything of unknown outcome.
/// Attempts that share a request id are one increment. Counters begin at zero;
/// one that is missing from `last` still stands there.
#[must_use]
pub fn check(operations: &[Operation], last: &BTreeMap<Key, i64>) -> Verdict {
    let mut findings = Findings::default();
    let mut counters: BTreeMap<&Key, Vec<Increment<'_>>> = BTreeMap::new();
    let mut by_request: BTreeMap<(&Key, &Key), usize> = BTreeMap::new();
    for by in operations {
        for step in &by.txn {
            let MicroOp::Add { key, delta, request } = step else { continue };
            let increments = counters.entry(key).or_default();
            let next = increments.len();
            let place = request
                .as_ref()
                .map_or(next, |request| *by_request.entry((key, request)).or_insert(next));
            match increments.get_mut(place) {
                None => increments.push(Increment { delta: *delta, by, outcome: by.outcome }),
                Some(known) if known.delta != *delta => {
                    return Verdict::Undecided(format!(
                        "#{} and #{} use one request id for different increments of {key}",
                        known.by.id, by.id
                    ));
                }
                Some(known) => known.outcome = joined(known.outcome, by.outcome),
            }
        }
    }
    for (key, increments) in &counters {
        check_counter(key, increments, last.get(*key).copied().unwrap_or(0), &mut findings);
    }
    findings.verdict()
}

struct Increment<'a> {
    delta: i64,
    by: &'a Operation,
    outcome: Outcome,
}

/// What several attempts under one id say together.
fn joined(one: Outcome, other: Outcome) -> Outcome {
    match (one, other) {
        (Outcome::Ok, _) | (_, Outcome::Ok) => Outcome::Ok,
        (Outcome::Unknown, _) | (_, Outcome::Unknown) => Outcome::Unknown,
        (Outcome::Fail, Outcome::Fail) => Outcome::Fail,
    }
}

fn check_counter(key: &Key, increments: &[Increment<'_>], found: i64, findings: &mut Findings) {
    let sum = |outcome: Outcome, counts: fn(i64) -> bool| -> i128 {
        let of = increments.iter().filter(|increment| increment.outcome == outcome);
        of.map(|increment| increment.delta).filter(|delta| counts(*delta)).map(i128::from).sum()
    };
    let acknowledged = sum(Outcome::Ok, |_| true);
    let least = acknowledged + sum(Outcome::Unknown, |delta| delta < 0);
    let most = acknowledged + sum(Outcome::Unknown, |delta| delta > 0);
    let found = i128::from(found);
    let kind = if found > most {
        AnomalyKind::DoubleExecution
    } else if found < least {
        AnomalyKind::LostExecution
    } else {
        return;
    };
    let what = format!(
        "{key} is {found}; {acknowledged} were acknowledged, and with what is unknown it may be \
         {least} to {most}"
    );
    let unknown = increments.iter().filter(|increment| increment.outcome == Outcome::Unknown);
    findings.add(kind, what, unknown.take(8).map(|increment| increment.by));
}
