//! The laws of key ranges, over keys so short that every case occurs.

use proptest::collection::vec;
use proptest::prelude::*;
use quorate_types::{Blob, KeyRange};

fn key() -> impl Strategy<Value = Blob> {
    vec(prop_oneof![Just(0_u8), Just(1), Just(254), Just(255)], 0..3).prop_map(Blob::from)
}

fn range() -> impl Strategy<Value = KeyRange> {
    (key(), proptest::option::of(key())).prop_map(|(start, end)| KeyRange { start, end })
}

/// Every key that could tell two of these ranges apart.
fn keys() -> Vec<Blob> {
    let bytes = [0_u8, 1, 254, 255];
    let mut keys = vec![Vec::new()];
    for _ in 0..3 {
        let longer: Vec<Vec<u8>> =
            keys.iter().flat_map(|key| bytes.map(|byte| [&key[..], &[byte]].concat())).collect();
        keys.extend(longer);
    }
    keys.sort();
    keys.dedup();
    keys.into_iter().map(Blob::from).collect()
}

proptest! {
    #[test]
    fn a_range_holds_its_start_and_not_its_end(range in range(), key in key()) {
        let inside = range.start <= key && range.end.as_ref().is_none_or(|end| key < *end);
        prop_assert_eq!(range.contains(&key), inside);
        if let Some(end) = &range.end {
            prop_assert!(!range.contains(end));
        }
        prop_assert_eq!(range.contains(&range.start), !range.is_empty());
    }

    #[test]
    fn covering_is_holding_every_key(a in range(), b in range()) {
        let holds_all = keys().iter().all(|key| !b.contains(key) || a.contains(key));
        // A bounded range may hold all keys of this test that an unbounded one
        // does; its end is outside.
        let reaches = b.end.is_some() || b.is_empty() || a.end.is_none();
        prop_assert_eq!(a.covers(&b), holds_all && reaches);
        prop_assert!(a.covers(&a) && KeyRange::all().covers(&a));
    }

    #[test]
    fn overlapping_is_sharing_a_key(a in range(), b in range()) {
        let shares = keys().iter().any(|key| a.contains(key) && b.contains(key));
        prop_assert_eq!(a.overlaps(&b), shares);
        prop_assert_eq!(b.overlaps(&a), shares);
        prop_assert_eq!(a.overlaps(&a), !a.is_empty());
    }

    #[test]
    fn covering_is_transitive_and_antisymmetric(a in range(), b in range(), c in range()) {
        prop_assert!(!(a.covers(&b) && b.covers(&c)) || a.covers(&c));
        if a.covers(&b) && b.covers(&a) && !a.is_empty() {
            prop_assert_eq!(a, b);
        }
    }

    #[test]
    fn the_halves_of_a_split_are_the_whole_without_overlap(range in range(), at in key()) {
        let Some((left, right)) = range.split_at(&at) else {
            // Refused exactly when a half would be empty.
            prop_assert!(!range.contains(&at) || at == range.start);
            return Ok(());
        };
        prop_assert!(!left.is_empty() && !right.is_empty() && !left.overlaps(&right));
        prop_assert!(range.covers(&left) && range.covers(&right));
        prop_assert_eq!((left.end.as_ref(), &right.start), (Some(&at), &at));
        for key in keys() {
            prop_assert_eq!(range.contains(&key), left.contains(&key) || right.contains(&key));
        }
    }
}

#[test]
fn all_keys_are_in_the_range_of_all() {
    assert!(keys().iter().all(|key| KeyRange::all().contains(key)));
    assert!(!KeyRange::all().is_empty() && KeyRange::default() == KeyRange::all());
}

#[test]
fn a_range_whose_end_is_not_above_its_start_is_empty() {
    assert!(KeyRange::new("b", "b").is_empty() && KeyRange::new("b", "a").is_empty());
    assert!(!KeyRange::new("b", "b\0").is_empty());
}
