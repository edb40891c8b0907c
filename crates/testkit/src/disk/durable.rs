//! What is durable on a disk, apart from the disk.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Everything that was durable on a disk at one moment
/// ([`CrashDisk::image`](super::CrashDisk::image)): its files and their bytes.
/// Clones share them. Any number of disks can begin with the same image; what
/// happens to them does not change it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DiskImage {
    files: Arc<BTreeMap<String, Vec<u8>>>,
}

impl DiskImage {
    pub(super) fn new(files: BTreeMap<String, Vec<u8>>) -> Self {
        Self { files: Arc::new(files) }
    }

    /// Its files and their bytes, by name.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }

    /// The bytes of one file.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(Vec::as_slice)
    }
}

impl fmt::Debug for DiskImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.files().map(|(name, bytes)| (name, bytes.len()))).finish()
    }
}
