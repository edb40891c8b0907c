use bytes::Bytes;

use super::{PIECE_BYTES_MAX, Packing, SMALL_BYTES_MAX};

#[test]
fn payloads_are_what_they_were() {
    let lengths = [0, 1, 300, SMALL_BYTES_MAX, SMALL_BYTES_MAX + 1, 9_000, 0, 2];
    let lengths = lengths.into_iter().cycle().take(100);
    let payloads: Vec<Vec<u8>> =
        lengths.zip(0..).map(|(bytes, number): (usize, u8)| vec![number; bytes]).collect();
    let mut packing = Packing::of(payloads.iter().map(Vec::len));
    let copied: Vec<Bytes> = payloads.iter().map(|payload| packing.copy(payload)).collect();
    assert_eq!(copied, payloads);
}

#[test]
fn small_payloads_lie_together_up_to_a_piece() {
    let payload = [7; 100];
    let mut packing = Packing::of([payload.len(); 100].into_iter());
    let copied: Vec<Bytes> = (0..100).map(|_| packing.copy(&payload)).collect();
    let pairs = copied.iter().zip(copied.iter().skip(1));
    let follows = |(a, b): &(&Bytes, &Bytes)| a.as_ptr_range().end == b.as_ptr();
    let together = 1 + pairs.take_while(follows).count();
    assert_eq!(together, PIECE_BYTES_MAX / payload.len());
}
