//! The lock table against a naive model: an entry holds its locks when nothing
//! before it conflicts with it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use quorate_calvin::{Access, LockSet, LockTable, Place};
use quorate_types::Blob;

use crate::support::blob;

fn place(index: u64) -> Place {
    Place { index, position: 0 }
}

fn locks(keys: &[(&str, Access)]) -> LockSet {
    let mut set = LockSet::default();
    keys.iter().for_each(|(key, access)| set.add(blob(key), *access));
    set
}

#[derive(Default)]
struct Naive {
    entries: BTreeMap<Place, (LockSet, bool)>,
}

fn conflicts(a: &LockSet, b: &LockSet) -> bool {
    let strongest = |set: &LockSet| set.keys.values().copied().chain(set.whole).max();
    let both = |a: Access, b: Access| a == Access::Write || b == Access::Write;
    let whole = |whole: &LockSet, other: &LockSet| {
        whole.whole.is_some_and(|access| strongest(other).is_some_and(|it| both(access, it)))
    };
    let on_key =
        |(key, access): (&Blob, &Access)| b.keys.get(key).is_some_and(|it| both(*access, *it));
    whole(a, b) || whole(b, a) || a.keys.iter().any(on_key)
}

impl Naive {
    fn is_free(&self, place: Place) -> bool {
        let locks = &self.entries[&place].0;
        self.entries.range(..place).all(|(_, (earlier, _))| !conflicts(earlier, locks))
    }

    fn request(&mut self, place: Place, locks: LockSet) -> bool {
        self.entries.insert(place, (locks, false));
        let granted = self.is_free(place);
        self.entries.get_mut(&place).unwrap().1 = granted;
        granted
    }

    fn release(&mut self, place: Place) -> Vec<Place> {
        self.entries.remove(&place);
        let waiting: Vec<Place> =
            self.entries.iter().filter(|(_, (_, held))| !held).map(|(it, _)| *it).collect();
        let granted: Vec<Place> = waiting.into_iter().filter(|it| self.is_free(*it)).collect();
        granted.iter().for_each(|it| self.entries.get_mut(it).unwrap().1 = true);
        granted
    }

    fn held(&self) -> Vec<Place> {
        self.entries.iter().filter(|(_, (_, held))| *held).map(|(it, _)| *it).collect()
    }

    fn blocks_read(&self, keys: &[Blob], whole: bool) -> bool {
        let mut read = LockSet::default();
        keys.iter().for_each(|key| read.add(key.clone(), Access::Read));
        if whole {
            read.add_whole(Access::Read);
        }
        self.entries.values().any(|(locks, _)| conflicts(locks, &read))
    }
}

fn access() -> impl Strategy<Value = Access> {
    prop_oneof![Just(Access::Read), Just(Access::Write)]
}

fn lock_set() -> impl Strategy<Value = LockSet> {
    let keys = prop::collection::btree_map(0..5_u8, access(), 1..4);
    (keys, prop::option::weighted(0.2, access())).prop_map(|(keys, whole)| {
        let mut set = LockSet::default();
        keys.into_iter().for_each(|(key, access)| set.add(Blob::from(&[key]), access));
        whole.into_iter().for_each(|access| set.add_whole(access));
        set
    })
}

proptest! {
    #[test]
    fn the_table_grants_what_the_model_grants(
        steps in prop::collection::vec((lock_set(), any::<Option<prop::sample::Index>>()), 1..60),
    ) {
        let (mut table, mut naive) = (LockTable::default(), Naive::default());
        for (number, (locks, release)) in steps.into_iter().enumerate() {
            let place = place(number as u64);
            prop_assert_eq!(
                table.request(place, locks.clone()),
                naive.request(place, locks),
                "{:?}", place
            );
            let held = naive.held();
            if let Some(done) = release.filter(|_| !held.is_empty()).map(|it| *it.get(&held)) {
                prop_assert_eq!(table.release(done), naive.release(done));
            }
            for key in 0..5_u8 {
                let keys = [Blob::from(&[key])];
                prop_assert_eq!(table.blocks_read(&keys, false), naive.blocks_read(&keys, false));
            }
            prop_assert_eq!(table.blocks_read(&[], true), naive.blocks_read(&[], true));
        }
        // Nobody is stranded: releasing what is held, again and again, empties
        // the table.
        while let Some(done) = naive.held().first().copied() {
            prop_assert_eq!(table.release(done), naive.release(done));
        }
        prop_assert!(table.is_empty());
    }
}

#[test]
fn nodedb_a_blocked_transaction_reserves_its_free_keys() {
    let mut table = LockTable::default();
    assert!(table.request(place(1), locks(&[("a", Access::Write)])));
    let both = locks(&[("a", Access::Write), ("free", Access::Write)]);
    assert!(!table.request(place(2), both));
    assert!(!table.request(place(3), locks(&[("free", Access::Write)])), "nobody overtakes");
    assert_eq!(table.release(place(1)), [place(2)]);
    assert_eq!(table.release(place(2)), [place(3)]);
}

#[test]
fn nodedb_a_promoted_waiter_is_not_stranded() {
    let mut table = LockTable::default();
    assert!(table.request(place(1), locks(&[("a", Access::Write)])));
    assert!(table.request(place(2), locks(&[("b", Access::Write)])));
    let both = locks(&[("a", Access::Write), ("b", Access::Write)]);
    assert!(!table.request(place(3), both));
    assert_eq!(table.release(place(1)), [], "it still waits for b");
    assert_eq!(table.release(place(2)), [place(3)], "and is told when b is free");
}

#[test]
fn readers_share_and_do_not_overtake_a_waiting_writer() {
    let mut table = LockTable::default();
    assert!(table.request(place(1), locks(&[("a", Access::Read)])));
    assert!(table.request(place(2), locks(&[("a", Access::Read)])));
    assert!(!table.request(place(3), locks(&[("a", Access::Write)])));
    assert!(!table.request(place(4), locks(&[("a", Access::Read)])));
    assert_eq!(table.release(place(2)), []);
    assert_eq!(table.release(place(1)), [place(3)]);
}
