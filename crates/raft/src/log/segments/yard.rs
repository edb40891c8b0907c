//! What can be done beside commits. One file is always kept ready for the next
//! segment, so that no commit waits while it is filled with zeroes, and segments
//! that stay get their indexes.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use quorate_types::disk::{Disk, DiskFile};
use tokio::sync::Notify;

use super::super::LogError;
use super::Segment;
use super::format::file_of;
use super::index::{self, Outcome};

/// Files that are kept for later use. More are removed.
const SPARES_MAX: usize = 4;
/// How much of a file is filled at a time.
const FILL_BYTES: usize = 1 << 20;

/// A file that a segment may be begun in.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) name: Arc<str>,
    pub(super) slot: u32,
    pub(super) file: Arc<dyn DiskFile>,
    /// The number under which the newest checkpoint may list it; zero for none.
    pub(super) replaced: u64,
    /// How much of it is known to be on disk. A blank file that was found may be
    /// one that nobody waited for.
    pub(super) filled_bytes: u64,
}

impl Spare {
    /// The file of a segment that nothing is needed of.
    pub(super) fn of(segment: &Segment) -> Self {
        Self {
            name: Arc::clone(&segment.name),
            slot: segment.slot,
            file: Arc::clone(&segment.file),
            replaced: segment.header.number,
            filled_bytes: segment.header.capacity,
        }
    }

    /// Extends the file with zeroes that are on disk: a later write there
    /// changes data, and no file. What is there stays: the newest checkpoint may
    /// list it.
    fn fill(&mut self, bytes: u64, goes_on: impl Fn() -> bool) -> Result<(), LogError> {
        let mut fill = || {
            // Somebody may have cut off a file that nothing was needed of.
            let mut at = self.filled_bytes.min(self.file.len()?);
            if at >= bytes {
                return Ok(());
            }
            let zeroes = vec![0; FILL_BYTES];
            while at < bytes {
                if !goes_on() {
                    return Err(io::Error::other("the log is closed"));
                }
                let step = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(FILL_BYTES);
                self.file.write(at, zeroes.get(..step).unwrap_or_default())?;
                at += step as u64;
            }
            self.file.sync()?;
            self.filled_bytes = bytes;
            Ok(())
        };
        fill().map_err(|error: io::Error| LogError::disk(&self.name, error))
    }
}

#[derive(Debug)]
pub(super) struct Yard {
    disk: Arc<dyn Disk>,
    stem: String,
    state: Mutex<State>,
    /// Held while files are filled or removed.
    busy: Mutex<()>,
    wake: Notify,
}

#[derive(Debug)]
struct State {
    spares: VecDeque<Spare>,
    /// Filled, and the next to be used.
    ready: Option<Spare>,
    surplus: Vec<Spare>,
    /// Full segments and where their last commits end. Those that are let go of
    /// meanwhile need no index.
    unindexed: VecDeque<(Weak<Segment>, u64)>,
    /// How large the one that is kept ready is to be.
    wanted_bytes: u64,
    next_slot: u32,
    is_closed: bool,
    /// Whether the last attempt to have one ready failed. The next segment
    /// tries again, and tells its caller.
    has_failed: bool,
}

impl State {
    /// The one to be used next, be it ready or not.
    fn next(&mut self) -> Option<Spare> {
        if let Some(ready) = self.ready.take() {
            self.spares.push_front(ready);
        }
        self.sort();
        self.spares.pop_front()
    }

    /// Those first that lack least of what is wanted: the first files of a log are
    /// small, and once others are free nobody fills them up. Of those that lack
    /// nothing the one that has been free for longest.
    fn sort(&mut self) {
        let wanted = self.wanted_bytes;
        let lacks = |spare: &Spare| wanted.saturating_sub(spare.filled_bytes);
        self.spares.make_contiguous().sort_by_key(lacks);
    }
}

impl Yard {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        stem: &str,
        wanted_bytes: u64,
        spares: Vec<Spare>,
        next_slot: u32,
    ) -> Self {
        let state = State {
            spares: spares.into(),
            ready: None,
            surplus: Vec::new(),
            unindexed: VecDeque::new(),
            wanted_bytes,
            next_slot,
            is_closed: false,
            has_failed: false,
        };
        Self {
            disk,
            stem: stem.to_owned(),
            state: Mutex::new(state),
            busy: Mutex::new(()),
            wake: Notify::new(),
        }
    }

    /// A file with at least so many bytes. The next is going to be one of
    /// `next_bytes`.
    pub(super) fn take(&self, bytes: u64, next_bytes: u64) -> Result<Spare, LogError> {
        let next = {
            let mut state = self.state.lock();
            state.has_failed = false;
            state.wanted_bytes = next_bytes;
            state.next()
        };
        let mut spare = match next {
            Some(spare) => spare,
            None => self.create()?,
        };
        spare.fill(bytes, || true)?;
        self.wake.notify_one();
        Ok(spare)
    }

    fn create(&self) -> Result<Spare, LogError> {
        let slot = {
            let mut state = self.state.lock();
            let slot = state.next_slot;
            let full = || io::Error::other("there is no number for another file of the log");
            let next = slot.checked_add(1).ok_or_else(full);
            state.next_slot =
                next.map_err(|error| LogError::disk(&self.stem.as_str().into(), error))?;
            slot
        };
        let name = file_of(&self.stem, slot);
        let file = self.disk.open(&name).map_err(|error| LogError::disk(&name, error))?;
        Ok(Spare { name, slot, file, replaced: 0, filled_bytes: 0 })
    }

    /// Takes a file back.
    pub(super) fn give(&self, spare: Spare) {
        self.state.lock().spares.push_back(spare);
        self.wake.notify_one();
    }

    /// Lets the files go that are too many, those that lack most. To be called when a
    /// checkpoint has just been written: it lists none of them, so that nobody
    /// misses them.
    pub(super) fn prune(&self) {
        let mut state = self.state.lock();
        state.sort();
        let keep = state.spares.len().min(SPARES_MAX);
        let surplus = state.spares.split_off(keep);
        state.surplus.extend(surplus);
        drop(state);
        self.wake.notify_one();
    }

    /// Has an index written of a full segment.
    pub(super) fn index(&self, segment: &Arc<Segment>, end: u64) {
        self.state.lock().unindexed.push_back((Arc::downgrade(segment), end));
        self.wake.notify_one();
    }

    /// Keeps a file ready, removes those that are too many, and writes indexes,
    /// until the log is closed.
    pub(super) async fn run(self: Arc<Self>) {
        while !self.state.lock().is_closed {
            if !self.work() {
                self.wake.notified().await;
            }
        }
    }

    /// One step; false if there is nothing to do.
    fn work(&self) -> bool {
        let _busy = self.busy.lock();
        let mut state = self.state.lock();
        if state.is_closed {
            return false;
        }
        if let Some(spare) = state.surplus.pop() {
            drop(state);
            let index = index::remove(&*self.disk, &spare.name);
            for removed in [index, self.disk.remove(&spare.name)] {
                let file = &*spare.name;
                if let Err(error) = removed {
                    tracing::warn!(file, %error, "a file of the log cannot be removed");
                }
            }
            return true;
        }
        let bytes = state.wanted_bytes;
        let is_ready = state.ready.as_ref().is_some_and(|it| it.filled_bytes >= bytes);
        if is_ready || state.has_failed {
            let Some((segment, end)) = state.unindexed.pop_front() else { return false };
            drop(state);
            self.write_index(&segment, end);
            return true;
        }
        let spare = state.next();
        drop(state);
        let goes_on = || !self.state.lock().is_closed;
        let filled = spare.map_or_else(|| self.create(), Ok).map(|mut spare| {
            let filled = spare.fill(bytes, goes_on);
            (spare, filled)
        });
        let mut state = self.state.lock();
        let error = match filled {
            Ok((spare, Ok(()))) if state.ready.is_none() => {
                state.ready = Some(spare);
                None
            }
            Ok((spare, filled)) => {
                state.spares.push_front(spare);
                filled.err()
            }
            Err(error) => Some(error),
        };
        if let Some(error) = error.filter(|_| !state.is_closed) {
            tracing::warn!(%error, "no file is ready for the log's next segment");
            state.has_failed = true;
        }
        true
    }

    /// Without an index the log opens more slowly, and is as sound.
    fn write_index(&self, full: &Weak<Segment>, end: u64) {
        let Some(segment) = full.upgrade() else { return };
        let goes_on = || !self.state.lock().is_closed;
        let written = index::write(&*self.disk, &segment, end, goes_on);
        let file = Arc::clone(&segment.name);
        drop(segment);
        match written {
            Ok(Outcome::Written | Outcome::Closed) => {}
            Ok(Outcome::Damaged) if full.upgrade().is_some() => {
                tracing::error!(
                    file = &*file,
                    "a segment of the log is damaged: its entries may not be readable, and the \
                     log may be refused when it is opened again"
                );
            }
            // Its file has got its next use.
            Ok(Outcome::Damaged) => {}
            Err(error) => tracing::warn!(%error, "a segment of the log has no index"),
        }
    }

    /// Releases the files.
    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.wake.notify_one();
        let _busy = self.busy.lock();
        let mut state = self.state.lock();
        state.ready = None;
        state.spares.clear();
        state.surplus.clear();
        state.unindexed.clear();
    }
}

#[cfg(test)]
mod tests;
