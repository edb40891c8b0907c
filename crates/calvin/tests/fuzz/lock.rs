//! The lock table: who holds what is a function of who is there.

use std::collections::{BTreeMap, BTreeSet};

use quorate_calvin::{Access, LockSet, LockTable, Place};
use quorate_testkit::fuzz;
use quorate_testkit::fuzz::{Choices, Corpus};

use super::story::key;

fn access(choices: &mut Choices<'_>) -> Access {
    if choices.flag() { Access::Read } else { Access::Write }
}

fn locks(choices: &mut Choices<'_>) -> LockSet {
    let mut locks = LockSet::default();
    for _ in 0..choices.below(4) {
        let key = key(choices);
        locks.add(key, access(choices));
    }
    if choices.below(6) == 0 {
        locks.add_whole(access(choices));
    }
    locks
}

/// Requests everything that is there anew, as a restart does.
fn holders(there: &BTreeMap<Place, LockSet>) -> BTreeSet<Place> {
    let mut table = LockTable::default();
    let held = there.iter().filter(|(place, locks)| table.request(**place, (*locks).clone()));
    held.map(|(place, _)| *place).collect()
}

#[test]
fn who_holds_its_locks_is_a_function_of_who_is_there() {
    fuzz!(Corpus::random(600), |input| {
        let mut choices = Choices::new(input);
        let mut table = LockTable::default();
        let mut there: BTreeMap<Place, LockSet> = BTreeMap::new();
        let mut held: BTreeSet<Place> = BTreeSet::new();
        let mut place = Place { index: 1, position: 0 };
        while !choices.is_spent() {
            if choices.below(5) < 3 {
                place = if choices.flag() {
                    Place { index: place.index + 1, position: 0 }
                } else {
                    Place { position: place.position + 1, ..place }
                };
                let locks = locks(&mut choices);
                there.insert(place, locks.clone());
                if table.request(place, locks) {
                    held.insert(place);
                }
            } else {
                // Those that hold theirs leave; to release what is not there
                // changes nothing.
                let all: Vec<Place> = held.iter().copied().collect();
                let gone = choices.pick(&all).copied().unwrap_or(Place { index: 0, position: 0 });
                there.remove(&gone);
                held.remove(&gone);
                for granted in table.release(gone) {
                    assert!(held.insert(granted), "granted twice");
                }
            }
            assert_eq!(held, holders(&there));
            assert_eq!(table.len(), there.len());
            assert!(there.is_empty() || !held.is_empty(), "(iii): the first one never waits");
        }
    });
}
