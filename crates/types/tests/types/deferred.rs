//! Writes that are held back until everything was found sound.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use proptest::prelude::*;
use quorate_types::disk::{DeferredDisk, DirectoryDisk, Disk, DiskFile};

const FILE: &str = "store";

fn directory(content: &[u8]) -> (tempfile::TempDir, DeferredDisk) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(FILE), content).unwrap();
    let disk = DeferredDisk::over(Arc::new(DirectoryDisk::open(folder.path()).unwrap()));
    (folder, disk)
}

fn all(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read(0, &mut bytes).unwrap();
    bytes
}

#[derive(Clone, Debug)]
enum Step {
    Write(u16, Vec<u8>),
    SetLen(u16),
    Sync,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let data = prop::collection::vec(any::<u8>(), 0..6_000);
    let step = prop_oneof![
        (0_u16..20_000, data).prop_map(|(offset, data)| Step::Write(offset, data)),
        (0_u16..20_000).prop_map(Step::SetLen),
        Just(Step::Sync),
    ];
    prop::collection::vec(step, 0..12)
}

fn perform(file: &dyn DiskFile, step: &Step) {
    match step {
        Step::Write(offset, data) => file.write(u64::from(*offset), data).unwrap(),
        Step::SetLen(len) => file.set_len(u64::from(*len)).unwrap(),
        Step::Sync => file.sync().unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn a_file_reads_as_if_written_and_is_written_when_it_lands(
        content in prop::collection::vec(any::<u8>(), 0..12_000),
        before in steps(),
        after in steps(),
    ) {
        let (plain_folder, _) = directory(&content);
        let plain = DirectoryDisk::open(plain_folder.path()).unwrap().open(FILE).unwrap();
        let (folder, disk) = directory(&content);
        let file = disk.open(FILE).unwrap();
        for step in &before {
            perform(&*plain, step);
            perform(&*file, step);
            prop_assert_eq!(all(&*file), all(&*plain));
        }
        prop_assert_eq!(std::fs::read(folder.path().join(FILE)).unwrap(), content);
        disk.land().unwrap();
        for step in &after {
            prop_assert_eq!(all(&*file), all(&*plain));
            perform(&*plain, step);
            perform(&*file, step);
        }
        prop_assert_eq!(std::fs::read(folder.path().join(FILE)).unwrap(), all(&*plain));
    }
}

#[test]
fn what_does_not_land_was_never_written() {
    let (folder, disk) = directory(b"sound");
    let file = disk.open(FILE).unwrap();
    file.write(0, b"repaired").unwrap();
    file.set_len(2).unwrap();
    file.sync().unwrap();
    assert!(file.read(0, &mut [0; 3]).is_err(), "past the end");
    drop((file, disk));
    assert_eq!(std::fs::read(folder.path().join(FILE)).unwrap(), b"sound");
}

#[test]
fn writing_nothing_changes_nothing() {
    let (folder, disk) = directory(b"sound");
    let file = disk.open(FILE).unwrap();
    file.write(100, b"").unwrap();
    assert_eq!(all(&*file), b"sound", "as of a file that is not held back");
    disk.land().unwrap();
    assert_eq!(std::fs::read(folder.path().join(FILE)).unwrap(), b"sound");
}

#[test]
fn a_file_is_locked_from_when_it_is_opened() {
    let (folder, disk) = directory(b"");
    let held = disk.open(FILE).unwrap();
    let another = DirectoryDisk::open(folder.path()).unwrap();
    assert_eq!(another.open(FILE).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    disk.land().unwrap();
    assert!(another.open(FILE).is_err(), "landing does not let go of it");
    drop(held);
    another.open(FILE).unwrap();
}

/// Notes what is done to its only file; the third operation may fail.
#[derive(Clone, Debug, Default)]
struct Recorder {
    done: Arc<Mutex<Vec<String>>>,
    third_fails: bool,
}

impl Recorder {
    fn note(&self, done: String) -> io::Result<()> {
        let mut noted = self.done.lock();
        if self.third_fails && noted.len() == 2 {
            return Err(io::Error::other("the disk is broken"));
        }
        noted.push(done);
        Ok(())
    }
}

impl Disk for Recorder {
    fn open(&self, _name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(self.clone()))
    }

    fn exists(&self, _name: &str) -> io::Result<bool> {
        Ok(true)
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        self.note("remove".into())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(vec![FILE.into()])
    }
}

impl DiskFile for Recorder {
    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn read(&self, _offset: u64, _out: &mut [u8]) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.note(format!("write {offset} {data:?}"))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.note(format!("len {len}"))
    }

    fn sync(&self) -> io::Result<()> {
        self.note("sync".into())
    }
}

fn write_twice(disk: &DeferredDisk) -> Arc<dyn DiskFile> {
    let file = disk.open(FILE).unwrap();
    file.set_len(2).unwrap();
    file.write(0, &[1]).unwrap();
    file.sync().unwrap();
    file.write(1, &[2]).unwrap();
    file.sync().unwrap();
    file
}

#[test]
fn syncs_stay_between_the_writes_that_they_were_between() {
    let recorder = Recorder::default();
    let disk = DeferredDisk::over(Arc::new(recorder.clone()));
    let _file = write_twice(&disk);
    assert!(recorder.done.lock().is_empty());
    disk.land().unwrap();
    let expected = ["len 2", "write 0 [1]", "sync", "write 1 [2]", "sync"];
    assert_eq!(*recorder.done.lock(), expected);
}

#[test]
fn a_file_that_cannot_land_takes_no_more_writes() {
    let recorder = Recorder { third_fails: true, ..Recorder::default() };
    let disk = DeferredDisk::over(Arc::new(recorder.clone()));
    let file = write_twice(&disk);
    assert!(disk.land().is_err());
    assert!(file.write(0, &[3]).is_err());
    assert!(file.sync().is_err());
    assert_eq!(*recorder.done.lock(), ["len 2", "write 0 [1]"]);
}
