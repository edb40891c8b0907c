use super::*;

#[test]
fn a_commit_stands_for_a_thousand_seeds() {
    assert_eq!(first_seed("0000000a0123").unwrap(), 10_000);
    assert!(first_seed("abc").is_err() && first_seed("no commit").is_err());
}
