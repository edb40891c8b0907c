//! The stream form of a snapshot.
//!
//! A chunk is a sealed row (`quorate_types::codec::seal_row`) under its own
//! sequence number, so that neither a flipped bit nor a chunk in another
//! chunk's place goes unnoticed. System rows come first, then data rows, both
//! in key order. Every chunk repeats index and range, so that chunks of two
//! snapshots do not mix.

use bytes::Bytes;
use quorate_types::codec::{self, CodecError};
use quorate_types::{Blob, KeyRange, Seq};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::port::{KEY_BYTES_MAX, Space, VALUE_BYTES_MAX};

/// The largest chunk, and so the most a receiver has to hold of one. Below the
/// payload limit of a frame, above the largest row.
pub const CHUNK_BYTES_MAX: usize = 6 << 20;

const CHUNK_VERSION: u8 = 1;

/// Why a snapshot chunk was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// More than [`CHUNK_BYTES_MAX`] bytes.
    #[error("chunk of {0} bytes is too large")]
    TooLarge(usize),
    /// The checksum does not match: the chunk is damaged, or it is not the
    /// next one.
    #[error("chunk is damaged or not number {expected}")]
    Damaged {
        /// The sequence number that was due.
        expected: u64,
    },
    /// The chunk was written by a newer release.
    #[error("chunk format {0} is newer than this build knows")]
    Newer(u8),
    /// The content contradicts the chunks before it, or itself.
    #[error("chunk {sequence}: {problem}")]
    Inconsistent {
        /// The chunk's number.
        sequence: u64,
        /// The contradiction.
        problem: &'static str,
    },
}

#[derive(ToMessagePack, FromMessagePack)]
struct Row {
    key: Blob,
    value: Blob,
}

#[derive(ToMessagePack, FromMessagePack)]
struct Chunk {
    index: u64,
    range: KeyRange,
    is_data: bool,
    is_last: bool,
    rows: Seq<Row>,
}

/// What a chunk says of the snapshot it is part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) index: u64,
    pub(crate) range: KeyRange,
}

/// Writes the chunk number `sequence`.
pub(crate) fn encode(
    header: &Header,
    sequence: u64,
    space: Space,
    is_last: bool,
    rows: Vec<(Blob, Blob)>,
) -> Bytes {
    let rows = rows.into_iter().map(|(key, value)| Row { key, value }).collect();
    let is_data = space == Space::Data;
    let chunk = Chunk { index: header.index, range: header.range.clone(), is_data, is_last, rows };
    codec::seal_row(&sequence.to_be_bytes(), CHUNK_VERSION, &codec::encode(&chunk))
}

/// Verifies chunks one after the other.
#[derive(Default)]
pub(crate) struct Receiver {
    header: Option<Header>,
    sequence: u64,
    last: Option<(bool, Blob)>,
    in_data: bool,
    complete: bool,
    spoilt: bool,
}

impl Receiver {
    /// The snapshot being received; `None` before the first chunk.
    pub(crate) fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// Whether the last chunk has been accepted and none was refused.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete && !self.spoilt
    }

    /// The rows of the next chunk and where they belong.
    pub(crate) fn accept(
        &mut self,
        bytes: &[u8],
    ) -> Result<(Space, Vec<(Blob, Blob)>), ChunkError> {
        let accepted = self.verify(bytes);
        self.spoilt |= accepted.is_err();
        accepted
    }

    fn verify(&mut self, bytes: &[u8]) -> Result<(Space, Vec<(Blob, Blob)>), ChunkError> {
        let sequence = self.sequence;
        let inconsistent = |problem| ChunkError::Inconsistent { sequence, problem };
        if self.spoilt {
            return Err(inconsistent("an earlier chunk was refused"));
        }
        if self.complete {
            return Err(inconsistent("the snapshot was complete"));
        }
        let chunk = decode(sequence, bytes)?;
        let header = Header { index: chunk.index, range: chunk.range };
        if self.header.as_ref().is_some_and(|first| *first != header) {
            return Err(inconsistent("it belongs to another snapshot"));
        }
        if self.in_data && !chunk.is_data {
            return Err(inconsistent("system rows follow data rows"));
        }
        for row in &chunk.rows {
            if chunk.is_data && !header.range.contains(&row.key) {
                return Err(inconsistent("a row is outside of the range"));
            }
            if row.key.len() > KEY_BYTES_MAX || row.value.len() > VALUE_BYTES_MAX {
                return Err(inconsistent("a row is too large"));
            }
            let place = (chunk.is_data, row.key.clone());
            if self.last.as_ref().is_some_and(|last| *last >= place) {
                return Err(inconsistent("rows are out of order"));
            }
            self.last = Some(place);
        }
        self.header = Some(header);
        self.in_data = chunk.is_data;
        self.complete = chunk.is_last;
        self.sequence += 1;
        let space = if chunk.is_data { Space::Data } else { Space::System };
        Ok((space, chunk.rows.into_iter().map(|row| (row.key, row.value)).collect()))
    }
}

fn decode(sequence: u64, bytes: &[u8]) -> Result<Chunk, ChunkError> {
    if bytes.len() > CHUNK_BYTES_MAX {
        return Err(ChunkError::TooLarge(bytes.len()));
    }
    let damaged = ChunkError::Damaged { expected: sequence };
    let payload = match codec::open_row(&sequence.to_be_bytes(), CHUNK_VERSION, bytes) {
        Ok((_, payload)) => payload,
        Err(CodecError::Newer { found, .. }) => return Err(ChunkError::Newer(found)),
        Err(_) => return Err(damaged),
    };
    codec::decode(payload).map_err(|_| damaged)
}
