//! Logs whose segments grow.

use super::*;

/// The third segment has this size, and all that follow.
const LARGE: u64 = SEGMENT_BYTES_MIN * 16;

/// Through the two smaller sizes into the third, and on.
#[test]
fn nothing_is_lost_in_any_crash_while_segments_grow() {
    let (disk, mut ledger) = (CrashDisk::new(1), Ledger::default());
    live_on(&disk, Story::Growing, 1, STEPS, &mut ledger).unwrap();
    let capacities: Vec<u64> = segments(&disk).values().map(|(_, it)| it.capacity).collect();
    let is_between = |bytes: &u64| (SEGMENT_BYTES_MIN * 4..LARGE).contains(bytes);
    let has_grown = capacities.iter().any(is_between) && capacities.contains(&LARGE);
    assert!(has_grown, "{capacities:?}");
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
