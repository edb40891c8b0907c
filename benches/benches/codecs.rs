//! What every byte goes through: the frame around each message and entry, and
//! the requests of the gateway; against copying the same bytes.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a bench: it measures real time, and what fails ends it"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use criterion::Criterion;
use quorate_benches::Scoreboard;
use quorate_server::{RequestDecoder, RequestLimits};
use quorate_types::frame::{FRAME_PAYLOAD_BYTES_MAX, Frame};

/// A small write, a page, a large batch.
const PAYLOADS_BYTES: [usize; 3] = [128, 4 << 10, 1 << 20];

fn main() {
    let mut criterion = quorate_benches::criterion();
    frames(&mut criterion);
    requests(&mut criterion);
    criterion.final_summary();
}

fn time(iterations: u64, mut once: impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..iterations {
        once();
    }
    start.elapsed()
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    let mut scores = Scoreboard::of("bytes");
    for bytes in PAYLOADS_BYTES {
        let payload = Bytes::from(vec![0x5a; bytes]);
        let units = bytes as u64;
        let copy = format!("memcpy, {bytes} bytes");
        let mut out = BytesMut::with_capacity(2 * bytes);
        scores.bench(&mut group, &copy, &[], units, |iterations| {
            time(iterations, || {
                out.clear();
                out.extend_from_slice(black_box(&payload));
                black_box(&out);
            })
        });
        scores.bench(&mut group, &format!("crc32c, {bytes} bytes"), &[&copy], units, |n| {
            time(n, || {
                black_box(crc32c::crc32c(black_box(&payload)));
            })
        });
        let frame = Frame::new(1, payload.clone());
        scores.bench(&mut group, &format!("encode, {bytes} bytes"), &[&copy], units, |n| {
            time(n, || {
                out.clear();
                black_box(&frame).encode(&mut out).unwrap();
                black_box(&out);
            })
        });
        // From the socket into the buffer is a copy; the payload is then
        // shared, not copied again.
        let wire = frame.to_bytes().unwrap();
        scores.bench(&mut group, &format!("decode, {bytes} bytes"), &[&copy], units, |n| {
            let mut input = BytesMut::new();
            time(n, || {
                input.extend_from_slice(black_box(&wire));
                let frame = Frame::decode(&mut input, FRAME_PAYLOAD_BYTES_MAX).unwrap();
                black_box(frame.unwrap());
            })
        });
    }
    group.finish();
    println!("\nframe, bytes of payload:\n{scores}");
}

fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request");
    let mut scores = Scoreboard::of("requests");
    let value = "x".repeat(100);
    let set = format!("*3\r\n$3\r\nSET\r\n$10\r\nkey:000042\r\n$100\r\n{value}\r\n");
    for pipelined in [1, 64] {
        let wire = set.repeat(usize::try_from(pipelined).unwrap());
        let copy = format!("memcpy, {pipelined} pipelined");
        let mut input = BytesMut::new();
        scores.bench(&mut group, &copy, &[], pipelined, |iterations| {
            time(iterations, || {
                input.clear();
                input.extend_from_slice(black_box(wire.as_bytes()));
                black_box(&input);
            })
        });
        let name = format!("decode SET, {pipelined} pipelined");
        let mut decoder = RequestDecoder::new(RequestLimits::default());
        scores.bench(&mut group, &name, &[&copy], pipelined, |iterations| {
            let mut input = BytesMut::new();
            time(iterations, || {
                input.extend_from_slice(black_box(wire.as_bytes()));
                while let Some(request) = decoder.decode(&mut input).unwrap() {
                    black_box(request);
                }
            })
        });
    }
    group.finish();
    println!("\nrequest, SET of 100 bytes:\n{scores}");
}
