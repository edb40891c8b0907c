//! How long a log takes to open whose process was killed.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Instant;

use quorate_raft::LogMedium;

use crate::Outcome;
use crate::drive::PAYLOAD;
use crate::options::Options;
use crate::stores::Ours;

/// Groups of the log.
const GROUPS: u64 = 64;
/// Entries of each that are appended at a time.
const APPENDED: u64 = 16;

/// The seconds of each round. Opening repairs, so each opens another copy of what was
/// left behind.
pub(crate) fn run(medium: LogMedium, options: &Options, scratch: &Path) -> Outcome<Vec<f64>> {
    let (left, opened) = (scratch.join("left"), scratch.join("opened"));
    leave(medium, options.open_mib, scratch, &left)?;
    let mut seconds = Vec::new();
    for _ in 0..options.rounds {
        copy(&left, &opened)?;
        let begin = Instant::now();
        let log = Ours::open(&opened, medium, GROUPS)?;
        seconds.push(begin.elapsed().as_secs_f64());
        log.close()?;
        fs::remove_dir_all(&opened)?;
    }
    fs::remove_dir_all(&left)?;
    Ok(seconds)
}

/// Fills a log, and puts aside what its process would leave if it were killed now: the
/// files as they are while it is open. What it has written is the system's to keep, and
/// closing it would write more.
fn leave(medium: LogMedium, mib: u64, scratch: &Path, left: &Path) -> Outcome {
    let directory = scratch.join("filled");
    fs::create_dir(&directory)?;
    let mut log = Ours::open(&directory, medium, GROUPS)?;
    let round_bytes = GROUPS * APPENDED * PAYLOAD.len() as u64;
    for _ in 0..(mib << 20) / round_bytes {
        log.append_all(APPENDED)?;
    }
    copy(&directory, left)?;
    log.close()?;
    Ok(fs::remove_dir_all(&directory)?)
}

/// Copies the files of a directory into a new one, and waits until they are on disk, as
/// the log's were: whoever opens them is not to wait for it.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for file in fs::read_dir(from)? {
        let file = file?;
        let copied = to.join(file.file_name());
        fs::copy(file.path(), &copied)?;
        File::open(&copied)?.sync_all()?;
    }
    File::open(to)?.sync_all()
}
