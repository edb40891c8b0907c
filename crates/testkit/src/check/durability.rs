//! What was acknowledged is there at the end.

use std::collections::{BTreeMap, BTreeSet};

use super::verdict::Findings;
use super::{AnomalyKind, Verdict};
use crate::history::{Datum, Key, MicroOp, Operation, Outcome};

/// What a register keeps of several writes. (Appends, to a list or a set, are
/// all kept.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// The last one.
    Latest,
    /// The greatest value.
    Greatest,
}

/// Checks a final read, made after everything was over, against every
/// acknowledged append and write. A key that is missing from `last` is empty.
#[must_use]
pub fn check(operations: &[Operation], last: &BTreeMap<Key, Datum>, writes: Writes) -> Verdict {
    let mut findings = Findings::default();
    let mut attempts: BTreeMap<&Key, Attempts<'_>> = BTreeMap::new();
    for operation in operations {
        for step in &operation.txn {
            let (key, value, is_append) = match step {
                MicroOp::Append { key, value } => (key, *value, true),
                MicroOp::Write { key, value } => (key, *value, false),
                MicroOp::CompareAndSet { key, new, .. } => (key, *new, false),
                _ => continue,
            };
            let attempts = attempts.entry(key).or_default();
            let attempts = if is_append { &mut attempts.appends } else { &mut attempts.writes };
            attempts.push((value, operation));
        }
    }
    for (key, attempts) in &attempts {
        let found = last.get(*key).unwrap_or(&Datum::Nil);
        if !attempts.appends.is_empty() {
            check_appends(key, &attempts.appends, found, &mut findings);
        }
        if !attempts.writes.is_empty() {
            check_writes(key, &attempts.writes, found, writes, &mut findings);
        }
    }
    findings.verdict()
}

/// Values and the operations that wrote them.
type Written<'a> = Vec<(i64, &'a Operation)>;

#[derive(Default)]
struct Attempts<'a> {
    appends: Written<'a>,
    writes: Written<'a>,
}

fn check_appends(key: &Key, appends: &Written<'_>, found: &Datum, findings: &mut Findings) {
    let found = match found {
        Datum::List(found) => found.as_slice(),
        Datum::Nil => &[],
        Datum::Int(_) => {
            let what = format!("{key} holds a number instead of a list");
            return findings.add(AnomalyKind::UnexpectedValue, what, []);
        }
    };
    let mut shown = BTreeSet::new();
    for value in found {
        if !shown.insert(*value) {
            let what = format!("{value} is in {key} more than once");
            let by = appends.iter().filter(|(appended, _)| appended == value);
            findings.add(AnomalyKind::DuplicateElement, what, by.map(|(_, by)| *by));
        }
    }
    let possible: BTreeSet<i64> = appends
        .iter()
        .filter(|(_, by)| by.outcome != Outcome::Fail)
        .map(|(value, _)| *value)
        .collect();
    for value in shown.difference(&possible) {
        let what = format!("{value} is in {key}, but no append of it may have happened");
        let by = appends.iter().filter(|(appended, _)| appended == value);
        findings.add(AnomalyKind::UnexpectedValue, what, by.map(|(_, by)| *by));
    }
    for (value, by) in appends.iter().filter(|(_, by)| by.outcome == Outcome::Ok) {
        if !shown.contains(value) {
            let what = format!("{value} is missing from {key}, but its append was acknowledged");
            findings.add(AnomalyKind::LostWrite, what, [*by]);
        }
    }
}

fn check_writes(
    key: &Key,
    written: &Written<'_>,
    found: &Datum,
    writes: Writes,
    findings: &mut Findings,
) {
    let acknowledged = || written.iter().filter(|(_, by)| by.outcome == Outcome::Ok);
    let found = match found {
        Datum::Int(found) => *found,
        Datum::Nil => {
            if let Some((value, by)) = acknowledged().next() {
                let what = format!("{key} is empty, but the write of {value} was acknowledged");
                findings.add(AnomalyKind::LostWrite, what, [*by]);
            }
            return;
        }
        Datum::List(_) => {
            let what = format!("{key} holds a list instead of a number");
            return findings.add(AnomalyKind::UnexpectedValue, what, []);
        }
    };
    let candidates: Vec<&Operation> = written
        .iter()
        .filter(|(value, by)| *value == found && by.outcome != Outcome::Fail)
        .map(|(_, by)| *by)
        .collect();
    if candidates.is_empty() {
        let what = format!("{key} is {found}, but no write of it may have happened");
        let by = written.iter().filter(|(value, _)| *value == found).map(|(_, by)| *by);
        return findings.add(AnomalyKind::UnexpectedValue, what, by);
    }
    let lost = match writes {
        Writes::Greatest => {
            acknowledged().max_by_key(|(value, _)| *value).filter(|(value, _)| *value > found)
        }
        // Lost is a write that each candidate was over before.
        Writes::Latest => acknowledged()
            .find(|(_, later)| candidates.iter().all(|candidate| candidate.precedes(later))),
    };
    if let Some((value, by)) = lost {
        let what = format!("{key} is {found}, but the later write of {value} was acknowledged");
        let shown = candidates.first().copied().into_iter().chain([*by]);
        findings.add(AnomalyKind::LostWrite, what, shown);
    }
}
