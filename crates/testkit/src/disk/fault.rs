//! What may go wrong while power lasts.

/// How a failing sync fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncFault {
    /// It and every later one report an error and make nothing durable.
    Permanent,
    /// It alone reports an error, and what it should have made durable never
    /// will be, although later syncs succeed: what Linux does with dirty pages
    /// whose write-back failed.
    Once,
    /// It and every later one report success and make nothing durable. No
    /// store survives this; a test that does not notice proves nothing.
    Lie,
}

/// The faults of a disk. Ordinals are those of [`super::DiskCounters`]: the
/// first operation of a kind in the disk's whole life is number 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Only this file suffers; every file when `None`.
    pub file: Option<String>,
    /// This write and every later one fail with EIO, after a part of it was
    /// written.
    pub write_errors_from: Option<u64>,
    /// This read fails with EIO, once.
    pub read_error_at: Option<u64>,
    /// Writes that would make all files together longer than this fail with
    /// ENOSPC, after what fitted was written.
    pub capacity_bytes: Option<u64>,
    /// From which sync on, and how, syncs fail.
    pub sync: Option<(u64, SyncFault)>,
    /// One in so many reads returns one flipped bit; never when zero.
    pub flip_one_read_in: u64,
}

impl Faults {
    pub(super) fn concern(&self, name: &str) -> bool {
        self.file.as_deref().is_none_or(|file| file == name)
    }
}
