//! Damage where nothing is, where something is found late, and where nobody can
//! tell it from a crash, or from a log that was never begun.

use std::ops::Range;
use std::path::Path;

use quorate_types::disk::DirectoryDisk;

use super::super::format::{FRAME_HEADER_BYTES, HEADER_BYTES};
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
    let (_, (name, header)) = all.first_key_value().unwrap();
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

/// Nothing shows that what stood there was ever durable: entries and votes that were
/// acknowledged are gone. The entries are safe where a majority has them without this
/// replica; no disk that keeps what it synced does this.
#[test]
fn damage_that_leaves_no_whole_header_behind_it_passes_for_a_crash() {
    let disk = CrashDisk::new(1);
    let mut models = Vec::new();
    run(async || {
        let log = open(&disk).unwrap();
        log.admit(GROUP, REPLICA).await.unwrap();
        models.push(Model::of(&log).await.unwrap());
        for index in 0..12 {
            append(&log, GROUP, vec![entry(1, index, 900)]).await.unwrap();
            models.push(Model::of(&log).await.unwrap());
        }
        let vote = Vote { term: 2, candidate: REPLICA, committed: false };
        log.save_vote(GROUP, vote).await.unwrap();
        models.push(Model::of(&log).await.unwrap());
        log.close().await.unwrap();
    });
    let (name, header, end) = end_of(&disk);
    let bounds = frames(&disk, &name, &header).into_iter().chain([end]);
    let bounds: Vec<usize> = bounds.map(|at| usize::try_from(at).unwrap()).collect();
    let count = bounds.len() - 1;
    assert_eq!(count, models.len() + 1, "one for each commit, behind the checkpoint");
    let damaged = |change: &dyn Fn(&mut Vec<u8>)| {
        let disk = CrashDisk::from_image(&disk.image(), 1);
        assert!(disk.damage(&name, change));
        disk
    };
    let ends_before = |disk: &CrashDisk, lost: usize| {
        let left = &models[models.len() - 1 - lost];
        assert!(reopened(disk).unwrap() == *left, "without the last {lost}");
        assert!(reopened(disk).unwrap() == *left, "for good without the last {lost}");
    };
    let ruins: [fn(&mut [u8]); 4] = [
        |frame| frame.fill(0),
        |frame| frame.iter_mut().for_each(|byte| *byte ^= 0x35),
        |frame| frame[..FRAME_HEADER_BYTES].fill(0),
        |frame| frame[0] ^= 4,
    ];
    for ruin in ruins {
        let ruined = |which: Range<usize>| {
            damaged(&|bytes| {
                for at in which.clone() {
                    ruin(&mut bytes[bounds[at]..bounds[at + 1]]);
                }
            })
        };
        for lost in [1, 2, 7, 13] {
            ends_before(&ruined(count - lost..count), lost);
        }
        // One whole header behind them is enough.
        let first = bounds[count - 7] as u64;
        is_refused(&ruined(count - 7..count - 1), &name, first);
    }
    // The last page of what was written.
    let page = (bounds[count] - 1) / 4096 * 4096;
    let lost = bounds[1..].iter().filter(|frame_end| **frame_end > page).count();
    assert!(lost > 2, "{bounds:?}");
    ends_before(&damaged(&|bytes| bytes[page..page + 4096].fill(0)), lost);
}

/// With the end of the segment before, which names the next one, all of the newest can
/// be lost that way.
#[test]
fn a_segment_without_frames_is_missed_while_the_one_before_has_its_end() {
    let (disk, model) = filled(1);
    let all = segments(&disk);
    let (newest, (name, header)) = all.last_key_value().unwrap();
    let lost = frames(&disk, name, header).len();
    let first = usize::try_from(FRAMES_AT).unwrap();
    assert!(disk.damage(name, |bytes| bytes[first..].fill(0)));
    let missed = reopened(&disk).map(|model| model.0.len()).unwrap_err();
    let LogError::Damaged { place, .. } = &missed else { panic!("{missed}") };
    assert_eq!(*place, Place::Segment(*newest), "{missed}");
    let (name, header) = &all[&(newest - 1)];
    let end = usize::try_from(frames(&disk, name, header).pop().unwrap()).unwrap();
    assert!(disk.damage(name, |bytes| bytes[end..end + 32].fill(0)));
    let (found, whole) = (reopened(&disk).unwrap(), &model.0[&GROUP].entries);
    // Each of its frames had one.
    assert!(found.0[&GROUP].entries == whole[..whole.len() - lost]);
}

/// Opens a log in a real directory that holds what a disk does. To read nothing from
/// behind the end of a file is no error there, and one on the disks of tests.
fn opened_in(directory: &Path, disk: &CrashDisk, owner: Option<Owner>) -> Result<Model, LogError> {
    for (name, bytes) in disk.image().files() {
        std::fs::write(directory.join(name), bytes).unwrap();
    }
    let disk = DirectoryDisk::open(directory).unwrap();
    let config = LogConfig { owner, ..config() };
    run(async move || Model::of(&DurableLog::open(Arc::new(disk), "log", config)?).await)
}

/// Where such a log is found damaged.
fn refusal(disk: &CrashDisk, owner: Option<Owner>) -> (String, Place) {
    let directory = tempfile::tempdir().unwrap();
    let opened = opened_in(directory.path(), disk, owner).map(|model| model.0.len());
    let error = opened.unwrap_err();
    let LogError::Damaged { file, place, .. } = &error else { panic!("{error}") };
    (file.to_string(), *place)
}

#[test]
fn a_file_that_ends_before_its_first_frame_does_is_missed() {
    let (disk, _) = filled(1);
    let all = segments(&disk);
    let newest = *all.keys().next_back().unwrap();
    for number in [newest, newest - 1] {
        let (name, _) = &all[&number];
        let refused = |change: &dyn Fn(&mut Vec<u8>)| {
            let disk = CrashDisk::from_image(&disk.image(), 1);
            assert!(disk.damage(name, change));
            refusal(&disk, None)
        };
        let missed = ("log".to_owned(), Place::Segment(number));
        let in_header = (name.clone(), Place::Offset(0));
        assert_eq!(refused(&|bytes| bytes.clear()), missed);
        assert_eq!(refused(&|bytes| bytes[..HEADER_BYTES].fill(0)), in_header);
        assert_eq!(refused(&|bytes| bytes.truncate(40)), in_header);
        // Behind its mark a header is zeroes, which need not be there.
        let first = usize::try_from(FRAMES_AT).unwrap();
        for len in [100, HEADER_BYTES, first - 1, first, first + 10, first + 600] {
            let at = if number == newest { len as u64 } else { FRAMES_AT };
            let behind = (name.clone(), Place::Offset(at));
            assert_eq!(refused(&|bytes| bytes.truncate(len)), behind, "cut off at {len}");
        }
    }
}

/// Without its first frame the only file of a log looks like one that was never begun.
/// Its owner knows better.
#[test]
fn a_young_log_that_is_lost_is_missed_by_its_owner_alone() {
    const FIRST: usize = FRAMES_AT as usize;
    let owner = |has_store| Some(Owner { disk: DiskId(7), has_store });
    let disk = CrashDisk::new(1);
    run(async || {
        let config = LogConfig { owner: owner(false), ..config() };
        let log = DurableLog::open(Arc::new(disk.clone()), "log", config).unwrap();
        log.admit(GROUP, REPLICA).await.unwrap();
        append(&log, GROUP, vec![entry(1, 0, 900)]).await.unwrap();
        log.close().await.unwrap();
    });
    let (name, header) = segments(&disk)[&1].clone();
    let damaged = |change: &dyn Fn(&mut Vec<u8>)| {
        let disk = CrashDisk::from_image(&disk.image(), 1);
        assert!(disk.damage(&name, change));
        disk
    };
    let losses: [fn(&mut Vec<u8>); 3] =
        [|bytes| bytes.clear(), |bytes| bytes.fill(0), |bytes| bytes[FIRST..].fill(0)];
    for (loss, change) in losses.into_iter().enumerate() {
        let lost = damaged(&change);
        let directory = tempfile::tempdir().unwrap();
        let missed = opened_in(directory.path(), &lost, owner(true)).map(|model| model.0.len());
        assert!(matches!(missed, Err(LogError::Owner { .. })), "loss {loss}: {missed:?}");
        for (name, bytes) in lost.image().files() {
            let left = std::fs::read(directory.path().join(name)).unwrap();
            assert!(left == bytes, "loss {loss}: {name} was written");
        }
        for none in [None, owner(false)] {
            let directory = tempfile::tempdir().unwrap();
            let begun = opened_in(directory.path(), &lost, none).unwrap();
            assert!(begun == Model::default(), "loss {loss}");
        }
    }
    let behind = usize::try_from(frames(&disk, &name, &header)[1]).unwrap();
    for anyone in [None, owner(false), owner(true)] {
        for len in [40, 100, HEADER_BYTES, FIRST - 1, FIRST, FIRST + 10, behind] {
            let refused = refusal(&damaged(&|bytes| bytes.truncate(len)), anyone);
            let at = if len == 40 { 0 } else { len as u64 };
            assert_eq!(refused, (name.clone(), Place::Offset(at)));
        }
        let headless = damaged(&|bytes| bytes[..HEADER_BYTES].fill(0));
        assert_eq!(refusal(&headless, anyone), (name.clone(), Place::Offset(0)));
    }
}
