//! What the crash disk keeps, and what it forgets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::io::ErrorKind;
use std::sync::Arc;

use proptest::prelude::*;
use quorate_testkit::TestkitError;
use quorate_testkit::disk::{
    CrashDisk, DiskImage, Faults, SECTOR_BYTES, SweepOptions, SweepShare, SyncFault, sweep,
    sweep_from,
};
use quorate_types::disk::{Disk, DiskFile};

const SECTOR: usize = SECTOR_BYTES as usize;

fn content(file: &Arc<dyn DiskFile>) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read(0, &mut bytes).unwrap();
    bytes
}

fn after_crash(disk: &CrashDisk, seed: u64) -> Vec<u8> {
    disk.crash(seed);
    content(&disk.reboot().open("f").unwrap())
}

#[test]
fn what_was_synced_survives_every_crash() {
    for seed in 0..200 {
        let disk = CrashDisk::new(0);
        let file = disk.open("f").unwrap();
        file.write(0, &[1; 2000]).unwrap();
        file.sync().unwrap();
        assert_eq!(after_crash(&disk, seed), [1; 2000]);
    }
}

#[test]
fn unsynced_writes_are_lost_kept_and_torn_at_sectors() {
    let (mut lost, mut kept, mut torn) = (0, 0, 0);
    for seed in 0..200 {
        let disk = CrashDisk::new(0);
        let file = disk.open("f").unwrap();
        file.set_len(4 * SECTOR_BYTES).unwrap();
        file.sync().unwrap();
        file.write(0, &[1; 4 * SECTOR]).unwrap();
        let found = after_crash(&disk, seed);
        let sectors: Vec<u8> = found.chunks(SECTOR).map(|sector| sector[0]).collect();
        assert!(found.chunks(SECTOR).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        match sectors.iter().sum::<u8>() {
            0 => lost += 1,
            4 => kept += 1,
            _ => torn += 1,
        }
    }
    assert!(lost > 20 && kept > 20 && torn > 20, "{lost} lost, {kept} kept, {torn} torn");
}

#[test]
fn later_writes_survive_earlier_ones() {
    let survives_alone = |seed| {
        let disk = CrashDisk::new(0);
        let file = disk.open("f").unwrap();
        file.set_len(2 * SECTOR_BYTES).unwrap();
        file.sync().unwrap();
        file.write(0, &[1]).unwrap();
        file.write(SECTOR_BYTES, &[2]).unwrap();
        let found = after_crash(&disk, seed);
        found[0] == 0 && found[SECTOR] == 2
    };
    assert!((0..200).any(survives_alone));
}

#[test]
fn overlapping_writes_may_reach_the_disk_in_either_order() {
    let outcomes: std::collections::BTreeSet<u8> = (0..300)
        .map(|seed| {
            let disk = CrashDisk::new(0);
            let file = disk.open("f").unwrap();
            file.write(0, &[0]).unwrap();
            file.sync().unwrap();
            file.write(0, &[1]).unwrap();
            file.write(0, &[2]).unwrap();
            after_crash(&disk, seed)[0]
        })
        .collect();
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn what_waits_too_long_is_written_back_unasked() {
    let disk = CrashDisk::new(0);
    let file = disk.open("f").unwrap();
    for block in 0..40 {
        file.write(block << 20, &[1; 1 << 20]).unwrap();
    }
    let found = after_crash(&disk, 0);
    assert!(found.len() >= 24 << 20 && found[..24 << 20].iter().all(|byte| *byte == 1));
}

#[test]
fn a_crashed_boot_stays_dead() {
    let disk = CrashDisk::new(0);
    let file = disk.open("f").unwrap();
    disk.crash(1);
    assert!(!disk.is_live());
    assert!(file.write(0, &[1]).is_err() && file.sync().is_err() && file.len().is_err());
    assert!(disk.open("f").is_err() && disk.exists("f").is_err() && disk.list().is_err());
    let next = disk.reboot();
    assert!(next.exists("f").unwrap());
    assert!(file.sync().is_err() && disk.open("g").is_err());
    next.open("f").unwrap().write(0, &[1]).unwrap();
}

#[test]
fn one_handle_at_a_time() {
    let disk = CrashDisk::new(0);
    let file = disk.open("f").unwrap();
    assert_eq!(disk.clone().open("f").unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(file);
    let _again = disk.open("f").unwrap();
    // The death of the process frees the lock although the handle is not gone.
    let _next = disk.reboot().open("f").unwrap();
}

#[test]
fn a_stale_handle_does_not_free_the_lock_of_the_next_boot() {
    let disk = CrashDisk::new(0);
    let stale = disk.open("f").unwrap();
    disk.crash(1);
    let next = disk.reboot();
    let _held = next.open("f").unwrap();
    drop(stale);
    assert_eq!(next.open("f").unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_killed_process_loses_nothing_it_wrote() {
    let disk = CrashDisk::new(0);
    disk.open("f").unwrap().write(0, &[7; 10]).unwrap();
    let next = disk.reboot();
    assert_eq!(content(&next.open("f").unwrap()), [7; 10]);
}

#[test]
fn an_armed_crash_strikes_at_its_operation() {
    let disk = CrashDisk::new(0);
    let file = disk.open("f").unwrap();
    disk.arm(3, 9);
    file.write(0, &[1]).unwrap();
    file.sync().unwrap();
    assert!(file.write(0, &[2]).is_err());
    assert!(!disk.is_live());
    let counters = disk.counters();
    assert_eq!((counters.writes, counters.syncs, counters.crashes), (2, 1, 1));
}

#[test]
fn a_failing_sync_makes_nothing_durable() {
    for (fault, later_sync_succeeds) in [(SyncFault::Permanent, false), (SyncFault::Once, true)] {
        let disk = CrashDisk::new(0);
        let file = disk.open("f").unwrap();
        disk.set_faults(Faults { sync: Some((1, fault)), ..Faults::default() });
        file.write(0, &[1]).unwrap();
        assert!(file.sync().is_err());
        assert_eq!(file.sync().is_ok(), later_sync_succeeds);
        assert_eq!(content(&file), [1]);
        if later_sync_succeeds {
            assert!(after_crash(&disk, 3).is_empty());
        }
    }
}

#[test]
fn a_lying_sync_loses_what_it_promised() {
    let loses = |seed| {
        let disk = CrashDisk::new(0);
        disk.set_faults(Faults { sync: Some((1, SyncFault::Lie)), ..Faults::default() });
        let file = disk.open("f").unwrap();
        file.write(0, &[1]).unwrap();
        file.sync().unwrap();
        after_crash(&disk, seed).is_empty()
    };
    assert!((0..50).any(loses));
}

#[test]
fn a_full_disk_takes_what_fits() {
    let disk = CrashDisk::new(0);
    disk.set_faults(Faults { capacity_bytes: Some(10), ..Faults::default() });
    let file = disk.open("f").unwrap();
    file.write(0, &[1; 8]).unwrap();
    assert_eq!(file.write(8, &[2; 8]).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.set_len(100).unwrap_err().kind(), ErrorKind::StorageFull);
    file.write(0, &[3; 8]).unwrap();
    assert_eq!(file.len().unwrap(), 10);
    disk.set_faults(Faults::default());
    file.write(8, &[2; 8]).unwrap();
}

#[test]
fn a_disk_that_is_full_takes_not_even_what_changes_a_file() {
    let disk = CrashDisk::new(0);
    let file = disk.open("f").unwrap();
    file.write(0, &[1; 8]).unwrap();
    disk.set_faults(Faults { full_from: Some(3), ..Faults::default() });
    file.write(0, &[2; 8]).unwrap();
    for _ in 0..2 {
        assert_eq!(file.write(0, &[3; 8]).unwrap_err().kind(), ErrorKind::StorageFull);
    }
    disk.clear_faults();
    file.write(0, &[4; 8]).unwrap();
    assert_eq!(content(&file), [4; 8]);
}

#[test]
fn faults_concern_the_file_they_name() {
    let disk = CrashDisk::new(0);
    let file = Some("bad".to_owned());
    disk.set_faults(Faults { file, write_errors_from: Some(1), ..Faults::default() });
    disk.open("good").unwrap().write(0, &[1]).unwrap();
    assert!(disk.open("bad").unwrap().write(0, &[1]).is_err());
}

#[test]
fn reads_fail_and_flip_bits_on_demand() {
    let disk = CrashDisk::new(5);
    let file = disk.open("f").unwrap();
    file.write(0, &[0; 64]).unwrap();
    disk.set_faults(Faults { read_error_at: Some(1), ..Faults::default() });
    assert!(file.read(0, &mut [0; 64]).is_err());
    disk.set_faults(Faults { flip_one_read_in: 1, ..Faults::default() });
    let ones: u32 = content(&file).iter().map(|byte| byte.count_ones()).sum();
    assert_eq!(ones, 1);
    disk.set_faults(Faults::default());
    assert_eq!(content(&file), [0; 64]);
    assert!(disk.damage("f", |bytes| bytes[3] = 9) && !disk.damage("g", |_| {}));
    assert_eq!(content(&file)[3], 9);
}

/// Two files of eight bytes each.
fn two_files() -> (CrashDisk, Arc<dyn DiskFile>, Arc<dyn DiskFile>) {
    let disk = CrashDisk::new(5);
    let (bad, good) = (disk.open("bad").unwrap(), disk.open("good").unwrap());
    for file in [&bad, &good] {
        file.write(0, &[7; 8]).unwrap();
        file.sync().unwrap();
    }
    (disk, bad, good)
}

#[test]
fn every_fault_can_be_switched_on_and_off_for_one_file() {
    type Try = fn(&Arc<dyn DiskFile>) -> bool;
    let writes: Try = |file| file.write(0, &[7; 8]).is_ok();
    let grows: Try = |file| file.write(0, &[7; 9]).is_ok() && file.set_len(8).is_ok();
    let reads: Try = |file| file.read(0, &mut [0; 8]).is_ok();
    let reads_right: Try = |file| (0..50).all(|_| content(file) == [7; 8]);
    let syncs: Try = |file| file.sync().is_ok();
    let healthy = Faults::default;
    let cases: [(&str, Faults, Try); 6] = [
        ("EIO on write", Faults { write_errors_from: Some(1), ..healthy() }, writes),
        ("ENOSPC", Faults { capacity_bytes: Some(16), ..healthy() }, grows),
        ("EIO on read", Faults { read_errors_from: Some(1), ..healthy() }, reads),
        ("bit flips", Faults { flip_one_read_in: 5, ..healthy() }, reads_right),
        ("failing syncs", Faults { sync: Some((1, SyncFault::Permanent)), ..healthy() }, syncs),
        ("one failing sync", Faults { sync: Some((1, SyncFault::Once)), ..healthy() }, syncs),
    ];
    for (name, faults, works) in cases {
        let (disk, bad, good) = two_files();
        for _ in 0..2 {
            assert!(works(&bad) && works(&good), "{name}, off");
            disk.set_file_faults("bad", faults.clone());
            assert!(works(&good), "{name}, on for another file");
            assert!(!works(&bad), "{name}, on");
            disk.set_file_faults("bad", Faults::default());
            assert!(works(&bad) && works(&good), "{name}, off again");
            disk.set_faults(faults.clone());
            assert!(!works(&bad), "{name}, on for all");
            disk.clear_faults();
        }
    }
}

#[test]
fn files_suffer_from_different_faults_at_once() {
    let (disk, bad, good) = two_files();
    disk.set_file_faults("bad", Faults { write_errors_from: Some(1), ..Faults::default() });
    disk.set_file_faults("good", Faults { read_errors_from: Some(1), ..Faults::default() });
    assert!(bad.write(0, &[1]).is_err() && bad.read(0, &mut [0]).is_ok());
    assert!(good.write(0, &[1]).is_ok() && good.read(0, &mut [0]).is_err());
    disk.set_faults(Faults { sync: Some((1, SyncFault::Permanent)), ..Faults::default() });
    assert!(bad.sync().is_ok(), "its own faults stand for the disk's");
    assert!(disk.open("third").unwrap().sync().is_err());
    disk.clear_faults();
    assert!(bad.write(0, &[1]).is_ok() && good.read(0, &mut [0]).is_ok());
}

#[test]
fn a_sync_of_one_file_that_fails_once_leaves_the_faults_of_others() {
    let (disk, bad, good) = two_files();
    let once = Faults { sync: Some((1, SyncFault::Once)), ..Faults::default() };
    disk.set_file_faults("bad", once.clone());
    disk.set_file_faults("good", once);
    assert!(bad.sync().is_err() && bad.sync().is_ok());
    assert!(good.sync().is_err() && good.sync().is_ok());
    disk.set_faults(Faults { write_errors_from: Some(1), ..Faults::default() });
    assert!(bad.write(0, &[1]).is_err(), "it has no faults of its own any more");
}

#[test]
fn an_image_is_what_is_durable_and_nothing_changes_it() {
    let disk = CrashDisk::new(0);
    let file = disk.open("f").unwrap();
    file.write(0, &[1; 3000]).unwrap();
    file.sync().unwrap();
    file.write(0, &[2; 3000]).unwrap();
    disk.open("empty").unwrap();
    let image = disk.image();
    assert_eq!(image.file("f").unwrap(), [1; 3000]);
    assert_eq!(image.files().map(|(name, _)| name).collect::<Vec<_>>(), ["empty", "f"]);
    assert_eq!(format!("{image:?}"), r#"{"empty": 0, "f": 3000}"#);
    file.sync().unwrap();
    disk.crash(1);
    assert_eq!(image.file("f").unwrap(), [1; 3000]);
    assert_eq!(disk.image().file("f").unwrap(), [2; 3000], "also without power");
    assert_eq!(image.file("g"), None);
}

#[test]
fn disks_from_one_image_go_their_own_ways() {
    let origin = CrashDisk::new(0);
    origin.open("f").unwrap().write(0, &[1; 10]).unwrap();
    origin.open("f").unwrap().sync().unwrap();
    let image = origin.image();
    let (one, other) = (CrashDisk::from_image(&image, 1), CrashDisk::from_image(&image, 2));
    assert_eq!((one.counters().operations, one.image()), (0, image.clone()));
    let file = one.open("f").unwrap();
    assert_eq!(content(&file), [1; 10]);
    file.write(0, &[3; 10]).unwrap();
    file.sync().unwrap();
    assert_eq!(after_crash(&one, 3), [3; 10]);
    assert_eq!(after_crash(&other, 3), [1; 10], "what it began with is durable");
    assert_eq!(one.counters().operations, 2);
    assert_eq!(image.file("f").unwrap(), [1; 10]);
}

#[test]
fn crashes_and_torn_writes_are_counted() {
    let mut torn = 0;
    for seed in 0..100 {
        let disk = CrashDisk::new(0);
        let file = disk.open("f").unwrap();
        file.set_len(4 * SECTOR_BYTES).unwrap();
        file.sync().unwrap();
        file.write(0, &[1; 4 * SECTOR]).unwrap();
        let found = after_crash(&disk, seed);
        let kept = found.iter().filter(|byte| **byte == 1).count();
        let counters = disk.counters();
        assert_eq!((counters.crashes, counters.crashes_unsynced), (1, 1));
        assert_eq!(counters.operations, 4);
        assert_eq!(counters.writes_torn, u64::from(kept > 0 && kept < 4 * SECTOR));
        torn += counters.writes_torn;
    }
    assert!(torn > 20);
}

#[test]
fn removed_names_are_gone_and_lists_are_sorted() {
    let disk = CrashDisk::new(0);
    for name in ["b", "a", "c"] {
        disk.open(name).unwrap();
    }
    disk.remove("b").unwrap();
    disk.remove("b").unwrap();
    assert_eq!(disk.list().unwrap(), ["a", "c"]);
    disk.crash(0);
    assert_eq!(disk.reboot().list().unwrap(), ["a", "c"]);
}

/// A log of one-byte records: the count is written after the record.
fn append_records(
    disk: &CrashDisk,
    acknowledged: &mut u8,
    syncs_before_count: bool,
) -> std::io::Result<()> {
    let file = disk.open("log")?;
    file.set_len(16 * SECTOR_BYTES)?;
    file.sync()?;
    for record in 1..=10_u8 {
        file.write(u64::from(record) * SECTOR_BYTES, &[record])?;
        if syncs_before_count {
            file.sync()?;
        }
        file.write(0, &[record])?;
        file.sync()?;
        *acknowledged = record;
    }
    Ok(())
}

fn check_records(disk: &CrashDisk, acknowledged: &u8) -> Result<(), String> {
    let file = disk.open("log").map_err(|error| error.to_string())?;
    let mut count = [0];
    if file.read(0, &mut count).is_err() {
        return if *acknowledged == 0 { Ok(()) } else { Err("empty".to_owned()) };
    }
    if count[0] < *acknowledged {
        return Err(format!("{acknowledged} acknowledged, {} there", count[0]));
    }
    for record in 1..=count[0] {
        let mut found = [0];
        file.read(u64::from(record) * SECTOR_BYTES, &mut found).unwrap();
        assert_eq!(found[0], record, "a counted record is not there");
    }
    Ok(())
}

#[test]
fn a_sweep_crashes_everywhere_and_accepts_a_careful_log() {
    let options = SweepOptions { rounds: 8, ..SweepOptions::default() };
    let report = sweep(
        options,
        |disk, acknowledged| append_records(disk, acknowledged, true),
        check_records,
    )
    .unwrap();
    assert_eq!(report.operations, 43);
    assert_eq!(report.crashes, 43 * 8);
    assert!(report.crashes_unsynced > 100);
}

#[test]
fn a_sweep_catches_a_log_that_syncs_too_late() {
    let options = SweepOptions { rounds: 8, ..SweepOptions::default() };
    let found = sweep(
        options,
        |disk, acknowledged| append_records(disk, acknowledged, false),
        check_records,
    );
    let error = found.unwrap_err();
    assert!(matches!(&error, TestkitError::Sweep { .. }), "{error}");
    assert!(error.to_string().contains("a counted record is not there"), "{error}");
}

#[test]
fn a_bounded_sweep_spreads_its_crashes() {
    let options = SweepOptions { points_max: 10, ..SweepOptions::default() };
    let report = sweep(
        options,
        |disk, acknowledged| append_records(disk, acknowledged, true),
        check_records,
    )
    .unwrap();
    assert!((8..=10).contains(&report.crashes), "{report:?}");
}

/// The operations crashed at by a sweep, in the order of its crashes.
fn points_of(options: SweepOptions) -> (Vec<u64>, u64) {
    let mut points = Vec::new();
    let report = sweep(
        options,
        |disk, acknowledged| append_records(disk, acknowledged, true),
        |disk, acknowledged| {
            // A disk that crashed did so at its last operation.
            points.extend(Some(disk.counters().operations).filter(|_| disk.counters().crashes > 0));
            check_records(disk, acknowledged)
        },
    );
    let report = report.unwrap();
    assert_eq!(report.crashes, points.len() as u64);
    (points, report.points)
}

#[test]
fn shares_of_a_sweep_cover_every_crash_once() {
    for (points_max, rounds) in [(10_000, 1), (10_000, 3), (10, 2), (1, 1)] {
        let options = SweepOptions { points_max, rounds, seed: 3, ..SweepOptions::default() };
        let (mut whole, points) = points_of(options);
        assert_eq!(whole.len() as u64, points);
        for count in [1, 2, 3, 7, 60] {
            let mut covered = Vec::new();
            for index in 0..count {
                let share = SweepShare::new(index, count).unwrap();
                let (tried, of) = points_of(SweepOptions { share, ..options });
                let fair = points / count;
                assert_eq!(of, points);
                assert!((fair..=fair + 1).contains(&(tried.len() as u64)));
                covered.extend(tried);
            }
            covered.sort_unstable();
            whole.sort_unstable();
            assert_eq!(covered, whole, "{count} shares");
        }
    }
}

#[test]
fn there_is_no_share_beyond_the_last() {
    assert_eq!(SweepShare::new(0, 1), Some(SweepShare::WHOLE));
    assert!(SweepShare::new(1, 2).is_some());
    assert_eq!(SweepShare::new(2, 2), None);
    assert_eq!(SweepShare::new(0, 0), None);
}

/// A disk on which five records of the log are durable.
fn half_a_log() -> DiskImage {
    let disk = CrashDisk::new(0);
    let file = disk.open("log").unwrap();
    file.set_len(16 * SECTOR_BYTES).unwrap();
    for record in 1..=5_u8 {
        file.write(u64::from(record) * SECTOR_BYTES, &[record]).unwrap();
    }
    file.write(0, &[5]).unwrap();
    file.sync().unwrap();
    disk.image()
}

fn append_the_sixth(disk: &CrashDisk, acknowledged: &mut u8) -> std::io::Result<()> {
    *acknowledged = 5;
    let file = disk.open("log")?;
    file.write(6 * SECTOR_BYTES, &[6])?;
    file.sync()?;
    file.write(0, &[6])?;
    file.sync()?;
    *acknowledged = 6;
    Ok(())
}

#[test]
fn a_sweep_may_begin_with_an_image() {
    let base = half_a_log();
    let options = SweepOptions { rounds: 20, ..SweepOptions::default() };
    let report = sweep_from(&base, options, append_the_sixth, check_records).unwrap();
    assert_eq!((report.operations, report.points, report.crashes), (4, 80, 80));
    assert_eq!(base, half_a_log());
    let said = report.to_string();
    assert!(said.starts_with("80 of 80 crashes in 4 operations tried"), "{said}");
    // The same on an empty disk has nothing to stand on.
    let error = sweep(options, append_the_sixth, check_records).unwrap_err();
    assert!(matches!(error, TestkitError::Workload(_)), "{error}");
}

#[derive(Debug, Clone)]
enum Step {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
    Crash(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3000_u64, prop::collection::vec(any::<u8>(), 1..1200))
            .prop_map(|(offset, data)| Step::Write(offset, data)),
        1 => (0..4000_u64).prop_map(Step::SetLen),
        2 => Just(Step::Sync),
        1 => any::<u64>().prop_map(Step::Crash),
    ]
}

fn play(steps: &[Step]) -> Vec<u8> {
    let mut disk = CrashDisk::new(1);
    let mut file = disk.open("f").unwrap();
    for step in steps {
        match step {
            Step::Write(offset, data) => file.write(*offset, data).unwrap(),
            Step::SetLen(len) => file.set_len(*len).unwrap(),
            Step::Sync => file.sync().unwrap(),
            Step::Crash(seed) => {
                disk.crash(*seed);
                disk = disk.reboot();
                file = disk.open("f").unwrap();
            }
        }
    }
    content(&file)
}

proptest! {
    #[test]
    fn the_same_seeds_leave_the_same_bytes(steps in prop::collection::vec(step(), 0..30)) {
        prop_assert_eq!(play(&steps), play(&steps));
    }

    #[test]
    fn after_a_sync_a_crash_changes_nothing(
        mut steps in prop::collection::vec(step(), 0..30),
        seed: u64,
    ) {
        steps.push(Step::Sync);
        let before = play(&steps);
        steps.push(Step::Crash(seed));
        prop_assert_eq!(play(&steps), before);
    }

    #[test]
    fn without_a_crash_it_is_an_ordinary_file(steps in prop::collection::vec(step(), 0..30)) {
        let steps: Vec<_> =
            steps.into_iter().filter(|step| !matches!(step, Step::Crash(_))).collect();
        let mut model = Vec::new();
        for step in &steps {
            match step {
                Step::Write(offset, data) => {
                    let start = usize::try_from(*offset).unwrap();
                    model.resize(model.len().max(start + data.len()), 0);
                    model[start..start + data.len()].copy_from_slice(data);
                }
                Step::SetLen(len) => model.resize(usize::try_from(*len).unwrap(), 0),
                Step::Sync | Step::Crash(_) => {}
            }
        }
        prop_assert_eq!(play(&steps), model);
    }
}

#[test]
fn the_checksum_tells_calls_apart_by_kind_file_offset_and_length() {
    let after = |call: &dyn Fn(&CrashDisk)| {
        let disk = CrashDisk::new(1);
        call(&disk);
        disk.counters().checksum
    };
    let write = |name: &'static str, offset: u64, bytes: &'static [u8]| {
        move |disk: &CrashDisk| disk.open(name).unwrap().write(offset, bytes).unwrap()
    };
    let sums = [
        after(&write("a", 0, b"one")),
        after(&write("b", 0, b"one")),
        after(&write("a", 1, b"one")),
        after(&write("a", 0, b"four")),
        after(&|disk| disk.open("a").unwrap().set_len(3).unwrap()),
        after(&|disk| disk.open("a").unwrap().sync().unwrap()),
        after(&|disk| drop(disk.open("a").unwrap())),
    ];
    assert_eq!(sums[0], after(&write("a", 0, b"one")));
    let different: std::collections::BTreeSet<u64> = sums.into_iter().collect();
    assert_eq!(different.len(), sums.len());
}
