use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_types::conformance::{disk_file_suite, disk_suite, durable_disk_suite};
use quorate_types::disk::{DeferredDisk, DirectoryDisk, Disk, DiskFile};

/// Empty directories, as many as are asked for.
fn directories(folder: &tempfile::TempDir) -> impl FnMut() -> DirectoryDisk {
    let mut names = 0_u64..;
    move || {
        let name = names.next().unwrap().to_string();
        DirectoryDisk::open(folder.path().join(name)).unwrap()
    }
}

#[test]
fn a_directory_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let mut fresh = directories(&folder);
    disk_suite(|| Arc::new(fresh()));
}

/// Such a disk keeps its files locked until they land; a file of it is as any
/// other, before and after.
#[test]
fn a_file_that_is_held_back_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let mut fresh = directories(&folder);
    let mut disks = Vec::new();
    disk_file_suite(|| {
        let disk = DeferredDisk::over(Arc::new(fresh()));
        let file = disk.open("log").unwrap();
        disks.push(disk);
        file
    });
    disk_file_suite(|| {
        let disk = DeferredDisk::over(Arc::new(fresh()));
        let file = disk.open("log").unwrap();
        disk.land().unwrap();
        file
    });
}

#[test]
fn the_flawless_disk_conforms() {
    suites(Flaw::None);
}

fn suites(flaw: Flaw) {
    disk_suite(|| Arc::new(FlawedDisk::new(flaw)));
    durable_disk_suite(|| FlawedDisk::new(flaw), FlawedDisk::lose_power);
}

macro_rules! refused {
    ($($test:ident, $flaw:ident, $sentence:tt;)+) => {$(
        #[test]
        #[should_panic(expected = $sentence)]
        fn $test() {
            suites(Flaw::$flaw);
        }
    )+};
}

refused! {
    a_disk_without_locks_is_refused, NoLock, "the handle holds an exclusive lock";
    a_lock_that_stays_is_refused, LockStays, "the lock is held until the handle is dropped";
    zeroes_past_the_end_are_refused, ZeroesPastEnd, "UnexpectedEof when the file is shorter";
    bytes_that_come_back_are_refused, BytesComeBack, "`DiskFile::set_len` extends with zeroes";
    an_empty_write_that_extends_is_refused, EmptyWriteExtends, "`DiskFile::len`";
    a_file_with_a_place_is_refused, SharedPlace, "threads read what is theirs";
    names_without_order_are_refused, NamesUnsorted, "`Disk::list`: sorted";
    a_creation_that_is_lost_is_refused, CreationLost, "a created file survives a crash";
    a_removal_that_is_lost_is_refused, RemovalLost, "`Disk::remove` removes durably";
    a_sync_that_loses_the_tail_is_refused, SyncLosesTail,
        "`DiskFile::sync` makes everything written so far durable";
    a_sync_that_loses_the_length_is_refused, SyncLosesLength, "`DiskFile::sync` makes";
    a_sync_that_does_nothing_is_refused, SyncLies, "`DiskFile::sync` makes";
    a_sync_of_the_last_write_alone_is_refused, SyncsLastWrite, "`DiskFile::sync` makes";
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flaw {
    None,
    NoLock,
    LockStays,
    ZeroesPastEnd,
    BytesComeBack,
    EmptyWriteExtends,
    SharedPlace,
    NamesUnsorted,
    CreationLost,
    RemovalLost,
    SyncLosesTail,
    SyncLosesLength,
    SyncLies,
    SyncsLastWrite,
}

/// A disk in memory that forgets with its power what was not synced, with a
/// flaw of one's choice.
#[derive(Debug)]
struct FlawedDisk {
    flaw: Flaw,
    files: Arc<Mutex<BTreeMap<String, Arc<Mutex<Stored>>>>>,
    removed: Mutex<BTreeMap<String, Arc<Mutex<Stored>>>>,
}

#[derive(Debug, Default)]
struct Stored {
    durable: Vec<u8>,
    cached: Vec<u8>,
    /// What a cut has left behind the end.
    beyond: Vec<u8>,
    last_write: (usize, usize),
    place: usize,
    is_synced: bool,
    is_held: bool,
}

#[derive(Debug)]
struct FlawedFile {
    flaw: Flaw,
    stored: Arc<Mutex<Stored>>,
}

impl FlawedDisk {
    fn new(flaw: Flaw) -> Self {
        Self { flaw, files: Arc::default(), removed: Mutex::default() }
    }

    fn lose_power(self) -> Self {
        let mut files = self.files.lock();
        if self.flaw == Flaw::CreationLost {
            files.retain(|_, stored| stored.lock().is_synced);
        }
        if self.flaw == Flaw::RemovalLost {
            files.append(&mut self.removed.lock());
        }
        for stored in files.values() {
            let mut stored = stored.lock();
            stored.cached = stored.durable.clone();
            stored.is_held = false;
        }
        drop(files);
        self
    }
}

impl Disk for FlawedDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let stored = Arc::clone(self.files.lock().entry(name.to_owned()).or_default());
        let was_held = std::mem::replace(&mut stored.lock().is_held, true);
        if was_held && self.flaw != Flaw::NoLock {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Arc::new(FlawedFile { flaw: self.flaw, stored }))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.files.lock().contains_key(name))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let removed = self.files.lock().remove_entry(name);
        self.removed.lock().extend(removed);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names: Vec<String> = self.files.lock().keys().cloned().collect();
        if self.flaw == Flaw::NamesUnsorted {
            names.reverse();
        }
        Ok(names)
    }
}

impl FlawedFile {
    /// Where to read or write: two that look at the file's place at the same
    /// time find the later one's.
    fn place(&self, offset: u64) -> usize {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        if self.flaw != Flaw::SharedPlace {
            return offset;
        }
        self.stored.lock().place = offset;
        std::thread::sleep(std::time::Duration::from_micros(50));
        self.stored.lock().place
    }
}

impl DiskFile for FlawedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.stored.lock().cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let from = self.place(offset);
        let stored = self.stored.lock();
        let there = from.checked_add(out.len()).and_then(|to| stored.cached.get(from..to));
        match there {
            Some(there) => out.copy_from_slice(there),
            None if self.flaw == Flaw::ZeroesPastEnd => out.fill(0),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if data.is_empty() && self.flaw != Flaw::EmptyWriteExtends {
            return Ok(());
        }
        let from = self.place(offset);
        let mut stored = self.stored.lock();
        let to = from + data.len();
        if stored.cached.len() < to {
            stored.cached.resize(to, 0);
        }
        stored.cached[from..to].copy_from_slice(data);
        stored.last_write = (from, to);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).unwrap();
        let mut stored = self.stored.lock();
        let old = stored.cached.len();
        if len < old {
            stored.beyond = stored.cached.split_off(len);
            return Ok(());
        }
        stored.cached.resize(len, 0);
        if self.flaw == Flaw::BytesComeBack {
            let beyond = std::mem::take(&mut stored.beyond);
            for (at, byte) in (old..len).zip(beyond) {
                stored.cached[at] = byte;
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        const TAIL_BYTES: usize = 100;
        let mut stored = self.stored.lock();
        let cached = stored.cached.clone();
        stored.is_synced = true;
        match self.flaw {
            Flaw::SyncLies => {}
            Flaw::SyncLosesTail => {
                stored.durable = cached;
                let len = stored.durable.len();
                stored.durable[len.saturating_sub(TAIL_BYTES)..].fill(0);
            }
            Flaw::SyncLosesLength => {
                // What has a place in the file by then gets there.
                let len = stored.durable.len().max(cached.len().saturating_sub(TAIL_BYTES));
                stored.durable = cached[..len.min(cached.len())].to_vec();
            }
            Flaw::SyncsLastWrite => {
                let (from, to) = stored.last_write;
                stored.durable.resize(cached.len(), 0);
                if let Some(written) = cached.get(from..to) {
                    stored.durable[from..to].copy_from_slice(written);
                }
            }
            _ => stored.durable = cached,
        }
        Ok(())
    }
}

impl Drop for FlawedFile {
    fn drop(&mut self) {
        self.stored.lock().is_held = self.flaw == Flaw::LockStays;
    }
}
