use super::targets;

#[test]
fn targets_are_found_among_what_tests_print() {
    let printed = r#"
running 2 tests

{"__bolero_target":"v0.5.0","exe":"/x","work_dir":"/y","package_name":"quorate-crdt","is_harnessed":true,"test_name":"merge::a"}
test merge::a ... ok
{"unrelated":1}
"#;
    assert_eq!(targets(printed), [("quorate-crdt".to_owned(), "merge::a".to_owned())]);
}
