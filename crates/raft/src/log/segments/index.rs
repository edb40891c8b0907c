//! What stands where in a full segment, in a file of its own beside it, so that a
//! log of many segments is opened without reading them. Integers are big endian:
//!
//! ```text
//! file  = [magic 8][format u8][0 u8 * 3][crc32c u32][number u64][end u32]
//!         [body len u32] body
//! body  = frame*; only those with entries
//! frame = [sixteenths from the frame before, or the file's begin][runs] run*
//! run   = [bytes from the entry before, or the frame's begin, to its payload]
//!         [group][replica][first index][count] entry*
//! entry = [term][payload len]
//! ```
//!
//! Numbers of the body have seven bits in each byte, the lowest first; all bytes
//! but the last have the eighth set. The checksum covers what stands behind it,
//! and begins with the segment's mark, number and salt: the index of a file's
//! earlier use says nothing of this one.
//!
//! **Invariant:** an index only repeats what its segment says. One that is
//! missing, torn or damaged costs time and nothing else, because the segment is
//! read instead; every entry that is read later has a checksum of its own.

use std::io;
use std::sync::Arc;

use bytes::{Buf, BufMut};
use quorate_types::disk::Disk;
use quorate_types::{GroupId, ReplicaId};

use super::super::memory::Found;
use super::super::rows::Location;
use super::super::runs::RUN_HEADER_BYTES;
use super::super::{LogError, LogPosition};
use super::format::{ENTRY_HEADER_BYTES, FRAME_ALIGN, Seed, place_of, sequence_of};
use super::{Segment, frames};

const MAGIC: &[u8; 8] = b"quoraIDX";
/// The newest format this build writes and reads. Others are as good as none.
const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 32;
/// Where the bytes begin that the checksum covers.
const COVERED_AT: usize = 16;

/// The index of the segment in a file.
pub(super) fn file_of(segment: &str) -> Arc<str> {
    format!("{segment}.index").into()
}

/// What came of writing an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    Written,
    /// The segment is not what was written, as when its file has got its next use.
    Damaged,
    /// It was not to go on.
    Closed,
}

/// Writes the index of a segment whose last commit ends at `end`.
pub(super) fn write(
    disk: &dyn Disk,
    segment: &Segment,
    end: u64,
    goes_on: impl Fn() -> bool,
) -> Result<Outcome, LogError> {
    let mut body = Body::default();
    let is_whole = frames::show_entries(segment, end, |frame| {
        body.add(frame);
        goes_on()
    })?;
    if !goes_on() {
        return Ok(Outcome::Closed);
    }
    if !is_whole {
        return Ok(Outcome::Damaged);
    }
    let bytes = body.finish(segment.seed, segment.header.number, end);
    let name = file_of(&segment.name);
    let write = || {
        let file = disk.open(&name)?;
        file.write(0, &bytes)?;
        file.sync()
    };
    write().map_err(|error| LogError::disk(&name, error))?;
    Ok(Outcome::Written)
}

/// The entries of a segment by its index; `None` if that cannot be used.
pub(super) fn read(disk: &dyn Disk, segment: &Segment, end: u64) -> Option<Vec<Found>> {
    let name = file_of(&segment.name);
    let read = || -> io::Result<Vec<u8>> {
        if !disk.exists(&name)? {
            return Ok(Vec::new());
        }
        let file = disk.open(&name)?;
        // It is smaller than what it says is in the segment.
        let len = file.len()?.min(2 * end);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        file.read(0, &mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => decode(segment.seed, segment.header.number, end, &bytes),
        Err(error) => {
            tracing::warn!(file = &*name, %error, "an index cannot be read: its segment is");
            None
        }
    }
}

/// Removes the index of a file that is going to be removed, if it has one.
pub(super) fn remove(disk: &dyn Disk, segment: &str) -> io::Result<()> {
    let name = file_of(segment);
    if disk.exists(&name)? { disk.remove(&name) } else { Ok(()) }
}

/// An index as it grows, frame by frame.
struct Body {
    /// Behind the room for the header.
    bytes: Vec<u8>,
    frame_at: u64,
}

impl Default for Body {
    fn default() -> Self {
        Self { bytes: vec![0; HEADER_BYTES], frame_at: 0 }
    }
}

impl Body {
    /// Adds the entries of the next frame.
    fn add(&mut self, frame: &[Found]) {
        let Some(first) = frame.first() else { return };
        let (_, offset) = place_of(first.location.sequence);
        let bytes = &mut self.bytes;
        put(bytes, (offset - self.frame_at) / FRAME_ALIGN);
        put(bytes, frame.chunk_by(continues).count() as u64);
        self.frame_at = offset;
        let mut before = 0;
        for run in frame.chunk_by(continues) {
            let Some(first) = run.first() else { continue };
            put(bytes, u64::from(first.location.offset) - before);
            put(bytes, first.group.0);
            put(bytes, first.replica.0);
            put(bytes, first.position.index);
            put(bytes, run.len() as u64);
            for entry in run {
                put(bytes, entry.position.term);
                put(bytes, u64::from(entry.location.len));
                before = end_of(entry.location);
            }
        }
    }

    fn finish(self, seed: Seed, number: u64, end: u64) -> Vec<u8> {
        let mut bytes = self.bytes;
        let body_len = u32::try_from(bytes.len() - HEADER_BYTES).unwrap_or(u32::MAX);
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.put_slice(MAGIC);
        header.put_u8(FORMAT);
        header.put_bytes(0, 3);
        header.put_u32(0);
        header.put_u64(number);
        header.put_u32(u32::try_from(end).unwrap_or(u32::MAX));
        header.put_u32(body_len);
        if let Some(place) = bytes.get_mut(..HEADER_BYTES) {
            place.copy_from_slice(&header);
        }
        let crc = seed.of_index(bytes.get(COVERED_AT..).unwrap_or_default());
        if let Some(place) = bytes.get_mut(COVERED_AT - 4..COVERED_AT) {
            place.copy_from_slice(&crc.to_be_bytes());
        }
        bytes
    }
}

/// `None` unless it is the index of this segment, up to this end.
fn decode(seed: Seed, number: u64, end: u64, bytes: &[u8]) -> Option<Vec<Found>> {
    let mut header = bytes.get(..HEADER_BYTES)?;
    let is_ours = header.copy_to_bytes(MAGIC.len()) == MAGIC[..]
        && header.get_u8() == FORMAT
        && header.copy_to_bytes(3) == [0; 3][..];
    let crc = is_ours.then(|| header.get_u32())?;
    let is_of_segment = header.get_u64() == number && u64::from(header.get_u32()) == end;
    let body_len = is_of_segment.then(|| header.get_u32() as usize)?;
    let whole = bytes.get(..HEADER_BYTES.checked_add(body_len)?)?;
    let (covered, body) = (whole.get(COVERED_AT..)?, whole.get(HEADER_BYTES..)?);
    (seed.of_index(covered) == crc).then(|| entries(number, end, body))?
}

/// `None` when the structure is broken, which an index that passed its checksum
/// never is.
fn entries(number: u64, end: u64, mut body: &[u8]) -> Option<Vec<Found>> {
    let mut found = Vec::new();
    let mut frame_at: u64 = 0;
    while !body.is_empty() {
        frame_at = frame_at.checked_add(take(&mut body)?.checked_mul(FRAME_ALIGN)?)?;
        let frame_len = end.checked_sub(frame_at)?;
        let mut before: u64 = 0;
        for _ in 0..take(&mut body)? {
            let between = take(&mut body)?;
            if between < (RUN_HEADER_BYTES + ENTRY_HEADER_BYTES) as u64 {
                return None;
            }
            before = before.checked_add(between)?;
            let (group, replica) = (GroupId(take(&mut body)?), ReplicaId(take(&mut body)?));
            let (first_index, count) = (take(&mut body)?, take(&mut body)?);
            for nth in 0..count {
                let index = first_index.checked_add(nth).filter(|it| *it < u64::MAX)?;
                let position = LogPosition { term: take(&mut body)?, index };
                let offset = before + u64::from(nth > 0) * ENTRY_HEADER_BYTES as u64;
                let len = take(&mut body)?;
                before = offset.checked_add(len).filter(|end| *end <= frame_len)?;
                let location = Location {
                    sequence: sequence_of(number, frame_at),
                    offset: u32::try_from(offset).ok()?,
                    len: u32::try_from(len).ok()?,
                };
                found.push(Found { group, replica, position, location });
            }
        }
    }
    Some(found)
}

/// Whether an entry lies right behind another of its replica's.
fn continues(one: &Found, next: &Found) -> bool {
    (one.group, one.replica) == (next.group, next.replica)
        && one.position.index + 1 == next.position.index
        && end_of(one.location) + ENTRY_HEADER_BYTES as u64 == u64::from(next.location.offset)
}

fn end_of(location: Location) -> u64 {
    u64::from(location.offset) + u64::from(location.len)
}

/// Adds a number, seven bits in each byte.
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        bytes.push(0x80 | (number & 0x7f) as u8);
        number >>= 7;
    }
    bytes.push((number & 0x7f) as u8);
}

/// Takes a number off the front.
fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = bytes.try_get_u8().ok()?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests;
