//! One file: what is durable, what is cached, and what a power cut makes of
//! the difference.

use std::collections::VecDeque;
use std::io;

use quorate_types::env::{Rng, SplitMix};

use crate::shuffle::shuffle;

/// What a disk writes as a whole or not at all.
pub const SECTOR_BYTES: u64 = 512;

/// Beyond so many unsynced bytes the oldest are written back unasked, as an
/// operating system does; it also bounds the memory of a long run.
const PENDING_BYTES_MAX: usize = 16 << 20;

/// The same for the number of unsynced changes.
const PENDING_CHANGES_MAX: usize = 1 << 16;

#[derive(Debug, Clone)]
enum Change {
    Write { offset: u64, data: Vec<u8> },
    SetLen(u64),
}

/// A file's two images.
#[derive(Debug, Default)]
pub(super) struct Image {
    durable: Vec<u8>,
    cached: Vec<u8>,
    pending: VecDeque<Change>,
    pending_bytes: usize,
}

impl Image {
    pub(super) fn len(&self) -> u64 {
        self.cached.len() as u64
    }

    pub(super) fn has_unsynced(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = address(offset)?;
        let end = start.checked_add(out.len()).ok_or(io::ErrorKind::InvalidInput)?;
        let found = self.cached.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        put(&mut self.cached, offset, data)?;
        self.note(Change::Write { offset, data: data.to_vec() });
        Ok(())
    }

    pub(super) fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.cached.resize(address(len)?, 0);
        self.note(Change::SetLen(len));
        Ok(())
    }

    fn note(&mut self, change: Change) {
        self.pending_bytes += change.bytes();
        self.pending.push_back(change);
        while self.pending_bytes > PENDING_BYTES_MAX || self.pending.len() > PENDING_CHANGES_MAX {
            let Some(oldest) = self.pending.pop_front() else { return };
            self.pending_bytes -= oldest.bytes();
            oldest.apply(&mut self.durable);
        }
    }

    fn take_pending(&mut self) -> Vec<Change> {
        self.pending_bytes = 0;
        std::mem::take(&mut self.pending).into()
    }

    pub(super) fn sync(&mut self) {
        for change in self.take_pending() {
            change.apply(&mut self.durable);
        }
    }

    /// Gives up on making the pending changes durable; they stay readable
    /// until the next power cut.
    pub(super) fn forget_unsynced(&mut self) {
        drop(self.take_pending());
    }

    /// Damages the file at rest.
    pub(super) fn damage(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        self.sync();
        change(&mut self.cached);
        self.durable.clone_from(&self.cached);
    }

    /// A file that holds `durable` and has nothing unsynced.
    pub(super) fn of(durable: Vec<u8>) -> Self {
        Self { cached: durable.clone(), durable, ..Self::default() }
    }

    /// What a power cut would leave for sure.
    pub(super) fn durable(&self) -> &[u8] {
        &self.durable
    }

    /// What is found after power was cut now. Drawn per cut: everything
    /// unsynced is lost, everything is kept, a prefix is kept, or each sector
    /// of each write is kept or lost on its own, in any order between two
    /// changes of length (those are journaled, hence ordered). Returns of how
    /// many writes a part was kept and a part was lost.
    pub(super) fn cut(&mut self, chance: &mut SplitMix) -> u64 {
        let pending = self.take_pending();
        let mut writes_torn = 0;
        let kept = match chance.below(8) {
            0 => Vec::new(),
            1 => pending,
            2 | 3 => {
                let count = chance.below(pending.len() as u64 + 1);
                let mut kept = pending;
                let last = kept.drain(address(count).unwrap_or(0)..).next();
                kept.extend(all_torn(last, chance, &mut writes_torn));
                kept
            }
            4 | 5 => all_torn(pending, chance, &mut writes_torn),
            _ => shuffled(all_torn(pending, chance, &mut writes_torn), chance),
        };
        for change in kept {
            change.apply(&mut self.durable);
        }
        self.cached.clone_from(&self.durable);
        writes_torn
    }
}

impl Change {
    fn bytes(&self) -> usize {
        match self {
            Self::Write { data, .. } => data.len(),
            Self::SetLen(_) => 0,
        }
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        // Neither fails: the change was applied to the cached image before.
        match self {
            Self::Write { offset, data } => drop(put(bytes, *offset, data)),
            Self::SetLen(len) => bytes.resize(address(*len).unwrap_or(bytes.len()), 0),
        }
    }

    /// The sectors of it that happen to reach the disk, and whether those are
    /// some of a write and not all.
    fn torn(self, chance: &mut SplitMix) -> (Vec<Self>, bool) {
        let Self::Write { offset, data } = self else {
            return (if chance.below(2) == 0 { vec![self] } else { Vec::new() }, false);
        };
        let mut kept = Vec::new();
        let mut kept_bytes = 0;
        let mut rest = data.as_slice();
        let mut at = offset;
        while !rest.is_empty() {
            let room = address(SECTOR_BYTES - at % SECTOR_BYTES).unwrap_or(1);
            let (sector, tail) = rest.split_at(room.min(rest.len()));
            if chance.below(2) == 0 {
                kept.push(Self::Write { offset: at, data: sector.to_vec() });
                kept_bytes += sector.len();
            }
            at += sector.len() as u64;
            rest = tail;
        }
        let is_torn = !kept.is_empty() && kept_bytes < data.len();
        (kept, is_torn)
    }
}

/// What happens to reach the disk of each change, in their order. Adds to
/// `writes_torn` how many writes were torn.
fn all_torn(
    changes: impl IntoIterator<Item = Change>,
    chance: &mut SplitMix,
    writes_torn: &mut u64,
) -> Vec<Change> {
    let mut all = Vec::new();
    for change in changes {
        let (kept, is_torn) = change.torn(chance);
        *writes_torn += u64::from(is_torn);
        all.extend(kept);
    }
    all
}

/// Puts writes into any order that leaves every change of length in its place.
fn shuffled(changes: Vec<Change>, chance: &mut SplitMix) -> Vec<Change> {
    let mut done = Vec::new();
    let mut writes = Vec::new();
    for change in changes {
        match change {
            Change::Write { .. } => writes.push(change),
            Change::SetLen(_) => {
                shuffle(&mut writes, chance);
                done.append(&mut writes);
                done.push(change);
            }
        }
    }
    shuffle(&mut writes, chance);
    done.append(&mut writes);
    done
}

fn put(bytes: &mut Vec<u8>, offset: u64, data: &[u8]) -> io::Result<()> {
    let start = address(offset)?;
    let end = start.checked_add(data.len()).ok_or(io::ErrorKind::InvalidInput)?;
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    if let Some(place) = bytes.get_mut(start..end) {
        place.copy_from_slice(data);
    }
    Ok(())
}

fn address(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}
