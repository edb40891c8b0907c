//! Reads the frames of a segment: all at once, one after the other, or one alone.

use bytes::Bytes;

use super::super::LogError;
use super::super::medium::Stored;
use super::super::memory::Found;
use super::Segment;
use super::format::{
    FRAME_ALIGN, FRAME_HEADER_BYTES, FRAMES_AT, FrameHeader, Kind, Seed, entries, sequence_of,
};

/// The bytes of a segment from its first frame on.
pub(super) struct Frames {
    seed: Seed,
    bytes: Vec<u8>,
}

impl Frames {
    /// As far as the file goes, up to `end`.
    pub(super) fn read(segment: &Segment, end: u64) -> Result<Self, LogError> {
        let read = || {
            let len = segment.file.len()?.min(end).saturating_sub(FRAMES_AT);
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
            if !bytes.is_empty() {
                segment.file.read(FRAMES_AT, &mut bytes)?;
            }
            Ok(bytes)
        };
        let bytes = read().map_err(|error| segment.failed(error))?;
        Ok(Self { seed: segment.seed, bytes })
    }

    /// Refuses a file that is shorter than it was when its header was written.
    pub(super) fn reach(&self, segment: &Segment) -> Result<(), LogError> {
        if self.end() < segment.header.capacity {
            let len = segment.file.len().map_err(|error| segment.failed(error))?;
            return Err(segment.damaged(len, "the file is cut off"));
        }
        Ok(())
    }

    pub(super) fn end(&self) -> u64 {
        FRAMES_AT + self.bytes.len() as u64
    }

    pub(super) fn from(&self, offset: u64) -> Option<&[u8]> {
        let at = usize::try_from(offset.checked_sub(FRAMES_AT)?).ok()?;
        self.bytes.get(at..)
    }

    /// The frame at an offset, and its body.
    pub(super) fn at(&self, offset: u64) -> Option<(FrameHeader, &[u8])> {
        let bytes = self.from(offset)?;
        let header = FrameHeader::decode(self.seed, offset, bytes)?;
        let len = usize::try_from(header.body_bytes()).ok()?;
        let body = bytes.get(FRAME_HEADER_BYTES..)?.get(..len)?;
        header.has_body(self.seed, offset, body).then_some((header, body))
    }

    /// Where the last commit ends.
    pub(super) fn end_of_commits(&self) -> u64 {
        let mut offset = FRAMES_AT;
        while let Some((header, _)) = self.at(offset).filter(|(it, _)| it.kind != Kind::End) {
            offset = header.end(offset);
        }
        offset
    }

    /// Where the next frame begins behind an offset, whole or not.
    pub(super) fn header_behind(&self, offset: u64) -> Option<u64> {
        let step = usize::try_from(FRAME_ALIGN).unwrap_or(1);
        let offsets = (offset + FRAME_ALIGN..self.end()).step_by(step);
        let mut begins = offsets.filter(|offset| {
            let bytes = self.from(*offset).unwrap_or_default();
            let header = FrameHeader::decode(self.seed, *offset, bytes);
            header.is_some_and(|header| header.end(*offset) <= self.end())
        });
        begins.next()
    }
}

/// How much of a full segment is read at a time, at least.
const WINDOW_BYTES: u64 = 4 << 20;

/// A full segment, read from its first frame on.
pub(super) struct Window<'a> {
    segment: &'a Segment,
    /// Where its last commit ends.
    end: u64,
    /// What was read last, and where that begins.
    bytes: Vec<u8>,
    from: u64,
}

impl<'a> Window<'a> {
    /// In memory that was used before.
    pub(super) fn new(segment: &'a Segment, end: u64, mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        Self { segment, end, bytes, from: FRAMES_AT }
    }

    /// Shows the commits, one after the other, for as long as `look` wants more. Says
    /// where one is not what was written, if one is not.
    pub(super) fn show(
        &mut self,
        mut look: impl FnMut(u64, FrameHeader, &[u8]) -> Result<bool, LogError>,
    ) -> Result<Option<u64>, LogError> {
        let mut offset = FRAMES_AT;
        while offset < self.end {
            let Some((header, body)) = self.at(offset)? else { return Ok(Some(offset)) };
            if !look(offset, header, body)? {
                break;
            }
            offset = header.end(offset);
        }
        Ok(None)
    }

    /// The memory that it was read into.
    pub(super) fn into_memory(self) -> Vec<u8> {
        self.bytes
    }

    /// The frame at an offset, and its body.
    fn at(&mut self, offset: u64) -> Result<Option<(FrameHeader, &[u8])>, LogError> {
        let seed = self.segment.seed;
        let header = FrameHeader::decode(seed, offset, self.cover(offset, FRAME_ALIGN * 2)?);
        let header = header.filter(|header| header.end(offset) <= self.end);
        let Some(header) = header else { return Ok(None) };
        let frame = self.cover(offset, header.end(offset) - offset)?;
        let len = usize::try_from(header.body_bytes()).unwrap_or(usize::MAX);
        let body = frame.get(FRAME_HEADER_BYTES..).and_then(|rest| rest.get(..len));
        let body = body.filter(|body| header.has_body(seed, offset, body));
        Ok(body.map(|body| (header, body)))
    }

    /// So many bytes from an offset on; fewer where the file or the commits end.
    fn cover(&mut self, offset: u64, len: u64) -> Result<&[u8], LogError> {
        let until = offset + len;
        if offset < self.from || until > self.from + self.bytes.len() as u64 {
            let mut read = || {
                let until = until.max(offset + WINDOW_BYTES);
                let until = self.segment.file.len()?.min(self.end).min(until);
                let len = usize::try_from(until.saturating_sub(offset)).unwrap_or(usize::MAX);
                self.bytes.resize(len, 0);
                self.from = offset;
                self.segment.file.read(offset, &mut self.bytes)
            };
            read().map_err(|error| self.segment.failed(error))?;
        }
        let at = usize::try_from(offset - self.from).unwrap_or(usize::MAX);
        Ok(self.bytes.get(at..).unwrap_or_default())
    }
}

/// Shows the entries of a full segment, those of one frame at a time, for as long as
/// `show` wants more. Says whether the segment is what was written, as far as it was
/// read.
pub(super) fn show_entries(
    segment: &Segment,
    end: u64,
    mut show: impl FnMut(&[Found]) -> bool,
) -> Result<bool, LogError> {
    let mut found = Vec::new();
    let (mut is_sound, mut goes_on) = (true, true);
    let mut window = Window::new(segment, end, Vec::new());
    let broken = window.show(|offset, header, body| {
        let stored = body.get(header.rows_len as usize..).unwrap_or_default();
        let sequence = sequence_of(segment.header.number, offset);
        found.clear();
        is_sound &= entries(sequence, header.rows_len, stored, &mut found).is_some();
        goes_on = show(&found);
        Ok(goes_on)
    })?;
    Ok(is_sound && broken.is_none())
}

/// The entries of a frame. `None` if it is not what was written.
pub(super) fn frame(segment: &Segment, offset: u64) -> std::io::Result<Option<Vec<Stored>>> {
    let mut bytes = vec![0; FRAME_HEADER_BYTES];
    segment.file.read(offset, &mut bytes)?;
    let header = FrameHeader::decode(segment.seed, offset, &bytes);
    let header = header.filter(|header| header.end(offset) <= segment.header.capacity);
    let Some(header) = header else { return Ok(None) };
    bytes.resize(FRAME_HEADER_BYTES + usize::try_from(header.body_bytes()).unwrap_or(0), 0);
    let body = bytes.get_mut(FRAME_HEADER_BYTES..).unwrap_or_default();
    segment.file.read(offset + FRAME_HEADER_BYTES as u64, body)?;
    let mut found = Vec::new();
    let mut read = || {
        let stored = body.get(usize::try_from(header.rows_len).ok()?..)?;
        entries(sequence_of(segment.header.number, offset), header.rows_len, stored, &mut found)
    };
    if !header.has_body(segment.seed, offset, body) || read().is_none() {
        return Ok(None);
    }
    let bytes = Bytes::from(bytes);
    let stored = found.into_iter().map(|entry| {
        let at = entry.location.offset as usize;
        let payload = bytes.slice(at..at + entry.location.len as usize);
        (entry, payload)
    });
    Ok(Some(stored.collect()))
}
