use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn record() -> impl Strategy<Value = Record> {
    let status = prop_oneof![
        Just(Status::Alive),
        Just(Status::Suspect),
        Just(Status::Dead),
        Just(Status::Left)
    ];
    (any::<u64>(), "[a-z0-9.:]{1,40}", any::<u64>(), status, any::<u64>()).prop_map(
        |(node, address, incarnation, status, accuser)| Record {
            node: NodeId(node),
            address: Blob::from(address.as_str()),
            incarnation,
            status,
            accuser: NodeId(accuser),
        },
    )
}

fn records() -> impl Strategy<Value = Seq<Record>> {
    prop::collection::vec(record(), 0..8).prop_map(Seq)
}

fn message() -> impl Strategy<Value = Message> {
    let blob = || prop::collection::vec(any::<u8>(), 0..200).prop_map(Blob::from);
    let stage = prop_oneof![
        Just(Stage::Open),
        Just(Stage::Answer),
        Just(Stage::More),
        Just(Stage::Settled)
    ];
    prop_oneof![
        (any::<u64>(), any::<u64>(), any::<u8>(), records()).prop_map(
            |(seq, incarnation, health, records)| Message::Ping(Ping {
                seq,
                incarnation,
                health,
                records
            })
        ),
        (any::<u64>(), any::<u64>(), any::<u128>(), any::<u64>(), records()).prop_map(
            |(seq, incarnation, root, view, records)| Message::Ack(Ack {
                seq,
                incarnation,
                health: 1,
                root: Root(root),
                view,
                records
            })
        ),
        (any::<u64>(), any::<u64>()).prop_map(|(seq, target)| Message::PingRequest(PingRequest {
            seq,
            target: NodeId(target)
        })),
        (any::<u64>(), any::<bool>())
            .prop_map(|(seq, reached)| Message::Relay(Relay { seq, reached })),
        records().prop_map(|records| Message::Rumours(Rumours { records })),
        any::<u64>().prop_map(|incarnation| Message::Join(Join { incarnation })),
        (records(), any::<bool>())
            .prop_map(|(records, reply)| Message::Members(Members { records, reply })),
        (stage, blob()).prop_map(|(stage, vector)| Message::Vector(Vector { stage, vector })),
        blob().prop_map(|delta| Message::Delta(Delta { delta })),
    ]
}

proptest! {
    #[test]
    fn every_message_survives_the_wire(message in message()) {
        let back = Message::from_frame(&message.to_frame()).unwrap();
        prop_assert_eq!(back, message);
    }

    #[test]
    fn random_bytes_never_panic(
        kind in any::<u8>(),
        version in 0u8..3,
        payload in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let frame = Frame { kind, version, payload: Bytes::from(payload) };
        let _ = Message::from_frame(&frame);
    }

    #[test]
    fn a_truncated_or_extended_message_is_refused(message in message(), cut in 1usize..20) {
        let mut frame = message.to_frame();
        let whole = frame.payload.clone();
        frame.payload = whole.slice(..whole.len().saturating_sub(cut));
        prop_assert!(Message::from_frame(&frame).is_err());
        frame.payload = [whole.as_ref(), b"\x00"].concat().into();
        prop_assert!(Message::from_frame(&frame).is_err());
    }
}

#[test]
fn an_announced_length_reserves_nothing() {
    // An array of four billion records, and then the end.
    let payload = Bytes::from_static(&[0x91, 0xdd, 0xff, 0xff, 0xff, 0xff]);
    let frame = Frame { kind: RUMOURS, version: VERSION, payload };
    assert!(matches!(Message::from_frame(&frame), Err(WireError::Codec(_))));
}

#[test]
fn oversized_addresses_and_lists_are_refused() {
    let record = |address: &str| Record {
        node: NodeId(1),
        address: Blob::from(address),
        incarnation: 1,
        status: Status::Alive,
        accuser: NodeId(1),
    };
    let refused = |records: Vec<Record>| {
        Message::from_frame(&Message::Rumours(Rumours { records: Seq(records) }).to_frame())
            .is_err()
    };
    assert!(refused(vec![record("")]));
    assert!(refused(vec![record(&"x".repeat(ADDRESS_BYTES_MAX + 1))]));
    assert!(refused(vec![record("x"); RECORDS_MAX + 1]));
    assert!(!refused(vec![record(&"x".repeat(ADDRESS_BYTES_MAX)); RECORDS_MAX]));
}
