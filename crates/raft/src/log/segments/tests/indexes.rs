//! Logs that are opened by the indexes of their segments.

use std::time::Duration;

use super::super::UNINDEXED_MAX;
use super::super::index::file_of;
use super::*;

/// Entries that fill a dozen segments.
const ENTRIES: u64 = 700;

/// A closed log of a dozen full segments of which everything is needed.
fn long(disk: &CrashDisk) {
    let disk = disk.clone();
    run(async move || {
        let log = open(&disk).unwrap();
        log.admit(GROUP, REPLICA).await.unwrap();
        for index in 0..ENTRIES {
            append(&log, GROUP, vec![entry(1, index, 1_000)]).await.unwrap();
        }
        // Indexes are written beside commits.
        tokio::time::sleep(Duration::from_secs(1)).await;
        log.close().await.unwrap();
    });
}

/// Opens a log and reads all of it.
fn all_of(disk: &CrashDisk) -> Vec<LogEntry> {
    let disk = disk.clone();
    let found = run(async move || {
        let log = open(&disk).unwrap();
        let found = Model::of(&log).await.unwrap();
        log.close().await.unwrap();
        found
    });
    found.0[&GROUP].entries.clone()
}

fn whole() -> Vec<LogEntry> {
    (0..ENTRIES).map(|index| entry(1, index, 1_000)).collect()
}

/// The files of the segments that have an index, the oldest first.
fn indexed(disk: &CrashDisk) -> Vec<String> {
    let files = segments(disk).into_values().map(|(file, _)| file);
    files.filter(|file| disk.exists(&file_of(file)).unwrap()).collect()
}

#[test]
fn all_but_the_newest_full_segments_have_an_index() {
    let disk = CrashDisk::new(1);
    long(&disk);
    let all: Vec<String> = segments(&disk).into_values().map(|(file, _)| file).collect();
    assert!(all.len() > 10, "{all:?}");
    assert_eq!(indexed(&disk), all[..all.len() - 1 - UNINDEXED_MAX]);
    assert_eq!(all_of(&disk), whole());
}

/// A flipped bit somewhere in what an index spares a start to read is found by
/// whoever reads the entry, and by nobody else.
#[test]
fn damage_in_a_segment_with_an_index_is_found_by_the_read() {
    let disk = CrashDisk::new(1);
    long(&disk);
    let file = indexed(&disk).remove(3);
    let (_, header) = segments(&disk).into_values().find(|(name, _)| *name == file).unwrap();
    let frame = frames(&disk, &file, &header)[5];
    // The frame's header, its run's, its entry's, and far into the payload.
    for (place, is_noticed) in [(4, false), (24, false), (52, true), (400, true)] {
        let at = frame + place;
        flip(&disk, &file, at);
        let log = disk.clone();
        let (name, damaged) = (
            file.clone(),
            run(async move || {
                let log = open(&log).unwrap();
                let read = |index| log.read(GROUP, index..index + 1, usize::MAX);
                let damaged = (0..ENTRIES).filter_map(|index| read(index).err());
                let damaged: Vec<LogError> = damaged.collect();
                log.close().await.unwrap();
                damaged
            }),
        );
        assert_eq!(damaged.len(), usize::from(is_noticed), "at {place}: {damaged:?}");
        for error in damaged {
            let LogError::Damaged { file, place: Place::Offset(found), .. } = error else {
                panic!("{error}");
            };
            assert_eq!(*file, *name);
            assert!((frame..=at).contains(&found), "{found} for {at}");
        }
        flip(&disk, &file, at);
    }
}

/// The segment is read instead, and what is wrong with it is found.
#[test]
fn an_index_that_is_gone_cut_or_damaged_is_not_needed() {
    let disk = CrashDisk::new(1);
    long(&disk);
    let index = file_of(&indexed(&disk).remove(2));
    let whole_index = bytes_of(&disk, &index);
    let restore = |bytes: &[u8]| {
        let file = disk.open(&index).unwrap();
        file.set_len(0).unwrap();
        file.write(0, bytes).unwrap();
        file.sync().unwrap();
    };
    for at in (0..whole_index.len()).step_by(37) {
        let mut flipped = whole_index.clone();
        flipped[at] ^= 4;
        for bytes in [&flipped[..], &whole_index[..at]] {
            restore(bytes);
            assert_eq!(all_of(&disk), whole(), "at {at}");
        }
    }
    disk.remove(&index).unwrap();
    assert_eq!(all_of(&disk), whole());
    let file = indexed(&disk).remove(2);
    disk.remove(&file_of(&file)).unwrap();
    flip(&disk, &file, FRAMES_AT + 5_000);
    let refused = run(async || open(&disk).unwrap_err());
    assert!(matches!(refused, LogError::Damaged { file: damaged, .. } if *damaged == *file));
}

/// The log knows that a segment goes up to its end.
#[test]
fn a_segment_with_an_index_that_is_gone_or_cut_off_is_missed() {
    let disk = CrashDisk::new(1);
    long(&disk);
    let image = disk.image();
    let file = indexed(&disk).remove(1);
    for len in [FRAMES_AT + 5_000, FRAMES_AT, 512] {
        let disk = CrashDisk::from_image(&image, 1);
        disk.open(&file).unwrap().set_len(len).unwrap();
        let refused = run(async || open(&disk).unwrap_err());
        assert!(matches!(&refused, LogError::Damaged { file: cut, .. } if **cut == *file));
    }
    let disk = CrashDisk::from_image(&image, 1);
    disk.remove(&file).unwrap();
    let refused = run(async || open(&disk).unwrap_err());
    assert!(matches!(refused, LogError::Damaged { place: Place::Segment(2), .. }), "{refused}");
}

/// The index of a file's earlier use is there when the file is used again.
#[test]
fn an_index_of_an_earlier_use_says_nothing_of_the_next() {
    let disk = CrashDisk::new(1);
    long(&disk);
    let mut next = ENTRIES;
    let log = disk.clone();
    run(async || {
        let log = open(&log).unwrap();
        log.admit(GROUP, REPLICA).await.unwrap();
        log.purge(GROUP, LogPosition { term: 1, index: next - 1 }).await.unwrap();
        for index in next..next + 250 {
            append(&log, GROUP, vec![entry(2, index, 1_000)]).await.unwrap();
        }
        next += 250;
        log.close().await.unwrap();
    });
    let stale = segments(&disk).into_iter().filter(|(number, (file, _))| {
        let index = file_of(file);
        disk.exists(&index).unwrap() && bytes_of(&disk, &index)[16..24] != number.to_be_bytes()
    });
    assert!(stale.count() > 0, "{:?}", disk.list().unwrap());
    let expected: Vec<_> = (ENTRIES..next).map(|index| entry(2, index, 1_000)).collect();
    assert_eq!(all_of(&disk), expected);
    let files = disk.list().unwrap();
    let is_index = |file: &&String| file.ends_with(".index");
    let (indexes, rest): (Vec<_>, Vec<_>) = files.iter().partition(is_index);
    for index in indexes {
        let of = rest.iter().any(|file| *file_of(file) == **index);
        assert!(of, "{index} of none of {rest:?}");
    }
}

/// A log that keeps nearly all, in many segments.
#[test]
fn nothing_is_lost_in_any_crash_while_indexes_are_written() {
    let (disk, mut ledger) = (CrashDisk::new(1), Ledger::default());
    live_on(&disk, Story::Long, 1, STEPS, &mut ledger).unwrap();
    assert!(indexed(&disk).len() > 2, "{:?}", disk.list().unwrap());
    let report = survives(Story::Long, 400);
    assert!(report.crashes_unsynced > 20, "{report}");
}
