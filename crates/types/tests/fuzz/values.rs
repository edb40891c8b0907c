//! The building blocks of every format.

use quorate_testkit::fuzz::{BYTES_PER_BYTE, Corpus, value};
use quorate_types::codec::encode;
use quorate_types::membership::{Fence, GroupProgress, MemberProgress, VoterChange};
use quorate_types::{
    Blob, ClientId, ClusterId, Epoch, Hlc, KeyRange, MigrationId, NodeId, ReplicaId, RequestId,
    Seq, TxnId,
};

/// An empty blob is 2 bytes on the wire and 32 in a list that doubles.
const BLOBS_BYTES_PER_BYTE: usize = 40;

#[test]
fn blobs_and_lists_believe_no_length() {
    let list: Seq<Blob> = [&b""[..], b"a", &[7; 300]].into_iter().map(Blob::from).collect();
    let nested = Seq(vec![Seq(vec![1_u64, 300, u64::MAX]), Seq::new(), Seq((0..70).collect())]);
    let options = (Some(Blob::from("some")), None::<Blob>);
    let corpus = [encode(&list), encode(&nested), encode(&options), encode(&Blob::from(&[1; 70]))];
    quorate_testkit::fuzz!(Corpus::of(corpus), |input| {
        value::<Blob>(BYTES_PER_BYTE, input);
        value::<(Option<Blob>, Option<Blob>)>(BYTES_PER_BYTE, input);
        value::<Seq<Blob>>(BLOBS_BYTES_PER_BYTE, input);
        // A list in a list is one byte, and 24 in a list that doubles.
        value::<Seq<Seq<u64>>>(2 * 24 + BYTES_PER_BYTE, input);
    });
}

#[test]
fn ids_ranges_and_times_are_read_as_written() {
    let request = RequestId {
        client: ClientId(u128::MAX),
        sequence: 1,
        birth: Epoch(300),
        ack_below: u64::MAX,
    };
    let hlc = Hlc { millis: 1 << 41, counter: u32::MAX, node: NodeId(9) };
    let corpus = [
        encode(&request),
        encode(&hlc),
        encode(&TxnId { epoch: Epoch(1), position: 2 }),
        encode(&KeyRange::new("a", "b")),
        encode(&KeyRange::all()),
    ];
    quorate_testkit::fuzz!(Corpus::of(corpus), |input| {
        value::<RequestId>(BYTES_PER_BYTE, input);
        value::<Hlc>(BYTES_PER_BYTE, input);
        value::<TxnId>(BYTES_PER_BYTE, input);
        if let Some(range) = value::<KeyRange>(BYTES_PER_BYTE, input) {
            assert!(range.covers(&range));
            assert_eq!(range.contains(&range.start), !range.is_empty());
            assert_eq!(range.overlaps(&range), !range.is_empty());
        }
    });
}

#[test]
fn memberships_are_read_as_written() {
    let member = |replica, is_voter| MemberProgress {
        replica: ReplicaId(replica),
        is_voter,
        matched: 1_000,
        is_fresh: true,
    };
    let progress = GroupProgress {
        leader: ReplicaId(1),
        last_log: 1_001,
        members: Seq(vec![member(1, true), member(2, false)]),
        outgoing: Some(Seq(vec![ReplicaId(1)])),
    };
    let fence = Fence { migration: MigrationId(7), term: 3, attempt: 2 };
    let change = VoterChange { add: Some(ReplicaId(2)), remove: None };
    let corpus = [encode(&progress), encode(&fence), encode(&change)];
    quorate_testkit::fuzz!(Corpus::of(corpus), |input| {
        value::<Fence>(BYTES_PER_BYTE, input);
        value::<GroupProgress>(BYTES_PER_BYTE, input);
        if let Some(change) = value::<VoterChange>(BYTES_PER_BYTE, input) {
            let once = change.applied_to([ReplicaId(1), ReplicaId(2)]);
            assert_eq!(change.applied_to(once.clone()), once, "a repetition changes nothing");
        }
    });
}

#[test]
fn the_text_of_an_id_is_the_id() {
    let ids = [ClusterId(0).to_string(), ClusterId(u128::MAX).to_string()];
    quorate_testkit::fuzz!(Corpus::of(ids), |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        if let Ok(id) = ClusterId::parse(text) {
            assert_eq!(ClusterId::parse(&id.to_string()).unwrap(), id);
        }
    });
}
