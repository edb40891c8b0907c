//! From value to bytes and back: zerompk with the checks it leaves out.

use bytes::Bytes;
use zerompk::{FromMessagePack, Read, SliceReader, ToMessagePack};

/// Why bytes were not the value they should have been.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The bytes are not an encoding of the expected type.
    #[error("malformed encoding: {0}")]
    Malformed(zerompk::Error),
    /// A complete value was followed by more bytes.
    #[error("bytes follow the end of the value")]
    Trailing,
    /// The row's checksum does not match its key and payload.
    #[error("checksum mismatch: stored {stored:08x}, computed {computed:08x}")]
    Checksum {
        /// The checksum in the row.
        stored: u32,
        /// The checksum of what the row holds.
        computed: u32,
    },
    /// The row is shorter than its header.
    #[error("row of {0} bytes is shorter than its header")]
    Truncated(usize),
    /// The row was written by a newer format than this build knows.
    #[error("row format {found} is newer than {known}, the newest this build knows")]
    Newer {
        /// The version in the row.
        found: u8,
        /// The newest version this build can read.
        known: u8,
    },
    /// No build has ever written this format: what was taken for a version is
    /// none. Zeroes are what a hole in a file reads as.
    #[error("0 is no format")]
    Zero,
}

/// Encodes a value.
///
/// Encoding into memory cannot fail for the types of this workspace: none of
/// their `write` implementations produces an error and a `Vec` takes any
/// number of bytes. Should it fail all the same, the process stops here
/// instead of writing a truncated value.
#[must_use]
pub fn encode<T: ToMessagePack>(value: &T) -> Bytes {
    match zerompk::to_msgpack_vec(value) {
        Ok(bytes) => Bytes::from(bytes),
        Err(error) => panic!("invariant: encoding into memory succeeds, got {error}"),
    }
}

/// Decodes exactly one value that fills `bytes` to its end.
///
/// # Errors
/// [`CodecError::Malformed`] or [`CodecError::Trailing`]. Never panics and
/// never allocates more than a small multiple of `bytes.len()`.
pub fn decode<'a, T: FromMessagePack<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    let mut reader = SliceReader::new(bytes);
    let value = T::read(&mut reader).map_err(CodecError::Malformed)?;
    match reader.peek_marker() {
        Err(_) => Ok(value),
        Ok(_) => Err(CodecError::Trailing),
    }
}

/// Bytes of [`seal_row`]'s header: version and crc32c.
pub const ROW_HEADER_BYTES: usize = 5;

/// Wraps a payload for storage under `key`: `[version u8][crc32c u32 BE][payload]`.
/// The checksum covers key, version and payload, so that a row that a damaged
/// page returns under another key is found out.
#[must_use]
pub fn seal_row(key: &[u8], version: u8, payload: &[u8]) -> Bytes {
    let mut row = Vec::with_capacity(ROW_HEADER_BYTES + payload.len());
    row.push(version);
    row.extend_from_slice(&row_checksum(key, version, payload).to_be_bytes());
    row.extend_from_slice(payload);
    Bytes::from(row)
}

/// Verifies a row of [`seal_row`] and returns its version and payload.
///
/// # Errors
/// [`CodecError::Truncated`], [`CodecError::Checksum`] or those of
/// [`check_format`].
pub fn open_row<'a>(key: &[u8], newest: u8, row: &'a [u8]) -> Result<(u8, &'a [u8]), CodecError> {
    let (&[version, c0, c1, c2, c3], payload) =
        row.split_first_chunk().ok_or(CodecError::Truncated(row.len()))?;
    let stored = u32::from_be_bytes([c0, c1, c2, c3]);
    let computed = row_checksum(key, version, payload);
    if stored != computed {
        return Err(CodecError::Checksum { stored, computed });
    }
    check_format(version, newest)?;
    Ok((version, payload))
}

/// Whether a build whose newest format is `newest` can read format `found`.
/// Formats count from one.
///
/// # Errors
/// [`CodecError::Newer`] or [`CodecError::Zero`].
pub const fn check_format(found: u8, newest: u8) -> Result<(), CodecError> {
    if found > newest {
        return Err(CodecError::Newer { found, known: newest });
    }
    if found == 0 {
        return Err(CodecError::Zero);
    }
    Ok(())
}

fn row_checksum(key: &[u8], version: u8, payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c(key);
    let crc = crc32c::crc32c_append(crc, &[version]);
    crc32c::crc32c_append(crc, payload)
}
