//! What may go wrong while power lasts.

use std::collections::BTreeMap;

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

/// The faults of a disk, or of one file. Ordinals are those of
/// [`super::DiskCounters`]: the first operation of a kind in the disk's whole
/// life is number 1, so that *from 1* means from now on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Only this file suffers; every file when `None`. Means nothing in
    /// [`super::CrashDisk::set_file_faults`], where the file is named.
    pub file: Option<String>,
    /// This write and every later one fail with EIO, after a part of it was
    /// written.
    pub write_errors_from: Option<u64>,
    /// This read fails with EIO, once.
    pub read_error_at: Option<u64>,
    /// This read and every later one fail with EIO.
    pub read_errors_from: Option<u64>,
    /// Writes that would make all files together longer than this fail with
    /// ENOSPC, after what fitted was written.
    pub capacity_bytes: Option<u64>,
    /// This write and every later one fail with ENOSPC, after a part of it was
    /// written: where what is written anew takes room of its own, any may.
    pub full_from: Option<u64>,
    /// From which sync on, and how, syncs fail.
    pub sync: Option<(u64, SyncFault)>,
    /// One in so many reads returns one flipped bit; never when zero.
    pub flip_one_read_in: u64,
}

/// Which file suffers what now.
#[derive(Debug, Default)]
pub(super) struct Ills {
    general: Faults,
    by_file: BTreeMap<String, Faults>,
}

impl Ills {
    pub(super) fn set_general(&mut self, faults: Faults) {
        self.general = faults;
    }

    pub(super) fn set_of(&mut self, name: &str, faults: Faults) {
        let faults = Faults { file: None, ..faults };
        if faults == Faults::default() {
            self.by_file.remove(name);
        } else {
            self.by_file.insert(name.to_owned(), faults);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What a file suffers: its own faults, or else the general ones.
    pub(super) fn of(&self, name: &str) -> Option<&Faults> {
        let concerned = |faults: &&Faults| faults.file.as_deref().is_none_or(|it| it == name);
        self.by_file.get(name).or_else(|| Some(&self.general).filter(concerned))
    }

    /// Ends the failure of syncs from which a file suffers.
    pub(super) fn end_sync_fault_of(&mut self, name: &str) {
        match self.by_file.get(name).cloned() {
            Some(own) => self.set_of(name, Faults { sync: None, ..own }),
            None => self.general.sync = None,
        }
    }
}
