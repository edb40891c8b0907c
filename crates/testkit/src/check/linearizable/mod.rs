//! Linearizability by search (Wing and Gong 1993, with the memory of Lowe
//! 2017): is there an order of the operations, each at a point between its
//! beginning and its end, that explains every answer?
//!
//! Keys that no operation touches together are searched apart, which is what
//! makes the search feasible. Operations on several keys tie them: then this
//! checks the strict serializability of transactions, slowly, and serves as
//! the oracle for [`super::list_append`].

mod model;
mod search;

use std::collections::BTreeMap;

use super::verdict::Findings;
use super::{AnomalyKind, Verdict};
use crate::history::{Datum, Key, Operation};
use model::Part;
use search::Outcome;

/// Seconds of search, and a few hundred bytes of memory for each step.
pub const STEPS_MAX_DEFAULT: u64 = 2_000_000;

/// Of what was concurrent with a stuck operation, so many are shown.
const SHOWN_MAX: usize = 12;

/// Searches for a linearization of every part of the history, from `initial`
/// values (missing ones are empty, and zero for counters). Undecided when that
/// takes more than `steps_max` steps in all.
///
/// A failed operation did not happen: a compare-and-set that did not find what
/// it expected says nothing about what it found.
#[must_use]
pub fn check(operations: &[Operation], initial: &BTreeMap<Key, Datum>, steps_max: u64) -> Verdict {
    let mut findings = Findings::default();
    let mut undecided = None;
    let mut steps_left = steps_max;
    for part in Part::all(operations, initial) {
        match search::search(&part, &mut steps_left) {
            Outcome::Linearizable => {}
            Outcome::OutOfSteps => {
                undecided.get_or_insert_with(|| {
                    format!("{} on {} take more than {steps_max} steps", part.size(), part.name())
                });
            }
            Outcome::Stuck { blocked, pending, linearized, state } => {
                let what = format!(
                    "no order of the operations on {} explains their answers; the longest found \
                     has {linearized} of them, leaves {state}, and cannot go on with #{blocked}",
                    part.name()
                );
                let ids = std::iter::once(blocked).chain(pending.into_iter().take(SHOWN_MAX));
                let shown = ids.filter_map(|id| operations.get(id));
                findings.add(AnomalyKind::NotLinearizable, what, shown);
            }
        }
    }
    match (findings.verdict(), undecided) {
        (Verdict::Valid, Some(reason)) => Verdict::Undecided(reason),
        (verdict, _) => verdict,
    }
}
