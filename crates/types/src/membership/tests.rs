//! Who holds a group.

use super::*;

/// Voters with what is known to be on each; a learner that has everything.
fn group(matched: &[u64], outgoing: Option<&[u64]>) -> GroupProgress {
    let member = |replica, is_voter, matched| MemberProgress {
        replica: ReplicaId(replica),
        is_voter,
        matched,
        is_fresh: true,
    };
    let voters = (1..).zip(matched).map(|(replica, matched)| member(replica, true, *matched));
    GroupProgress {
        leader: ReplicaId(1),
        last_log: 9,
        members: voters.chain([member(100, false, 9)]).collect(),
        outgoing: outgoing.map(|left| left.iter().copied().map(ReplicaId).collect()),
    }
}

#[test]
fn a_majority_is_of_the_voters_and_of_those_that_are_left() {
    assert!(!group(&[], None).is_held_by_majority());
    assert!(group(&[9], None).is_held_by_majority());
    assert!(!group(&[9, 0], None).is_held_by_majority());
    assert!(!group(&[9, 0, 0], None).is_held_by_majority());
    assert!(group(&[9, 1, 0], None).is_held_by_majority());
    assert!(group(&[9, 1, 0], Some(&[1, 2])).is_held_by_majority());
    assert!(!group(&[9, 1, 0], Some(&[1, 3])).is_held_by_majority());
}
