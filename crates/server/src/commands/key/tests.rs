use super::*;

#[test]
fn slots_follow_the_hashtag_rule_of_redis_cluster() {
    assert_eq!(slot_of(b"123456789"), 0x31c3);
    assert_eq!(slot_of(b""), 0);
    assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
    assert_eq!(slot_of(b"foo{bar}{zap}"), slot_of(b"bar"));
    assert_ne!(slot_of(b"foo{}{bar}"), slot_of(b"bar"));
    assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
    assert!(slot_of(b"{") < SLOTS && slot_of(b"a{") < SLOTS && slot_of(b"}{") < SLOTS);
}

#[test]
fn a_stored_key_gives_back_its_user_key() {
    for key in [&b""[..], b"a", b"{a}b", b"\0\xff"] {
        assert_eq!(&unpartition_key(&partition_key(key))[..], key);
    }
}
