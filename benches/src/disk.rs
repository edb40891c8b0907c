//! What the disk allows: writing and syncing, with nothing around it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// A file to which records are written one after another, each synced before
/// the next: the least that any durable log does.
#[derive(Debug)]
pub struct RawLog {
    file: File,
    offset: u64,
    /// Where writing begins again at the start; never, for a log that grows.
    wraps_at: Option<u64>,
}

impl RawLog {
    /// A new file that grows with every write. Each sync then also writes the
    /// file's new length, which on most systems makes it slower.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn growing(directory: &Path, name: &str) -> io::Result<Self> {
        let file =
            File::options().write(true).create(true).truncate(true).open(directory.join(name))?;
        Ok(Self { file, offset: 0, wraps_at: None })
    }

    /// A file of zeroes, written over from its start again and again: the
    /// fastest that a log through the page cache can be.
    ///
    /// # Errors
    /// When the file cannot be made or filled.
    pub fn prefilled(directory: &Path, name: &str, bytes: u64) -> io::Result<Self> {
        const FILL_BYTES: u64 = 1 << 20;
        let log = Self::growing(directory, name)?;
        let zeroes = vec![0; usize::try_from(FILL_BYTES).unwrap_or_default()];
        let mut filled = 0;
        while filled < bytes {
            log.file.write_all_at(&zeroes, filled)?;
            filled += FILL_BYTES;
        }
        log.file.sync_all()?;
        Ok(Self { wraps_at: Some(filled), ..log })
    }

    /// Writes a record and waits until it is on disk (fdatasync).
    ///
    /// # Errors
    /// The disk's.
    pub fn append(&mut self, record: &[u8]) -> io::Result<()> {
        let end = self.offset + record.len() as u64;
        if self.wraps_at.is_some_and(|bytes| end > bytes) {
            self.offset = 0;
        }
        self.file.write_all_at(record, self.offset)?;
        self.offset += record.len() as u64;
        self.file.sync_data()
    }
}

/// How fast a disk syncs appends.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct SyncRate {
    /// Files that grow side by side, each with a thread of its own.
    pub files: usize,
    /// Syncs per second of all files together.
    pub per_second: f64,
    /// How long half of the appends take at most, in microseconds.
    pub p50_micros: u64,
    /// So for 99 of 100.
    pub p99_micros: u64,
}

/// Appends 4 KiB and syncs, over and over, to `files` files at once.
///
/// # Errors
/// The disk's.
pub fn sync_rate(directory: &Path, files: usize, duration: Duration) -> io::Result<SyncRate> {
    const RECORD_BYTES: usize = 4 << 10;
    let append = |number: usize| -> io::Result<Vec<u64>> {
        let name = format!("sync-rate-{number}");
        let mut log = RawLog::growing(directory, &name)?;
        let record = [0x5a; RECORD_BYTES];
        let (begin, mut micros) = (Instant::now(), Vec::new());
        while begin.elapsed() < duration {
            let start = Instant::now();
            log.append(&record)?;
            micros.push(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
        std::fs::remove_file(directory.join(name))?;
        Ok(micros)
    };
    let begin = Instant::now();
    let taken: io::Result<Vec<Vec<u64>>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..files).map(|number| scope.spawn(move || append(number))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, io::Result<Vec<u64>>>| {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("a writer panicked")))
        };
        threads.into_iter().map(join).collect()
    });
    let elapsed = begin.elapsed().as_secs_f64();
    let mut micros = taken?.concat();
    micros.sort_unstable();
    let at = |percent: usize| micros.get(micros.len() * percent / 100).copied().unwrap_or(0);
    Ok(SyncRate {
        files,
        per_second: micros.len() as f64 / elapsed,
        p50_micros: at(50),
        p99_micros: at(99),
    })
}

#[cfg(test)]
mod tests;
