//! Frames arrive whole and unchanged, or not at all.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use quorate_types::frame::{
    FRAME_HEADER_BYTES, FRAME_PAYLOAD_BYTES_MAX, Frame, FrameError, FrameReader, read_frame,
    read_frame_exactly, write_frame,
};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// Far below what a hostile length announces, above what a decoder needs for
/// frames of this test.
const MODEST_BYTES: usize = 256 << 10;

prop_compose! {
    fn frame()(kind: u8, version: u8, payload in vec(any::<u8>(), 0..300)) -> Frame {
        Frame { kind, version, payload: payload.into() }
    }
}

/// A header that announces `len` bytes, with a checksum that fits nothing.
fn announcing(len: u32) -> BytesMut {
    let mut header = BytesMut::new();
    header.put_u32(len);
    header.put_slice(&[7, 1, 0, 0, 0, 0]);
    header
}

proptest! {
    #[test]
    fn frames_come_back_in_order_however_the_bytes_are_cut(
        frames in vec(frame(), 0..5),
        piece_bytes in 1_usize..40,
    ) {
        let mut wire = BytesMut::new();
        frames.iter().for_each(|frame| frame.encode(&mut wire).unwrap());
        let (mut arrived, mut decoded) = (BytesMut::new(), Vec::new());
        for piece in wire.chunks(piece_bytes) {
            arrived.extend_from_slice(piece);
            while let Some(frame) = Frame::decode(&mut arrived, 300).unwrap() {
                decoded.push(frame);
            }
        }
        prop_assert_eq!(decoded, frames);
        prop_assert!(arrived.is_empty());
    }

    #[test]
    fn a_cut_frame_asks_for_more_and_loses_nothing(frame in frame(), keep in 0.0..1.0) {
        let whole = frame.to_bytes().unwrap();
        let kept = (whole.len() as f64 * keep) as usize;
        let mut input = BytesMut::from(&whole[..kept]);
        prop_assert_eq!(Frame::decode(&mut input, 300).unwrap(), None);
        prop_assert_eq!(&input[..], &whole[..kept]);
        input.extend_from_slice(&whole[kept..]);
        prop_assert_eq!(Frame::decode(&mut input, 300).unwrap(), Some(frame));
    }

    #[test]
    fn garbage_never_panics_and_never_reserves_much(garbage in vec(any::<u8>(), 0..200)) {
        let mut input = BytesMut::from(&garbage[..]);
        while let Ok(Some(_)) = Frame::decode(&mut input, FRAME_PAYLOAD_BYTES_MAX) {}
        prop_assert!(input.capacity() <= MODEST_BYTES);
    }
}

#[test]
fn any_flipped_bit_is_found() {
    let whole = Frame { kind: 3, version: 2, payload: "some bytes".into() }.to_bytes().unwrap();
    for bit in 0..whole.len() * 8 {
        let mut damaged = BytesMut::from(&whole[..]);
        damaged[bit / 8] ^= 1 << (bit % 8);
        // A length that has grown waits for bytes that never come.
        let found = Frame::decode(&mut damaged, 64);
        let len = u32::from_be_bytes([damaged[0], damaged[1], damaged[2], damaged[3]]);
        match found {
            Err(FrameError::Checksum) => assert!(len <= 10, "bit {bit}"),
            Err(FrameError::TooLarge { .. }) => assert!(len > 64, "bit {bit}"),
            Ok(None) => {
                assert!((11..=64).contains(&len), "bit {bit}");
                damaged.resize(FRAME_HEADER_BYTES + len as usize, 0);
                assert_eq!(Frame::decode(&mut damaged, 64), Err(FrameError::Checksum), "bit {bit}");
            }
            Ok(Some(frame)) => panic!("bit {bit} was not found: {frame:?}"),
        }
    }
}

#[test]
fn a_length_over_the_limit_is_refused_before_anything_is_reserved() {
    for (len, limit) in [(u32::MAX, FRAME_PAYLOAD_BYTES_MAX), (4_097, 4_096), (1, 0)] {
        let mut input = announcing(len);
        let before = input.capacity();
        assert_eq!(Frame::decode(&mut input, limit), Err(FrameError::TooLarge { len, limit }));
        assert_eq!(input.capacity(), before);
    }
}

#[test]
fn a_length_within_the_limit_reserves_little_until_bytes_arrive() {
    let mut input = announcing(FRAME_PAYLOAD_BYTES_MAX);
    assert_eq!(Frame::decode(&mut input, FRAME_PAYLOAD_BYTES_MAX), Ok(None));
    assert!(input.capacity() <= MODEST_BYTES, "{} bytes", input.capacity());
}

#[test]
fn a_payload_over_the_limit_is_not_sent() {
    let mut out = BytesMut::from(&b"before"[..]);
    let payload = Bytes::from(vec![0; FRAME_PAYLOAD_BYTES_MAX as usize + 1]);
    let refused = Frame::new(1, payload).encode(&mut out);
    assert!(matches!(refused, Err(FrameError::TooLarge { .. })));
    assert_eq!(&out[..], b"before");
}

#[tokio::test]
async fn a_stream_of_frames_ends_cleanly_between_them_only() {
    let (first, second) = (Frame::new(1, "one".into()), Frame::new(2, Bytes::new()));
    let mut wire = Vec::new();
    write_frame(&mut wire, &first).await.unwrap();
    write_frame(&mut wire, &second).await.unwrap();
    let (mut stream, mut buffer) = (&wire[..], BytesMut::new());
    assert_eq!(read_frame(&mut stream, &mut buffer, 64).await.unwrap(), Some(first));
    assert_eq!(read_frame(&mut stream, &mut buffer, 64).await.unwrap(), Some(second));
    assert_eq!(read_frame(&mut stream, &mut buffer, 64).await.unwrap(), None);

    for cut in 1..wire.len() - FRAME_HEADER_BYTES {
        let (mut stream, mut buffer) = (&wire[..cut], BytesMut::new());
        let whole = cut >= FRAME_HEADER_BYTES + 3;
        if whole {
            read_frame(&mut stream, &mut buffer, 64).await.unwrap().unwrap();
        }
        let ending = read_frame(&mut stream, &mut buffer, 64).await;
        match ending {
            Ok(None) => assert_eq!(cut, FRAME_HEADER_BYTES + 3),
            Ok(Some(frame)) => panic!("{frame:?} out of {cut} bytes"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "cut at {cut}"),
        }
    }
}

#[test]
fn a_payload_in_parts_is_the_frame_of_the_whole() {
    let whole = Frame { kind: 3, version: 2, payload: "in front and behind".into() };
    for cut in [0, 2, 8, 19] {
        let (front, behind) = whole.payload.split_at(cut);
        let mut out = BytesMut::new();
        Frame::encode_parts(3, 2, &[front, b"", behind], &mut out).unwrap();
        assert_eq!(out.freeze(), whole.to_bytes().unwrap());
    }
}

/// Gives what it has in pieces, and notes into how much room each is read.
struct Pieces {
    left: Bytes,
    piece_bytes: usize,
    rooms: Vec<usize>,
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.rooms.push(room.remaining());
        let bytes = self.piece_bytes.min(self.left.len()).min(room.remaining());
        room.put_slice(&self.left.split_to(bytes));
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_reader_finds_all_frames_however_they_arrive() {
    let frames: Vec<Frame> =
        (0..200).map(|size| Frame::new(1, Bytes::from(vec![7; size * 30]))).collect();
    let mut wire = BytesMut::new();
    frames.iter().for_each(|frame| frame.encode(&mut wire).unwrap());
    let wire = wire.freeze();
    for piece_bytes in [1, 9, 700, 20_000, wire.len()] {
        let pieces = Pieces { left: wire.clone(), piece_bytes, rooms: Vec::new() };
        let mut reader = FrameReader::new(pieces, 8_000);
        for frame in &frames {
            assert_eq!(reader.next().await.unwrap().as_ref(), Some(frame));
        }
        assert_eq!(reader.next().await.unwrap(), None);
    }
    for cut in [4, FRAME_HEADER_BYTES * 2 + 15, wire.len() - 1] {
        let mut reader = FrameReader::new(&wire[..cut], 8_000);
        let ending = loop {
            match reader.next().await {
                Ok(frame) => assert!(frame.is_some(), "cut at {cut}"),
                Err(error) => break error,
            }
        };
        assert_eq!(ending.kind(), io::ErrorKind::UnexpectedEof);
    }
    let mut refused = FrameReader::new(&wire[..], 5_000);
    let error = loop {
        if let Err(error) = refused.next().await {
            break error;
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_reader_takes_as_much_room_as_is_filled() {
    let frame = Frame::new(1, Bytes::from(vec![7; 90]));
    let one = frame.to_bytes().unwrap();
    let many = Bytes::from(one.repeat(10_000));
    let mut busy = Pieces { left: many, piece_bytes: usize::MAX, rooms: Vec::new() };
    let mut reader = FrameReader::new(&mut busy, 8_000);
    while reader.next().await.unwrap().is_some() {}
    assert!(busy.rooms.first().is_some_and(|room| *room <= 1_024), "{:?}", busy.rooms);
    assert!(busy.rooms.iter().any(|room| *room >= 60_000), "{:?}", busy.rooms);
    assert!(busy.rooms.iter().all(|room| *room <= MODEST_BYTES), "{:?}", busy.rooms);

    let left = Bytes::from(one.repeat(200));
    let mut quiet = Pieces { left, piece_bytes: 100, rooms: Vec::new() };
    let mut reader = FrameReader::new(&mut quiet, 8_000);
    while reader.next().await.unwrap().is_some() {}
    assert!(quiet.rooms.iter().all(|room| *room <= 1_024), "{:?}", quiet.rooms);
}

#[tokio::test]
async fn reading_exactly_one_frame_leaves_what_follows_in_the_stream() {
    let frame = Frame::new(9, "the handshake".into());
    let mut wire = frame.to_bytes().unwrap().to_vec();
    wire.extend_from_slice(b"the protocol");
    let mut stream = &wire[..];
    assert_eq!(read_frame_exactly(&mut stream, 64).await.unwrap(), frame);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "the protocol");

    for cut in 0..frame.to_bytes().unwrap().len() {
        let error = read_frame_exactly(&mut &wire[..cut], 64).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "cut at {cut}");
    }
    let error = read_frame_exactly(&mut &wire[..], 12).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}
