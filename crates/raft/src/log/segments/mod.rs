//! A log in preallocated files that are used again: one stream for all groups,
//! one write and one sync for each commit.
//!
//! When a segment is full the next begins, in two durable steps. The file that
//! is taken for it gets its header, which says the new number and the one that
//! the file had until then, so that nobody misses that. Then a **checkpoint** is
//! written, in one frame with the commit that found no room: all group rows, and
//! which segments hold entries, up to where. Until it is there the log is what
//! the segment before says. From then on nothing but entries is needed of any
//! earlier segment, and one of which no entry is needed is free. Before anyone
//! hears of the commit, the full segment gets its last frame, which names the
//! new one: a log that lost its newest file does not pass for one that ends
//! earlier.

mod format;
mod frames;
#[cfg(test)]
mod fuzz;
mod index;
mod recovery;
#[cfg(test)]
mod tests;
mod yard;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};
use quorate_types::disk::{Disk, DiskFile};
use quorate_types::owner::Owner;
use quorate_types::{buggify, runtime};

use self::format::{
    END_BYTES, ENTRY_HEADER_BYTES, FRAMES_AT, Frame, FrameBuilder, Header, Kind, NUMBERS_MAX, Seed,
    place_of, sequence_of,
};
use self::yard::{Spare, Yard};
use super::medium::{Commit, Laid, Medium, Opened, Shelf, Stored, Whose};
use super::rows::Location;
use super::{LogError, Place, redb};

/// The smallest segment takes a few small commits. The first of a log has this
/// size, so that a node begins at once; those that follow grow.
const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// The largest is what opening the log may have to read to find its end.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// A commit takes at most this part of a segment, so that little of one is left
/// empty at its end.
const COMMITS_PER_SEGMENT: u64 = 4;
/// The rows of all groups take at most this part of one. A quarter is for a commit,
/// and the last for the list of segments and for rows that grow more than counted on.
const ROWS_PER_SEGMENT: u64 = 2;
/// How many times as large as a segment the next one is, until they have the size
/// that was asked for: a log that holds little takes little.
const GROWTH: u64 = 4;
/// The newest full segments have no index: those of a busy log that is purged all the
/// time are free before they would need one, and so few are soon read.
const UNINDEXED_MAX: usize = 2;
/// Nor has one of which less than this part is needed: that is soon written once more.
const INDEXED_PART: u64 = 4;

/// A segment that is read or written.
#[derive(Debug, Clone)]
struct Segment {
    name: Arc<str>,
    slot: u32,
    file: Arc<dyn DiskFile>,
    header: Header,
    seed: Seed,
}

impl Segment {
    fn failed(&self, error: io::Error) -> LogError {
        LogError::disk(&self.name, error)
    }

    fn damaged(&self, offset: u64, what: impl ToString) -> LogError {
        LogError::damaged(&self.name, Place::Offset(offset), what)
    }
}

#[derive(Debug)]
pub(super) struct SegmentMedium {
    capacity: u64,
    mark: Bytes,
    /// The segments of which entries are needed, and the one that is written,
    /// by number.
    shelf: RwLock<BTreeMap<u64, Arc<Segment>>>,
    /// `None` once the log is closed.
    pen: Mutex<Option<Pen>>,
    /// Held by those who read, so that no file is in use once it is closed.
    is_closed: RwLock<bool>,
    yard: Arc<Yard>,
}

/// Where the writer writes.
#[derive(Debug)]
struct Pen {
    segment: Arc<Segment>,
    /// Where the next frame begins.
    offset: u64,
    /// The greatest number that a segment ever had.
    number_last: u64,
    /// What is on the shelf, by number.
    uses: BTreeMap<u64, Use>,
    buffer: BytesMut,
    has_yard: bool,
}

/// How much of a segment is needed.
#[derive(Debug, Clone, Copy, Default)]
struct Use {
    /// Where its last frame ends; of one that is full.
    end: u64,
    /// Frames with entries.
    filled: u64,
    /// Those of which entries are needed.
    frames: u64,
    /// Whether it has an index, or is about to.
    is_indexed: bool,
}

/// Opens the log in the files of `stem`, or begins it.
pub(super) fn open(
    disk: &Arc<dyn Disk>,
    stem: &str,
    segment_bytes: u64,
    owner: Option<Owner>,
    tail_bytes_max: usize,
) -> Result<Opened, LogError> {
    let log: Arc<str> = stem.into();
    if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes) {
        let what = format!(
            "segments of {segment_bytes} bytes are asked for; they may have \
             {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}"
        );
        return Err(LogError::disk(&log, io::Error::new(io::ErrorKind::InvalidInput, what)));
    }
    if let Some(file) = redb::any(&**disk, stem)? {
        return Err(LogError::Medium { file, wanted: "log in segments" });
    }
    let capacity = segment_bytes.next_multiple_of(FRAMES_AT);
    let survey = recovery::survey(&**disk, stem, owner)?;
    let mark = owner.map_or_else(|| survey.mark(), |owner| owner.mark());
    let found =
        recovery::recover(&**disk, survey, owner, tail_bytes_max, rows_bytes_max(capacity))?;
    let newest = found.tail.as_ref();
    let next = grown(newest.map_or(SEGMENT_BYTES_MIN, |(it, _)| it.header.capacity), capacity);
    let yard = Yard::new(Arc::clone(disk), stem, next, found.spares, found.next_slot);
    let (mut shelf, mut uses) = (found.shelf, found.uses);
    let (segment, offset) = match found.tail {
        Some(tail) => tail,
        None => {
            let begun = begin(yard.take(SEGMENT_BYTES_MIN, next)?, 1, SEGMENT_BYTES_MIN, &mark)?;
            let frame = checkpoint(&begun, &[], &Commit::of(&found.groups), BytesMut::new());
            let offset = write(&begun, FRAMES_AT, &frame)?;
            shelf.insert(1, Arc::clone(&begun));
            uses.insert(1, Use::default());
            (begun, offset)
        }
    };
    let number_last = found.number_last.max(segment.header.number);
    let buffer = BytesMut::new();
    let pen = Pen { segment, offset, number_last, uses, buffer, has_yard: false };
    let medium = SegmentMedium {
        capacity,
        mark,
        shelf: RwLock::new(shelf),
        pen: Mutex::new(Some(pen)),
        is_closed: RwLock::new(false),
        yard: Arc::new(yard),
    };
    Ok(Opened { memory: found.memory, groups: found.groups, medium: Box::new(medium) })
}

/// The size of the segment behind one of a size.
fn grown(bytes: u64, bytes_max: u64) -> u64 {
    bytes.saturating_mul(GROWTH).min(bytes_max)
}

/// The most that rows may take of segments of a size.
const fn rows_bytes_max(segment_bytes: u64) -> u64 {
    segment_bytes / ROWS_PER_SEGMENT
}

/// A file of a log that is kept in segments, if there is one that was begun.
pub(super) fn any(disk: &dyn Disk, stem: &str) -> Result<Option<Arc<str>>, LogError> {
    let names = disk.list().map_err(|error| LogError::disk(&stem.into(), error))?;
    let files = names.into_iter().filter(|name| format::slot_of(stem, name).is_some());
    for name in files.map(Arc::<str>::from) {
        let head = disk.open(&name).and_then(|file| recovery::head(&*file));
        if head.map_err(|error| LogError::disk(&name, error))? != format::Head::Blank {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Where an entry begins in its frame.
const fn entry_at(location: &Location) -> usize {
    (location.offset as usize).saturating_sub(ENTRY_HEADER_BYTES)
}

/// Whether an entry lies right behind another.
fn is_behind(one: &Location, next: &Location) -> bool {
    one.sequence == next.sequence && entry_at(next) == one.offset as usize + one.len as usize
}

/// Gives a file the number of a segment. Without frames it is none yet.
fn begin(spare: Spare, number: u64, capacity: u64, mark: &Bytes) -> Result<Arc<Segment>, LogError> {
    let Spare { name, slot, file, replaced, .. } = spare;
    let salt = runtime::random();
    let header = Header { number, replaced, capacity, salt, mark: mark.clone() };
    let seed = header.seed();
    let segment = Segment { name, slot, file, header, seed };
    write_through(&segment, 0, &segment.header.encode())?;
    Ok(Arc::new(segment))
}

/// The first frame of a segment, with the commit that is part of it.
fn checkpoint(
    segment: &Segment,
    list: &[(u64, u64)],
    commit: &Commit<'_>,
    buffer: BytesMut,
) -> Frame {
    let mut frame = FrameBuilder::new(Kind::Checkpoint, segment.seed, FRAMES_AT, buffer);
    frame.list(list);
    for (group, row) in commit.groups {
        frame.row(*group, row);
    }
    frame.finish(segment.header.number, &commit.entries)
}

/// Writes a frame and waits for the disk; says where the next one begins.
fn write(segment: &Segment, offset: u64, frame: &Frame) -> Result<u64, LogError> {
    let end = offset + frame.bytes.len() as u64;
    if end + END_BYTES > segment.header.capacity {
        let what = format!(
            "a commit of {} bytes with the rows of all groups does not fit into a segment of {}",
            frame.bytes.len(),
            segment.header.capacity
        );
        return Err(segment.failed(io::Error::new(io::ErrorKind::InvalidInput, what)));
    }
    write_through(segment, offset, &frame.bytes)?;
    Ok(end)
}

/// Ends a segment: its log goes on in the one with this number.
fn write_end(segment: &Segment, offset: u64, next: u64) -> Result<(), LogError> {
    let mut end = FrameBuilder::new(Kind::End, segment.seed, offset, BytesMut::new());
    end.next(next);
    write_through(segment, offset, &end.finish(segment.header.number, &[]).bytes)
}

fn write_through(segment: &Segment, offset: u64, bytes: &[u8]) -> Result<(), LogError> {
    let written = segment.file.write(offset, bytes);
    written.and_then(|()| segment.file.sync()).map_err(|error| segment.failed(error))
}

impl SegmentMedium {
    /// Writes a commit where the last one ended, or into the next segment.
    fn write(&self, pen: &mut Pen, commit: &Commit<'_>) -> Result<(u64, Vec<Location>), LogError> {
        let buffer = std::mem::take(&mut pen.buffer);
        let (number, offset) = (pen.segment.header.number, pen.offset);
        let mut frame = FrameBuilder::new(Kind::Commit, pen.segment.seed, offset, buffer);
        for (group, row) in commit.rows() {
            frame.row(group, row);
        }
        let frame = frame.finish(number, &commit.entries);
        if offset + frame.bytes.len() as u64 + END_BYTES > pen.segment.header.capacity {
            return self.write_next(pen, commit, frame.bytes);
        }
        pen.offset = write(&pen.segment, offset, &frame)?;
        pen.buffer = frame.bytes;
        Ok((sequence_of(number, offset), frame.locations))
    }

    /// Begins the next segment with a commit.
    fn write_next(
        &self,
        pen: &mut Pen,
        commit: &Commit<'_>,
        buffer: BytesMut,
    ) -> Result<(u64, Vec<Location>), LogError> {
        let number = pen.number_last + 1;
        if number > NUMBERS_MAX {
            let error = io::Error::other("the log has used up the numbers of its segments");
            return Err(pen.segment.failed(error));
        }
        let full = pen.uses.entry(pen.segment.header.number).or_default();
        full.end = pen.offset;
        let needed = pen.uses.iter().filter(|(_, it)| it.frames > 0);
        let list: Vec<_> = needed.map(|(number, it)| (*number, it.end)).collect();
        let sample = checkpoint(&pen.segment, &list, commit, buffer).bytes;
        let capacity = self.capacity_for(&pen.segment, sample.len() as u64);
        let spare = self.yard.take(capacity, grown(capacity, self.capacity))?;
        let segment = begin(spare, number, capacity, &self.mark)?;
        let frame = checkpoint(&segment, &list, commit, sample);
        let end = pen.offset;
        pen.offset = write(&segment, FRAMES_AT, &frame)?;
        write_end(&pen.segment, end, number)?;
        pen.segment = Arc::clone(&segment);
        pen.number_last = number;
        pen.uses.insert(number, Use::default());
        pen.buffer = frame.bytes;
        self.shelf.write().insert(number, segment);
        self.yard.prune();
        self.index(pen);
        Ok((sequence_of(number, FRAMES_AT), frame.locations))
    }

    /// Has indexes written of the segments that have been full for a while.
    fn index(&self, pen: &mut Pen) {
        let current = pen.segment.header.number;
        let keeps = if buggify!("raft log indexes early") { 0 } else { UNINDEXED_MAX };
        let full = pen.uses.range_mut(..current).rev().filter(|(_, it)| it.frames > 0);
        let is_due = |it: &Use| !it.is_indexed && it.frames >= it.filled / INDEXED_PART;
        for (number, it) in full.skip(keeps).filter(|(_, it)| is_due(it)) {
            it.is_indexed = true;
            if let Some(segment) = self.segment(*number) {
                self.yard.index(&segment, it.end);
            }
        }
    }

    /// The size of the segment behind one, to begin with so many bytes. Its list of
    /// segments has no limit, nor have truncations: rather than fail for them it
    /// is larger than was asked for.
    fn capacity_for(&self, before: &Segment, first_bytes: u64) -> u64 {
        let needed = (first_bytes * COMMITS_PER_SEGMENT).next_multiple_of(FRAMES_AT);
        if needed <= self.capacity {
            return needed.max(grown(before.header.capacity, self.capacity));
        }
        let commit_bytes_max = self.capacity / COMMITS_PER_SEGMENT;
        let least = FRAMES_AT + first_bytes + commit_bytes_max + END_BYTES;
        if least > self.capacity {
            let (bytes, wanted) = (least, self.capacity);
            tracing::warn!(
                bytes,
                wanted,
                "a segment is too small for the log: configure larger ones"
            );
        }
        least.next_multiple_of(FRAMES_AT).clamp(self.capacity, SEGMENT_BYTES_MAX)
    }

    /// Lets go of segments of which nothing is needed.
    fn release(&self, pen: &mut Pen, dead: &[u64]) {
        for sequence in dead {
            if let Some(it) = pen.uses.get_mut(&place_of(*sequence).0) {
                debug_assert!(it.frames > 0, "frame {sequence} died twice");
                it.frames = it.frames.saturating_sub(1);
            }
        }
        let current = pen.segment.header.number;
        let is_free = |(number, it): &(&u64, &Use)| **number != current && it.frames == 0;
        let free: Vec<u64> = pen.uses.iter().filter(is_free).map(|(number, _)| *number).collect();
        for number in free {
            pen.uses.remove(&number);
            if let Some(segment) = self.shelf.write().remove(&number) {
                self.yard.give(Spare::of(&segment));
            }
        }
    }

    fn segment(&self, number: u64) -> Option<Arc<Segment>> {
        self.shelf.read().get(&number).map(Arc::clone)
    }

    /// The payloads of entries that lie one behind the other in one frame.
    fn payloads(
        &self,
        wanted: &[(Whose, Location)],
        found: &mut Vec<Bytes>,
    ) -> Result<Option<()>, LogError> {
        let Some(((_, first), (_, last))) = wanted.first().zip(wanted.last()) else {
            return Ok(Some(()));
        };
        let (number, frame_at) = place_of(first.sequence);
        let Some(segment) = self.segment(number) else { return Ok(None) };
        let (start, end) = (entry_at(first), last.offset as usize + last.len as usize);
        let at = frame_at + start as u64;
        let mut stored = vec![0; end - start];
        segment.file.read(at, &mut stored).map_err(|error| segment.failed(error))?;
        let stored = Bytes::from(stored);
        for (whose, location) in wanted {
            let from = entry_at(location) - start;
            let entry = stored.slice(from..from + ENTRY_HEADER_BYTES + location.len as usize);
            let Some(payload) = format::payload(segment.seed, *whose, &entry) else {
                // The file may have got its next use while it was read.
                return match self.segment(number) {
                    Some(segment) => {
                        let at = at + from as u64;
                        Err(segment.damaged(at, "an entry is not what was written"))
                    }
                    None => Ok(None),
                };
            };
            found.push(payload);
        }
        Ok(Some(()))
    }
}

impl Medium for SegmentMedium {
    fn commit_bytes_max(&self) -> usize {
        usize::try_from(self.capacity / COMMITS_PER_SEGMENT).unwrap_or(usize::MAX)
    }

    fn rows_bytes_max(&self) -> u64 {
        rows_bytes_max(self.capacity)
    }

    fn next_sequence(&self) -> u64 {
        let pen = self.pen.lock();
        pen.as_ref().map_or(0, |pen| sequence_of(pen.segment.header.number, pen.offset))
    }

    fn commit(&self, commit: &Commit<'_>) -> Result<Laid, LogError> {
        let mut pen = self.pen.lock();
        let pen = pen.as_mut().ok_or(LogError::Closed)?;
        if !pen.has_yard {
            // Not before: whoever opens several stores may hold writes back
            // until all of them are sound.
            let started = runtime::thread("raft-log-files", Arc::clone(&self.yard).run());
            started.map_err(|error| pen.segment.failed(error))?;
            pen.has_yard = true;
        }
        let before = pen.segment.header.number;
        let (sequence, locations) = self.write(pen, commit)?;
        let has_filled_shelf = pen.segment.header.number != before;
        let mut laid = Laid { has_filled_shelf, ..Laid::default() };
        if !locations.is_empty() {
            let used = pen.uses.entry(place_of(sequence).0).or_default();
            used.filled += 1;
            used.frames += 1;
            laid.rows.push(sequence);
        }
        let entries = commit.entries.iter().zip(locations);
        laid.placed = entries.map(|(entry, location)| entry.placed(location)).collect();
        self.release(pen, &commit.dead);
        Ok(laid)
    }

    fn fetch(&self, wanted: &[(Whose, Location)]) -> Result<Option<Vec<Bytes>>, LogError> {
        let is_closed = self.is_closed.read();
        if *is_closed {
            return Err(LogError::Closed);
        }
        let mut found = Vec::with_capacity(wanted.len());
        for run in wanted.chunk_by(|(_, one), (_, next)| is_behind(one, next)) {
            if self.payloads(run, &mut found)?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(found))
    }

    fn shelves(&self) -> Vec<Shelf> {
        let pen = self.pen.lock();
        let Some(pen) = pen.as_ref() else { return Vec::new() };
        let current = pen.segment.header.number;
        let full = pen.uses.keys().filter(|number| **number != current);
        let shelf = |number: &u64| {
            let bytes = self.segment(*number)?.header.capacity;
            Some(Shelf { rows: sequence_of(*number, 0)..sequence_of(number + 1, 0), bytes })
        };
        full.filter_map(shelf).collect()
    }

    fn row(&self, sequence: u64) -> Result<Vec<Stored>, LogError> {
        let (number, offset) = place_of(sequence);
        let segment = self.segment(number).ok_or(LogError::Closed)?;
        let read = frames::frame(&segment, offset).map_err(|error| segment.failed(error))?;
        read.ok_or_else(|| segment.damaged(offset, "a frame is not what was written"))
    }

    fn close(&self) -> Result<(), LogError> {
        *self.is_closed.write() = true;
        self.yard.close();
        *self.pen.lock() = None;
        self.shelf.write().clear();
        Ok(())
    }
}
