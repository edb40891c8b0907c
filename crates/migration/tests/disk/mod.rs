//! A disk in memory that loses unsynced writes at a crash, and fails on demand.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_types::disk::{Disk, DiskFile};
use quorate_types::env::{Rng, SplitMix};

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::SetLen(len) => bytes.resize(*len as usize, 0),
        Change::Write(offset, data) => {
            let (start, end) = (*offset as usize, *offset as usize + data.len());
            bytes.resize(bytes.len().max(end), 0);
            bytes[start..end].copy_from_slice(data);
        }
    }
}

#[derive(Debug, Default)]
struct Content {
    current: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    syncs: u64,
    syncs_until_failure: Option<u64>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryDisk {
    files: Arc<Mutex<BTreeMap<String, Arc<MemoryFile>>>>,
}

#[derive(Debug, Default)]
pub(crate) struct MemoryFile(Mutex<Content>);

impl MemoryDisk {
    /// What a machine finds after losing power now: all that was synced, and
    /// of the rest whatever `seed` left.
    pub(crate) fn after_crash(&self, seed: u64) -> Self {
        let mut chance = SplitMix::new(seed);
        let survive = |file: &Arc<MemoryFile>| {
            let content = file.0.lock();
            let mut bytes = content.durable.clone();
            for change in content.unsynced.iter().filter(|_| chance.below(2) == 0) {
                apply(&mut bytes, change);
            }
            MemoryFile(Mutex::new(Content {
                current: bytes.clone(),
                durable: bytes,
                ..Content::default()
            }))
        };
        let mut survive = survive;
        let files = self.files.lock();
        let files = files.iter().map(|(name, file)| (name.clone(), Arc::new(survive(file))));
        Self { files: Arc::new(Mutex::new(files.collect())) }
    }

    fn file(&self, name: &str) -> Arc<MemoryFile> {
        Arc::clone(self.files.lock().entry(name.to_owned()).or_default())
    }

    pub(crate) fn syncs(&self, name: &str) -> u64 {
        self.file(name).0.lock().syncs
    }

    pub(crate) fn fail_after_syncs(&self, name: &str, syncs: u64) {
        self.file(name).0.lock().syncs_until_failure = Some(syncs);
    }

    /// Changes the file as damage would.
    pub(crate) fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let file = self.file(name);
        let mut content = file.0.lock();
        change(&mut content.current);
        content.durable = content.current.clone();
    }
}

impl Disk for MemoryDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(name))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.files.lock().contains_key(name))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.lock().remove(name);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.lock().keys().cloned().collect())
    }
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let content = self.0.lock();
        let found = content.current.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut content = self.0.lock();
        let change = Change::Write(offset, data.to_vec());
        apply(&mut content.current, &change);
        content.unsynced.push(change);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut content = self.0.lock();
        apply(&mut content.current, &Change::SetLen(len));
        content.unsynced.push(Change::SetLen(len));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut content = self.0.lock();
        content.syncs += 1;
        if let Some(left) = &mut content.syncs_until_failure {
            *left = left.checked_sub(1).ok_or_else(|| io::Error::other("injected"))?;
        }
        content.durable = content.current.clone();
        content.unsynced.clear();
        Ok(())
    }
}
