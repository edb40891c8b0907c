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
