//! Logs whose segments grow.

use std::collections::BTreeSet;

use super::*;

/// The third segment has this size, and all that follow.
const LARGE: u64 = SEGMENT_BYTES_MIN * 16;

/// Through the two smaller sizes into the third, and on.
#[test]
fn nothing_is_lost_in_any_crash_while_segments_grow() {
    let (disk, mut ledger) = (CrashDisk::new(1), Ledger::default());
    live_on(&disk, Story::Growing, 1, STEPS, &mut ledger).unwrap();
    let capacities: Vec<u64> = segments(&disk).values().map(|(_, it)| it.capacity).collect();
    let sizes: BTreeSet<u64> = capacities.into_iter().collect();
    assert_eq!(sizes, BTreeSet::from([SEGMENT_BYTES_MIN, SEGMENT_BYTES_MIN * 4, LARGE]));
    let report = survives(Story::Growing, 300);
    assert!(report.crashes_unsynced > 20 && report.writes_torn > 10, "{report}");
}

/// Grown under one size, and opened with others before and after.
#[test]
fn a_log_lives_on_with_segments_of_any_size() {
    let (disk, mut ledger) = (CrashDisk::new(1), Ledger::default());
    let stories = [Story::Any, Story::Growing, Story::Any, Story::Growing];
    for (seed, story) in (1..).zip(stories) {
        live_on(&disk, story, seed, STEPS, &mut ledger).unwrap();
    }
}

/// However large segments are to become, the first ones are small.
#[test]
fn a_log_that_holds_little_takes_little() {
    let disk = CrashDisk::new(1);
    run(async || {
        let log = open_with(&disk, 64 << 20).unwrap();
        log.admit(GROUP, REPLICA).await.unwrap();
        for index in 0..150 {
            append(&log, GROUP, vec![entry(1, index, 4_000)]).await.unwrap();
        }
        log.close().await.unwrap();
    });
    let capacities: Vec<u64> = segments(&disk).values().map(|(_, it)| it.capacity).collect();
    assert_eq!(capacities, [SEGMENT_BYTES_MIN, SEGMENT_BYTES_MIN * 4, SEGMENT_BYTES_MIN * 16]);
}
