use super::*;

fn fence(migration: u128, term: u64, attempt: u32) -> Fence {
    Fence { migration: MigrationId(migration), term, attempt }
}

#[test]
fn a_later_attempt_or_term_shuts_earlier_ones_out() {
    let fences = Fences::default();
    assert!(fences.admits(fence(1, 2, 1)));
    assert!(fences.admits(fence(1, 2, 1)), "a repetition");
    assert!(fences.admits(fence(1, 3, 0)));
    assert!(!fences.admits(fence(1, 2, 9)), "an earlier term");
    assert!(fences.admits(fence(2, 1, 0)), "somebody else");
}

#[test]
fn as_many_are_kept_as_the_limit_says() {
    let fences = Fences::default();
    for migration in 0..=FENCES_MAX as u128 {
        assert!(fences.admits(fence(migration, 2, 0)));
    }
    assert!(fences.admits(fence(0, 1, 0)), "the oldest name made room");
    assert!(!fences.admits(fence(FENCES_MAX as u128, 1, 0)));
}
