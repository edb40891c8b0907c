//! The bytes of a segment. Integers are big endian.
//!
//! ```text
//! segment = [header, 512 bytes][zeroes up to 4096] frame* [zeroes, or what an
//!           earlier use of the file left]
//! header  = [magic 8][format u8][0 u8][mark len u16][crc32c u32]
//!           [number u64][replaced u64][capacity u64][salt u64][mark][zeroes]
//! frame   = [kind u8][0 u8 * 3][rows len u32][entries len u32]
//!           [body crc32c u32][header crc32c u32] rows entries
//!           [zeroes up to the next multiple of 16]
//! rows    = segment list (in a checkpoint only), then ([group u64][len u32][group row])*
//! list    = [count u32] ([number u64][end u32])*
//! end     = [number u64], for the rows of the last frame of a full segment
//! entries = runs; entry = [term u64][len u32][crc32c u32][payload]
//! ```
//!
//! A **number** is given to a segment once; a file that is used again gets the
//! next one. Every checksum begins with the owner's mark, the number and the
//! salt, and that of a frame with its offset, too: what an earlier use of the
//! file left does not pass for a frame, and what a client put into a payload not
//! either, since it cannot know the salt.
//!
//! The first frame of a segment is a **checkpoint**: all group rows, and which
//! segments hold entries, up to where. The others are **commits**, one for each
//! sync: a frame that stands behind another was written when that one was
//! durable. The last frame of a full segment is an **end**: it names the segment
//! that goes on.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_types::GroupId;

use super::super::LogPosition;
use super::super::medium::{NewEntry, Whose};
use super::super::memory::Found;
use super::super::rows::{GroupRow, Location};
use super::super::runs::{self, Runs};

/// A sector is written whole or not at all.
pub(super) const HEADER_BYTES: usize = 512;
/// Where the first frame stands: on a page of its own.
pub(super) const FRAMES_AT: u64 = 4096;
/// Frames begin at multiples of this.
pub(super) const FRAME_ALIGN: u64 = 16;
pub(super) const FRAME_HEADER_BYTES: usize = 20;
/// What is kept free in every segment for the frame that ends it.
pub(super) const END_BYTES: u64 = 32;
/// An entry's, before its payload.
pub(super) const ENTRY_HEADER_BYTES: usize = 16;

const MAGIC: &[u8; 8] = b"quoraSEG";
/// The newest format this build writes and reads.
const FORMAT: u8 = 1;

/// What a segment says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) number: u64,
    /// The number that the file had before; zero for none.
    pub(super) replaced: u64,
    /// The bytes of the file that may be written.
    pub(super) capacity: u64,
    /// By chance.
    pub(super) salt: u64,
    /// Whose log it is; empty if it is nobody's.
    pub(super) mark: Bytes,
}

/// What the first bytes of a file are.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Head {
    /// Nothing was ever stored in it.
    Blank,
    Segment(Header),
    Newer(u8),
    Damaged,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.put_slice(MAGIC);
        bytes.put_u8(FORMAT);
        bytes.put_u8(0);
        bytes.put_u16(u16::try_from(self.mark.len()).unwrap_or(u16::MAX));
        bytes.put_u32(0);
        bytes.put_u64(self.number);
        bytes.put_u64(self.replaced);
        bytes.put_u64(self.capacity);
        bytes.put_u64(self.salt);
        bytes.put_slice(&self.mark);
        debug_assert!(bytes.len() <= HEADER_BYTES, "an owner's mark is a short row");
        bytes.resize(HEADER_BYTES, 0);
        let crc = crc32c::crc32c(&bytes);
        if let Some(place) = bytes.get_mut(12..16) {
            place.copy_from_slice(&crc.to_be_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Head {
        if bytes.iter().all(|byte| *byte == 0) {
            return Head::Blank;
        }
        let mut zeroed = bytes.to_vec();
        let (Some(stored), HEADER_BYTES) = (zeroed.get_mut(12..16), bytes.len()) else {
            return Head::Damaged;
        };
        let mut crc = [0; 4];
        crc.swap_with_slice(stored);
        let mut rest = bytes;
        let magic = rest.copy_to_bytes(MAGIC.len());
        let format = rest.get_u8();
        if *magic != MAGIC[..] || u32::from_be_bytes(crc) != crc32c::crc32c(&zeroed) {
            return Head::Damaged;
        }
        if format > FORMAT {
            return Head::Newer(format);
        }
        let zero = rest.get_u8();
        let mark_len = usize::from(rest.get_u16());
        rest.advance(4);
        let (number, replaced, capacity) = (rest.get_u64(), rest.get_u64(), rest.get_u64());
        let salt = rest.get_u64();
        let Some(mark) = rest.get(..mark_len).map(Bytes::copy_from_slice) else {
            return Head::Damaged;
        };
        let header = Self { number, replaced, capacity, salt, mark };
        let is_sound = format == FORMAT
            && zero == 0
            && (1..=NUMBERS_MAX).contains(&number)
            && replaced < number
            && (FRAMES_AT..=CAPACITY_MAX).contains(&capacity);
        if is_sound { Head::Segment(header) } else { Head::Damaged }
    }

    /// What the checksums of this segment begin with.
    pub(super) fn seed(&self) -> Seed {
        let known = crc32c::crc32c_append(crc32c::crc32c(&self.mark), &self.number.to_be_bytes());
        Seed(crc32c::crc32c_append(known, &self.salt.to_be_bytes()))
    }
}

/// The most segments that a log ever begins.
pub(super) const NUMBERS_MAX: u64 = (1 << 30) - 1;
/// The most bytes of a segment: offsets have 32 bits.
pub(super) const CAPACITY_MAX: u64 = u32::MAX as u64;

/// The sequence of the frame at an offset of a segment.
pub(super) const fn sequence_of(number: u64, offset: u64) -> u64 {
    number << 32 | offset
}

/// The segment and the offset of a frame.
pub(super) const fn place_of(sequence: u64) -> (u64, u64) {
    (sequence >> 32, sequence & u32::MAX as u64)
}

/// What the checksums of a segment begin with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Seed(u32);

impl Seed {
    fn at(self, offset: u64) -> u32 {
        crc32c::crc32c_append(self.0, &offset.to_be_bytes())
    }

    /// The checksum of what an index says of the segment.
    pub(super) fn of_index(self, covered: &[u8]) -> u32 {
        crc32c::crc32c_append(self.0, covered)
    }

    /// The checksum of an entry, wherever it stands in the segment.
    fn of_entry(self, whose: Whose, payload: &[u8]) -> u32 {
        let mut header = [0; 28];
        let mut rest = &mut header[..];
        rest.put_u64(whose.group.0);
        rest.put_u64(whose.position.index);
        rest.put_u64(whose.position.term);
        rest.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
        crc32c::crc32c_append(crc32c::crc32c_append(self.0, &header), payload)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Checkpoint = 1,
    Commit = 2,
    End = 3,
}

/// The header of a frame that passed its own checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FrameHeader {
    pub(super) kind: Kind,
    pub(super) rows_len: u32,
    pub(super) entries_len: u32,
    body_crc: u32,
}

impl FrameHeader {
    /// `None` where no frame of this segment begins.
    pub(super) fn decode(seed: Seed, offset: u64, bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..FRAME_HEADER_BYTES)?;
        let kind = match bytes.first()? {
            1 => Kind::Checkpoint,
            2 => Kind::Commit,
            3 => Kind::End,
            _ => return None,
        };
        if bytes.get(1..4)? != [0; 3] {
            return None;
        }
        let mut rest = bytes.get(4..)?;
        let (rows_len, entries_len) = (rest.get_u32(), rest.get_u32());
        let (body_crc, header_crc) = (rest.get_u32(), rest.get_u32());
        let covered = bytes.get(..FRAME_HEADER_BYTES - 4)?;
        let is_whole = crc32c::crc32c_append(seed.at(offset), covered) == header_crc;
        is_whole.then_some(Self { kind, rows_len, entries_len, body_crc })
    }

    pub(super) fn body_bytes(&self) -> u64 {
        u64::from(self.rows_len) + u64::from(self.entries_len)
    }

    /// Where the next frame begins.
    pub(super) fn end(&self, offset: u64) -> u64 {
        (offset + FRAME_HEADER_BYTES as u64 + self.body_bytes()).next_multiple_of(FRAME_ALIGN)
    }

    pub(super) fn has_body(&self, seed: Seed, offset: u64, body: &[u8]) -> bool {
        crc32c::crc32c_append(seed.at(offset), body) == self.body_crc
    }
}

/// A frame being written, to stand at an offset.
pub(super) struct FrameBuilder {
    seed: Seed,
    offset: u64,
    kind: Kind,
    bytes: BytesMut,
}

/// A frame to be written.
pub(super) struct Frame {
    pub(super) bytes: BytesMut,
    /// Where the entries' payloads lie, in the order in which they came.
    pub(super) locations: Vec<Location>,
}

impl FrameBuilder {
    /// A frame in `bytes`, which are emptied first.
    pub(super) fn new(kind: Kind, seed: Seed, offset: u64, mut bytes: BytesMut) -> Self {
        bytes.clear();
        bytes.put_bytes(0, FRAME_HEADER_BYTES);
        Self { seed, offset, kind, bytes }
    }

    /// Names the segments that hold entries, and where each ends.
    pub(super) fn list(&mut self, segments: &[(u64, u64)]) {
        self.bytes.put_u32(u32::try_from(segments.len()).unwrap_or(u32::MAX));
        for (number, end) in segments {
            self.bytes.put_u64(*number);
            self.bytes.put_u32(u32::try_from(*end).unwrap_or(u32::MAX));
        }
    }

    /// Names the segment that goes on.
    pub(super) fn next(&mut self, number: u64) {
        self.bytes.put_u64(number);
    }

    pub(super) fn row(&mut self, group: GroupId, row: &GroupRow) {
        let row = quorate_types::codec::encode(row);
        self.bytes.put_u64(group.0);
        self.bytes.put_u32(u32::try_from(row.len()).unwrap_or(u32::MAX));
        self.bytes.put_slice(&row);
    }

    pub(super) fn finish(self, number: u64, entries: &[NewEntry]) -> Frame {
        let Self { seed, offset, kind, bytes } = self;
        let rows_end = bytes.len();
        let sequence = sequence_of(number, offset);
        let mut runs = Runs::behind(bytes);
        let mut locations = Vec::with_capacity(entries.len());
        for entry in entries {
            let whose = Whose { group: entry.group, position: entry.position };
            // A frame is smaller than a segment, whose offsets have 32 bits.
            let len = u32::try_from(entry.payload.len()).unwrap_or(u32::MAX);
            let bytes = runs.begin(entry);
            bytes.put_u64(entry.position.term);
            bytes.put_u32(len);
            bytes.put_u32(seed.of_entry(whose, &entry.payload));
            let offset = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            bytes.put_slice(&entry.payload);
            locations.push(Location { sequence, offset, len });
        }
        let mut bytes = runs.finish();
        seal(kind, seed, offset, rows_end, &mut bytes);
        Frame { bytes, locations }
    }
}

/// Writes the header of a frame in front of its rows and entries, and fills it
/// up to where the next one begins.
pub(super) fn seal(kind: Kind, seed: Seed, offset: u64, rows_end: usize, bytes: &mut BytesMut) {
    let body = bytes.get(FRAME_HEADER_BYTES..).unwrap_or_default();
    let body_crc = crc32c::crc32c_append(seed.at(offset), body);
    let mut header = Vec::with_capacity(FRAME_HEADER_BYTES);
    header.put_u32((kind as u32) << 24);
    header.put_u32(u32::try_from(rows_end - FRAME_HEADER_BYTES).unwrap_or(u32::MAX));
    header.put_u32(u32::try_from(bytes.len() - rows_end).unwrap_or(u32::MAX));
    header.put_u32(body_crc);
    let header_crc = crc32c::crc32c_append(seed.at(offset), &header);
    header.put_u32(header_crc);
    if let Some(place) = bytes.get_mut(..FRAME_HEADER_BYTES) {
        place.copy_from_slice(&header);
    }
    let padded = bytes.len().next_multiple_of(usize::try_from(FRAME_ALIGN).unwrap_or(1));
    bytes.resize(padded, 0);
}

/// What a frame says, save its entries.
#[derive(Default, PartialEq, Eq, Debug)]
pub(super) struct Rows {
    /// The segments that hold entries, and where each ends; of a checkpoint.
    pub(super) segments: Vec<(u64, u64)>,
    /// The segment that goes on; of an end.
    pub(super) next: Option<u64>,
    pub(super) groups: Vec<(GroupId, GroupRow)>,
}

/// Reads the part of a frame before its entries. `None` when its structure is
/// broken, which a frame that passed its checksum never is.
pub(super) fn rows(kind: Kind, mut bytes: &[u8]) -> Option<Rows> {
    let mut rows = Rows::default();
    if kind == Kind::Checkpoint {
        let count = bytes.try_get_u32().ok()?;
        for _ in 0..count {
            let number = bytes.try_get_u64().ok()?;
            let end = bytes.try_get_u32().ok()?;
            rows.segments.push((number, u64::from(end)));
        }
    }
    if kind == Kind::End {
        rows.next = Some(bytes.try_get_u64().ok()?);
    }
    while !bytes.is_empty() {
        let group = GroupId(bytes.try_get_u64().ok()?);
        let len = bytes.try_get_u32().ok()? as usize;
        let (row, rest) = bytes.split_at_checked(len)?;
        let row: GroupRow = quorate_types::codec::decode(row).ok()?;
        if !row.is_sound() {
            return None;
        }
        rows.groups.push((group, row));
        bytes = rest;
    }
    Some(rows)
}

/// Adds the entries of a frame at `sequence`, `rows_len` behind its header.
/// `None` when their structure is broken.
pub(super) fn entries(
    sequence: u64,
    rows_len: u32,
    entries: &[u8],
    found: &mut Vec<Found>,
) -> Option<()> {
    let before = FRAME_HEADER_BYTES + rows_len as usize;
    runs::scan(entries, |next, rest| {
        let term = rest.try_get_u64().ok()?;
        let len = rest.try_get_u32().ok()?;
        rest.try_get_u32().ok()?;
        let offset = u32::try_from(before + entries.len() - rest.len()).ok()?;
        *rest = rest.get(len as usize..)?;
        found.push(Found {
            group: next.group,
            replica: next.replica,
            position: LogPosition { term, index: next.index },
            location: Location { sequence, offset, len },
        });
        Some(())
    })
}

/// The payload behind an entry's header, if both are what was written.
pub(super) fn payload(seed: Seed, whose: Whose, stored: &Bytes) -> Option<Bytes> {
    let mut header = stored.get(..ENTRY_HEADER_BYTES)?;
    let (term, len, crc) = (header.get_u64(), header.get_u32(), header.get_u32());
    let payload = stored.slice(ENTRY_HEADER_BYTES..);
    let is_whole = term == whose.position.term
        && len as usize == payload.len()
        && crc == seed.of_entry(whose, &payload);
    is_whole.then_some(payload)
}

/// The name of a log's file in a slot.
pub(super) fn file_of(stem: &str, slot: u32) -> Arc<str> {
    format!("{stem}.{slot:06}").into()
}

/// The slot of a file, if it is one of the log's.
pub(super) fn slot_of(stem: &str, file: &str) -> Option<u32> {
    let digits = file.strip_prefix(stem)?.strip_prefix('.')?;
    let slot = digits.parse().ok()?;
    (*file_of(stem, slot) == *file).then_some(slot)
}
