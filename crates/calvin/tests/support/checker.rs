//! Strict serializability by search: is there an order of the operations that
//! respects real time and explains every answer? (Wing and Gong's search with
//! Lowe's memory of failed states.)

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::Blob;

use super::procedures::{FUNDS, Op};

/// How an operation ended, as its client saw it.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum Observed {
    /// The result.
    Result(Blob),
    /// Ordered without effect.
    Aborted,
    /// It may have happened, may yet happen, or may never.
    Unknown,
}

/// One operation of a history. Times are only compared.
#[derive(Clone, Debug)]
pub struct Operation {
    pub op: Op,
    /// For [`Op::WriteIf`]: the [`Op::Watch`] whose version it names.
    pub watched_in: Option<usize>,
    pub invoked: u64,
    pub returned: Option<(u64, Observed)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    value: Option<Blob>,
    /// Changes so far: what a version stands for.
    changes: u32,
    /// The value may vanish at any time.
    expires: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    cells: BTreeMap<Blob, Cell>,
    /// By watching operation: what it saw of the keys it watched.
    watched: BTreeMap<usize, Vec<(Blob, u32)>>,
    /// Some range was cleared, after which a watcher may be told "changed"
    /// without cause.
    cleared: bool,
}

impl State {
    fn value(&self, key: &Blob) -> String {
        let value = self.cells.get(key).and_then(|cell| cell.value.as_ref());
        value.map_or("-".into(), |value| String::from_utf8_lossy(value).into_owned())
    }

    fn changes(&self, key: &Blob) -> u32 {
        self.cells.get(key).map_or(0, |cell| cell.changes)
    }

    fn set(&mut self, key: &Blob, value: Option<Blob>, expires: bool) {
        let cell = self.cells.entry(key.clone()).or_default();
        *cell = Cell { value, changes: cell.changes + 1, expires };
    }

    fn funds(&self, key: &Blob) -> u64 {
        self.value(key).parse().unwrap_or(FUNDS)
    }

    /// Lets values that may vanish vanish where the answer says so.
    fn expire_as_seen(&mut self, keys: &[Blob], seen: Option<&Blob>) {
        let Some(seen) = seen else { return };
        let seen = String::from_utf8_lossy(seen).into_owned();
        for (key, part) in keys.iter().zip(seen.split(',')) {
            let may_vanish = self.cells.get(key).is_some_and(|cell| cell.expires);
            if may_vanish && (part == "-" || part.starts_with("-@")) {
                self.set(key, None, false);
            }
        }
    }

    fn joined(&self, keys: &[Blob]) -> Blob {
        super::procedures::joined(keys.iter().map(|key| self.value(key)))
    }

    /// The state after the operation, if it may have answered `seen` (or
    /// anything, for `None`).
    fn after(&self, number: usize, operation: &Operation, seen: Option<&Blob>) -> Option<Self> {
        let mut next = self.clone();
        let ok = Blob::from_static(b"ok");
        let answer = match &operation.op {
            Op::Read(keys) => {
                next.expire_as_seen(keys, seen);
                next.joined(keys)
            }
            Op::Write { keys, value } => {
                keys.iter().for_each(|key| next.set(key, Some(value.clone()), false));
                ok
            }
            Op::ReadWrite { reads, writes, value } => {
                next.expire_as_seen(reads, seen);
                let answer = next.joined(reads);
                writes.iter().for_each(|key| next.set(key, Some(value.clone()), false));
                answer
            }
            Op::Append { keys, item } => {
                let answer = next.joined(keys);
                for key in keys {
                    let before = next.cells.get(key).and_then(|cell| cell.value.clone());
                    let mut list = before.unwrap_or_default().to_vec();
                    list.extend_from_slice(b".");
                    list.extend_from_slice(item);
                    next.set(key, Some(list.into()), false);
                }
                answer
            }
            Op::Transfer { from, to, amount } => match next.funds(from).checked_sub(*amount) {
                Some(rest) => {
                    let value = |funds: u64| Some(Blob::from(funds.to_string().as_str()));
                    let sum = next.funds(to) + amount;
                    next.set(from, value(rest), false);
                    next.set(to, value(sum), false);
                    ok
                }
                None => Blob::from_static(b"poor"),
            },
            Op::Watch(keys) => {
                next.expire_as_seen(keys, seen);
                let seen_now = keys.iter().map(|key| (key.clone(), next.changes(key))).collect();
                next.watched.insert(number, seen_now);
                // The versions are the system's own; the values must fit.
                let versions = seen.map(|seen| String::from_utf8_lossy(seen).into_owned())?;
                let fits = keys.iter().zip(versions.split(',')).all(|(key, part)| {
                    part.rsplit_once('@').is_some_and(|(value, _)| value == next.value(key))
                });
                return fits.then_some(next);
            }
            Op::WriteIf { keys, value, .. } => {
                let watched = operation.watched_in.and_then(|watch| next.watched.get(&watch))?;
                let before = watched.iter().find(|(key, _)| *key == keys[0])?.1;
                let same = before == next.changes(&keys[0]);
                let told_changed = seen.map_or(!same, |seen| **seen == *b"changed");
                if told_changed {
                    return (!same || next.cleared).then_some(next);
                }
                if !same {
                    return None;
                }
                keys.iter().for_each(|key| next.set(key, Some(value.clone()), false));
                ok
            }
            Op::Delete(keys) => {
                keys.iter().for_each(|key| next.set(key, None, false));
                ok
            }
            Op::WriteExpiring { key, value, .. } => {
                next.set(key, Some(value.clone()), true);
                ok
            }
            Op::Count(range) => {
                let live = next
                    .cells
                    .iter()
                    .filter(|(key, cell)| range.contains(key) && cell.value.is_some());
                Blob::from(live.count().to_string().as_str())
            }
            Op::Clear(range) => {
                let keys: Vec<Blob> =
                    next.cells.keys().filter(|key| range.contains(key)).cloned().collect();
                keys.iter().for_each(|key| next.set(key, None, false));
                next.cleared = true;
                ok
            }
            // They abort whenever they happen.
            Op::Panic(_) | Op::Stray { .. } => return seen.is_none().then_some(next),
        };
        seen.is_none_or(|seen| *seen == answer).then_some(next)
    }
}

struct Search<'a> {
    history: &'a [Operation],
    failed: BTreeSet<(u128, State)>,
}

impl Search<'_> {
    fn explain(&mut self, placed: u128, state: &State) -> bool {
        let rest = || (0..self.history.len()).filter(|number| placed & (1 << number) == 0);
        let is_done = |number: usize| {
            self.history[number]
                .returned
                .as_ref()
                .is_none_or(|(_, observed)| *observed == Observed::Unknown)
        };
        if rest().all(is_done) {
            return true;
        }
        if self.failed.contains(&(placed, state.clone())) {
            return false;
        }
        let end = |number: usize| match &self.history[number].returned {
            Some((time, observed)) if *observed != Observed::Unknown => *time,
            _ => u64::MAX,
        };
        let first_end = rest().map(end).min().unwrap_or(u64::MAX);
        let mut candidates: Vec<usize> =
            rest().filter(|number| self.history[*number].invoked < first_end).collect();
        candidates.sort_by_key(|number| end(*number));
        for number in candidates {
            let operation = &self.history[number];
            let next = match &operation.returned {
                Some((_, Observed::Result(seen))) => state.after(number, operation, Some(seen)),
                Some((_, Observed::Aborted)) => Some(state.clone()),
                Some((_, Observed::Unknown)) | None => state.after(number, operation, None),
            };
            if next.is_some_and(|next| self.explain(placed | (1 << number), &next)) {
                return true;
            }
        }
        self.failed.insert((placed, state.clone()));
        false
    }
}

/// Whether some order explains the history.
pub fn is_strictly_serializable(history: &[Operation]) -> bool {
    assert!(history.len() <= 128, "the search's memory has 128 bits");
    Search { history, failed: BTreeSet::new() }.explain(0, &State::default())
}
