//! Who may still change a group, and into what.

use quorate_types::codec::encode;
use quorate_types::membership::{Fence, VoterChange};
use quorate_types::{MigrationId, ReplicaId};

fn fence(migration: u128, term: u64, attempt: u32) -> Fence {
    Fence { migration: MigrationId(migration), term, attempt }
}

#[test]
fn only_of_the_same_migration_an_earlier_term_or_attempt_is_older() {
    let seen = fence(1, 2, 3);
    assert!(fence(1, 2, 2).is_older_than(&seen));
    assert!(fence(1, 1, 9).is_older_than(&seen));
    assert!(!seen.is_older_than(&seen), "a repetition");
    assert!(!fence(1, 3, 0).is_older_than(&seen));
    assert!(!fence(2, 1, 0).is_older_than(&seen), "somebody else");
}

#[test]
fn a_repeated_change_of_voters_changes_nothing() {
    let [one, two, three] = [1, 2, 3].map(ReplicaId);
    let change = VoterChange { add: Some(three), remove: Some(one) };
    let changed = change.applied_to([one, two]);
    assert_eq!(changed, [two, three].into());
    assert_eq!(change.applied_to(changed.clone()), changed);
    assert_eq!(VoterChange::default().applied_to([two, one]), [one, two].into());
}

#[test]
fn a_change_of_voters_is_a_pair_on_the_wire() {
    let change = VoterChange { add: None, remove: Some(ReplicaId(7)) };
    assert_eq!(&encode(&change)[..], [0x92, 0xc0, 7]);
}
