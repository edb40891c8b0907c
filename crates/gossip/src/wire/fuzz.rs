//! Fuzz target: any frame is a message within its limits, or none.

use bytes::Bytes;
use quorate_testkit::fuzz::{self, Corpus, value};

use super::*;

quorate_testkit::fuzz_allocator!();

/// A record without an address, which is refused only when it has been read,
/// is 7 bytes on the wire and 64 in a list that doubles.
const BYTES_PER_BYTE: usize = 32;

fn record(node: u64, status: Status) -> Record {
    Record {
        node: NodeId(node),
        address: "node-1.example:7000".into(),
        incarnation: 1_700_000_000_000,
        status,
        accuser: NodeId(node + 1),
    }
}

/// One of each kind.
pub(crate) fn messages() -> Vec<Message> {
    let records = Seq(vec![record(1, Status::Alive), record(300, Status::Left)]);
    let vector = |stage| Message::Vector(Vector { stage, vector: Blob::from(&[5; 40]) });
    vec![
        Message::Ping(Ping { seq: u64::MAX, incarnation: 3, health: 1, records: records.clone() }),
        Message::Ack(Ack {
            seq: 9,
            incarnation: 3,
            health: 7,
            root: Root(u128::MAX / 3),
            view: 1 << 60,
            records: records.clone(),
        }),
        Message::PingRequest(PingRequest { seq: 9, target: NodeId(3) }),
        Message::Relay(Relay { seq: 9, reached: true }),
        Message::Rumours(Rumours { records: records.clone() }),
        Message::Join(Join { incarnation: 1 << 40 }),
        Message::Members(Members { records, reply: true }),
        vector(Stage::Open),
        vector(Stage::Settled),
        Message::Delta(Delta { delta: Blob::from(&[7; 40]) }),
    ]
}

#[test]
fn any_frame_is_a_message_or_is_refused() {
    let payloads = messages().iter().map(|message| message.to_frame().payload).collect::<Vec<_>>();
    quorate_testkit::fuzz!(Corpus::of(payloads), |input| {
        let payload = Bytes::copy_from_slice(input);
        for kind in PING - 1..=DELTA + 1 {
            let frame = Frame { kind, version: VERSION, payload: payload.clone() };
            let read = fuzz::frugal_by(BYTES_PER_BYTE, input.len(), || Message::from_frame(&frame));
            let Ok(message) = read else { continue };
            let written = message.to_frame();
            assert_eq!(written.kind, kind);
            assert_eq!(Message::from_frame(&written).unwrap(), message);
            let newer = Frame { version: VERSION + 1, ..frame };
            assert!(matches!(Message::from_frame(&newer), Err(WireError::Version(_))));
        }
        if let Some(rumours) = value::<Rumours>(BYTES_PER_BYTE, input) {
            let fits = |record: &Record| record.address().is_some_and(address_fits);
            let is_taken = rumours.records.len() <= RECORDS_MAX && rumours.records.iter().all(fits);
            let frame = Frame { kind: RUMOURS, version: VERSION, payload };
            assert_eq!(Message::from_frame(&frame).is_ok(), is_taken);
        }
    });
}
