//! What a directory's segments hold, after any crash.
//!
//! A crash leaves three things that are in order: a file without a header; one
//! with a header and no checkpoint; and, behind the frames of the newest
//! segment, what there is of one more, which is cut off. Anything else is not
//! what was written, and is refused with the file and the place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use quorate_types::disk::{Disk, DiskFile};
use quorate_types::owner::Owner;
use quorate_types::{GroupId, sometimes};

use super::super::memory::{Found, Memory, Recovery};
use super::super::rows::GroupRow;
use super::super::{LogError, Place};
use super::format::{
    END_BYTES, FRAME_HEADER_BYTES, FRAMES_AT, FrameHeader, HEADER_BYTES, Head, Header, Kind, Rows,
    entries, place_of, rows, sequence_of, slot_of,
};
use super::frames::{Frames, Window};
use super::yard::Spare;
use super::{Segment, Use, index, write_end};

/// The files of a log.
pub(super) struct Survey {
    log: Arc<str>,
    /// By number.
    segments: BTreeMap<u64, Segment>,
    blank: Vec<Spare>,
    next_slot: u32,
}

impl Survey {
    /// Whose log it says it is.
    pub(super) fn mark(&self) -> Bytes {
        let newest = self.segments.values().next_back();
        newest.map(|segment| segment.header.mark.clone()).unwrap_or_default()
    }
}

/// Opens all files and reads what they say of themselves.
pub(super) fn survey(
    disk: &dyn Disk,
    stem: &str,
    owner: Option<Owner>,
) -> Result<Survey, LogError> {
    let log: Arc<str> = stem.into();
    let names = disk.list().map_err(|error| LogError::disk(&log, error))?;
    let (mut segments, mut blank, mut next_slot) = (BTreeMap::new(), Vec::new(), 1);
    for name in names {
        let Some(slot) = slot_of(stem, &name) else { continue };
        let name: Arc<str> = name.into();
        let file = disk.open(&name).map_err(|error| LogError::disk(&name, error))?;
        next_slot = next_slot.max(slot.saturating_add(1));
        let damaged = |what| Err(LogError::damaged(&name, Place::Offset(0), what));
        match head(&*file).map_err(|error| LogError::disk(&name, error))? {
            Head::Blank => {
                let (replaced, filled_bytes) = (0, 0);
                blank.push(Spare { name, slot, file, replaced, filled_bytes });
            }
            Head::Damaged => return damaged("the header is not what was written"),
            Head::Newer(format) => {
                return Err(LogError::Newer { file: name, format });
            }
            Head::Segment(header) => {
                if let Some(owner) = owner {
                    let mark = Some(&*header.mark).filter(|mark| !mark.is_empty());
                    owner.judge(mark).map_err(|error| LogError::not_ours(&name, error))?;
                }
                let (number, seed) = (header.number, header.seed());
                let segment = Segment { name: Arc::clone(&name), slot, file, header, seed };
                if segments.insert(number, segment).is_some() {
                    return damaged("another file has the same number");
                }
            }
        }
    }
    if let Some(owner) = owner.filter(|_| segments.is_empty()) {
        // Before an empty file takes the place of a lost one.
        owner.judge(None).map_err(|error| LogError::not_ours(&log, error))?;
    }
    Ok(Survey { log, segments, blank, next_slot })
}

/// What a file says of itself. One gets its header before its first frame.
pub(super) fn head(file: &dyn DiskFile) -> std::io::Result<Head> {
    let len = usize::try_from(file.len()?).unwrap_or(usize::MAX).min(HEADER_BYTES);
    let mut bytes = vec![0; HEADER_BYTES];
    file.read(0, bytes.get_mut(..len).unwrap_or_default())?;
    match Header::decode(&bytes) {
        Head::Blank if has_frame(file)? => Ok(Head::Damaged),
        head => Ok(head),
    }
}

/// Whether something stands where a file's first frame begins.
fn has_frame(file: &dyn DiskFile) -> std::io::Result<bool> {
    let mut bytes = [0; FRAME_HEADER_BYTES];
    let end = FRAMES_AT + FRAME_HEADER_BYTES as u64;
    if file.len()? < end {
        return Ok(false);
    }
    file.read(FRAMES_AT, &mut bytes)?;
    Ok(bytes.iter().any(|byte| *byte != 0))
}

/// A log as it was found.
pub(super) struct Recovered {
    pub(super) memory: Memory,
    pub(super) groups: BTreeMap<GroupId, GroupRow>,
    pub(super) shelf: BTreeMap<u64, Arc<Segment>>,
    pub(super) uses: BTreeMap<u64, Use>,
    /// Where the log goes on; `None` if it was never begun.
    pub(super) tail: Option<(Arc<Segment>, u64)>,
    pub(super) number_last: u64,
    pub(super) spares: Vec<Spare>,
    pub(super) next_slot: u32,
}

/// Reads the segments that are needed, and cuts off what a crash left of a
/// commit.
pub(super) fn recover(
    disk: &dyn Disk,
    survey: Survey,
    owner: Option<Owner>,
    tail_bytes_max: usize,
    rows_bytes_max: u64,
) -> Result<Recovered, LogError> {
    let Survey { log, mut segments, blank, next_slot } = survey;
    let number_last = segments.keys().next_back().copied().unwrap_or(0);
    let (newest, begun) = newest(&mut segments)?;
    let mut reading = Reading::default();
    let (mut recovered, mut mending) = (None, None);
    let tail = match newest {
        Some(Newest { segment, frames }) => {
            let segment = Arc::new(segment);
            let Ends { last, offset, list } = reading.newest(&log, &segment, &frames)?;
            let unended = unended(&segments, &list)?;
            // From here on it is known what counts.
            let mut recovery = Recovery::new(tail_bytes_max, &reading.groups);
            let newest = std::mem::take(&mut reading.found);
            reading.older(disk, &log, &list, &mut segments, &begun, &mut recovery)?;
            recovery.take(&newest);
            recovered = Some(recovery);
            mending = Some(Mending { unended, frames, last });
            Some((segment, offset))
        }
        None => {
            if let Some(later) = begun.iter().find(|segment| segment.header.number > 1) {
                return Err(later.damaged(FRAMES_AT, "no checkpoint, and no segment before"));
            }
            if let Some(owner) = owner {
                // Its first checkpoint was there before it counted as begun.
                owner.judge(None).map_err(|error| LogError::not_ours(&log, error))?;
            }
            None
        }
    };
    // One that was begun with the number 1 must not stay. It is used before blank
    // ones, of which nothing is known to be filled.
    let begun = begun.into_iter();
    let mut spares: Vec<Spare> =
        begun.map(|it| Spare { replaced: it.header.replaced, ..Spare::of(&it) }).collect();
    spares.extend(segments.into_values().map(|dead| Spare::of(&dead)));
    spares.extend(blank);
    let Reading { groups, frames, shelf, uses, .. } = reading;
    let recovered = recovered.map(Recovery::finish);
    let recovered = recovered.unwrap_or_else(|| Ok(Memory::new(tail_bytes_max)));
    let mut memory = recovered.map_err(|hole| {
        let (number, offset) = place_of(hole.sequence);
        let file = shelf.get(&number).map_or(&log, |segment| &segment.name);
        hole.of(file, Place::Offset(offset))
    })?;
    for sequence in frames {
        memory.note_row(sequence);
    }
    let bytes = groups.values().map(GroupRow::stored_bytes).sum();
    if bytes > rows_bytes_max {
        return Err(LogError::Crowded { bytes, bytes_max: rows_bytes_max });
    }
    // Nothing was written so far, and now all that was found is sound.
    if let Some((mending, (segment, offset))) = mending.zip(tail.as_ref()) {
        mending.mend(segment, *offset)?;
    }
    Ok(Recovered { memory, groups, shelf, uses, tail, number_last, spares, next_slot })
}

/// The segment in which a log ends, as far as is known.
struct Newest {
    segment: Segment,
    frames: Frames,
}

/// Takes out the newest segment that has a checkpoint, and those that were
/// begun since.
fn newest(
    segments: &mut BTreeMap<u64, Segment>,
) -> Result<(Option<Newest>, Vec<Segment>), LogError> {
    let mut begun = Vec::new();
    while let Some((_, segment)) = segments.pop_last() {
        let frames = Frames::read(&segment, segment.header.capacity)?;
        if frames.at(FRAMES_AT).is_some_and(|(header, _)| header.kind == Kind::Checkpoint) {
            return Ok((Some(Newest { segment, frames }), begun));
        }
        if let Some(offset) = frames.header_behind(FRAMES_AT) {
            let what = format!("no checkpoint, but a frame at {offset}");
            return Err(segment.damaged(FRAMES_AT, what));
        }
        frames.reach(&segment)?;
        begun.push(segment);
    }
    Ok((None, begun))
}

/// The segment before the newest one and where it is to be ended, if a crash
/// came before that.
fn unended(
    segments: &BTreeMap<u64, Segment>,
    list: &[(u64, u64)],
) -> Result<Option<(Segment, u64)>, LogError> {
    let kind_at = |frames: &Frames, offset| frames.at(offset).map(|(header, _)| header.kind);
    for (number, segment) in segments.iter().rev() {
        let frames = Frames::read(segment, segment.header.capacity)?;
        if kind_at(&frames, FRAMES_AT) != Some(Kind::Checkpoint) {
            continue;
        }
        let listed = list.iter().find(|(listed, _)| listed == number).map(|(_, end)| *end);
        let end = listed.unwrap_or_else(|| frames.end_of_commits());
        let has_room = end + END_BYTES <= frames.end();
        let is_unended = kind_at(&frames, end) != Some(Kind::End) && has_room;
        return Ok(is_unended.then(|| (segment.clone(), end)));
    }
    Ok(None)
}

/// What the newest segment says.
struct Ends {
    /// Where the last whole frame begins.
    last: u64,
    /// Where it ends.
    offset: u64,
    /// Which other segments are needed, and where each ends.
    list: Vec<(u64, u64)>,
}

/// What was read so far.
#[derive(Default)]
struct Reading {
    groups: BTreeMap<GroupId, GroupRow>,
    /// The entries of the segment that was read last.
    found: Vec<Found>,
    /// Frames with entries.
    frames: Vec<u64>,
    shelf: BTreeMap<u64, Arc<Segment>>,
    uses: BTreeMap<u64, Use>,
}

impl Reading {
    /// Reads the segment in which the log ends.
    fn newest(
        &mut self,
        log: &Arc<str>,
        segment: &Arc<Segment>,
        frames: &Frames,
    ) -> Result<Ends, LogError> {
        frames.reach(segment)?;
        let mut list = Vec::new();
        let mut used = Use::default();
        let (mut offset, mut last) = (FRAMES_AT, FRAMES_AT);
        while let Some((header, body)) = frames.at(offset) {
            let rows = self.frame(segment, offset, header, body, &mut used)?;
            if let Some(next) = rows.next {
                return Err(gone(log, next));
            }
            if offset == FRAMES_AT {
                list = rows.segments;
            }
            self.groups.extend(rows.groups);
            last = offset;
            offset = header.end(offset);
        }
        if let Some(later) = frames.header_behind(offset) {
            let what = format!("a frame that was durable before the one at {later} was written");
            return Err(segment.damaged(offset, what));
        }
        self.keep(Arc::clone(segment), used);
        Ok(Ends { last, offset, list })
    }

    /// Reads the segments that a checkpoint lists, or the indexes of them.
    fn older(
        &mut self,
        disk: &dyn Disk,
        log: &Arc<str>,
        list: &[(u64, u64)],
        segments: &mut BTreeMap<u64, Segment>,
        begun: &[Segment],
        recovery: &mut Recovery,
    ) -> Result<(), LogError> {
        let mut bytes = Vec::new();
        // Nothing was needed of a segment whose file was taken.
        let taken: BTreeSet<u64> = begun.iter().map(|segment| segment.header.replaced).collect();
        for (number, end) in list {
            match segments.remove(number).map(Arc::new) {
                Some(segment) => {
                    self.found.clear();
                    match index::read(disk, &segment, *end) {
                        Some(found) => self.indexed(segment, *end, found)?,
                        None => bytes = self.full(segment, *end, bytes)?,
                    }
                    recovery.take(&self.found);
                }
                None if taken.contains(number) => {}
                None => return Err(gone(log, *number)),
            }
        }
        Ok(())
    }

    /// Takes what the index of a segment says.
    fn indexed(
        &mut self,
        segment: Arc<Segment>,
        end: u64,
        found: Vec<Found>,
    ) -> Result<(), LogError> {
        let len = segment.file.len().map_err(|error| segment.failed(error))?;
        if len < end {
            return Err(segment.damaged(len, "the file is cut off"));
        }
        sometimes!("a segment of the log is opened by its index");
        let mut used = Use { end, is_indexed: true, ..Use::default() };
        for first in found.chunk_by(Found::is_beside).filter_map(|row| row.first()) {
            self.note(first.location.sequence, &mut used);
        }
        self.found = found;
        self.keep(segment, used);
        Ok(())
    }

    /// Reads a segment that was full when its successor was begun, into memory that
    /// was used before, and gives that back.
    fn full(
        &mut self,
        segment: Arc<Segment>,
        end: u64,
        memory: Vec<u8>,
    ) -> Result<Vec<u8>, LogError> {
        let mut used = Use { end, ..Use::default() };
        let mut window = Window::new(&segment, end, memory);
        let broken = window.show(|offset, header, body| {
            self.frame(&segment, offset, header, body, &mut used).map(|_| true)
        })?;
        let memory = window.into_memory();
        if let Some(offset) = broken {
            return Err(segment.damaged(offset, "a frame is not what was written"));
        }
        self.keep(segment, used);
        Ok(memory)
    }

    fn frame(
        &mut self,
        segment: &Segment,
        offset: u64,
        header: FrameHeader,
        body: &[u8],
        used: &mut Use,
    ) -> Result<Rows, LogError> {
        let sequence = sequence_of(segment.header.number, offset);
        let mut read = || {
            let (rows_bytes, entry_bytes) = body.split_at_checked(header.rows_len as usize)?;
            entries(sequence, header.rows_len, entry_bytes, &mut self.found)?;
            rows(header.kind, rows_bytes)
        };
        let is_first = header.kind == Kind::Checkpoint;
        let read = if is_first == (offset == FRAMES_AT) { read() } else { None };
        let is_sound = |rows: &Rows| {
            let owners = rows.groups.iter().filter_map(|(_, row)| row.owner.as_ref());
            let mut cuts = owners.flat_map(|owner| &*owner.truncations);
            // What a cut hides was written before it.
            cuts.all(|cut| cut.before_sequence <= sequence)
        };
        let read = read.filter(is_sound);
        if header.entries_len > 0 {
            self.note(sequence, used);
        }
        read.ok_or_else(|| segment.damaged(offset, "a frame that no log has written"))
    }

    /// Notes a frame with entries.
    fn note(&mut self, sequence: u64, used: &mut Use) {
        used.filled += 1;
        used.frames += 1;
        self.frames.push(sequence);
    }

    fn keep(&mut self, segment: Arc<Segment>, used: Use) {
        self.uses.insert(segment.header.number, used);
        self.shelf.insert(segment.header.number, segment);
    }
}

fn gone(log: &Arc<str>, number: u64) -> LogError {
    LogError::damaged(log, Place::Segment(number), "its file is gone, or is not what was written")
}

/// What a crash left to be done.
struct Mending {
    /// The segment before the newest, if it lacks its last frame.
    unended: Option<(Segment, u64)>,
    /// Of the newest one.
    frames: Frames,
    /// Where the last whole one begins.
    last: u64,
}

impl Mending {
    /// To be called with the newest segment and where its last frame ends.
    fn mend(self, newest: &Segment, offset: u64) -> Result<(), LogError> {
        cut(newest, &self.frames, self.last, offset)?;
        if let Some((before, end)) = self.unended {
            write_end(&before, end, newest.header.number)?;
        }
        Ok(())
    }
}

/// Ends a segment at `offset`: whatever a crash left there of a commit was
/// acknowledged to nobody. Then makes sure that what was read is on disk. The
/// process that wrote the last frame may have died before its sync, or of one
/// that failed, after which the system may take the frame for written: it is
/// written once more. All before it were durable when it was written.
fn cut(segment: &Segment, frames: &Frames, last: u64, offset: u64) -> Result<(), LogError> {
    let rest = frames.from(offset).unwrap_or_default();
    if FrameHeader::decode(segment.seed, offset, rest).is_some() {
        tracing::warn!(file = &*segment.name, offset, "a commit that was cut short is removed");
    }
    let stale = rest.get(..FRAME_HEADER_BYTES).unwrap_or(rest);
    let write = || {
        if stale.iter().any(|byte| *byte != 0) {
            segment.file.write(offset, &vec![0; stale.len()])?;
        }
        let len = usize::try_from(offset - last).unwrap_or(usize::MAX);
        let frame = frames.from(last).and_then(|bytes| bytes.get(..len));
        segment.file.write(last, frame.unwrap_or_default())?;
        segment.file.sync()
    };
    write().map_err(|error| segment.failed(error))
}
