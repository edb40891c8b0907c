//! What every [`Disk`] must do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test suite: it panics where the disk under test is wrong"
)]

use std::io;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};
use crate::env::{Rng, SplitMix};

/// The longest file of the suite: some pages, and no whole number of them.
const FILE_BYTES_MAX: u64 = 20_000;
/// The longest piece that is read or written at a time: more than a page.
const PIECE_BYTES_MAX: u64 = 6_000;
/// Random operations, against a vector of bytes.
const OPERATIONS: usize = 2_000;
/// Losses of power.
const LOSSES: u64 = 40;

/// Runs the suite on fresh, empty disks.
///
/// It checks meaning, as one process sees it. Whether what was synced survives
/// a loss of power, which is what a disk is for, [`durable_disk_suite`] checks
/// of those that can lose it.
///
/// ```
/// use std::sync::Arc;
///
/// use quorate_types::conformance::disk_suite;
/// use quorate_types::disk::DirectoryDisk;
///
/// let folder = tempfile::tempdir()?;
/// let mut names = 0..;
/// disk_suite(|| {
///     let name = names.next().unwrap_or(0).to_string();
///     Arc::new(DirectoryDisk::open(folder.path().join(name)).unwrap())
/// });
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Panics
/// When the disk does not conform.
pub fn disk_suite(mut fresh: impl FnMut() -> Arc<dyn Disk>) {
    an_opened_file_exists_and_is_empty(&*fresh());
    a_file_has_one_holder_at_a_time(&*fresh());
    what_was_written_is_there_when_opened_again(&*fresh());
    files_are_apart(&*fresh());
    a_removed_file_is_gone(&*fresh());
    names_are_listed_in_order(&*fresh());
    let mut disks = Vec::new();
    disk_file_suite(|| {
        let disk = fresh();
        let file = disk.open("log").unwrap();
        disks.push(disk);
        file
    });
}

/// The part of [`disk_suite`] that needs no more than files, each fresh and
/// empty.
///
/// # Panics
/// When the file does not conform.
pub fn disk_file_suite(mut fresh: impl FnMut() -> Arc<dyn DiskFile>) {
    a_read_past_the_end_is_an_error(&*fresh());
    a_length_cuts_and_extends_with_zeroes(&*fresh());
    a_file_is_a_vector_of_bytes(&*fresh());
    a_file_serves_several_threads(&*fresh());
}

/// Runs the suite for disks that can lose power: `lose_power` loses, keeps or
/// tears whatever was not synced, as it likes, and returns the disk as the
/// next boot finds it.
///
/// ```text
/// durable_disk_suite(MyDisk::new, |disk| { disk.crash(); disk.reboot() });
/// ```
///
/// # Panics
/// When the disk does not conform.
pub fn durable_disk_suite<D: Disk>(
    mut fresh: impl FnMut() -> D,
    mut lose_power: impl FnMut(D) -> D,
) {
    a_created_file_survives(&mut lose_power, fresh());
    a_removed_file_stays_removed(&mut lose_power, fresh());
    an_untouched_file_survives_whole(&mut lose_power, fresh());
    for seed in 0..LOSSES {
        what_was_synced_survives(seed, &mut lose_power, fresh());
    }
}

fn bytes(file: &dyn DiskFile) -> Vec<u8> {
    let len = usize::try_from(file.len().unwrap()).unwrap();
    let mut bytes = vec![0xEE; len];
    file.read(0, &mut bytes).unwrap();
    bytes
}

fn an_opened_file_exists_and_is_empty(disk: &dyn Disk) {
    assert!(!disk.exists("log").unwrap(), "`Disk::exists`: nothing was created");
    let file = disk.open("log").unwrap();
    assert!(disk.exists("log").unwrap(), "`Disk::open` creates a missing file");
    assert_eq!(file.len().unwrap(), 0, "`Disk::open` creates it empty");
    assert!(file.is_empty().unwrap(), "`DiskFile::is_empty`");
    file.write(0, b"a").unwrap();
    assert!(!file.is_empty().unwrap(), "`DiskFile::is_empty`");
}

fn a_file_has_one_holder_at_a_time(disk: &dyn Disk) {
    let held = disk.open("log").unwrap();
    let is_refused = || match disk.open("log") {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "`Disk::open` of a held file");
            true
        }
    };
    assert!(is_refused(), "`Disk::open`: the handle holds an exclusive lock");
    disk.open("engine").expect("`Disk::open`: a lock is of one file");
    let shared = Arc::clone(&held);
    drop(held);
    assert!(is_refused(), "`Disk::open`: the lock is held until the handle is dropped");
    drop(shared);
    disk.open("log").expect("`Disk::open`: the lock is held until the handle is dropped");
}

fn what_was_written_is_there_when_opened_again(disk: &dyn Disk) {
    let file = disk.open("log").unwrap();
    file.write(3, b"abcdef").unwrap();
    assert_eq!(bytes(&*file), b"\0\0\0abcdef", "`DiskFile::write` writes all, at `offset`");
    file.write(5, b"XY").unwrap();
    file.sync().unwrap();
    file.write(8, b"Z!").unwrap();
    drop(file);
    let file = disk.open("log").unwrap();
    assert_eq!(bytes(&*file), b"\0\0\0abXYeZ!", "what was written is there when opened again");
}

fn a_read_past_the_end_is_an_error(file: &dyn DiskFile) {
    file.write(0, b"abc").unwrap();
    file.read(0, &mut [0; 3]).expect("`DiskFile::read`: up to the end is not past it");
    for (offset, len) in [(0, 4), (1, 3), (3, 1), (9_999, 1), (u64::MAX, 1)] {
        let outcome = file.read(offset, &mut vec![0; len]).map_err(|error| error.kind());
        let is_past = match outcome {
            Err(io::ErrorKind::UnexpectedEof) => true,
            // No file can be so long, and a system may say so otherwise.
            Err(_) => offset == u64::MAX,
            Ok(()) => false,
        };
        assert!(
            is_past,
            "`DiskFile::read`: UnexpectedEof when the file is shorter; {len} bytes from {offset} \
             of 3 gave {outcome:?}"
        );
    }
}

fn a_length_cuts_and_extends_with_zeroes(file: &dyn DiskFile) {
    file.write(0, &[7; 10_000]).unwrap();
    file.set_len(2).unwrap();
    assert_eq!(bytes(file), [7, 7], "`DiskFile::set_len` cuts");
    file.set_len(9_000).unwrap();
    let mut expected = vec![7; 2];
    expected.resize(9_000, 0);
    assert_eq!(bytes(file), expected, "`DiskFile::set_len` extends with zeroes");
    file.set_len(0).unwrap();
    file.write(4, &[9]).unwrap();
    assert_eq!(bytes(file), [0, 0, 0, 0, 9], "what a write leaves out reads as zeroes");
}

fn files_are_apart(disk: &dyn Disk) {
    let (one, other) = (disk.open("one").unwrap(), disk.open("other").unwrap());
    one.write(0, b"one").unwrap();
    other.write(0, b"the other").unwrap();
    one.set_len(2).unwrap();
    drop(one);
    disk.remove("one").unwrap();
    assert_eq!(bytes(&*other), b"the other", "a file is none of another's business");
}

fn a_removed_file_is_gone(disk: &dyn Disk) {
    disk.open("log").unwrap().write(0, b"abc").unwrap();
    disk.remove("log").unwrap();
    assert!(!disk.exists("log").unwrap(), "`Disk::remove` removes");
    disk.remove("log").expect("`Disk::remove`: no error when it is missing");
    let anew = disk.open("log").unwrap();
    assert!(anew.is_empty().unwrap(), "`Disk::open` creates a removed file anew, empty");
}

fn names_are_listed_in_order(disk: &dyn Disk) {
    let none: [&str; 0] = [];
    assert_eq!(disk.list().unwrap(), none, "`Disk::list` of an empty disk");
    for name in ["b", "c", "a.redb", "B", "a"] {
        disk.open(name).unwrap();
    }
    disk.remove("c").unwrap();
    assert_eq!(disk.list().unwrap(), ["B", "a", "a.redb", "b"], "`Disk::list`: sorted");
}

/// A piece of a file.
fn piece(chance: &mut SplitMix) -> (u64, usize) {
    let offset = chance.below(FILE_BYTES_MAX - PIECE_BYTES_MAX);
    (offset, usize::try_from(chance.below(PIECE_BYTES_MAX)).unwrap())
}

fn noise(chance: &mut SplitMix, len: usize) -> Vec<u8> {
    (0..len).map(|_| chance.next_u64().to_le_bytes()[0]).collect()
}

fn write_to(model: &mut Vec<u8>, offset: u64, data: &[u8]) {
    if !data.is_empty() {
        let offset = usize::try_from(offset).unwrap();
        model.resize(model.len().max(offset + data.len()), 0);
        model[offset..offset + data.len()].copy_from_slice(data);
    }
}

fn a_file_is_a_vector_of_bytes(file: &dyn DiskFile) {
    let mut chance = SplitMix::new(7);
    let mut model = Vec::new();
    for _ in 0..OPERATIONS {
        let (offset, len) = piece(&mut chance);
        match chance.below(10) {
            0 => {
                file.set_len(offset).unwrap();
                model.resize(usize::try_from(offset).unwrap(), 0);
            }
            1 => file.sync().unwrap(),
            2 => file.write(offset, &[]).unwrap(),
            3..6 => {
                let data = noise(&mut chance, len);
                file.write(offset, &data).unwrap();
                write_to(&mut model, offset, &data);
            }
            _ => {
                let mut out = vec![0xEE; len.max(1)];
                let from = usize::try_from(offset).unwrap();
                match (file.read(offset, &mut out), model.get(from..from + out.len())) {
                    (Ok(()), Some(there)) => assert_eq!(
                        out, there,
                        "`DiskFile::read` fills `out` with what was written last"
                    ),
                    (Err(error), None) => assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof),
                    (outcome, there) => panic!(
                        "`DiskFile::read` of {} bytes from {offset}: {outcome:?}, with {} there",
                        out.len(),
                        there.map_or(0, <[u8]>::len)
                    ),
                }
            }
        }
        assert_eq!(
            file.len().unwrap(),
            model.len() as u64,
            "`DiskFile::len`: what was written last ends the file, and nothing else does"
        );
    }
    assert_eq!(bytes(file), model, "what was written is there");
}

/// A file has no place at which it stands, that two readers could share.
fn a_file_serves_several_threads(file: &dyn DiskFile) {
    const STRIPE_BYTES: u64 = 3_000;
    let share = |thread: u8| {
        for round in 0..100_u8 {
            let stripe = [thread ^ round.rotate_left(3); STRIPE_BYTES as usize];
            let at = u64::from(thread) * STRIPE_BYTES;
            file.write(at, &stripe).unwrap();
            let mut out = [0xEE; STRIPE_BYTES as usize];
            let read = file.read(at, &mut out);
            assert!(
                read.is_ok() && out == stripe,
                "a `DiskFile` is shared: threads read what is theirs"
            );
        }
    };
    std::thread::scope(|threads| {
        let running: Vec<_> = (0..4).map(|thread| threads.spawn(move || share(thread))).collect();
        for thread in running {
            // In its own words, which a scope would replace.
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

fn a_created_file_survives<D: Disk>(mut lose_power: impl FnMut(D) -> D, disk: D) {
    drop(disk.open("log").unwrap());
    let disk = lose_power(disk);
    assert!(
        disk.exists("log").unwrap(),
        "`Disk::open`: a created file survives a crash once this returns"
    );
    disk.open("log").expect("`Disk::open`: no lock outlives its holder");
}

fn a_removed_file_stays_removed<D: Disk>(mut lose_power: impl FnMut(D) -> D, disk: D) {
    let file = disk.open("log").unwrap();
    file.write(0, b"abc").unwrap();
    file.sync().unwrap();
    drop(file);
    disk.remove("log").unwrap();
    let disk = lose_power(disk);
    assert!(!disk.exists("log").unwrap(), "`Disk::remove` removes durably");
}

fn an_untouched_file_survives_whole<D: Disk>(mut lose_power: impl FnMut(D) -> D, disk: D) {
    let file = disk.open("log").unwrap();
    let pieces: [(u64, &[u8]); 3] = [(0, &[1; 700]), (9_000, &[2; 100]), (4_000, &[3; 4_000])];
    let mut expected = Vec::new();
    for (offset, data) in pieces {
        file.write(offset, data).unwrap();
        write_to(&mut expected, offset, data);
    }
    file.set_len(12_345).unwrap();
    expected.resize(12_345, 0);
    file.sync().unwrap();
    drop(file);
    let disk = lose_power(disk);
    let found = bytes(&*disk.open("log").unwrap());
    assert!(
        found == expected,
        "`DiskFile::sync` makes everything written so far durable: {} of {} bytes were left",
        found.iter().zip(&expected).take_while(|(one, other)| one == other).count(),
        expected.len()
    );
}

fn what_was_synced_survives<D: Disk>(seed: u64, mut lose_power: impl FnMut(D) -> D, disk: D) {
    let mut chance = SplitMix::new(seed);
    let mut model = Vec::new();
    let file = disk.open("log").unwrap();
    for _ in 0..1 + chance.below(8) {
        let (offset, len) = piece(&mut chance);
        let data = noise(&mut chance, len);
        file.write(offset, &data).unwrap();
        write_to(&mut model, offset, &data);
        if chance.below(3) == 0 {
            file.sync().unwrap();
        }
    }
    file.sync().unwrap();
    let synced = model.clone();
    let mut is_touched = vec![false; synced.len()];
    for _ in 0..chance.below(4) {
        let (offset, len) = piece(&mut chance);
        let data = noise(&mut chance, len);
        file.write(offset, &data).unwrap();
        write_to(&mut model, offset, &data);
        let from = usize::try_from(offset).unwrap();
        is_touched.iter_mut().skip(from).take(len).for_each(|touched| *touched = true);
    }
    drop(file);
    let disk = lose_power(disk);
    let found = bytes(&*disk.open("log").unwrap());
    assert!(
        (synced.len()..=model.len()).contains(&found.len()),
        "`DiskFile::sync` makes the length durable: {} of {} bytes were left",
        found.len(),
        synced.len()
    );
    for (at, byte) in synced.iter().enumerate().filter(|(at, _)| !is_touched[*at]) {
        assert!(
            found[at] == *byte,
            "`DiskFile::sync` makes everything written so far durable: byte {at} was lost"
        );
    }
}
