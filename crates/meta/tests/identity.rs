//! The identity of a directory over a disk that fails, forgets and lies.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::io;
use std::sync::{Arc, Mutex};

use quorate_meta::{IdentityError, IdentityFile};
use quorate_types::disk::{Disk, DiskFile};
use quorate_types::hello::Protocol;
use quorate_types::{ClusterId, NodeId};

const STORES: [&str; 2] = ["log", "engine"];

/// A disk of one file whose syncs can be made to fail.
#[derive(Debug, Clone, Default)]
struct OneFile(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    syncs_fail: bool,
    has_stores: bool,
}

impl OneFile {
    fn edit(&self, edit: impl FnOnce(&mut Content)) {
        edit(&mut self.0.lock().unwrap());
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().bytes.clone()
    }
}

impl Disk for OneFile {
    fn open(&self, _name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(self.clone()))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(name == STORES[1] && self.0.lock().unwrap().has_stores)
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
}

impl DiskFile for OneFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let content = self.0.lock().unwrap();
        let from = usize::try_from(offset).unwrap();
        let stored = content.bytes.get(from..from + out.len());
        out.copy_from_slice(stored.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        assert_eq!(offset, 0);
        self.edit(|content| content.bytes = data.to_vec());
        Ok(())
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        if self.0.lock().unwrap().syncs_fail { Err(io::Error::other("no")) } else { Ok(()) }
    }
}

fn open(disk: &OneFile) -> IdentityFile {
    let opened = IdentityFile::open(disk, NodeId(1)).unwrap();
    opened.claim(disk, STORES).unwrap();
    opened.begin().unwrap();
    opened
}

#[test]
fn a_directory_is_written_when_it_is_claimed_and_when_its_stores_are_open() {
    let disk = OneFile::default();
    let turned_away = IdentityFile::open(&disk, NodeId(1)).unwrap();
    assert!(disk.bytes().is_empty(), "another node may still have it");
    assert!(!turned_away.owner().has_store);
    let first = IdentityFile::open(&disk, NodeId(1)).unwrap();
    first.claim(&disk, STORES).unwrap();
    let claimed = disk.bytes();
    assert!(!IdentityFile::open(&disk, NodeId(1)).unwrap().owner().has_store, "a crash here");
    first.begin().unwrap();
    let begun = disk.bytes();
    assert_ne!(begun, claimed);
    let second = IdentityFile::open(&disk, NodeId(1)).unwrap();
    second.claim(&disk, STORES).unwrap();
    assert_eq!(disk.bytes(), begun, "turned away: the life does not count");
    assert_eq!(second.owner().disk, first.owner().disk);
    assert!(second.owner().has_store);
}

#[test]
fn stores_without_an_identity_are_nobody_s() {
    let disk = OneFile::default();
    disk.edit(|content| {
        content.bytes = vec![0; 512];
        content.has_stores = true;
    });
    let zeroed = IdentityFile::open(&disk, NodeId(1)).unwrap();
    let lost = zeroed.claim(&disk, STORES);
    assert!(matches!(&lost, Err(IdentityError::Lost { store }) if store == "engine"), "{lost:?}");
    assert_eq!(disk.bytes(), [0; 512], "and nothing was written");
    disk.edit(|content| content.has_stores = false);
    zeroed.claim(&disk, STORES).unwrap();
}

#[test]
fn each_life_keeps_what_the_one_before_it_wrote() {
    let disk = OneFile::default();
    let first = open(&disk);
    assert_eq!((first.identity().incarnation, first.identity().cluster), (1, None));
    first.adopt(ClusterId(7)).unwrap();
    first.keep_clock(500).unwrap();
    let second = open(&disk).identity();
    assert_eq!(second.disk, first.identity().disk);
    assert_eq!(second.cluster, Some(ClusterId(7)));
    assert_eq!((second.incarnation, second.clock_millis), (2, 500));
}

#[test]
fn the_clock_s_mark_never_goes_back() {
    let file = open(&OneFile::default());
    file.keep_clock(500).unwrap();
    file.keep_clock(400).unwrap();
    assert_eq!(file.identity().clock_millis, 500);
}

#[test]
fn the_directory_of_another_node_is_refused_and_left_alone() {
    let disk = OneFile::default();
    open(&disk);
    let before = disk.bytes();
    let refused = IdentityFile::open(&disk, NodeId(2)).unwrap_err();
    let is_foreign =
        matches!(refused, IdentityError::Foreign { found: NodeId(1), asked: NodeId(2) });
    assert!(is_foreign, "{refused}");
    assert_eq!(disk.bytes(), before);
}

#[test]
fn a_damaged_identity_is_refused_wherever_the_damage_is() {
    let disk = OneFile::default();
    open(&disk);
    let sound = disk.bytes();
    let used_bytes = 4 + u32::from_be_bytes(*sound.first_chunk().unwrap()) as usize;
    for at in 0..used_bytes {
        disk.edit(|content| content.bytes[at] ^= 0x10);
        let refused = IdentityFile::open(&disk, NodeId(1)).unwrap_err();
        assert!(matches!(refused, IdentityError::Damaged(_)), "byte {at}: {refused}");
        disk.edit(|content| content.bytes.clone_from(&sound));
    }
}

#[test]
fn a_file_that_was_cut_short_is_refused() {
    let disk = OneFile::default();
    open(&disk);
    let sound = disk.bytes();
    for len in [4, 100, 511] {
        disk.edit(|content| content.bytes.truncate(len));
        let refused = IdentityFile::open(&disk, NodeId(1)).unwrap_err();
        assert!(matches!(refused, IdentityError::Damaged(_)), "{len}: {refused}");
        disk.edit(|content| content.bytes.clone_from(&sound));
    }
}

#[test]
fn a_file_that_never_got_its_first_bytes_is_new() {
    for len in [0, 100, 512] {
        let disk = OneFile::default();
        disk.edit(|content| content.bytes.resize(len, 0));
        assert_eq!(open(&disk).identity().incarnation, 1, "{len}");
    }
}

#[test]
fn what_could_not_be_synced_is_not_believed() {
    let disk = OneFile::default();
    let file = open(&disk);
    disk.edit(|content| content.syncs_fail = true);
    assert!(matches!(file.adopt(ClusterId(7)), Err(IdentityError::Disk(_))));
    assert_eq!(file.identity().cluster, None);
}

#[test]
fn a_node_introduces_itself_by_what_is_on_its_disk() {
    let disk = OneFile::default();
    let file = open(&disk);
    let before = file.identity().hello(Protocol::Mesh, "n1:7000".into());
    assert_eq!((before.node, before.disk), (NodeId(1), file.identity().disk));
    assert_eq!((before.cluster, before.incarnation), (None, 1));
    file.adopt(ClusterId(7)).unwrap();
    let after = file.identity().hello(Protocol::Mesh, "n1:7000".into());
    assert_eq!(after.cluster, Some(ClusterId(7)));
}

#[test]
fn a_mark_is_written_once_and_not_when_it_is_kept() {
    let disk = OneFile::default();
    let file = open(&disk);
    file.keep_clock(500).unwrap();
    disk.edit(|content| content.syncs_fail = true);
    file.keep_clock(500).unwrap();
    assert!(file.keep_clock(501).is_err());
    assert_eq!(file.identity().clock_millis, 500);
}
