//! A disk whose files stay as they are until all that was opened on it has
//! proved to be sound.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::{Disk, DiskFile};

/// The unit in which held bytes lie over the file's.
const PAGE_BYTES: usize = 4096;
/// How much a file holds back. One that writes more is being repaired, not
/// opened; it lands then, so that memory stays bounded.
const HELD_BYTES_MAX: usize = 256 << 20;

/// Opens files of another disk and holds their writes back until
/// [`DeferredDisk::land`]: stores write while they open (a database marks its
/// file as in use, and repairs it), and a start that is refused because one
/// store is damaged must leave every one as it was found.
///
/// Dropped without landing, nothing was written. Files are created, locked and
/// removed at once.
#[derive(Debug)]
pub struct DeferredDisk {
    inner: Arc<dyn Disk>,
    /// `None` once they have landed.
    held: Mutex<Option<Vec<Arc<DeferredFile>>>>,
}

impl DeferredDisk {
    /// Holds back what is written to the files of `inner`.
    #[must_use]
    pub fn over(inner: Arc<dyn Disk>) -> Self {
        Self { inner, held: Mutex::new(Some(Vec::new())) }
    }

    /// Writes what was held back, each file's writes and syncs in the order in
    /// which they came, so that a crash in between leaves what one without
    /// the delay would have. From then on the files are the inner disk's, and so
    /// are those that are opened later.
    ///
    /// # Errors
    /// The first failure. Then no file takes any more writes.
    pub fn land(&self) -> io::Result<()> {
        let held = self.held.lock().take().unwrap_or_default();
        let landed = held.iter().try_for_each(|file| file.land());
        if landed.is_err() {
            held.iter().for_each(|file| file.give_up());
        }
        landed
    }
}

impl Disk for DeferredDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut held = self.held.lock();
        let inner = self.inner.open(name)?;
        let Some(held) = &mut *held else { return Ok(inner) };
        let len = inner.len()?;
        let state = State::Held(Held { len, visible_len: len, ..Held::default() });
        let has_landed = AtomicBool::new(false);
        let file = Arc::new(DeferredFile { inner, has_landed, state: Mutex::new(state) });
        held.push(Arc::clone(&file));
        Ok(file)
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.inner.exists(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn available_bytes(&self) -> io::Result<Option<u64>> {
        self.inner.available_bytes()
    }
}

#[derive(Debug)]
struct DeferredFile {
    inner: Arc<dyn DiskFile>,
    /// Spares the lock once there is nothing to look after.
    has_landed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Held(Held),
    Landed,
    Failed,
}

/// What a file would be, and how it would have come to that.
#[derive(Debug, Default)]
struct Held {
    len: u64,
    /// The inner file's bytes below this are still the file's, where no page
    /// lies over them.
    visible_len: u64,
    pages: BTreeMap<u64, Vec<u8>>,
    operations: Vec<Operation>,
    bytes: usize,
}

#[derive(Debug)]
enum Operation {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

impl DeferredFile {
    fn give_up(&self) {
        *self.state.lock() = State::Failed;
        self.has_landed.store(false, Ordering::Release);
    }

    fn land(&self) -> io::Result<()> {
        land(&mut self.state.lock(), &*self.inner)?;
        self.has_landed.store(true, Ordering::Release);
        Ok(())
    }

    /// Takes an operation, or passes it on when the file has landed.
    fn perform(&self, operation: Operation) -> io::Result<()> {
        if self.has_landed.load(Ordering::Acquire) {
            return operation.perform(&*self.inner);
        }
        let mut state = self.state.lock();
        match &mut *state {
            State::Held(held) => {
                held.take(operation, &*self.inner)?;
                if held.bytes <= HELD_BYTES_MAX {
                    return Ok(());
                }
                land(&mut state, &*self.inner)
            }
            State::Landed => operation.perform(&*self.inner),
            State::Failed => Err(failed()),
        }
    }
}

fn failed() -> io::Error {
    io::Error::other("an earlier write has failed")
}

/// Performs what was held back.
fn land(state: &mut State, inner: &dyn DiskFile) -> io::Result<()> {
    match std::mem::replace(state, State::Failed) {
        State::Held(held) => {
            held.operations.into_iter().try_for_each(|operation| operation.perform(inner))?;
        }
        State::Landed => {}
        State::Failed => return Err(failed()),
    }
    *state = State::Landed;
    Ok(())
}

impl DiskFile for DeferredFile {
    fn len(&self) -> io::Result<u64> {
        match &*self.state.lock() {
            State::Held(held) => Ok(held.len),
            State::Landed | State::Failed => self.inner.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.has_landed.load(Ordering::Acquire) {
            return self.inner.read(offset, out);
        }
        match &*self.state.lock() {
            State::Held(held) => held.read(offset, out, &*self.inner),
            State::Landed | State::Failed => self.inner.read(offset, out),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.has_landed.load(Ordering::Acquire) {
            return self.inner.write(offset, data);
        }
        self.perform(Operation::Write(offset, data.to_vec()))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.perform(Operation::SetLen(len))
    }

    fn sync(&self) -> io::Result<()> {
        self.perform(Operation::Sync)
    }
}

impl Operation {
    fn perform(self, file: &dyn DiskFile) -> io::Result<()> {
        match self {
            Self::Write(offset, data) => file.write(offset, &data),
            Self::SetLen(len) => file.set_len(len),
            Self::Sync => file.sync(),
        }
    }
}

impl Held {
    fn take(&mut self, operation: Operation, inner: &dyn DiskFile) -> io::Result<()> {
        match &operation {
            Operation::Write(offset, data) => self.write(*offset, data, inner)?,
            Operation::SetLen(len) => self.set_len(*len),
            Operation::Sync => {}
        }
        self.operations.push(operation);
        Ok(())
    }

    fn read(&self, offset: u64, out: &mut [u8], inner: &dyn DiskFile) -> io::Result<()> {
        if end_of(offset, out.len())? > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = end_of(offset, out.len())?;
        let first = offset / PAGE_BYTES as u64;
        let is_covered = self.pages.range(first..end.div_ceil(PAGE_BYTES as u64)).next().is_some();
        if !is_covered && end <= self.visible_len {
            return inner.read(offset, out);
        }
        for (page, within, part) in parts(offset, out) {
            let loaded;
            let bytes = match self.pages.get(&page) {
                Some(held) => held,
                None => {
                    loaded = self.load(page, inner)?;
                    &loaded
                }
            };
            part.copy_from_slice(bytes.get(within..within + part.len()).unwrap_or_default());
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8], inner: &dyn DiskFile) -> io::Result<()> {
        if data.is_empty() {
            return Ok(()); // Nothing has no end that the file would reach to.
        }
        let end = end_of(offset, data.len())?;
        let mut data = data.to_vec();
        for (page, within, part) in parts(offset, &mut data) {
            let mut bytes = match self.pages.remove(&page) {
                Some(held) => held,
                None => self.load(page, inner)?,
            };
            if let Some(place) = bytes.get_mut(within..within + part.len()) {
                place.copy_from_slice(part);
            }
            self.pages.insert(page, bytes);
        }
        self.len = self.len.max(end);
        self.bytes += data.len();
        Ok(())
    }

    fn set_len(&mut self, len: u64) {
        let page = len / PAGE_BYTES as u64;
        let within = usize::try_from(len % PAGE_BYTES as u64).unwrap_or_default();
        let mut beyond = self.pages.split_off(&page);
        if let Some(mut last) = beyond.remove(&page) {
            last.iter_mut().skip(within).for_each(|byte| *byte = 0);
            self.pages.insert(page, last);
        }
        self.visible_len = self.visible_len.min(len);
        self.len = len;
    }

    /// A page as the inner file has it, with zeroes where that ends.
    fn load(&self, page: u64, inner: &dyn DiskFile) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; PAGE_BYTES];
        let start = page * PAGE_BYTES as u64;
        let visible = self.visible_len.saturating_sub(start);
        let visible = usize::try_from(visible).unwrap_or(PAGE_BYTES).min(PAGE_BYTES);
        if let Some(visible) = bytes.get_mut(..visible).filter(|visible| !visible.is_empty()) {
            inner.read(start, visible)?;
        }
        Ok(bytes)
    }
}

fn end_of(offset: u64, len: usize) -> io::Result<u64> {
    offset.checked_add(len as u64).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Cuts a stretch of bytes that begins at `at` where pages begin: each part
/// with its page and its place therein.
fn parts(mut at: u64, mut rest: &mut [u8]) -> impl Iterator<Item = (u64, usize, &mut [u8])> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let page = at / PAGE_BYTES as u64;
        let within = usize::try_from(at % PAGE_BYTES as u64).unwrap_or_default();
        let len = (PAGE_BYTES - within).min(rest.len());
        let (part, later) = std::mem::take(&mut rest).split_at_mut(len);
        rest = later;
        at += len as u64;
        Some((page, within, part))
    })
}
