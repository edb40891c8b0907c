//! Versioned bytes: `[format u8][kind u8][zerompk]`.
//!
//! Integrity is the frame's business (its checksum covers these bytes); what
//! is checked here is meaning. Reading never reserves by an announced length
//! and never accepts bytes after the end.

use bytes::Bytes;
use quorate_types::codec;
use zerompk::{FromMessagePack, ToMessagePack};

use crate::CrdtError;

const FORMAT_VERSION: u8 = 1;

/// Bytes before the zerompk value.
pub(crate) const HEADER_BYTES: usize = 2;

/// What the bytes hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Vector = 1,
    Summary = 2,
    Delta = 3,
    Reset = 4,
    Allocation = 5,
    Load = 6,
}

const KINDS: [Kind; 6] =
    [Kind::Vector, Kind::Summary, Kind::Delta, Kind::Reset, Kind::Allocation, Kind::Load];

pub(crate) fn seal<T: ToMessagePack>(kind: Kind, value: &T) -> Bytes {
    let payload = codec::encode(value);
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend_from_slice(&[FORMAT_VERSION, kind as u8]);
    bytes.extend_from_slice(&payload);
    Bytes::from(bytes)
}

/// Tells the kind and hands out the payload.
pub(crate) fn open(bytes: &[u8]) -> Result<(Kind, &[u8]), CrdtError> {
    let (&[format, kind], payload) =
        bytes.split_first_chunk().ok_or(CrdtError::Malformed("shorter than its header"))?;
    if format != FORMAT_VERSION {
        return Err(CrdtError::UnknownFormat { found: format, known: FORMAT_VERSION });
    }
    let kind = KINDS
        .into_iter()
        .find(|known| *known as u8 == kind)
        .ok_or(CrdtError::Malformed("unknown kind"))?;
    Ok((kind, payload))
}

pub(crate) fn open_as<'a, T: FromMessagePack<'a>>(
    expected: Kind,
    bytes: &'a [u8],
) -> Result<T, CrdtError> {
    match open(bytes)? {
        (kind, payload) if kind == expected => Ok(codec::decode(payload)?),
        _ => Err(CrdtError::Malformed("another kind was expected")),
    }
}
