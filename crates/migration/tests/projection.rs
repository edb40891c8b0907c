//! The table as the projection of a log: it becomes what the log says, and is
//! never taken back by a state of it that is behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::convert::Infallible;

use quorate_migration::{
    Checkpoint, MigrationRow, MigrationStateTable, Place, Promotion, TableConfig, TableError,
};
use quorate_testkit::disk::{CrashDisk, Faults, SweepOptions, sweep_from};
use quorate_types::codec::{encode, seal_row};
use quorate_types::{GroupId, Hlc, MigrationId, NodeId, ReplicaId, ShardId};

/// The row of migration `id` at its `step`-th checkpoint, counted from zero.
fn row(id: u128, step: usize) -> MigrationRow {
    let from = Place { node: NodeId(1), replica: ReplicaId(11) };
    let to = Place { node: NodeId(4), replica: ReplicaId(14) };
    let id = MigrationId(0xABCD_EF00_1234_5678 << 64 | id);
    let planned = MigrationRow::planned(id, (ShardId(5), GroupId(5)), from, to, 1, Hlc::default());
    let promotion = Promotion::AtCutover;
    let checkpoint = [
        Checkpoint::AddLearner,
        Checkpoint::CatchUp,
        Checkpoint::PromoteLearner { promotion, matched: 90, last_log: 100 },
        Checkpoint::LeadershipTransfer,
        Checkpoint::Cutover,
        Checkpoint::Complete { source_destroyed: true },
    ][step];
    MigrationRow { checkpoint, ..planned }
}

/// A log whose state at each index is more than the one before: migrations
/// begin, go on, and are forgotten.
fn history() -> Vec<Vec<MigrationRow>> {
    vec![
        vec![row(1, 0)],
        vec![row(1, 1)],
        vec![row(1, 2), row(2, 0)],
        vec![row(1, 3), row(2, 0), row(3, 0)],
        vec![row(1, 5), row(2, 1), row(3, 1)],
        vec![row(2, 4), row(3, 2)],
    ]
}

fn open(disk: &CrashDisk) -> MigrationStateTable {
    MigrationStateTable::open(disk, TableConfig::default()).unwrap()
}

fn rows(table: &MigrationStateTable) -> Vec<MigrationRow> {
    table.rows().values().cloned().collect()
}

/// A disk whose table reflects `rows` at index `reflected`.
fn disk_at(rows: Vec<MigrationRow>, reflected: u64) -> CrashDisk {
    let disk = CrashDisk::new(1);
    open(&disk).rebuild(rows, reflected).unwrap();
    disk
}

/// Flips a bit in every copy of a value in the file.
fn flip(disk: &CrashDisk, stored: &[u8]) {
    disk.damage(&TableConfig::default().file, |bytes| {
        let starts: Vec<_> = (0..bytes.len() - stored.len())
            .filter(|start| bytes[*start..].starts_with(stored))
            .collect();
        assert!(!starts.is_empty(), "the value is in the file");
        for start in starts {
            bytes[start + stored.len() - 1] ^= 1;
        }
    });
}

fn sealed_index(index: u64, version: u8) -> Vec<u8> {
    seal_row(b"reflected", version, &encode(&index)).to_vec()
}

#[test]
fn rebuilding_holds_exactly_the_given_rows_and_empties_the_quarantine() {
    let disk = disk_at(vec![row(1, 1), row(2, 1), row(3, 1)], 7);
    flip(&disk, &row(2, 1).seal());
    let mut table = open(&disk);
    assert_eq!(table.quarantined().count(), 1);
    let truth = vec![row(2, 4), row(9, 0)];
    table.rebuild(truth.clone(), 8).unwrap();
    drop(table);
    let mut table = open(&disk);
    assert_eq!((table.load_all().unwrap(), table.quarantined().count()), (truth, 0));
    assert_eq!(table.reflected(), 8);
}

#[test]
fn rebuilding_to_what_is_held_writes_nothing() {
    let held = vec![row(1, 1), row(2, 1), row(3, 1)];
    let disk = disk_at(held.clone(), 7);
    let mut table = open(&disk);
    let before = disk.counters().operations;
    table.rebuild(held.clone(), 9).unwrap();
    assert_eq!(disk.counters().operations, before);
    let faults = Faults { write_errors_from: Some(0), ..Faults::default() };
    disk.set_faults(faults);
    let fewer = held[..2].to_vec();
    assert!(matches!(table.rebuild(fewer, 10), Err(TableError::Storage { .. })));
}

#[test]
fn a_state_of_the_log_that_is_behind_changes_nothing() {
    let history = history();
    for (now, at) in history.iter().zip(0_u64..) {
        let disk = disk_at(now.clone(), at);
        for is_reopened in [false, true] {
            let mut table = open(&disk);
            if is_reopened {
                drop(table);
                table = open(&disk);
            }
            let before = disk.counters().operations;
            for (earlier, behind) in history.iter().zip(0..at) {
                table.rebuild(earlier.clone(), behind).unwrap();
                assert_eq!((&rows(&table), table.reflected()), (now, at));
            }
            assert_eq!(disk.counters().operations, before, "nothing is written");
            assert_eq!(table.load_all().unwrap(), *now);
        }
    }
}

#[test]
fn a_table_follows_again_once_the_log_has_caught_up() {
    let history = history();
    let disk = disk_at(history[3].clone(), 3);
    let mut table = open(&disk);
    for (state, index) in history.iter().zip(0..) {
        table.rebuild(state.clone(), index).unwrap();
        assert_eq!(rows(&table), history[usize::try_from(index.max(3)).unwrap()]);
    }
    drop(table);
    let table = open(&disk);
    assert_eq!((rows(&table), table.reflected()), (history[5].clone(), 5));
}

/// The stored index is lower than what the table was last rebuilt to, as that
/// changed no row.
#[test]
fn behind_a_rebuild_that_wrote_nothing_no_row_goes_back() {
    let held = vec![row(1, 3)];
    let disk = disk_at(held.clone(), 5);
    let mut table = open(&disk);
    table.rebuild(held.clone(), 9).unwrap();
    table.rebuild(vec![row(1, 2)], 4).unwrap();
    table.rebuild(Vec::new(), 8).unwrap();
    assert_eq!(rows(&table), held, "while it runs, the index it saw counts");
    drop(table);
    let mut table = open(&disk);
    assert_eq!(table.reflected(), 5);
    table.rebuild(vec![row(1, 2)], 4).unwrap();
    assert_eq!(rows(&table), held);
}

#[test]
fn a_damaged_row_stays_in_quarantine_until_the_log_has_caught_up() {
    let disk = disk_at(vec![row(1, 3), row(2, 0)], 5);
    flip(&disk, &row(1, 3).seal());
    let mut table = open(&disk);
    table.rebuild(vec![row(1, 2)], 4).unwrap();
    assert_eq!((rows(&table), table.quarantined().count()), (vec![row(2, 0)], 1));
    drop(table);
    let mut table = open(&disk);
    assert_eq!(table.quarantined().count(), 1, "nor is it dropped on disk");
    table.rebuild(vec![row(1, 3), row(2, 0)], 5).unwrap();
    assert_eq!((rows(&table), table.quarantined().count()), (vec![row(1, 3), row(2, 0)], 0));
}

#[test]
fn a_damaged_index_is_none_and_is_stored_again_by_the_next_rebuild() {
    let held = vec![row(1, 3)];
    let disk = disk_at(held.clone(), 5);
    flip(&disk, &sealed_index(5, 1));
    let mut table = open(&disk);
    assert_eq!((rows(&table), table.reflected()), (held.clone(), 0));
    table.rebuild(held, 4).unwrap();
    drop(table);
    assert_eq!(open(&disk).reflected(), 4, "though no row differed");
}

/// As in the file of an earlier build, and of a journal of its own.
#[test]
fn rows_without_an_index_are_rebuilt_from_any_state() {
    let disk = CrashDisk::new(1);
    let mut table = open(&disk);
    for step in 0..4 {
        table.upsert(row(1, step)).unwrap();
    }
    drop(table);
    let mut table = open(&disk);
    assert_eq!((rows(&table), table.reflected()), (vec![row(1, 3)], 0));
    table.rebuild(vec![row(1, 2)], 0).unwrap();
    assert_eq!(rows(&table), [row(1, 2)]);
}

#[test]
fn an_index_of_a_newer_build_stops_an_older_one() {
    let disk = disk_at(vec![row(1, 3)], 5);
    disk.damage(&TableConfig::default().file, |bytes| {
        let (stored, newer) = (sealed_index(5, 1), sealed_index(5, 2));
        for start in 0..bytes.len() - stored.len() {
            if bytes[start..].starts_with(&stored) {
                bytes[start..start + newer.len()].copy_from_slice(&newer);
            }
        }
    });
    let refused = MigrationStateTable::open(&disk, TableConfig::default());
    assert!(matches!(refused, Err(TableError::Newer { found: 2, known: 1, .. })), "{refused:?}");
}

#[test]
fn recreating_forgets_what_the_file_reflected() {
    let disk = disk_at(vec![row(1, 3)], 9);
    let table =
        MigrationStateTable::recreate(&disk, TableConfig::default(), vec![row(1, 2)], 4).unwrap();
    assert_eq!((rows(&table), table.reflected()), (vec![row(1, 2)], 4));
}

/// The life that the table is swept through: a start from state `from` of the
/// log, which is behind the table, then every later one.
fn catch_up(disk: &CrashDisk, from: usize) -> Result<(), TableError> {
    let mut table = MigrationStateTable::open(disk, TableConfig::default())?;
    for (state, index) in history().into_iter().zip(0..).skip(from) {
        table.rebuild(state, index)?;
    }
    Ok(())
}

/// Which state of the log the table is in.
fn state_of(table: &MigrationStateTable) -> usize {
    let held = rows(table);
    history().iter().position(|state| *state == held).expect("a state of the log, and whole")
}

/// A node's metadata came back older from the power cut, and another cut meets
/// the projection while the log is replayed.
#[test]
fn a_crash_at_any_operation_of_a_rebuild_shows_no_older_row() {
    let base = disk_at(history()[3].clone(), 3).image();
    for from in 0..=3 {
        let options = SweepOptions { rounds: 3, seed: from as u64, ..SweepOptions::default() };
        let swept = sweep_from(
            &base,
            options,
            |disk, _: &mut ()| catch_up(disk, from),
            |disk, ()| {
                let table = open(disk);
                let state = state_of(&table);
                assert!(state >= 3, "went back to state {state}");
                assert_eq!(table.reflected(), state as u64);
                drop(table);
                catch_up(disk, from).unwrap();
                assert_eq!(state_of(&open(disk)), 5);
                Ok::<(), Infallible>(())
            },
        );
        let report = swept.unwrap_or_else(|error| panic!("from {from}: {error}"));
        assert!(report.crashes > 10, "{report}");
    }
}
