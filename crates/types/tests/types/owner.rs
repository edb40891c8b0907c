//! A store's file is its owner's or is refused.

use quorate_types::DiskId;
use quorate_types::owner::{Owner, OwnerError};

#[test]
fn a_mark_is_known_again() {
    let mut owner = Owner { disk: DiskId::random(), has_store: false };
    assert!(!owner.judge(None).unwrap());
    let mark = owner.mark();
    assert!(owner.judge(Some(&mark)).unwrap());
    owner.has_store = true;
    assert!(owner.judge(Some(&mark)).unwrap());
    assert!(matches!(owner.judge(None), Err(OwnerError::Lost)));
}

#[test]
fn a_foreign_or_damaged_mark_is_refused() {
    let owner = Owner { disk: DiskId::random(), has_store: false };
    let other = Owner { disk: DiskId::random(), has_store: false };
    let foreign = owner.judge(Some(&other.mark()));
    assert!(matches!(foreign, Err(OwnerError::Foreign { found, .. }) if found == other.disk));
    let mut mark = owner.mark().to_vec();
    for place in 0..mark.len() {
        mark[place] ^= 1;
        assert!(owner.judge(Some(&mark)).is_err(), "byte {place}");
        mark[place] ^= 1;
    }
}
