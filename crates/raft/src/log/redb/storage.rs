//! A [`DiskFile`] as redb's storage, so that a crash disk can lie under it.

use std::io;
use std::sync::Arc;

use quorate_types::disk::DiskFile;

#[derive(Debug)]
pub(in crate::log) struct FileStorage(pub(in crate::log) Arc<dyn DiskFile>);

impl ::redb::StorageBackend for FileStorage {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}
