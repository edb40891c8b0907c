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
