use super::*;

#[test]
fn a_key_has_the_slot_that_the_cluster_specification_gives_it() {
    // The specification's own check value is 0x31c3.
    assert_eq!(slot("123456789"), 0x31c3 % SLOTS);
    assert_eq!(slot("foo"), 12_182);
    assert_eq!(slot(""), 0);
}

#[test]
fn a_range_holds_the_keys_between_its_ends() {
    // 12,182 is 0x2f96, and the end may be in the middle of a slot.
    let holds = |shown: &str| Range::parse(shown).unwrap().contains("foo");
    assert!(holds("[0x, ∞)"));
    assert!(holds("[0x2f96, 0x2f97)"));
    assert!(holds("[0x2000, 0x2f96666f70)"));
    assert!(!holds("[0x2f97, ∞)"));
    assert!(!holds("[0x, 0x2f96)"));
    assert!(!holds("[0x2000, 0x2f96666f6f)"));
}

#[test]
fn what_is_no_range_is_none() {
    for shown in ["", "[a, b)", "[0x0, 0x1000)", "[0x00]", "[0x00, 0xzz)", "[0x∞, 0x00)"] {
        assert_eq!(Range::parse(shown), None, "{shown}");
    }
}
