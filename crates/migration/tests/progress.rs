//! What a group's leader sees, as the coordinator reads it.
#![allow(clippy::unwrap_used, missing_docs)]

use quorate_migration::{GroupProgress, MemberProgress, Progress};
use quorate_types::ReplicaId;

fn member(replica: u64, is_voter: bool, matched: u64, is_fresh: bool) -> MemberProgress {
    MemberProgress { replica: ReplicaId(replica), is_voter, matched, is_fresh }
}

#[test]
fn voters_learners_and_those_being_left_stay_apart() {
    let members =
        vec![member(1, true, 9, true), member(2, true, 3, false), member(3, false, 8, true)];
    let outgoing = Some(vec![ReplicaId(1), ReplicaId(4)].into());
    let leader = ReplicaId(1);
    let seen = GroupProgress { leader, last_log: 9, members: members.into(), outgoing };
    let progress = Progress::from(seen.clone());
    assert_eq!((progress.leader, progress.last_log), (Some(leader), 9));
    assert_eq!(progress.voters, [1, 2].map(ReplicaId).into());
    assert_eq!(progress.learners, [ReplicaId(3)].into());
    assert!(!progress.is_settled());
    assert!(progress.is_voter(ReplicaId(4)) && !progress.is_voter(ReplicaId(3)));
    assert!(progress.keeps_up(ReplicaId(3), 1));
    assert!(!progress.keeps_up(ReplicaId(3), 0), "it lacks one entry");
    assert!(!progress.keeps_up(ReplicaId(2), 9), "it does not answer");
    let settled = Progress::from(GroupProgress { outgoing: None, ..seen });
    assert!(settled.is_settled() && !settled.is_voter(ReplicaId(4)));
}
