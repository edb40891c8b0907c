//! Bytes from outside: whatever they are, they are refused or merged, and the
//! replica stays sound.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::{LIMITS, PLENTY_BYTES, live, put, remove, replica, settle};
use proptest::collection::vec;
use proptest::prelude::*;
use quorate_crdt::{CrdtError, DeltaMap, Limits, Novelty, OrSet, Origin, Summary, VersionVector};
use quorate_types::{Blob, NodeId, codec};

/// A replica with some of everything, so that its messages have all parts.
fn source() -> DeltaMap {
    let mut map = replica(1);
    put(&mut map, "a", "one", 1);
    put(&mut map, "b", "two", 2);
    remove(&mut map, "c", 3);
    map.retain_members([map.origin().node]);
    map.collect(u64::MAX, 0);
    remove(&mut map, "d", 4);
    map
}

fn messages() -> Vec<Vec<u8>> {
    let map = source();
    let delta = map.delta(map_before_collection().vector(), PLENTY_BYTES).unwrap().unwrap();
    let chunk = map.reset_chunk(&Blob::new(), PLENTY_BYTES).unwrap();
    vec![delta.encode().to_vec(), chunk.encode().to_vec(), map.summary().encode().to_vec()]
}

/// A peer that has seen what was collected, and nothing after.
fn map_before_collection() -> DeltaMap {
    let mut map = replica(1);
    put(&mut map, "a", "one", 1);
    put(&mut map, "b", "two", 2);
    remove(&mut map, "c", 3);
    map
}

fn feed(bytes: &[u8]) {
    let mut map = replica(2);
    put(&mut map, "a", "own", 1);
    if let Ok(novelty) = Novelty::decode(bytes) {
        let before = (map.root(), map.len());
        if map.merge_novelty(&novelty).is_err() {
            assert_eq!((map.root(), map.len()), before, "a refusal changes nothing");
        }
    }
    let _ = Summary::decode(bytes, &LIMITS).map(|peer| map.novelty(&peer, PLENTY_BYTES));
    let _ = VersionVector::decode(bytes, &LIMITS);
    let _ = codec::decode::<OrSet<u64>>(bytes);
    put(&mut map, "z", "still works", u64::MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn random_bytes_do_no_harm(kind in 0..8_u8, bytes in vec(any::<u8>(), 0..64)) {
        feed(&bytes);
        feed(&[&[1, kind], bytes.as_slice()].concat());
    }

    #[test]
    fn damaged_messages_do_no_harm(
        message in 0..3_usize,
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        truncate in any::<bool>(),
    ) {
        let mut bytes = messages().swap_remove(message);
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if truncate {
            bytes.truncate(cut.index(bytes.len()));
        }
        feed(&bytes);
    }
}

#[test]
fn messages_survive_their_encoding() {
    for bytes in &messages()[..2] {
        assert_eq!(Novelty::decode(bytes).unwrap().encode(), *bytes);
    }
    let summary = source().summary();
    assert_eq!(Summary::decode(&summary.encode(), &LIMITS).unwrap(), summary);
    let vector = source().vector().clone();
    assert_eq!(VersionVector::decode(&vector.encode(), &LIMITS).unwrap(), vector);
}

#[test]
fn bytes_after_the_end_are_refused() {
    for mut bytes in messages() {
        bytes.push(0);
        assert!(Novelty::decode(&bytes).is_err() && Summary::decode(&bytes, &LIMITS).is_err());
    }
}

#[test]
fn an_announced_length_reserves_nothing() {
    // A delta that announces four billion runs.
    let bytes = [1, 3, 0x92, 0xdd, 0xff, 0xff, 0xff, 0xff];
    assert!(matches!(Novelty::decode(&bytes), Err(CrdtError::Undecodable(_))));
}

#[test]
fn a_newer_format_is_named() {
    let mut bytes = source().summary().encode().to_vec();
    bytes[0] = 2;
    let refused = Summary::decode(&bytes, &LIMITS);
    assert!(matches!(refused, Err(CrdtError::UnknownFormat { found: 2, known: 1 })));
}

#[test]
fn a_vector_of_too_many_origins_is_refused() {
    let wide = (0..1_000).map(|node| (replica(node).origin(), 1)).collect::<VersionVector>();
    let refused = VersionVector::decode(&wide.encode(), &LIMITS);
    assert!(matches!(refused, Err(CrdtError::TooLarge { what: "origins", .. })));
}

#[test]
fn a_reset_of_everything_equals_its_source() {
    let mut replicas = [source(), replica(2)];
    settle(&mut replicas);
    assert_eq!(live(&replicas[0]), live(&replicas[1]));
}

/// Found by fuzzing: the element stayed where it was decoded, and was taken
/// for removed by whoever merged it.
#[test]
fn an_element_whose_dot_is_no_write_is_passed_over() {
    let bytes = [&[0x92, 0x91, 0x92, 7, 0x91][..], &[0x92, 0x92, 1, 1, 0], &[0x92, 0x90, 0x90]];
    let set: OrSet<u64> = codec::decode(&bytes.concat()).unwrap();
    assert!(set.is_empty());
}

/// Found by fuzzing: each message kept the limit, and what they led to did not.
#[test]
fn resets_do_not_add_up_to_more_origins_than_are_allowed() {
    let limits = Limits { origins_max: 2, ..LIMITS };
    let mut map = DeltaMap::new(Origin::new(NodeId(1), 1), limits);
    for sender in 2..10 {
        let mut source = DeltaMap::new(Origin::new(NodeId(sender), 1), limits);
        put(&mut source, "key", "value", sender);
        let chunk = source.reset_chunk(&Blob::new(), PLENTY_BYTES).unwrap();
        let before = map.summary();
        if map.merge_reset(&chunk).is_err() {
            assert_eq!(map.summary(), before, "a refusal changes nothing");
        }
    }
    assert_eq!(map.vector().len(), 2 * limits.origins_max);
}
