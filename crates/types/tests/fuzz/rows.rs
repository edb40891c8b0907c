//! Rows as they stand in a file, and the mark of its owner.

use quorate_testkit::fuzz::{self, Corpus};
use quorate_types::DiskId;
use quorate_types::codec::{CodecError, encode, open_row, seal_row};
use quorate_types::owner::{Owner, OwnerError};

const KEY: &[u8] = b"key";
const NEWEST: u8 = 2;

#[test]
fn a_row_is_opened_as_it_was_sealed_or_not_at_all() {
    let rows =
        [seal_row(KEY, 1, b"payload"), seal_row(KEY, NEWEST, b""), seal_row(b"other", 1, b"p")];
    quorate_testkit::fuzz!(Corpus::of(rows), |input| {
        // As found: whatever opens is, byte by byte, what sealing would write.
        if let Ok((version, payload)) = fuzz::frugal(input.len(), || open_row(KEY, NEWEST, input)) {
            assert!((1..=NEWEST).contains(&version));
            assert_eq!(seal_row(KEY, version, payload), input);
            assert!(open_row(b"kez", NEWEST, input).is_err(), "under another key it is damage");
        }
        // Sealed by somebody: only the version decides.
        let (version, payload) = input.split_first().map_or((0, input), |(v, rest)| (*v, rest));
        let row = seal_row(KEY, version, payload);
        match (version, open_row(KEY, NEWEST, &row)) {
            (0, Err(CodecError::Zero)) => {}
            (1..=NEWEST, Ok(opened)) => assert_eq!(opened, (version, payload)),
            (_, Err(CodecError::Newer { found, .. })) => assert_eq!(found, version),
            (_, opened) => panic!("version {version}: {opened:?}"),
        }
    });
}

#[test]
fn only_the_owners_mark_is_the_owners() {
    let ours = Owner { disk: DiskId(77), has_store: true };
    let marks = [ours.mark(), Owner { disk: DiskId(78), has_store: false }.mark()];
    let payloads = [encode(&DiskId(77)), encode(&DiskId(u128::MAX))];
    quorate_testkit::fuzz!(Corpus::of(marks.iter().chain(&payloads)), |input| {
        for mark in [seal_row(b"owner", 1, input), input.to_vec().into()] {
            match fuzz::frugal(input.len(), || ours.judge(Some(&mark))) {
                Ok(is_known) => {
                    assert!(is_known);
                    assert_eq!(mark.len(), ours.mark().len());
                }
                Err(OwnerError::Foreign { found, expected }) => assert_ne!(found, expected),
                Err(OwnerError::Damaged(_)) => {}
                Err(OwnerError::Lost) => panic!("there is a mark"),
            }
        }
    });
}
