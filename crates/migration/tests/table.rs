//! The table on a disk that is damaged, fails, and loses what was not synced.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod disk;

use std::collections::BTreeMap;

use disk::MemoryDisk;
use proptest::prelude::*;
use quorate_migration::{
    AbortReason, Change, Checkpoint, MigrationRow, MigrationStateTable, Phase, Place, Promotion,
    ROW_VERSION, RowDamage, RowError, TableConfig, TableError,
};
use quorate_testkit::disk::{CrashDisk, SweepOptions, sweep};
use quorate_types::codec::{CodecError, encode, seal_row};
use quorate_types::{GroupId, Hlc, MigrationId, NodeId, ReplicaId, ShardId};

fn planned(id: u128) -> MigrationRow {
    let from = Place { node: NodeId(1), replica: ReplicaId(11) };
    let to = Place { node: NodeId(4), replica: ReplicaId(14) };
    let of = (ShardId(5), GroupId(5));
    MigrationRow::planned(
        MigrationId(0xABCD_EF00_1234_5678 << 64 | id),
        of,
        from,
        to,
        1,
        Hlc::default(),
    )
}

fn at(row: &MigrationRow, checkpoint: Checkpoint) -> MigrationRow {
    MigrationRow { checkpoint, ..row.clone() }
}

/// The first `count` checkpoints of a move.
fn way(id: u128, count: usize) -> Vec<MigrationRow> {
    let promotion = Promotion::AtCutover;
    let all = [
        Checkpoint::AddLearner,
        Checkpoint::CatchUp,
        Checkpoint::PromoteLearner { promotion, matched: 90, last_log: 100 },
        Checkpoint::LeadershipTransfer,
        Checkpoint::Cutover,
        Checkpoint::Complete { source_destroyed: true },
    ];
    all.into_iter().take(count).map(|checkpoint| at(&planned(id), checkpoint)).collect()
}

fn file() -> String {
    TableConfig::default().file
}

fn open(disk: &MemoryDisk) -> Result<MigrationStateTable, TableError> {
    MigrationStateTable::open(disk, TableConfig::default())
}

/// A disk that holds `count` migrations, each at its catch-up.
fn disk_with(count: u128) -> MemoryDisk {
    let disk = MemoryDisk::default();
    let mut table = open(&disk).unwrap();
    for row in (1..=count).flat_map(|id| way(id, 2)) {
        table.upsert(row).unwrap();
    }
    disk
}

/// Replaces every copy of a stored row in the file.
fn replace(disk: &MemoryDisk, row: &MigrationRow, by: &[u8]) {
    let sealed = row.seal();
    assert_eq!(sealed.len(), by.len());
    disk.damage(&file(), |bytes| {
        let starts: Vec<_> = (0..bytes.len() - sealed.len())
            .filter(|start| bytes[*start..].starts_with(&sealed))
            .collect();
        assert!(!starts.is_empty(), "the row is in the file");
        for start in starts {
            bytes[start..start + by.len()].copy_from_slice(by);
        }
    });
}

#[test]
fn a_missing_table_is_an_empty_one() {
    let mut table = open(&MemoryDisk::default()).unwrap();
    assert_eq!(table.load_all().unwrap(), []);
}

#[test]
fn a_table_whose_creation_was_cut_short_is_created_anew() {
    let open = |disk: &CrashDisk| {
        MigrationStateTable::open(disk, TableConfig::default())
            .and_then(|mut table| table.load_all().map(drop))
    };
    let options = SweepOptions { rounds: 8, ..SweepOptions::default() };
    let opened = sweep(options, |disk, _: &mut ()| open(disk), |disk, ()| open(disk));
    assert!(opened.unwrap().crashes_unsynced > 0);
}

#[test]
fn what_was_stored_is_loaded_in_the_order_of_ids() {
    let mut table = open(&disk_with(3)).unwrap();
    let stored: Vec<_> = (1..=3).map(|id| way(id, 2).remove(1)).collect();
    assert_eq!(table.load_all().unwrap(), stored);
}

#[test]
fn a_flipped_byte_anywhere_in_a_row_quarantines_and_reports_it() {
    let victim = way(2, 2).remove(1);
    for position in 0..victim.seal().len() {
        let disk = disk_with(3);
        let mut damaged = victim.seal().to_vec();
        damaged[position] ^= 0x40;
        replace(&disk, &victim, &damaged);

        let mut table = open(&disk).unwrap();
        let served: Vec<_> = table.load_all().unwrap().iter().map(|row| row.id).collect();
        assert_eq!(served, [planned(1).id, planned(3).id]);
        let reported: Vec<_> = table.quarantined().cloned().collect();
        assert_eq!(reported.len(), 1);
        assert_eq!((reported[0].id(), &reported[0].stored[..]), (Some(victim.id), &damaged[..]));
        assert!(reported[0].damage.contains("checksum"), "{}", reported[0].damage);

        drop(table);
        let table = open(&disk).unwrap();
        assert!(table.quarantined().eq(&reported), "the quarantine outlives a restart");
    }
}

#[test]
fn damage_that_appears_while_running_is_found_by_the_next_load() {
    let disk = disk_with(2);
    let mut table = open(&disk).unwrap();
    assert_eq!(table.load_all().unwrap().len(), 2);
    drop(table);
    let victim = way(1, 2).remove(1);
    let mut damaged = victim.seal().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    replace(&disk, &victim, &damaged);
    let mut table = open(&disk).unwrap();
    assert_eq!((table.load_all().unwrap().len(), table.quarantined().count()), (1, 1));
}

#[test]
fn a_quarantined_migration_is_not_begun_again_over_its_damaged_row() {
    let disk = disk_with(1);
    let victim = way(1, 2).remove(1);
    let mut damaged = victim.seal().to_vec();
    damaged[9] ^= 1;
    replace(&disk, &victim, &damaged);
    let mut table = open(&disk).unwrap();
    let refused = table.upsert(planned(1));
    assert!(matches!(refused, Err(TableError::Quarantined(id)) if id == victim.id));
    assert!(table.remove(victim.id).unwrap());
    assert_eq!(table.upsert(planned(1)).unwrap(), Change::Advanced);
}

#[test]
fn a_row_of_a_newer_build_is_no_damage_but_stops_an_older_one() {
    let disk = disk_with(1);
    let row = way(1, 2).remove(1);
    replace(&disk, &row, &seal_row(&row.key(), ROW_VERSION + 1, &encode(&row)));
    for _ in 0..2 {
        let refused = open(&disk);
        assert!(matches!(refused, Err(TableError::Newer { found: 2, known: 1, .. })));
    }
}

#[test]
fn a_row_under_another_key_is_damage() {
    let (row, other) = (planned(1), planned(2));
    let moved = MigrationRow::open(&other.key(), &row.seal());
    assert!(matches!(moved, Err(RowDamage::Codec(CodecError::Checksum { .. }))));
    let forged = seal_row(&other.key(), ROW_VERSION, &encode(&row));
    let opened = MigrationRow::open(&other.key(), &forged);
    assert!(matches!(opened, Err(RowDamage::WrongKey(id)) if id == row.id));
}

#[test]
fn damage_anywhere_in_the_file_is_an_error_or_a_quarantine_but_never_a_wrong_or_missing_row() {
    let truth: BTreeMap<_, _> = (1..=3).map(|id| (planned(id).id, way(id, 2).remove(1))).collect();
    let mut used = Vec::new();
    disk_with(3).damage(&file(), |bytes| {
        used = (0..bytes.len()).filter(|position| bytes[*position] != 0).collect();
    });
    for position in used.into_iter().step_by(13) {
        let disk = disk_with(3);
        disk.damage(&file(), |bytes| bytes[position] ^= 0x11);
        let Ok(mut table) = open(&disk) else { continue };
        let Ok(rows) = table.load_all() else { continue };
        assert_eq!(rows.len() + table.quarantined().count(), 3, "damage at {position}");
        for row in rows {
            let known: Vec<_> = (1..=2).map(|count| way(row.id.0 & 0xF, count).pop()).collect();
            assert!(known.contains(&Some(row.clone())), "{row:?} was never stored");
            assert!(truth.contains_key(&row.id));
        }
    }
}

#[test]
fn a_destroyed_file_is_a_typed_error_and_can_be_recreated() {
    let disk = disk_with(2);
    disk.damage(&file(), |bytes| bytes[..4096].fill(0xFF));
    let refused = open(&disk).unwrap_err();
    assert!(refused.to_string().starts_with(&file()), "{refused}");
    let rows = way(1, 2).split_off(1);
    let recreated = MigrationStateTable::recreate(&disk, TableConfig::default(), rows.clone(), 7);
    assert_eq!(recreated.unwrap().load_all().unwrap(), rows);
}

/// prior-systems: `MigrationStateTable::upsert` permitted phase regression.
#[test]
fn upsert_permits_no_phase_regression() {
    let mut table = open(&MemoryDisk::default()).unwrap();
    let mut before = Vec::new();
    for row in way(1, 6) {
        table.upsert(row.clone()).unwrap();
        for earlier in &before {
            assert!(matches!(
                table.upsert(MigrationRow::clone(earlier)),
                Err(TableError::Row(RowError::Regression { .. } | RowError::Final(_)))
            ));
        }
        assert_eq!(table.get(row.id), Some(&row));
        before.push(row);
    }
}

#[test]
fn a_phase_cannot_be_skipped() {
    let mut table = open(&MemoryDisk::default()).unwrap();
    table.upsert(planned(1)).unwrap();
    let refused = table.upsert(at(&planned(1), Checkpoint::Cutover));
    assert!(matches!(refused, Err(TableError::Row(RowError::Regression { .. }))));
}

#[test]
fn from_the_cutover_on_no_attempt_turns_back() {
    let mut table = open(&MemoryDisk::default()).unwrap();
    for row in way(1, 5) {
        table.upsert(row).unwrap();
    }
    let aborting = Checkpoint::Aborting { reason: AbortReason::Cancelled };
    for checkpoint in [Checkpoint::AddLearner, aborting] {
        let row = MigrationRow { attempt: 2, ..at(&planned(1), checkpoint) };
        assert!(matches!(table.upsert(row), Err(TableError::Row(RowError::Regression { .. }))));
    }
    let claimed = MigrationRow { attempt: 2, term: 2, ..at(&planned(1), Checkpoint::Cutover) };
    assert_eq!(table.upsert(claimed).unwrap(), Change::Advanced);
}

#[test]
fn a_duplicate_upsert_writes_nothing() {
    let disk = MemoryDisk::default();
    let mut table = open(&disk).unwrap();
    table.upsert(planned(1)).unwrap();
    let syncs = disk.syncs(&file());
    let mut again = planned(1);
    again.hlc.millis = 99;
    assert_eq!(table.upsert(again).unwrap(), Change::Repeated);
    assert_eq!((table.get(planned(1).id), disk.syncs(&file())), (Some(&planned(1)), syncs));
}

#[test]
fn a_full_table_refuses_a_new_migration_and_takes_the_next_phase_of_an_old_one() {
    let config = TableConfig { rows_max: 2, ..TableConfig::default() };
    let mut table = MigrationStateTable::open(&disk_with(2), config).unwrap();
    assert!(matches!(table.upsert(planned(3)), Err(TableError::Full(2))));
    assert_eq!(table.upsert(way(2, 3).pop().unwrap()).unwrap(), Change::Advanced);
}

/// prior-systems: `remove` mutated memory before the commit.
#[test]
fn a_failing_disk_changes_no_memory_and_is_a_permanent_typed_error() {
    for is_removal in [true, false] {
        let disk = disk_with(1);
        let mut table = open(&disk).unwrap();
        let before = table.rows().clone();
        disk.fail_after_syncs(&file(), 0);
        let id = planned(1).id;
        let act = |table: &mut MigrationStateTable| {
            if is_removal { table.remove(id).map(drop) } else { table.upsert(planned(2)).map(drop) }
        };
        assert!(matches!(act(&mut table), Err(TableError::Storage { .. })));
        assert_eq!(*table.rows(), before);
        disk.fail_after_syncs(&file(), u64::MAX);
        assert!(matches!(act(&mut table), Err(TableError::Storage { .. })), "for good");
        assert!(table.load_all().is_err() && table.failure().is_some());
    }
}

#[test]
fn every_checkpoint_reads_back_as_written() {
    let mut rows = way(1, 6);
    for reason in [AbortReason::Cancelled, AbortReason::Refused(quorate_migration::Refusal::Fenced)]
    {
        rows.push(at(&planned(1), Checkpoint::Aborting { reason }));
        rows.push(at(&planned(1), Checkpoint::Aborted { reason, target_destroyed: false }));
    }
    for row in rows {
        assert_eq!(MigrationRow::open(&row.key(), &row.seal()).unwrap(), row);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// prior-systems: rows that were acknowledged were lost with the process.
    #[test]
    fn a_crash_loses_nothing_that_was_acknowledged(
        phases in prop::collection::vec(1..6_usize, 1..4),
        syncs in 0..30_u64,
        seed in any::<u64>(),
    ) {
        let disk = MemoryDisk::default();
        let mut table = open(&disk).unwrap();
        disk.fail_after_syncs(&file(), syncs);
        let mut acknowledged = BTreeMap::new();
        let mut attempted = None;
        let all = phases.iter().zip(1..).flat_map(|(count, id)| way(id, *count));
        for row in all {
            attempted = Some((row.id, row.phase()));
            if table.upsert(row.clone()).is_err() {
                break;
            }
            acknowledged.insert(row.id, row);
        }
        let crashed = disk.after_crash(seed);
        let mut reopened = open(&crashed).unwrap();
        let found: BTreeMap<_, _> =
            reopened.load_all().unwrap().into_iter().map(|row| (row.id, row)).collect();
        prop_assert_eq!(reopened.quarantined().count(), 0);
        for (id, row) in &acknowledged {
            let stored: Option<Phase> = found.get(id).map(MigrationRow::phase);
            let is_acknowledged = stored == Some(row.phase());
            // The row whose commit was under way may have made it.
            let was_under_way = attempted == stored.map(|phase| (*id, phase));
            prop_assert!(is_acknowledged || was_under_way, "{:?} of {:?}", stored, row);
        }
        prop_assert!(found.len() <= acknowledged.len() + 1);
    }

    #[test]
    fn opening_any_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let key = planned(1).key();
        prop_assert!(MigrationRow::open(&key, &bytes).is_err());
        let sealed = seal_row(&key, ROW_VERSION, &bytes);
        prop_assert!(MigrationRow::open(&key, &sealed).is_err());
    }
}
