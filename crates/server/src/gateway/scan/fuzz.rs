//! Fuzz target: an iteration returns every key once, whatever the keys, the
//! counts, and the cursors that nobody handed out.

use std::collections::BTreeSet;

use quorate_testkit::fuzz::{Choices, Corpus};

use super::*;

/// Keys of few slots, sorted, as a backend lists them.
fn stored_keys(choices: &mut Choices<'_>) -> Vec<Blob> {
    let slots = [0, 1, 7, SLOTS - 1];
    let mut keys = BTreeSet::new();
    for _ in 0..choices.below(40) {
        let slot = *choices.pick(&slots).unwrap();
        let name = choices.bytes(3);
        keys.insert(Blob::from([&slot.to_be_bytes()[..], name].concat()));
    }
    keys.into_iter().collect()
}

/// One answer, without the pages and the waiting.
fn answer(keys: &[Blob], cursor: Cursor, wanted: usize) -> (Vec<Blob>, Option<Cursor>) {
    let mut walk = Walk::new(cursor, wanted);
    for key in keys.iter().filter(|key| **key >= cursor.start()) {
        if let Some(next) = walk.take(key.clone()) {
            return (walk.found, Some(next));
        }
    }
    walk.finish()
}

#[test]
fn an_iteration_returns_every_key_once() {
    quorate_testkit::fuzz!(Corpus::random(300), |input| {
        let mut choices = Choices::new(input);
        let keys = stored_keys(&mut choices);
        let mut returned = Vec::new();
        let mut next = Cursor::decode(0);
        let mut answers = 0;
        while let Some(cursor) = next {
            answers += 1;
            assert!(answers <= 2 * keys.len() + 2, "the iteration does not end");
            assert_eq!(Cursor::decode(cursor.encode()), Some(cursor));
            assert!(answers == 1 || cursor.encode() > 0, "zero ends an iteration");
            let (found, after) = answer(&keys, cursor, 1 + choices.below(6));
            assert!(after.is_none_or(|after| after.encode() > cursor.encode()));
            returned.extend(found);
            next = after;
        }
        let count = returned.len();
        let returned: BTreeSet<Blob> = returned.into_iter().collect();
        assert_eq!(count, returned.len(), "no key twice");
        assert!(returned.into_iter().eq(keys), "and every key");
    });
}

#[test]
fn any_cursor_is_a_place_or_the_end() {
    quorate_testkit::fuzz!(Corpus::random(200), |input| {
        let mut choices = Choices::new(input);
        let number = choices.edge();
        let Some(cursor) = Cursor::decode(number) else {
            assert!(number >> HASH_BITS >= u64::from(SLOTS));
            return;
        };
        assert_eq!(cursor.encode(), number);
        let keys = stored_keys(&mut choices);
        let (found, next) = answer(&keys, cursor, 1 + choices.below(6));
        for key in &found {
            assert!(slot_of_stored(key) > cursor.slot || hash_of(key) >= cursor.hash);
        }
        assert!(next.is_none_or(|next| next.encode() > number));
    });
}
