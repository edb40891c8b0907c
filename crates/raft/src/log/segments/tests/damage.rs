//! Damage where nothing is, and where something is found late.

use super::*;

/// Where the last frame of a log's newest segment ends, and its file.
fn end_of(disk: &CrashDisk) -> (String, Header, u64) {
    let (_, (name, header)) = segments(disk).pop_last().unwrap();
    let last = *frames(disk, &name, &header).last().unwrap();
    let bytes = bytes_of(disk, &name);
    let frame = FrameHeader::decode(header.seed(), last, &bytes[usize::try_from(last).unwrap()..]);
    (name, header, frame.unwrap().end(last))
}

#[test]
fn behind_the_last_frame_a_bit_means_nothing_and_a_cut_is_refused() {
    let (disk, model) = filled(1);
    let (name, header, end) = end_of(&disk);
    for at in [end, end + 3, end + 19, end + 500, header.capacity - 1] {
        let disk = CrashDisk::from_image(&disk.image(), 1);
        flip(&disk, &name, at);
        assert!(reopened(&disk).unwrap() == model);
        assert!(reopened(&disk).unwrap() == model, "and lives on");
    }
    for len in [end, header.capacity - 1] {
        let disk = CrashDisk::from_image(&disk.image(), 1);
        disk.open(&name).unwrap().set_len(len).unwrap();
        is_refused(&disk, &name, len);
    }
}

#[test]
fn the_last_frame_cut_short_is_refused_since_no_crash_shortens_a_file() {
    let (disk, _) = filled(1);
    let (name, _, end) = end_of(&disk);
    disk.open(&name).unwrap().set_len(end - 8).unwrap();
    is_refused(&disk, &name, end - 8);
}

/// A log whose older segments wait for their next use.
fn purged() -> (CrashDisk, Model) {
    let (disk, _) = filled(1);
    let kept = disk.clone();
    let model = run(async move || {
        let log = open(&disk).unwrap();
        log.admit(GROUP, REPLICA).await.unwrap();
        log.purge(GROUP, LogPosition { term: 1, index: 195 }).await.unwrap();
        // Until the newest segment does not list them.
        for index in 200..300 {
            append(&log, GROUP, vec![entry(1, index, 1_000)]).await.unwrap();
        }
        let model = Model::of(&log).await.unwrap();
        log.close().await.unwrap();
        model
    });
    (kept, model)
}

/// Its header is that of one: what it says decides which is the newest.
#[test]
fn of_a_segment_that_nothing_is_needed_of_the_header_counts_and_nothing_else() {
    let (disk, model) = purged();
    let all = segments(&disk);
    let (name, header) = &all[&2];
    let damaged = |change: &dyn Fn(&CrashDisk)| {
        let disk = CrashDisk::from_image(&disk.image(), 1);
        change(&disk);
        disk
    };
    is_refused(&damaged(&|disk| flip(disk, name, 20)), name, 0);
    let first = frames(&disk, name, header)[0];
    let harmless: [&dyn Fn(&CrashDisk); 3] = [
        &|disk| flip(disk, name, first + 22),
        &|disk| disk.open(name).unwrap().set_len(first + 100).unwrap(),
        &|disk| disk.remove(name).unwrap(),
    ];
    for change in harmless {
        let disk = damaged(change);
        assert!(reopened(&disk).unwrap() == model);
        assert!(live_on(&disk, Story::Any, 2, 100, &mut Ledger::default()).is_ok());
    }
}

/// Nobody can tell it from a disk that fails.
#[test]
fn a_file_cut_off_while_the_log_is_open_fails_the_log() {
    let (disk, _) = filled(1);
    let (name, header) = segments(&disk)[&2].clone();
    let frame = usize::try_from(frames(&disk, &name, &header)[5]).unwrap();
    run(async move || {
        let log = open(&disk).unwrap();
        log.admit(GROUP, REPLICA).await.unwrap();
        assert!(disk.damage(&name, |bytes| bytes.truncate(frame)));
        let error = log.read(GROUP, 0..u64::MAX, usize::MAX).unwrap_err();
        assert!(matches!(&error, LogError::Disk { file, .. } if **file == *name), "{error}");
        let appended = append(&log, GROUP, vec![entry(1, 200, 10)]).await.unwrap_err();
        assert_eq!(appended.to_string(), error.to_string());
    });
}

/// Nobody asked for the entry, and it may not be written once more as it is.
#[test]
fn an_entry_found_damaged_when_it_is_written_once_more_fails_the_log() {
    let disk = CrashDisk::new(1);
    run(async || {
        let slow = GroupId(2);
        let log = open(&disk).unwrap();
        log.admit(GROUP, REPLICA).await.unwrap();
        log.admit(slow, ReplicaId(12)).await.unwrap();
        let first = disk.list().unwrap()[0].clone();
        append(&log, slow, vec![entry(1, 0, 10)]).await.unwrap();
        let bytes = b"\x5a\x5a\x5a\x5a\x5a\x5a\x5a\x5a\x5a\x5a";
        assert!(disk.damage(&first, |stored| {
            let at = stored.windows(10).position(|window| window == bytes).unwrap();
            stored[at] ^= 1;
        }));
        let mut failed = None;
        for index in 0..2_000 {
            let appended = append(&log, GROUP, vec![entry(1, index, 1_000)]).await;
            failed = appended.err();
            if failed.is_some() {
                break;
            }
            if index % 20 == 19 {
                log.purge(GROUP, LogPosition { term: 1, index: index - 10 }).await.unwrap();
                // One in each segment, so that too many are needed.
                if log.stats().rewritten_bytes == 0 {
                    append(&log, slow, vec![entry(1, 1 + index / 20, 10)]).await.unwrap();
                }
            }
        }
        let Some(LogError::Damaged { file, .. }) = &failed else { panic!("{failed:?}") };
        assert_eq!(**file, *first);
        assert!(matches!(log.close().await, Err(LogError::Damaged { .. })));
    });
}
