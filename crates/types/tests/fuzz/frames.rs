//! Frames: whole, cut, damaged, and in pieces.

use bytes::{Bytes, BytesMut};
use quorate_testkit::fuzz::{self, Choices, Corpus};
use quorate_types::frame::{FRAME_HEADER_BYTES, Frame, FrameError};

const PAYLOAD_BYTES_MAX: u32 = 4 << 10;

fn frames() -> Vec<Bytes> {
    let one = Frame::new(7, Bytes::from_static(b"payload")).to_bytes().unwrap();
    let two = Frame { kind: 0xF0, version: 3, payload: Bytes::from(vec![9; 300]) };
    let two = two.to_bytes().unwrap();
    let empty = Frame::new(0, Bytes::new()).to_bytes().unwrap();
    let stream = Bytes::from([&one[..], &empty, &two].concat());
    vec![one, two, empty, stream]
}

/// Every frame at the beginning of a buffer, and how it ends: with the number
/// of bytes that are no frame yet, or an error.
fn drain(buffer: &mut BytesMut) -> (Vec<Frame>, Result<usize, FrameError>) {
    let mut found = Vec::new();
    loop {
        match Frame::decode(buffer, PAYLOAD_BYTES_MAX) {
            Ok(Some(frame)) => found.push(frame),
            Ok(None) => return (found, Ok(buffer.len())),
            Err(error) => return (found, Err(error)),
        }
    }
}

#[test]
fn any_stream_is_frames_and_a_rest() {
    quorate_testkit::fuzz!(Corpus::of(frames()), |input| {
        let (frames, end) = fuzz::frugal(input.len(), || drain(&mut BytesMut::from(input)));
        let mut written = BytesMut::new();
        for frame in &frames {
            assert!(frame.payload.len() <= PAYLOAD_BYTES_MAX as usize);
            frame.encode(&mut written).unwrap();
        }
        assert!(input.starts_with(&written), "frames are what the bytes said");
        if let Ok(rest) = end {
            assert_eq!(written.len() + rest, input.len());
        }
    });
}

#[test]
fn how_a_stream_is_cut_changes_nothing() {
    quorate_testkit::fuzz!(Corpus::of(frames()), |input| {
        let whole = drain(&mut BytesMut::from(input));
        let (mut buffer, mut found, mut end) = (BytesMut::new(), Vec::new(), Ok(0));
        // The sizes of the pieces come from the input as well.
        let (mut sizes, mut left) = (Choices::new(input), input);
        while !left.is_empty() && end.is_ok() {
            let (piece, rest) = left.split_at((1 + sizes.below(40)).min(left.len()));
            left = rest;
            buffer.extend_from_slice(piece);
            let (frames, ended) = drain(&mut buffer);
            found.extend(frames);
            end = ended;
        }
        assert_eq!((found, end), whole);
    });
}

#[test]
fn an_announced_length_is_judged_first() {
    quorate_testkit::fuzz!(Corpus::of(frames()), |input| {
        let announced = input.first_chunk().map(|len| u32::from_be_bytes(*len));
        let first = Frame::decode(&mut BytesMut::from(input), PAYLOAD_BYTES_MAX);
        if let Some(len) = announced.filter(|_| input.len() >= FRAME_HEADER_BYTES) {
            let is_large = matches!(first, Err(FrameError::TooLarge { .. }));
            assert_eq!(is_large, len > PAYLOAD_BYTES_MAX);
        } else {
            assert_eq!(first, Ok(None));
        }
    });
}
