//! Values and rows: exactly one, of a format this build knows, as written.

use proptest::collection::vec;
use proptest::prelude::*;
use quorate_types::codec::{
    CodecError, ROW_HEADER_BYTES, check_format, decode, encode, open_row, seal_row,
};
use quorate_types::{Blob, ClientId, DiskId, Epoch, Hlc, KeyRange, NodeId, RequestId, Seq, TxnId};
use zerompk::{FromMessagePack, ToMessagePack};

fn assert_whole<T>(value: &T)
where
    T: ToMessagePack + for<'a> FromMessagePack<'a> + PartialEq + std::fmt::Debug,
{
    let bytes = encode(value);
    assert_eq!(decode::<T>(&bytes).unwrap(), *value);
    for cut in 0..bytes.len() {
        assert!(decode::<T>(&bytes[..cut]).is_err(), "{value:?} cut at {cut}");
    }
    let longer = [&bytes[..], &[0xc0]].concat();
    assert!(matches!(decode::<T>(&longer), Err(CodecError::Trailing)), "{value:?}");
}

proptest! {
    #[test]
    fn a_value_fills_its_bytes_exactly(
        (a, b, c) in any::<(u64, u64, u32)>(),
        wide: u128,
        bytes in vec(any::<u8>(), 0..80),
    ) {
        let (blob, client) = (Blob::from(bytes), ClientId(wide));
        assert_whole(&NodeId(a));
        assert_whole(&client);
        assert_whole(&TxnId { epoch: Epoch(a), position: c });
        assert_whole(&Hlc { millis: a, counter: c, node: NodeId(b) });
        assert_whole(&RequestId { client, sequence: a, birth: Epoch(b), ack_below: a });
        assert_whole(&KeyRange::new(blob.clone(), Blob::from(&b"z"[..])));
        assert_whole(&KeyRange { start: blob.clone(), end: None });
        assert_whole(&Seq(vec![blob.clone(), blob.clone(), Blob::new()]));
        assert_whole(&blob);
    }

    #[test]
    fn garbage_decodes_to_nothing_or_something_but_never_panics(
        garbage in vec(any::<u8>(), 0..120),
    ) {
        let _ = decode::<RequestId>(&garbage);
        let _ = decode::<KeyRange>(&garbage);
        let _ = decode::<Seq<Seq<Blob>>>(&garbage);
        let _ = decode::<Option<Blob>>(&garbage);
        let _ = open_row(b"key", 1, &garbage);
    }

    #[test]
    fn a_row_opens_under_its_key_and_no_other(
        key in vec(any::<u8>(), 0..20),
        other in vec(any::<u8>(), 0..20),
        payload in vec(any::<u8>(), 0..60),
        version in 1_u8..,
    ) {
        let row = seal_row(&key, version, &payload);
        prop_assert_eq!(row.len(), ROW_HEADER_BYTES + payload.len());
        prop_assert_eq!(open_row(&key, version, &row).unwrap(), (version, &payload[..]));
        if other != key {
            let opened = open_row(&other, version, &row);
            let is_found = matches!(opened, Err(CodecError::Checksum { .. }));
            prop_assert!(is_found);
        }
    }
}

#[test]
fn any_flipped_bit_of_a_row_is_found() {
    let row = seal_row(b"key", 1, b"payload");
    for bit in 0..row.len() * 8 {
        let mut damaged = row.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let opened = open_row(b"key", 1, &damaged);
        assert!(matches!(opened, Err(CodecError::Checksum { .. })), "bit {bit}");
    }
}

#[test]
fn a_row_shorter_than_its_header_is_said_to_be() {
    let row = seal_row(b"key", 1, b"");
    for cut in 0..ROW_HEADER_BYTES {
        assert!(
            matches!(open_row(b"key", 1, &row[..cut]), Err(CodecError::Truncated(n)) if n == cut)
        );
    }
}

#[test]
fn a_newer_format_is_told_from_damage() {
    let row = seal_row(b"key", 3, b"payload");
    assert!(matches!(open_row(b"key", 2, &row), Err(CodecError::Newer { found: 3, known: 2 })));
    // A damaged version byte is damage, however new it looks.
    let mut damaged = seal_row(b"key", 1, b"payload").to_vec();
    damaged[0] = 9;
    assert!(matches!(open_row(b"key", 2, &damaged), Err(CodecError::Checksum { .. })));
}

#[test]
fn format_zero_is_no_format() {
    assert!(matches!(open_row(b"key", 1, &seal_row(b"key", 0, b"payload")), Err(CodecError::Zero)));
    assert!(matches!(check_format(0, u8::MAX), Err(CodecError::Zero)));
    assert!(check_format(1, 1).is_ok() && check_format(1, 2).is_ok());
    assert!(matches!(check_format(2, 1), Err(CodecError::Newer { found: 2, known: 1 })));
}

/// A hole in a file reads as zeroes, and crc32c of nothing is zero.
#[test]
fn a_row_of_zeroes_is_refused_under_every_key() {
    for key in [&b""[..], b"\0", b"key"] {
        for len in 0..64 {
            assert!(open_row(key, 1, &vec![0; len]).is_err(), "{len} zeroes under {key:?}");
        }
    }
}

#[test]
fn a_wide_id_has_sixteen_bytes_and_keeps_its_text() {
    for len in [0, 8, 15, 17, 32] {
        assert!(decode::<DiskId>(&encode(&Blob::from(vec![1; len]))).is_err(), "{len} bytes");
    }
    let id = DiskId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
    assert_eq!(id.to_string(), "01234567-89ab-cdef-0123-456789abcdef");
    assert_eq!(DiskId::parse(&id.to_string()).unwrap(), id);
    assert!(DiskId::parse("n1").is_err());
}
