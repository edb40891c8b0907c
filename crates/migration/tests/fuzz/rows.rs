//! Rows as found in a file.

use quorate_migration::{
    AbortReason, Change, Checkpoint, MigrationRow, Promotion, ROW_BYTES_MAX, ROW_VERSION, Refusal,
    RowDamage,
};
use quorate_testkit::fuzz::{self, BYTES_PER_BYTE, Corpus};
use quorate_types::codec::{CodecError, encode, seal_row};

use crate::model::planned;

fn rows() -> Vec<MigrationRow> {
    let checkpoints = [
        Checkpoint::AddLearner,
        Checkpoint::CatchUp,
        Checkpoint::PromoteLearner {
            promotion: Promotion::Additional,
            matched: 1_000,
            last_log: 70_000,
        },
        Checkpoint::LeadershipTransfer,
        Checkpoint::Cutover,
        Checkpoint::Complete { source_destroyed: true },
        Checkpoint::Aborting { reason: AbortReason::Refused(Refusal::Tombstoned) },
        Checkpoint::Aborted { reason: AbortReason::Cancelled, target_destroyed: false },
    ];
    let row = |checkpoint| MigrationRow { checkpoint, attempt: 300, ..planned() };
    checkpoints.into_iter().map(row).collect()
}

#[test]
fn a_stored_row_is_read_as_written_or_refused() {
    let rows = rows();
    let key = rows[0].key();
    let payloads: Vec<_> = rows.iter().map(|row| encode(row).to_vec()).collect();
    quorate_testkit::fuzz!(Corpus::of(payloads), |input| {
        fuzz::value::<MigrationRow>(BYTES_PER_BYTE, input);
        let sealed = seal_row(&key, ROW_VERSION, input);
        for stored in [&sealed[..], input] {
            match fuzz::frugal(stored.len(), || MigrationRow::open(&key, stored)) {
                Ok(row) => {
                    assert!(stored.len() <= ROW_BYTES_MAX);
                    assert_eq!(MigrationRow::open(&key, &row.seal()).unwrap(), row);
                    assert_eq!(row.follows(Some(&row)), Ok(Change::Repeated));
                    assert!(!row.blocks(&row));
                    assert_eq!(row.outcome().is_some(), row.phase().is_final());
                }
                Err(RowDamage::WrongKey(id)) => assert_ne!(id.0.to_be_bytes(), key),
                Err(RowDamage::TooLong(bytes)) => assert!(bytes > ROW_BYTES_MAX),
                Err(RowDamage::Codec(CodecError::Newer { .. })) => assert_eq!(stored, input),
                Err(RowDamage::Codec(_)) => {}
            }
        }
    });
}
