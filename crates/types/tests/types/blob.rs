//! Lengths that are announced and not there, and keys that separate others.

use quorate_types::codec::{CodecError, decode, encode};
use quorate_types::env::{Rng, SplitMix};
use quorate_types::{Blob, Seq};

#[test]
fn a_blob_is_binary_also_within_an_option() {
    assert_eq!(&encode(&Blob::from("ab"))[..], [0xc4, 2, b'a', b'b']);
    assert_eq!(&encode(&Some(Blob::from("ab")))[..], [0xc4, 2, b'a', b'b']);
    assert_eq!(&encode(&None::<Blob>)[..], [0xc0]);
}

#[test]
fn a_blob_that_announces_more_than_is_there_is_refused() {
    for announced in [
        &[0xc4, 0xff, 1][..],
        &[0xc5, 0xff, 0xff, 1],
        &[0xc6, 0xff, 0xff, 0xff, 0xff, 1],
        &[0xc6, 0x7f, 0xff, 0xff, 0xff],
        &[0xc6],
    ] {
        assert!(matches!(decode::<Blob>(announced), Err(CodecError::Malformed(_))));
    }
}

/// Were it reserved, four thousand million blobs of 32 bytes would not fit any
/// machine that runs this, and the allocation would end the process.
#[test]
fn a_sequence_that_announces_more_than_is_there_is_refused_without_reserving_it() {
    let announced = [0xdd, 0xff, 0xff, 0xff, 0xff];
    assert!(matches!(decode::<Seq<Blob>>(&announced), Err(CodecError::Malformed(_))));
    assert!(matches!(decode::<Seq<[u64; 4]>>(&announced), Err(CodecError::Malformed(_))));
    let some = [&announced[..], &[0xc4, 0, 0xc4, 0]].concat();
    assert!(matches!(decode::<Seq<Blob>>(&some), Err(CodecError::Malformed(_))));
}

#[test]
fn a_sequence_reserves_for_few_elements_until_it_has_seen_more() {
    let mut bytes = vec![0xdc, 0x10, 0x00];
    bytes.extend([7; 0x1000]);
    let whole: Seq<u64> = decode(&bytes).unwrap();
    assert_eq!(whole.len(), 0x1000);
    let few: Seq<u64> = decode(&[0x92, 7, 7]).unwrap();
    assert!(few.0.capacity() <= 64, "{} elements reserved", few.0.capacity());
}

#[test]
fn sequences_nested_without_end_are_refused() {
    #[derive(Debug, PartialEq)]
    struct Nest(Seq<Nest>);

    impl<'a> zerompk::FromMessagePack<'a> for Nest {
        fn read<R: zerompk::Read<'a>>(reader: &mut R) -> zerompk::Result<Self> {
            Seq::read(reader).map(Self)
        }
    }

    assert_eq!(decode::<Nest>(&[0x91, 0x91, 0x90]).unwrap().0.len(), 1);
    assert!(decode::<Nest>(&[0x91; 100_000]).is_err());
}

#[test]
fn a_blob_prints_text_as_text_and_never_all_of_it() {
    assert_eq!(format!("{:?}", Blob::from("key")), "\"key\"");
    assert_eq!(format!("{:?}", Blob::from(&[0, 255])), "\"\\x00\\xff\"");
    assert!(format!("{:?}", Blob::from(vec![b'a'; 100_000])).ends_with("\"+99936B"));
}

#[test]
fn a_separator_is_the_shortest_prefix_that_sorts_after_the_key_below() {
    let mut rng = SplitMix::new(5);
    let mut key = || -> Vec<u8> { (0..rng.below(5)).map(|_| rng.below(3) as u8).collect() };
    for _ in 0..10_000 {
        let (one, other) = (key(), key());
        let (below, middle) = if one < other { (one, other) } else { (other, one) };
        if below == middle {
            continue;
        }
        let separator = Blob::from(middle.clone()).separator_from(&below);
        let found = (1..=middle.len()).map(|length| &middle[..length]);
        let shortest = found.into_iter().find(|prefix| *prefix > below.as_slice()).unwrap();
        assert_eq!(&*separator, shortest, "{below:?} and {middle:?}");
    }
}

#[test]
fn a_key_that_is_not_above_another_is_not_shortened() {
    assert_eq!(Blob::from("ab").separator_from(b"ab"), "ab".into());
    assert_eq!(Blob::from("ab").separator_from(b"abc"), "ab".into());
    assert_eq!(Blob::from("ab").separator_from(b"b"), "ab".into());
    assert_eq!(Blob::new().separator_from(b""), Blob::new());
}
