//! What a power cut leaves of a database that was being created.

use std::io;
use std::ops::Range;

use super::DiskFile;

/// Empties a file that redb had begun to create when power failed, so that it is
/// created anew. For whoever opens a database of redb's on a [`DiskFile`].
///
/// redb creates a file in two steps, and cannot open one that a crash left
/// between them: no magic number, at most a header, zeroes. Nothing was ever
/// stored in such a file. Any other byte beyond the header makes it someone's
/// damaged data, which is left as it is, to be reported.
///
/// A file that held data and was zeroed as a whole, its owner's mark included,
/// cannot be told from one whose creation was cut short. So each file that is
/// begun anew is an error in the log, under the `name` that the disk knows it by.
///
/// # Errors
/// When the file cannot be read or emptied.
pub fn restart_creation(name: &str, file: &dyn DiskFile) -> io::Result<()> {
    const MAGIC_BYTES: u64 = 9;
    const HEADER_BYTES: u64 = 4096;

    let len = file.len()?;
    let is_begun = is_zero(file, 0..MAGIC_BYTES.min(len))?;
    if len > 0 && is_begun && is_zero(file, HEADER_BYTES..len)? {
        file.set_len(0)?;
        file.sync()?;
        tracing::error!(
            file = name,
            len_bytes = len,
            "the file held no data, as if its creation had been cut short: it was emptied and is \
             begun anew; if this node has stored data before, that data is lost"
        );
    }
    Ok(())
}

fn is_zero(file: &dyn DiskFile, mut bytes: Range<u64>) -> io::Result<bool> {
    const STEP_BYTES: u64 = 64 << 10;

    while bytes.start < bytes.end {
        let step_bytes = STEP_BYTES.min(bytes.end - bytes.start);
        let mut step = vec![0; usize::try_from(step_bytes).unwrap_or_default()];
        file.read(bytes.start, &mut step)?;
        if step.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        bytes.start += step_bytes;
    }
    Ok(true)
}
