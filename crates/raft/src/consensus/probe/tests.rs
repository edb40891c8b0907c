#![allow(missing_docs)]

use std::time::Duration;

use super::is_silent;

#[test]
fn a_leader_without_a_quorum_is_silent_and_speaks_by_turns() {
    let lease = Duration::from_secs(1);
    let silent = |millis| is_silent(Duration::from_millis(millis), lease);
    assert!(!silent(0) && !silent(999), "its lease holds");
    assert!(silent(1000) && silent(2999), "the others have time to elect");
    assert!(!silent(3000) && !silent(4999), "a quorum that is back is found");
    assert!(silent(5000));
}
