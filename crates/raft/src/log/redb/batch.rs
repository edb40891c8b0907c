//! A **batch row** holds entries that arrived together, of any groups. Its key
//! is a sequence number, its payload (inside [`seal_row`]'s header) a series of
//! [runs](super::super::runs), each entry
//!
//! ```text
//! entry = [term u64][len u32][payload len bytes]
//! ```

use bytes::{Buf, BufMut, Bytes};
use quorate_types::codec::{CodecError, ROW_HEADER_BYTES, open_row, seal_row};

use super::super::LogPosition;
use super::super::medium::NewEntry;
use super::super::memory::Found;
use super::super::rows::Location;
use super::super::runs::{self, Runs};

/// The newest batch row format this build writes and reads.
const BATCH_ROW_VERSION: u8 = 1;

const ENTRY_HEADER_BYTES: usize = 12;

/// Collects entries into one batch row.
#[derive(Default)]
pub(in crate::log) struct BatchBuilder(Runs);

impl BatchBuilder {
    pub(in crate::log) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds an entry and returns the offset and length of its payload.
    pub(in crate::log) fn push(&mut self, entry: &NewEntry) -> (u32, u32) {
        // Rows are cut far below 4 GiB and a payload is bounded by the queue.
        let len = u32::try_from(entry.payload.len()).unwrap_or(u32::MAX);
        let bytes = self.0.begin(entry);
        bytes.put_u64(entry.position.term);
        bytes.put_u32(len);
        let offset = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        bytes.put_slice(&entry.payload);
        (offset, len)
    }

    pub(in crate::log) fn seal(self, sequence: u64) -> Bytes {
        seal_row(&sequence.to_be_bytes(), BATCH_ROW_VERSION, &self.0.finish())
    }
}

/// Verifies a batch row and returns its payload.
pub(in crate::log) fn open_batch(sequence: u64, row: &[u8]) -> Result<Bytes, CodecError> {
    let (_, payload) = open_row(&sequence.to_be_bytes(), BATCH_ROW_VERSION, row)?;
    debug_assert_eq!(row.len() - payload.len(), ROW_HEADER_BYTES);
    Ok(Bytes::copy_from_slice(payload))
}

/// Lists the entries of an opened batch row; `None` when its structure is
/// broken, which a row that passed its checksum never is.
pub(in crate::log) fn scan_batch(sequence: u64, payload: &[u8]) -> Option<Vec<Found>> {
    let mut found = Vec::new();
    runs::scan(payload, |next, rest| {
        if rest.len() < ENTRY_HEADER_BYTES {
            return None;
        }
        let term = rest.get_u64();
        let len = rest.get_u32();
        let offset = u32::try_from(payload.len() - rest.len()).ok()?;
        *rest = rest.get(len as usize..)?;
        found.push(Found {
            group: next.group,
            replica: next.replica,
            position: LogPosition { term, index: next.index },
            location: Location { sequence, offset, len },
        });
        Some(())
    })?;
    Some(found)
}
