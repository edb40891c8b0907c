#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use quorate_testkit::fuzz;
use quorate_testkit::fuzz::Corpus;

use super::super::format::{FRAMES_AT, Header};
use super::*;

const NUMBER: u64 = 7;
const END: u64 = 60_000;

fn seed(salt: u64) -> Seed {
    let mark = bytes::Bytes::from_static(b"mark");
    Header { number: NUMBER, replaced: 0, capacity: 64 << 10, salt, mark }.seed()
}

/// What stands at an offset of a frame.
fn at(frame: u64, offset: u32, len: u32, whose: (u64, u64), position: (u64, u64)) -> Found {
    Found {
        group: GroupId(whose.0),
        replica: ReplicaId(whose.1),
        position: LogPosition { term: position.0, index: position.1 },
        location: Location { sequence: sequence_of(NUMBER, frame), offset, len },
    }
}

/// Two runs, the second of a replica with a large number; and a frame far behind.
fn found() -> Vec<Found> {
    vec![
        at(FRAMES_AT, 80, 10, (1, 11), (1, 5)),
        at(FRAMES_AT, 106, 0, (1, 11), (2, 6)),
        at(FRAMES_AT, 106 + 44, 300, (2, u64::MAX), (u64::MAX, u64::MAX - 1)),
        at(50_000, 64, 9_000, (1, 11), (2, 7)),
    ]
}

fn encode(seed: Seed, number: u64, end: u64, found: &[Found]) -> Vec<u8> {
    let mut body = Body::default();
    found.chunk_by(Found::is_beside).for_each(|frame| body.add(frame));
    body.finish(seed, number, end)
}

fn same(one: &[Found], other: &[Found]) {
    let values = |all: &[Found]| -> Vec<_> {
        all.iter().map(|it| (it.group, it.replica, it.position, it.location)).collect()
    };
    assert_eq!(values(one), values(other));
}

#[test]
fn an_index_says_what_it_was_told() {
    for found in [found(), Vec::new()] {
        let bytes = encode(seed(1), NUMBER, END, &found);
        same(&decode(seed(1), NUMBER, END, &bytes).unwrap(), &found);
        let longer = [&bytes[..], b"what a longer one left"].concat();
        same(&decode(seed(1), NUMBER, END, &longer).unwrap(), &found);
    }
}

#[test]
fn an_index_of_another_use_or_end_or_with_a_flipped_bit_is_none() {
    let bytes = encode(seed(1), NUMBER, END, &found());
    assert!(decode(seed(2), NUMBER, END, &bytes).is_none());
    assert!(decode(seed(1), NUMBER + 1, END, &bytes).is_none());
    assert!(decode(seed(1), NUMBER, END + FRAME_ALIGN, &bytes).is_none());
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 4;
        assert!(decode(seed(1), NUMBER, END, &flipped).is_none(), "at {at}");
        assert!(decode(seed(1), NUMBER, END, &bytes[..at]).is_none(), "cut at {at}");
    }
}

#[test]
fn numbers_of_every_length_are_read_as_they_were_put() {
    for shift in 0..u64::BITS {
        for number in [1 << shift, (1 << shift) - 1, u64::MAX >> shift] {
            let mut bytes = Vec::new();
            put(&mut bytes, number);
            let mut rest = &bytes[..];
            assert_eq!((take(&mut rest), rest), (Some(number), &[][..]));
            assert_eq!(take(&mut &bytes[..bytes.len() - 1]), None);
        }
    }
    assert_eq!(take(&mut &[0xff; 10][..]), None, "more than 64 bits");
}

#[test]
fn any_bytes_are_the_body_of_an_index_or_none() {
    let body = encode(seed(1), NUMBER, END, &found()).split_off(HEADER_BYTES);
    fuzz!(Corpus::of([body]), |input| {
        // An entry of two bytes is one of 56 in memory, in a list that grows.
        let read = fuzz::frugal_by(200, input.len(), || entries(NUMBER, END, input));
        for entry in read.unwrap_or_default() {
            let (number, frame) = place_of(entry.location.sequence);
            assert_eq!(number, NUMBER);
            assert!(frame + end_of(entry.location) <= END);
            assert!(entry.location.offset as usize >= RUN_HEADER_BYTES + ENTRY_HEADER_BYTES);
            assert!(entry.position.index < u64::MAX);
        }
    });
}
