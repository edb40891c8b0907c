//! The disk as a port, so that crashes, torn writes and failing syncs can be
//! put under every store (law 5 is only testable this way).

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod creation;
mod deferred;

pub use creation::restart_creation;
pub use deferred::DeferredDisk;

/// A directory of files.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Opens `name` for reading and writing, creating it empty when missing.
    /// A created file survives a crash once this returns. The handle holds an
    /// exclusive lock until it is dropped.
    ///
    /// # Errors
    /// `WouldBlock` when another process holds the file.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Whether `name` exists.
    ///
    /// # Errors
    /// When the directory cannot be read.
    fn exists(&self, name: &str) -> io::Result<bool>;

    /// Removes `name`, durably; no error when it is missing.
    ///
    /// # Errors
    /// When the file cannot be removed.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names in the directory, sorted.
    ///
    /// # Errors
    /// When the directory cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// How many bytes more this process may store there, where it is known.
    ///
    /// # Errors
    /// When the system does not tell.
    fn available_bytes(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }
}

/// An open file. What was written is durable once a later [`DiskFile::sync`]
/// has returned `Ok`, and not before.
pub trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// The file's length in bytes.
    ///
    /// # Errors
    /// When the file's metadata cannot be read.
    fn len(&self) -> io::Result<u64>;

    /// Fills `out` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file is shorter.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data` at `offset`. What that leaves out before it reads as
    /// zeroes; writing nothing changes nothing.
    ///
    /// # Errors
    /// When the write failed; what is on disk there is then unknown.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Cuts or extends (with zeroes) the file.
    ///
    /// # Errors
    /// When the length could not be set.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes everything written so far durable (fdatasync).
    ///
    /// # Errors
    /// Then nothing since the last success may be assumed durable, and the
    /// caller must stop: a later success proves nothing about earlier writes.
    fn sync(&self) -> io::Result<()>;

    /// Whether the file is empty.
    ///
    /// # Errors
    /// As [`DiskFile::len`].
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }
}

/// A directory of the machine's file system.
#[derive(Debug, Clone)]
pub struct DirectoryDisk {
    directory: PathBuf,
}

impl DirectoryDisk {
    /// Opens `directory`, creating it (and its parents) when missing.
    ///
    /// # Errors
    /// When the directory cannot be created.
    pub fn open(directory: impl AsRef<Path>) -> io::Result<Self> {
        let directory = directory.as_ref().to_path_buf();
        let missing: Vec<&Path> =
            directory.ancestors().take_while(|above| !above.exists()).collect();
        fs::create_dir_all(&directory)?;
        // A directory is durable once the one it stands in is.
        for created in missing {
            let above = created.parent().filter(|above| !above.as_os_str().is_empty());
            fs::File::open(above.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        Ok(Self { directory })
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn sync_directory(&self) -> io::Result<()> {
        fs::File::open(&self.directory)?.sync_all()
    }
}

impl Disk for DirectoryDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.directory.join(name);
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        file.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => io::Error::new(
                io::ErrorKind::WouldBlock,
                format!("{} is in use by another process", path.display()),
            ),
            fs::TryLockError::Error(error) => error,
        })?;
        // Also for a file that was there: who created it may have died before
        // this line.
        self.sync_directory()?;
        Ok(Arc::new(OpenFile { file }))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.directory.join(name).try_exists()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.directory.join(name)) {
            Ok(()) => self.sync_directory(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn available_bytes(&self) -> io::Result<Option<u64>> {
        let system = rustix::fs::statvfs(&self.directory)?;
        Ok(Some(system.f_bavail.saturating_mul(system.f_frsize)))
    }
}

#[derive(Debug)]
struct OpenFile {
    file: fs::File,
}

impl DiskFile for OpenFile {
    fn len(&self) -> io::Result<u64> {
        self.file.metadata().map(|metadata| metadata.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
