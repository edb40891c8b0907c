//! A directory as a disk.

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex};

use quorate_types::disk::{DirectoryDisk, Disk, restart_creation};
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};

fn disk() -> (tempfile::TempDir, DirectoryDisk) {
    let folder = tempfile::tempdir().unwrap();
    let disk = DirectoryDisk::open(folder.path()).unwrap();
    (folder, disk)
}

#[test]
fn a_file_has_one_holder_at_a_time() {
    let (folder, disk) = disk();
    let held = disk.open("log").unwrap();
    let another = DirectoryDisk::open(folder.path()).unwrap();
    for disk in [&disk, &another] {
        let error = disk.open("log").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(error.to_string().contains("log is in use by another process"), "{error}");
    }
    disk.open("engine").unwrap();
    let shared = Arc::clone(&held);
    drop(held);
    assert!(disk.open("log").is_err(), "a clone holds it too");
    drop(shared);
    another.open("log").unwrap();
}

#[test]
fn a_file_that_was_opened_exists_and_is_empty() {
    let (folder, disk) = disk();
    assert!(!disk.exists("log").unwrap());
    let file = disk.open("log").unwrap();
    assert!(disk.exists("log").unwrap());
    assert!(file.is_empty().unwrap());
    drop(file);
    let later = DirectoryDisk::open(folder.path()).unwrap();
    assert!(later.exists("log").unwrap());
    assert_eq!(later.list().unwrap(), ["log"]);
}

#[test]
fn what_was_written_is_there_when_opened_again() {
    let (folder, disk) = disk();
    let file = disk.open("log").unwrap();
    file.write(3, b"abc").unwrap();
    file.sync().unwrap();
    drop(file);
    let file = DirectoryDisk::open(folder.path()).unwrap().open("log").unwrap();
    let mut bytes = [9; 6];
    file.read(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"\0\0\0abc");
    assert_eq!(file.len().unwrap(), 6);
}

/// What a sync does cannot be seen without a loss of power. That it asks the
/// system can: of a file that cannot be synced it has to say so.
#[cfg(target_os = "linux")]
#[test]
fn a_sync_is_one_of_the_system() {
    let (folder, disk) = disk();
    std::os::unix::fs::symlink("/dev/null", folder.path().join("log")).unwrap();
    // Whoever else runs this test holds the same file for a moment.
    let file = loop {
        match disk.open("log") {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
            opened => break opened.unwrap(),
        }
    };
    file.write(0, b"abc").unwrap();
    let error = file.sync().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn reading_past_the_end_is_an_error() {
    let (_folder, disk) = disk();
    let file = disk.open("log").unwrap();
    file.write(0, b"abc").unwrap();
    let error = file.read(1, &mut [0; 3]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_file_is_cut_and_extended_with_zeroes() {
    let (_folder, disk) = disk();
    let file = disk.open("log").unwrap();
    file.write(0, b"abcdef").unwrap();
    file.set_len(2).unwrap();
    file.set_len(4).unwrap();
    let mut bytes = [9; 4];
    file.read(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"ab\0\0");
}

#[test]
fn a_removed_file_is_gone_and_may_be_removed_again() {
    let (_folder, disk) = disk();
    drop(disk.open("log").unwrap());
    disk.remove("log").unwrap();
    assert!(!disk.exists("log").unwrap());
    disk.remove("log").unwrap();
    assert!(disk.open("log").unwrap().is_empty().unwrap());
}

#[test]
fn names_are_listed_in_order() {
    let (_folder, disk) = disk();
    for name in ["b", "c", "a"] {
        disk.open(name).unwrap();
    }
    assert_eq!(disk.list().unwrap(), ["a", "b", "c"]);
}

#[test]
fn a_directory_is_made_with_those_above_it() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("a/b/c");
    let disk = DirectoryDisk::open(&deep).unwrap();
    disk.open("log").unwrap();
    assert_eq!(disk.directory(), deep);
    assert!(DirectoryDisk::open(&deep).unwrap().exists("log").unwrap());
}

#[test]
fn a_directory_knows_the_room_that_is_left() {
    let (folder, disk) = disk();
    assert!(disk.available_bytes().unwrap().unwrap() > 0);
    drop(folder);
    assert!(disk.available_bytes().is_err(), "the directory is gone");
}

#[test]
fn a_directory_that_is_a_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, b"").unwrap();
    assert!(DirectoryDisk::open(&path).is_err());
    assert!(DirectoryDisk::open(path.join("below")).is_err());
}

#[test]
fn a_creation_that_was_cut_short_is_begun_anew() {
    let (_folder, disk) = disk();
    let file = disk.open("log").unwrap();
    restart_creation("log", &*file).unwrap();
    for (at, header, is_begun) in [
        (0, &b"\0\0"[..], true),
        (9, b"a header", true),
        (0, b"redb", false),
        (4096, b"data", false),
    ] {
        file.set_len(0).unwrap();
        file.set_len(1 << 20).unwrap();
        file.write(at, header).unwrap();
        restart_creation("log", &*file).unwrap();
        assert_eq!(file.is_empty().unwrap(), is_begun, "{header:?} at {at}");
    }
    file.set_len(0).unwrap();
    file.write(0, b"\0\0\0").unwrap();
    restart_creation("log", &*file).unwrap();
    assert!(file.is_empty().unwrap());
}

/// The errors that are logged, each with its fields.
#[derive(Default)]
struct Errors(Mutex<Vec<String>>);

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
}

impl Subscriber for &'static Errors {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = String::new();
        event.record(&mut Fields(&mut fields));
        self.0.lock().unwrap().push(fields);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[test]
fn a_file_that_is_begun_anew_is_an_error_in_the_log() {
    let errors: &'static Errors = Box::leak(Box::default());
    let (_folder, disk) = disk();
    let file = disk.open("log").unwrap();
    tracing::subscriber::with_default(errors, || {
        restart_creation("log", &*file).unwrap();
        file.write(0, b"redb").unwrap();
        restart_creation("log", &*file).unwrap();
        assert!(errors.0.lock().unwrap().is_empty(), "nothing was emptied");
        file.set_len(0).unwrap();
        file.set_len(5_000).unwrap();
        restart_creation("log", &*file).unwrap();
    });
    let said = errors.0.lock().unwrap().join("");
    assert!(said.contains("file=\"log\"") && said.contains("len_bytes=5000"), "{said}");
    assert!(said.contains("it was emptied"), "{said}");
}
