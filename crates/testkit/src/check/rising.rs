//! Keys whose value only rises: counters that are only added to, versions that
//! are only raised, lists by their length, registers that are written once.

use std::collections::{BTreeMap, BTreeSet};

use super::internal;
use crate::history::{Datum, Key, MicroOp, Operation, Outcome};

/// How far a key has come; nothing comes before everything.
pub(super) type Version = Option<i64>;

/// The rising keys of a history.
pub(super) struct Rising<'a> {
    keys: BTreeSet<&'a Key>,
    counters: BTreeSet<&'a Key>,
    /// Increments that were asked for more than once: any but one of them
    /// raises nothing.
    retried: BTreeSet<(&'a Key, &'a Key)>,
}

/// What may change a key.
#[derive(Default)]
struct Changes<'a> {
    writes: Vec<(i64, &'a Operation)>,
    is_raised: bool,
}

impl<'a> Rising<'a> {
    /// Takes the keys that `rises` names. An error says why one of them might
    /// fall in a system without fault.
    pub(super) fn survey(
        operations: &'a [Operation],
        rises: impl Fn(&Key) -> bool,
    ) -> Result<Self, String> {
        let mut changes: BTreeMap<&Key, Changes<'a>> = BTreeMap::new();
        let mut requests: BTreeSet<(&Key, &Key)> = BTreeSet::new();
        let mut retried = BTreeSet::new();
        for by in operations.iter().filter(|operation| operation.outcome != Outcome::Fail) {
            for step in &by.txn {
                for key in step.keys().filter(|key| rises(key)) {
                    let changes = changes.entry(key).or_default();
                    match step {
                        MicroOp::Read { .. } | MicroOp::Differs { .. } => {}
                        MicroOp::Write { value, .. } => changes.note_write(*value, by)?,
                        step if lowers(step) => {
                            return Err(format!("#{} may lower {key}", by.id));
                        }
                        _ => changes.is_raised = true,
                    }
                }
                if let MicroOp::Add { key, request: Some(request), .. } = step
                    && !requests.insert((key, request))
                {
                    retried.insert((key, request));
                }
            }
        }
        for (key, changes) in &mut changes {
            changes.check(key)?;
        }
        let keys = changes.into_keys().collect();
        Ok(Self { keys, counters: internal::counters(operations), retried })
    }

    pub(super) fn has(&self, key: &Key) -> bool {
        self.keys.contains(key)
    }

    pub(super) fn version(&self, key: &Key, seen: &Datum) -> Version {
        match seen {
            Datum::Nil => self.counters.contains(key).then_some(0),
            Datum::Int(value) => Some(*value),
            Datum::List(list) if list.is_empty() => None,
            Datum::List(list) => Some(i64::try_from(list.len()).unwrap_or(i64::MAX)),
        }
    }

    /// Whether the increment surely took effect between its ends.
    pub(super) fn counts(&self, key: &Key, request: Option<&Key>) -> bool {
        request.is_none_or(|request| !self.retried.contains(&(key, request)))
    }
}

fn lowers(step: &MicroOp) -> bool {
    match step {
        MicroOp::Add { delta, .. } => *delta < 0,
        MicroOp::CompareAndSet { expected, new, .. } => new < expected,
        MicroOp::Transfer { .. } => true,
        _ => false,
    }
}

impl<'a> Changes<'a> {
    /// Of a transaction's writes only the last one shows.
    fn note_write(&mut self, value: i64, by: &'a Operation) -> Result<(), String> {
        match self.writes.last_mut().filter(|(_, other)| other.id == by.id) {
            Some((earlier, _)) if *earlier > value => {
                Err(format!("#{} writes {value} over {earlier}", by.id))
            }
            Some((earlier, _)) => {
                *earlier = value;
                Ok(())
            }
            None => {
                self.writes.push((value, by));
                Ok(())
            }
        }
    }

    /// Blind writes rise only if each was over before a greater one began:
    /// otherwise the lesser may take effect last.
    fn check(&mut self, key: &Key) -> Result<(), String> {
        let Some((_, first)) = self.writes.first() else { return Ok(()) };
        if self.is_raised {
            return Err(format!("#{} may overwrite a greater value of {key}", first.id));
        }
        self.writes.sort_by_key(|(value, by)| (*value, by.id));
        // Of the lesser writes the one that is over last, if any ever is.
        let mut last: Option<&Operation> = None;
        for same in self.writes.chunk_by(|one, other| one.0 == other.0) {
            for (_, by) in same {
                if let Some(lesser) = last.filter(|lesser| !lesser.precedes(by)) {
                    return Err(format!(
                        "the lesser write #{} to {key} may take effect after #{}",
                        lesser.id, by.id
                    ));
                }
            }
            let end = |by: &Operation| by.completed.map_or(usize::MAX, |end| end.position);
            let latest = same.iter().map(|(_, by)| *by).chain(last).max_by_key(|by| end(by));
            last = latest;
        }
        Ok(())
    }
}
