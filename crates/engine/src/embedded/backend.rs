//! redb on the disk port, and redb's failures turned into errors.

use std::error::Error;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;
use quorate_types::contain;
use quorate_types::disk::DiskFile;
use redb::{BackendError, StorageBackend};

/// Why storage failed.
pub(super) type Cause = Arc<dyn Error + Send + Sync>;

/// Runs code that calls redb. A panic, as on many damaged pages, becomes a
/// failure like any other (law 8); the database must not be used after either.
pub(super) fn contain<T>(call: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, Cause> {
    match contain::contain(call) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Arc::new(error)),
        Err(panicked) => Err(Arc::new(panicked)),
    }
}

/// A file of the disk port as redb wants it. redb's `close` gives up the file
/// and with it the lock, even while old views are still held.
#[derive(Debug)]
pub(super) struct DiskBackend {
    file: RwLock<Option<Arc<dyn DiskFile>>>,
}

impl DiskBackend {
    pub(super) fn new(file: Arc<dyn DiskFile>) -> Self {
        Self { file: RwLock::new(Some(file)) }
    }

    fn with<T>(&self, call: impl FnOnce(&dyn DiskFile) -> io::Result<T>) -> io::Result<T> {
        match &*self.file.read() {
            Some(file) => call(&**file),
            None => Err(io::Error::other("the file is closed")),
        }
    }
}

impl StorageBackend for DiskBackend {
    fn len(&self) -> io::Result<u64> {
        self.with(DiskFile::len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|file| file.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|file| file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(DiskFile::sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|file| file.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        *self.file.write() = None;
        Ok(())
    }

    /// The handle of the disk port is an exclusive lock already.
    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}
