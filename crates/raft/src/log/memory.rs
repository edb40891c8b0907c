//! What the log holds, in memory: where every entry lies, and the payloads of
//! the newest ones. Changed the moment an operation starts; the disk follows.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use quorate_types::{GroupId, ReplicaId};

use super::rows::{Census, GroupRow, Location, OwnerRow};
use super::writer::entry_bytes;
use super::{LogEntry, LogError, LogPosition, LogState, Place, Vote};

/// How many stale references to removed entries the tail may hold before it is
/// swept, besides as many as are not stale: so sweeping one costs no more than
/// keeping one, and the tail's size stays in proportion.
const STALE_TAIL_ITEMS_MAX: usize = 4096;

/// How many rows are passed over on the way to the next one that is wanted, before
/// it is searched for.
const ROWS_PASSED_MAX: usize = 8;

/// Room for so many is never given back.
const ROOM_MIN: usize = 64;

/// Gives back the room of a list that has held many more than it does: what a
/// group takes is in proportion to its log.
fn give_back_room<T>(list: &mut VecDeque<T>) {
    if list.capacity() > ROOM_MIN && list.len() < list.capacity() / 4 {
        list.shrink_to(list.len() * 2);
    }
}

struct Slot {
    /// Tells this entry from one that replaced it at the same index.
    ticket: u64,
    term: u64,
    /// Set once the entry is durable.
    location: Option<Location>,
}

pub(super) struct Owner {
    pub(super) replica: ReplicaId,
    pub(super) vote: Option<Vote>,
    purged: Option<LogPosition>,
    /// The index of the first slot; where an empty log continues.
    first: u64,
    slots: VecDeque<Slot>,
    /// The payloads of the last slots: of those that are not durable, and of those
    /// in the tail.
    cached: VecDeque<Bytes>,
    /// Of the payloads of all slots.
    pub(super) payload_bytes: u64,
}

impl Owner {
    fn new(replica: ReplicaId) -> Self {
        let (slots, cached) = (VecDeque::new(), VecDeque::new());
        Self { replica, vote: None, purged: None, first: 0, slots, cached, payload_bytes: 0 }
    }

    fn payload(&self, index: u64) -> Option<&Bytes> {
        let first = self.next_index() - self.cached.len() as u64;
        self.cached.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    pub(super) fn next_index(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    fn slot(&self, index: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    fn slot_mut(&mut self, index: u64) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    /// The payload bytes of some slots, by their places.
    fn bytes_of(&self, slots: Range<usize>) -> u64 {
        let bytes = self.slots.range(slots.clone()).zip(slots).map(|(slot, place)| {
            let stored = slot.location.map(|location| u64::from(location.len));
            let cached = || self.payload(self.first + place as u64);
            stored.unwrap_or_else(|| cached().map_or(0, |payload| payload.len() as u64))
        });
        bytes.sum()
    }

    fn give_back_room(&mut self) {
        give_back_room(&mut self.slots);
        give_back_room(&mut self.cached);
    }

    /// Where the next entry must stand. A log that never held anything may
    /// begin anywhere.
    fn begin_at(&mut self, index: u64) {
        if self.slots.is_empty() && self.purged.is_none() {
            self.first = index;
        }
    }

    pub(super) fn state(&self) -> LogState {
        let last = self
            .slots
            .back()
            .map(|slot| LogPosition { term: slot.term, index: self.next_index() - 1 });
        LogState { vote: self.vote, purged: self.purged, last: last.or(self.purged) }
    }
}

#[derive(Default)]
pub(super) struct Group {
    pub(super) owner: Option<Owner>,
    pub(super) tombstones: BTreeSet<ReplicaId>,
}

/// An entry that was found on disk.
pub(super) struct Found {
    pub(super) group: GroupId,
    pub(super) replica: ReplicaId,
    pub(super) position: LogPosition,
    pub(super) location: Location,
}

impl Found {
    /// Whether another stands in the same row.
    pub(super) const fn is_beside(&self, other: &Self) -> bool {
        self.location.sequence == other.location.sequence
    }
}

/// An entry of a group that its row holds.
type Held = (LogPosition, Location);

/// Entries of a group are missing before this one.
pub(super) struct Hole {
    group: GroupId,
    index: u64,
    /// The row of the entry behind them.
    pub(super) sequence: u64,
}

impl Hole {
    pub(super) fn of(&self, file: &Arc<str>, place: Place) -> LogError {
        let Self { group, index, .. } = self;
        LogError::damaged(
            file,
            place,
            format!("entries of {group} before index {index} are missing"),
        )
    }
}

/// An entry that has reached the disk.
pub(super) struct Placed {
    pub(super) group: GroupId,
    pub(super) index: u64,
    pub(super) ticket: u64,
    pub(super) location: Location,
}

/// One step of a read.
pub(super) enum Piece {
    Cached(Bytes),
    Stored(Location),
}

/// How much of a row is needed.
#[derive(Clone, Copy, Default)]
struct Live {
    entries: u64,
    bytes: u64,
}

impl Live {
    fn add(&mut self, location: Location) {
        *self = self.plus(Self { entries: 1, bytes: bytes_at(location) });
    }

    const fn plus(self, other: Self) -> Self {
        Self { entries: self.entries + other.entries, bytes: self.bytes + other.bytes }
    }
}

/// What an entry takes on disk, at most.
fn bytes_at(location: Location) -> u64 {
    entry_bytes(location.len as usize) as u64
}

fn owner_in(groups: &mut BTreeMap<GroupId, Group>, group: GroupId) -> Result<&mut Owner, LogError> {
    let owner = groups.get_mut(&group).and_then(|memory| memory.owner.as_mut());
    owner.ok_or(LogError::UnknownGroup(group))
}

/// The rows of entries on disk.
#[derive(Default)]
struct Rows {
    /// What is still needed, by the row that holds it.
    live: BTreeMap<u64, Live>,
    /// Rows of entries that nothing needs any more once an operation is durable:
    /// its number, which does not fall along the list, and the row.
    dead: VecDeque<(u64, u64)>,
    /// The number of the operation that changes this now.
    operation: u64,
}

impl Rows {
    /// Entries of a row are needed.
    fn enter(&mut self, row: u64, needed: Live) {
        if needed.entries > 0 {
            let live = self.live.entry(row).or_default();
            *live = live.plus(needed);
        }
    }

    /// Entries are not needed any more, nor are rows of which none is now.
    fn leave(&mut self, entries: impl IntoIterator<Item = Location>) {
        let before = self.dead.len();
        let mut entries = entries.into_iter().peekable();
        let mut rows = self.live.range_mut(u64::MAX..);
        while let Some(first) = entries.next() {
            let sequence = first.sequence;
            let mut left = Live::default();
            left.add(first);
            while let Some(next) = entries.next_if(|next| next.sequence == sequence) {
                left.add(next);
            }
            // Mostly it is the next one.
            let mut ahead = rows.by_ref().take(ROWS_PASSED_MAX);
            let live = match ahead.find(|(row, _)| **row >= sequence) {
                Some((row, live)) if *row == sequence => Some(live),
                _ => {
                    rows = self.live.range_mut(sequence..);
                    rows.next().filter(|(row, _)| **row == sequence).map(|(_, live)| live)
                }
            };
            let Some(live) = live else { continue };
            live.entries -= left.entries;
            live.bytes -= left.bytes;
            if live.entries == 0 {
                self.dead.push_back((self.operation, sequence));
            }
        }
        for (_, row) in self.dead.range(before..) {
            self.live.remove(row);
        }
    }
}

/// The payloads that are kept in memory.
#[derive(Default)]
struct Tail {
    /// Cached entries, oldest first; some may be gone already.
    items: VecDeque<(GroupId, u64, u64)>,
    /// How many are not gone, and their payloads' bytes.
    entries: usize,
    bytes: usize,
    bytes_max: usize,
}

impl Tail {
    fn leave(&mut self, payload: &Bytes) {
        self.entries -= 1;
        self.bytes -= payload.len();
    }
}

/// A log that is read from disk: what its rows and the entries there show of it.
pub(super) struct Recovery {
    memory: Memory,
    /// Whose entries count, and those that were found.
    owners: BTreeMap<GroupId, (OwnerRow, Vec<Held>)>,
}

impl Recovery {
    pub(super) fn new(tail_bytes_max: usize, rows: &BTreeMap<GroupId, GroupRow>) -> Self {
        let mut memory = Memory::new(tail_bytes_max);
        let mut owners = BTreeMap::new();
        for (&group, row) in rows {
            memory.restore_group(group, row);
            if let Some(owner) = &row.owner {
                owners.insert(group, (owner.clone(), Vec::new()));
            }
        }
        Self { memory, owners }
    }

    /// Takes what was found in some rows, whole ones. Entries that no group's row
    /// holds are passed over.
    pub(super) fn take(&mut self, found: &[Found]) {
        // There may be many millions: what is alike is looked up once.
        for row in found.chunk_by(Found::is_beside) {
            let mut live = Live::default();
            for run in row.chunk_by(|one, next| one.group == next.group) {
                let Some(first) = run.first() else { continue };
                let Some((owner, held)) = self.owners.get_mut(&first.group) else { continue };
                for Found { replica, position, location, .. } in run {
                    if owner.holds(*replica, location.sequence, position.index) {
                        held.push((*position, *location));
                        live.add(*location);
                    }
                }
            }
            if let Some(first) = row.first() {
                self.memory.rows.enter(first.location.sequence, live);
            }
        }
    }

    /// The log. Of two entries at one index the later row's counts.
    pub(super) fn finish(self) -> Result<Memory, Hole> {
        let Self { mut memory, owners } = self;
        for (group, (_, held)) in owners {
            memory.restore(group, held)?;
        }
        // Whoever opens the log notes every row, so these too.
        memory.rows.dead.clear();
        Ok(memory)
    }
}

pub(super) struct Memory {
    groups: BTreeMap<GroupId, Group>,
    census: Census,
    rows: Rows,
    tail: Tail,
    next_ticket: u64,
}

impl Memory {
    pub(super) fn new(tail_bytes_max: usize) -> Self {
        Self {
            groups: BTreeMap::new(),
            census: Census::default(),
            rows: Rows::default(),
            tail: Tail { bytes_max: tail_bytes_max, ..Tail::default() },
            next_ticket: 0,
        }
    }

    pub(super) fn group(&self, group: GroupId) -> Option<&Group> {
        self.groups.get(&group)
    }

    pub(super) fn owners(&self) -> Vec<(GroupId, ReplicaId)> {
        self.groups
            .iter()
            .filter_map(|(&group, memory)| Some((group, memory.owner.as_ref()?.replica)))
            .collect()
    }

    pub(super) fn owner(&self, group: GroupId) -> Result<&Owner, LogError> {
        let owner = self.groups.get(&group).and_then(|memory| memory.owner.as_ref());
        owner.ok_or(LogError::UnknownGroup(group))
    }

    pub(super) fn owner_mut(&mut self, group: GroupId) -> Result<&mut Owner, LogError> {
        owner_in(&mut self.groups, group)
    }

    /// Makes `replica` the owner; says whether it newly is.
    pub(super) fn admit(
        &mut self,
        group: GroupId,
        replica: ReplicaId,
        rows_bytes_max: u64,
    ) -> Result<bool, LogError> {
        let memory = self.groups.get(&group);
        if memory.is_some_and(|memory| memory.tombstones.contains(&replica)) {
            return Err(LogError::Tombstoned { group, replica });
        }
        match memory.and_then(|memory| memory.owner.as_ref()) {
            Some(owner) if owner.replica == replica => Ok(false),
            Some(owner) => Err(LogError::Occupied { group, owner: owner.replica }),
            None => {
                self.census.room(rows_bytes_max)?;
                self.census.owners += 1;
                self.groups.entry(group).or_default().owner = Some(Owner::new(replica));
                Ok(true)
            }
        }
    }

    /// Refuses a group that [`Self::admit`] would have no room for.
    pub(super) fn room_for(&self, group: GroupId, rows_bytes_max: u64) -> Result<(), LogError> {
        self.owner(group).map(drop).or_else(|_| self.census.room(rows_bytes_max))
    }

    /// Restores a group from its row; entries follow by [`Self::restore`].
    fn restore_group(&mut self, group: GroupId, row: &GroupRow) {
        self.census.count(row);
        let memory = self.groups.entry(group).or_default();
        memory.tombstones = row.tombstones.iter().copied().collect();
        memory.owner = row.owner.as_ref().map(|stored| Owner {
            replica: stored.replica,
            vote: stored.vote,
            purged: stored.purged,
            first: stored.purged.map_or(0, |purged| purged.index + 1),
            slots: VecDeque::new(),
            cached: VecDeque::new(),
            payload_bytes: 0,
        });
    }

    /// Restores the entries of a group, whose rows are noted.
    fn restore(&mut self, group: GroupId, mut entries: Vec<Held>) -> Result<(), Hole> {
        entries.sort_by_key(|(position, location)| (position.index, location.sequence));
        let Ok(owner) = owner_in(&mut self.groups, group) else { return Ok(()) };
        let mut replaced = Vec::new();
        let mut entries = entries.into_iter().peekable();
        while let Some((LogPosition { term, index }, location)) = entries.next() {
            if entries.peek().is_some_and(|(next, _)| next.index == index) {
                replaced.push(location);
                continue;
            }
            owner.begin_at(index);
            if owner.next_index() != index {
                return Err(Hole { group, index, sequence: location.sequence });
            }
            owner.payload_bytes += u64::from(location.len);
            let location = Some(location);
            owner.slots.push_back(Slot { ticket: 0, term, location });
        }
        self.rows.leave(replaced);
        Ok(())
    }

    /// The bytes that are needed of some rows, with what is around a payload.
    pub(super) fn needed_bytes(&self, rows: Range<u64>) -> u64 {
        self.rows.live.range(rows).map(|(_, live)| live.bytes).sum()
    }

    /// Which of some rows are needed.
    pub(super) fn needed_rows(&self, rows: Range<u64>) -> Vec<u64> {
        self.rows.live.range(rows).map(|(row, _)| *row).collect()
    }

    /// The ticket of an entry, if what lies there is needed.
    pub(super) fn needed(&self, found: &Found) -> Option<u64> {
        let owner = self.owner(found.group).ok()?;
        let slot = owner.slot(found.position.index)?;
        (slot.location == Some(found.location)).then_some(slot.ticket)
    }

    /// Notes a row of entries, so that it is found dead if nothing in it is live.
    pub(super) fn note_row(&mut self, sequence: u64) {
        if !self.rows.live.contains_key(&sequence) {
            self.rows.dead.push_back((self.rows.operation, sequence));
        }
    }

    /// What changes from now on is the doing of the operation with this number.
    pub(super) fn begin_operation(&mut self, number: u64) {
        self.rows.operation = number;
    }

    /// The rows that nothing needs once the operations up to this number are
    /// durable.
    pub(super) fn take_dead(&mut self, operations: u64) -> Vec<u64> {
        let dead = &mut self.rows.dead;
        let count = dead.partition_point(|(number, _)| *number <= operations);
        let taken = dead.drain(..count).map(|(_, row)| row).collect();
        give_back_room(dead);
        taken
    }

    /// Adds entries that continue the log; returns the ticket of the first,
    /// the others' follow.
    pub(super) fn append(
        &mut self,
        group: GroupId,
        entries: &[LogEntry],
    ) -> Result<(ReplicaId, u64), LogError> {
        let first_ticket = self.next_ticket + 1;
        let owner = owner_in(&mut self.groups, group)?;
        if let Some(first) = entries.first() {
            owner.begin_at(first.position.index);
        }
        for (expected, entry) in (owner.next_index()..).zip(entries) {
            if entry.position.index != expected {
                return Err(LogError::Gap { group, expected, found: entry.position.index });
            }
        }
        for (ticket, entry) in (first_ticket..).zip(entries) {
            let LogPosition { term, index } = entry.position;
            owner.slots.push_back(Slot { ticket, term, location: None });
            owner.cached.push_back(entry.payload.clone());
            owner.payload_bytes += entry.payload.len() as u64;
            self.tail.items.push_back((group, index, ticket));
            self.tail.entries += 1;
            self.tail.bytes += entry.payload.len();
        }
        let replica = owner.replica;
        self.next_ticket += entries.len() as u64;
        Ok((replica, first_ticket))
    }

    /// Removes the entries from `from` on; returns the last one removed.
    pub(super) fn truncate(&mut self, group: GroupId, from: u64) -> Result<Option<u64>, LogError> {
        let owner = owner_in(&mut self.groups, group)?;
        let end = owner.next_index();
        let keep = from.clamp(owner.first, end) - owner.first;
        let keep = usize::try_from(keep).unwrap_or(usize::MAX);
        owner.payload_bytes -= owner.bytes_of(keep..owner.slots.len());
        let removed = owner.slots.len().saturating_sub(keep);
        let kept = owner.cached.len().saturating_sub(removed);
        owner.cached.drain(kept..).for_each(|payload| self.tail.leave(&payload));
        self.rows.leave(owner.slots.drain(keep..).filter_map(|slot| slot.location));
        owner.give_back_room();
        Ok((removed > 0).then(|| end - 1))
    }

    /// Removes the entries up to `upto`. False when they were gone already.
    pub(super) fn purge(&mut self, group: GroupId, upto: LogPosition) -> Result<bool, LogError> {
        let owner = owner_in(&mut self.groups, group)?;
        // Nor is there anything to purge below where a log begins.
        let is_below = !owner.slots.is_empty() && upto.index < owner.first;
        if is_below || owner.purged.is_some_and(|purged| purged.index >= upto.index) {
            return Ok(false);
        }
        let drop = (upto.index + 1).clamp(owner.first, owner.next_index()) - owner.first;
        let drop = usize::try_from(drop).unwrap_or(usize::MAX);
        owner.payload_bytes -= owner.bytes_of(0..drop);
        let removed = owner.slots.drain(..drop);
        self.rows.leave(removed.filter_map(|slot| slot.location));
        let surplus = owner.cached.len().saturating_sub(owner.slots.len());
        owner.cached.drain(..surplus).for_each(|payload| self.tail.leave(&payload));
        owner.give_back_room();
        owner.purged = Some(upto);
        owner.first = upto.index + 1;
        Ok(true)
    }

    /// Removes a replica's log and leaves a tombstone.
    pub(super) fn forget(&mut self, group: GroupId, replica: ReplicaId) {
        let memory = self.groups.entry(group).or_default();
        let is_new = memory.tombstones.insert(replica);
        self.census.tombstones += u64::from(is_new);
        if memory.owner.as_ref().is_some_and(|owner| owner.replica == replica)
            && let Some(owner) = memory.owner.take()
        {
            self.census.owners -= 1;
            owner.cached.iter().for_each(|payload| self.tail.leave(payload));
            self.rows.leave(owner.slots.into_iter().filter_map(|slot| slot.location));
        }
    }

    /// Notes where entries lie now that they are durable, be it once more, and
    /// lets the oldest payloads go where the tail is full.
    pub(super) fn place(&mut self, placed: &[Placed]) {
        let mut left = Vec::new();
        let is_beside =
            |one: &Placed, next: &Placed| one.location.sequence == next.location.sequence;
        for row in placed.chunk_by(is_beside) {
            let Some(first) = row.first() else { continue };
            let mut held = Live::default();
            for run in row.chunk_by(|one, next| one.group == next.group) {
                let Some(first) = run.first() else { continue };
                let Ok(owner) = owner_in(&mut self.groups, first.group) else { continue };
                for Placed { index, ticket, location, .. } in run {
                    let slot = owner.slot_mut(*index).filter(|slot| slot.ticket == *ticket);
                    if let Some(slot) = slot {
                        left.extend(slot.location.replace(*location));
                        held.add(*location);
                    }
                }
            }
            self.rows.enter(first.location.sequence, held);
        }
        self.rows.leave(left);
        self.evict();
    }

    fn evict(&mut self) {
        while self.tail.bytes > self.tail.bytes_max {
            let Some(&(group, index, ticket)) = self.tail.items.front() else { return };
            let owner = self.groups.get_mut(&group).and_then(|memory| memory.owner.as_mut());
            let kept = owner.and_then(|owner| {
                let slot = owner.slot(index).filter(|slot| slot.ticket == ticket)?;
                let is_durable = slot.location.is_some();
                Some((is_durable, owner))
            });
            match kept {
                // Not durable, and neither is anything behind it.
                Some((false, _)) => return,
                Some((true, owner)) => {
                    debug_assert_eq!(
                        owner.next_index() - owner.cached.len() as u64,
                        index,
                        "invariant: payloads leave in the order in which they came"
                    );
                    if let Some(payload) = owner.cached.pop_front() {
                        self.tail.leave(&payload);
                    }
                    give_back_room(&mut owner.cached);
                }
                None => {}
            }
            self.tail.items.pop_front();
        }
        self.sweep_tail();
        give_back_room(&mut self.tail.items);
    }

    fn sweep_tail(&mut self) {
        if self.tail.items.len() <= 2 * self.tail.entries + STALE_TAIL_ITEMS_MAX {
            return;
        }
        let groups = &self.groups;
        self.tail.items.retain(|&(group, index, ticket)| {
            groups
                .get(&group)
                .and_then(|memory| memory.owner.as_ref())
                .and_then(|owner| owner.slot(index))
                .is_some_and(|slot| slot.ticket == ticket)
        });
    }

    /// What a read of `range` has to fetch; at least the first entry, and no
    /// more than `payload_bytes_max` beyond it.
    pub(super) fn plan(
        &self,
        group: GroupId,
        range: Range<u64>,
        payload_bytes_max: usize,
    ) -> Result<Vec<(LogPosition, Piece)>, LogError> {
        let owner = self.owner(group)?;
        let mut pieces = Vec::new();
        let mut payload_bytes: usize = 0;
        for index in range.start.max(owner.first)..range.end.min(owner.next_index()) {
            let Some(slot) = owner.slot(index) else { break };
            let position = LogPosition { term: slot.term, index };
            let (len, piece) = match (owner.payload(index), slot.location) {
                (Some(payload), _) => (payload.len(), Piece::Cached(payload.clone())),
                (None, Some(location)) => (location.len as usize, Piece::Stored(location)),
                (None, None) => break,
            };
            payload_bytes = payload_bytes.saturating_add(len);
            if payload_bytes > payload_bytes_max && !pieces.is_empty() {
                break;
            }
            pieces.push((position, piece));
        }
        Ok(pieces)
    }

    pub(super) fn term_at(&self, group: GroupId, index: u64) -> Result<Option<u64>, LogError> {
        Ok(self.owner(group)?.slot(index).map(|slot| slot.term))
    }
}
