#![allow(clippy::unwrap_used)]

use quorate_testkit::disk::{CrashDisk, Faults};

use super::super::format::Header;
use super::*;

/// The newest checkpoint may list what a file says it was, until its next use
/// has begun.
#[test]
fn a_file_that_cannot_be_extended_keeps_what_it_holds() {
    let disk = CrashDisk::new(1);
    let file = disk.open("log.000001").unwrap();
    let mark = bytes::Bytes::new();
    let header = Header { number: 7, replaced: 0, capacity: 64 << 10, salt: 3, mark };
    file.write(0, &header.encode()).unwrap();
    file.set_len(64 << 10).unwrap();
    file.sync().unwrap();
    let seed = header.seed();
    let segment = Segment { name: "log.000001".into(), slot: 1, file, header, seed };
    let mut spare = Spare::of(&segment);
    disk.set_faults(Faults { capacity_bytes: Some(128 << 10), ..Faults::default() });
    for _ in 0..2 {
        spare.fill(256 << 10, || true).unwrap_err();
    }
    disk.clear_faults();
    // Of what is known to be there, some may be gone.
    spare.file.set_len(32 << 10).unwrap();
    spare.fill(256 << 10, || true).unwrap();
    let mut kept = vec![0; 512];
    spare.file.read(0, &mut kept).unwrap();
    assert_eq!(kept, segment.header.encode());
    assert_eq!(spare.file.len().unwrap(), 256 << 10);
}

fn spare(disk: &CrashDisk, slot: u32, filled_bytes: u64) -> Spare {
    let name = file_of("log", slot);
    let file = disk.open(&name).unwrap();
    file.set_len(filled_bytes).unwrap();
    Spare { name, slot, file, replaced: 0, filled_bytes }
}

/// A log that has grown has zeroes enough: its first files are small, and are not
/// filled up while others are free.
#[test]
fn small_files_are_passed_over_and_go_first() {
    const SMALL: u64 = 64 << 10;
    const LARGE: u64 = 256 << 10;
    let disk = CrashDisk::new(1);
    let sizes = [SMALL, SMALL, LARGE, 4 * LARGE, LARGE, LARGE];
    let spares = (1..).zip(sizes).map(|(slot, bytes)| spare(&disk, slot, bytes)).collect();
    let yard = Yard::new(Arc::new(disk.clone()), "log", LARGE, spares, 7);
    // Those that suffice take turns, however large they are.
    let taken = [(); 2].map(|()| yard.take(LARGE, LARGE).unwrap());
    assert_eq!(taken.each_ref().map(|it| it.slot), [3, 4]);
    while yard.work() {}
    taken.into_iter().for_each(|it| yard.give(it));
    yard.prune();
    while yard.work() {}
    // One is ready, and four are kept besides.
    let left = disk.list().unwrap();
    assert_eq!(left, ["log.000001", "log.000003", "log.000004", "log.000005", "log.000006"]);
    let order = [(); 4].map(|()| yard.take(LARGE, LARGE).unwrap().slot);
    assert_eq!(order, [5, 6, 3, 4]);
    assert_eq!(yard.take(LARGE, LARGE).unwrap().filled_bytes, LARGE, "the small one, filled up");
}

/// Nothing is left of a segment that nobody needs by the time it is looked at.
#[test]
fn a_segment_that_was_let_go_of_gets_no_index() {
    let disk = CrashDisk::new(1);
    let segment = |number, name: &str| {
        let mark = bytes::Bytes::new();
        let header = Header { number, replaced: 0, capacity: 64 << 10, salt: 3, mark };
        let file = disk.open(name).unwrap();
        file.set_len(64 << 10).unwrap();
        let (seed, slot) = (header.seed(), u32::try_from(number).unwrap());
        Arc::new(Segment { name: name.into(), slot, file, header, seed })
    };
    let (kept, dropped) = (segment(1, "log.000001"), segment(2, "log.000002"));
    let yard = Yard::new(Arc::new(disk.clone()), "log", 64 << 10, Vec::new(), 3);
    // Without commits.
    let end = super::super::format::FRAMES_AT;
    yard.index(&kept, end);
    yard.index(&dropped, end);
    drop(dropped);
    while yard.work() {}
    let files = disk.list().unwrap();
    assert_eq!(files, ["log.000001", "log.000001.index", "log.000002", "log.000003"]);
}
