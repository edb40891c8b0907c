//! Internal consistency: each step of a transaction agrees with what the same
//! transaction did and saw before. Whatever happens around it, a transaction
//! sees its own writes, and what it reads twice is twice the same.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::verdict::Findings;
use super::{AnomalyKind, Verdict};
use crate::history::{Datum, Key, MicroOp, Operation, Outcome};

/// Checks every acknowledged transaction, on lists, registers and counters
/// alike. One of unknown outcome has seen nothing that is known.
#[must_use]
pub fn check(operations: &[Operation]) -> Verdict {
    let mut findings = Findings::default();
    find(operations, Elements::Any, &mut findings);
    findings.verdict()
}

/// What is known of the elements of lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Elements {
    /// Nothing.
    Any,
    /// No list gets one twice, so that nobody sees an element before its
    /// append.
    Unique,
}

/// Finds the transactions that contradict themselves, each once.
pub(super) fn find(operations: &[Operation], elements: Elements, findings: &mut Findings) {
    let counters = counters(operations);
    for operation in operations.iter().filter(|operation| operation.outcome == Outcome::Ok) {
        let mut own = Own { known: BTreeMap::new(), counters: &counters, elements };
        let contradiction = operation.txn.iter().find_map(|step| own.contradiction(step));
        if let Some(what) = contradiction {
            findings.add(AnomalyKind::Internal, what, [operation]);
        }
    }
}

/// The keys that anyone adds to: nothing there means zero.
pub(super) fn counters(operations: &[Operation]) -> BTreeSet<&Key> {
    let steps = operations.iter().flat_map(|operation| &operation.txn);
    let added = steps
        .filter(|step| matches!(step, MicroOp::Add { .. } | MicroOp::Transfer { .. }))
        .flat_map(MicroOp::keys);
    added.collect()
}

/// What a transaction knows of itself.
struct Own<'a> {
    known: BTreeMap<&'a Key, Known<'a>>,
    counters: &'a BTreeSet<&'a Key>,
    elements: Elements,
}

enum Known<'a> {
    /// It read or set the key: this stands there.
    Exactly(Cow<'a, Datum>),
    /// It only appended: whatever stands there ends with these.
    EndsWith(Vec<i64>),
}

impl<'a> Own<'a> {
    /// Takes the next step, and says how it contradicts the ones before.
    fn contradiction(&mut self, step: &'a MicroOp) -> Option<String> {
        match step {
            MicroOp::Append { key, value } => self.append(key, *value),
            MicroOp::Read { seen: None, .. } => None,
            MicroOp::Read { key, seen: Some(seen) } => {
                let expected = self.unlike(key, seen);
                self.known.insert(key, Known::Exactly(Cow::Borrowed(seen)));
                expected.map(|expected| {
                    format!("its own earlier steps leave {expected} in {key}, and it read {seen}")
                })
            }
            MicroOp::Write { key, value } => self.set(key, *value),
            MicroOp::CompareAndSet { key, expected, new } => {
                let known = self.unlike(key, &Datum::Int(*expected));
                self.set(key, *new);
                known.map(|known| {
                    format!("its own earlier steps leave {known} in {key}, and it found {expected}")
                })
            }
            MicroOp::Differs { key, unexpected } => {
                let is_known = self.known.contains_key(key);
                let is_alike = self.unlike(key, &Datum::Int(*unexpected)).is_none();
                (is_known && is_alike).then(|| {
                    format!(
                        "its own earlier steps leave {unexpected} in {key}, and it found another \
                         value"
                    )
                })
            }
            MicroOp::Add { key, delta, .. } => self.add(key, *delta),
            MicroOp::Transfer { from, to, amount } => {
                self.add(from, amount.saturating_neg());
                self.add(to, *amount)
            }
        }
    }

    /// What is known of `key`, if it cannot look like `seen`.
    fn unlike(&self, key: &Key, seen: &Datum) -> Option<String> {
        match self.known.get(key)? {
            Known::Exactly(known) => {
                (self.normal(key, known) != self.normal(key, seen)).then(|| known.to_string())
            }
            Known::EndsWith(end) => {
                let is_like = matches!(seen, Datum::List(seen) if seen.ends_with(end));
                (!is_like).then(|| format!("a list that ends with {}", Datum::List(end.clone())))
            }
        }
    }

    /// Nothing is an empty list, and zero for a counter.
    fn normal<'d>(&self, key: &Key, datum: &'d Datum) -> Cow<'d, Datum> {
        match datum {
            Datum::Nil if self.counters.contains(key) => Cow::Owned(Datum::Int(0)),
            Datum::List(elements) if elements.is_empty() => Cow::Owned(Datum::Nil),
            other => Cow::Borrowed(other),
        }
    }

    fn set(&mut self, key: &'a Key, value: i64) -> Option<String> {
        self.known.insert(key, Known::Exactly(Cow::Owned(Datum::Int(value))));
        None
    }

    fn append(&mut self, key: &'a Key, value: i64) -> Option<String> {
        let known = self.known.entry(key).or_insert_with(|| Known::EndsWith(Vec::new()));
        match known {
            Known::EndsWith(end) => end.push(value),
            Known::Exactly(known) => match known.to_mut() {
                Datum::List(list) => {
                    let is_early = self.elements == Elements::Unique && list.contains(&value);
                    list.push(value);
                    if is_early {
                        return Some(format!("it saw {value} in {key} before it appended it"));
                    }
                }
                other => *other = Datum::List(vec![value]),
            },
        }
        None
    }

    /// Of a counter that was not read nothing is known after either.
    fn add(&mut self, key: &'a Key, delta: i64) -> Option<String> {
        let value = match self.known.remove(key) {
            Some(Known::Exactly(known)) => match *known {
                Datum::Int(value) => value.checked_add(delta),
                Datum::Nil => Some(delta),
                Datum::List(_) => None,
            },
            _ => None,
        };
        value.and_then(|value| self.set(key, value))
    }
}
