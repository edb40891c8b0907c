use proptest::prelude::*;
use redis_protocol::{resp2, resp3};

use super::*;

fn any_reply() -> impl Strategy<Value = Reply> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..20).prop_map(Blob::from);
    let leaf = prop_oneof![
        Just(Reply::Null),
        Just(Reply::NullArray),
        "[ -~\r\n]{0,20}".prop_map(|text| Reply::Simple(text.as_str().into())),
        "[ -~\r\n]{0,20}".prop_map(|text| Reply::Error(text.as_str().into())),
        any::<i64>().prop_map(Reply::Integer),
        bytes().prop_map(Reply::Bulk),
    ];
    leaf.prop_recursive(2, 20, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Reply::array),
            proptest::collection::vec(("[a-z]{1,8}", inner), 0..4).prop_map(|pairs| {
                let names = std::collections::BTreeMap::from_iter(pairs);
                let pairs = names.into_iter().map(|(k, v)| (Reply::bulk(k.as_str()), v));
                Reply::Map(pairs.collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn a_foreign_decoder_reads_every_reply_to_its_end(reply in any_reply()) {
        let mut wire = BytesMut::new();
        reply.encode(Protocol::Resp2, &mut wire);
        let (_, length) = resp2::decode::decode(&wire).unwrap().unwrap();
        prop_assert_eq!(length, wire.len());

        let mut wire = BytesMut::new();
        reply.encode(Protocol::Resp3, &mut wire);
        let (_, length) = resp3::decode::complete::decode(&wire).unwrap().unwrap();
        prop_assert_eq!(length, wire.len());
    }

    #[test]
    fn numbers_are_printed_as_rust_prints_them(number in any::<i64>()) {
        let mut wire = BytesMut::new();
        Reply::Integer(number).encode(Protocol::Resp2, &mut wire);
        let expected = format!(":{number}\r\n");
        prop_assert_eq!(&wire[..], expected.as_bytes());
    }
}

#[test]
fn nulls_differ_by_protocol() {
    let encoded = |reply: Reply, protocol| {
        let mut wire = BytesMut::new();
        reply.encode(protocol, &mut wire);
        wire
    };
    assert_eq!(encoded(Reply::Null, Protocol::Resp2), &b"$-1\r\n"[..]);
    assert_eq!(encoded(Reply::NullArray, Protocol::Resp2), &b"*-1\r\n"[..]);
    assert_eq!(encoded(Reply::Null, Protocol::Resp3), &b"_\r\n"[..]);
    assert_eq!(encoded(Reply::NullArray, Protocol::Resp3), &b"_\r\n"[..]);
}
