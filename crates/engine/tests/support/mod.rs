//! A disk that forgets what was not synced, and can be told to misbehave.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use quorate_types::disk::{Disk, DiskFile};
use quorate_types::env::{Rng, SplitMix};
use quorate_types::runtime::{Runtime, scope};
use tokio::task::AbortHandle;

/// What one write loses of itself at a time when power fails.
const SECTOR_BYTES: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    FailSync,
    PanicOnWrite,
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

#[derive(Debug, Default, Clone)]
struct File {
    durable: Vec<u8>,
    cached: Vec<u8>,
    unsynced: Vec<Change>,
    is_open: bool,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, File>,
    operations_left: Option<u64>,
    fault: Option<Fault>,
    holds_syncs: bool,
    syncs_held: usize,
}

#[derive(Debug, Default)]
struct Machine {
    state: Mutex<State>,
    held: Condvar,
    released: Condvar,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct TestDisk(Arc<Machine>);

#[derive(Debug)]
struct TestFile {
    machine: Arc<Machine>,
    name: String,
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::SetLen(len) => bytes.resize(*len as usize, 0),
        Change::Write(offset, data) => {
            let (start, end) = (*offset as usize, *offset as usize + data.len());
            bytes.resize(bytes.len().max(end), 0);
            bytes[start..end].copy_from_slice(data);
        }
    }
}

impl TestDisk {
    /// Power fails at the operation after `operations` more.
    pub(crate) fn cut_after(&self, operations: u64) {
        self.0.state.lock().operations_left = Some(operations);
    }

    pub(crate) fn inject(&self, fault: Fault) {
        self.0.state.lock().fault = Some(fault);
    }

    /// Syncs wait until [`Self::release_syncs`].
    pub(crate) fn hold_syncs(&self) {
        self.0.state.lock().holds_syncs = true;
    }

    /// Blocks until a sync waits.
    pub(crate) fn await_held_sync(&self) {
        let mut state = self.0.state.lock();
        while state.syncs_held == 0 {
            self.0.held.wait(&mut state);
        }
    }

    pub(crate) fn release_syncs(&self) {
        self.0.state.lock().holds_syncs = false;
        self.0.released.notify_all();
    }

    /// The disk as the next boot finds it: of what was not synced, each change
    /// is there, or not, or in part.
    pub(crate) fn after_power_cut(&self, chance: &mut SplitMix) -> Self {
        let mut state = self.0.state.lock();
        state.operations_left = Some(0);
        let mut files = state.files.clone();
        for file in files.values_mut() {
            file.is_open = false;
            for change in std::mem::take(&mut file.unsynced) {
                match (chance.below(3), change) {
                    (0, _) => {}
                    (1, Change::Write(offset, data)) => {
                        for (number, sector) in data.chunks(SECTOR_BYTES).enumerate() {
                            let at = offset + (number * SECTOR_BYTES) as u64;
                            if chance.below(2) == 0 {
                                apply(&mut file.durable, &Change::Write(at, sector.to_vec()));
                            }
                        }
                    }
                    (_, change) => apply(&mut file.durable, &change),
                }
            }
            file.cached = file.durable.clone();
        }
        let state = State { files, ..State::default() };
        Self(Arc::new(Machine { state: Mutex::new(state), ..Machine::default() }))
    }
}

impl Disk for TestDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.state.lock();
        let file = state.files.entry(name.to_owned()).or_default();
        if std::mem::replace(&mut file.is_open, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Arc::new(TestFile { machine: Arc::clone(&self.0), name: name.to_owned() }))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.0.state.lock().files.contains_key(name))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.state.lock().files.remove(name);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.state.lock().files.keys().cloned().collect())
    }
}

impl TestFile {
    fn with<T>(&self, is_counted: bool, access: impl FnOnce(&mut File) -> T) -> io::Result<T> {
        let mut state = self.machine.state.lock();
        if let Some(left) = &mut state.operations_left {
            if *left == 0 {
                return Err(io::Error::other("power failed"));
            }
            *left -= u64::from(is_counted);
        }
        Ok(access(state.files.get_mut(&self.name).unwrap()))
    }

    fn change(&self, change: Change) -> io::Result<()> {
        assert!(self.machine.state.lock().fault != Some(Fault::PanicOnWrite), "told to panic");
        self.with(true, |file| {
            apply(&mut file.cached, &change);
            file.unsynced.push(change);
        })
    }
}

impl DiskFile for TestFile {
    fn len(&self) -> io::Result<u64> {
        self.with(false, |file| file.cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(false, |file| {
            let start = offset as usize;
            let found = file.cached.get(start..start + out.len());
            out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })?
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write(offset, data.to_vec()))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::SetLen(len))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.machine.state.lock();
        state.syncs_held += 1;
        self.machine.held.notify_all();
        while state.holds_syncs {
            self.machine.released.wait(&mut state);
        }
        state.syncs_held -= 1;
        if state.fault == Some(Fault::FailSync) {
            return Err(io::Error::other("told to fail"));
        }
        drop(state);
        self.with(true, |file| {
            file.unsynced.clear();
            file.durable.clone_from(&file.cached);
        })
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        if let Some(file) = self.machine.state.lock().files.get_mut(&self.name) {
            file.is_open = false;
        }
    }
}

/// A node of a simulation: threads are tasks, time is virtual, chance is
/// seeded, so that a seed replays.
#[derive(Debug)]
struct Node(Mutex<SplitMix>);

impl Runtime for Node {
    fn spawned(&self, _: AbortHandle) {}

    fn random(&self) -> u64 {
        self.0.lock().next_u64()
    }

    fn sync_delay(&self) -> Duration {
        Duration::from_millis(self.0.lock().below(4))
    }
}

/// Whether a future is done at the first look.
pub(crate) fn is_ready<T>(future: &mut (impl Future<Output = T> + Unpin)) -> bool {
    let waker = std::task::Waker::noop();
    std::pin::Pin::new(future).poll(&mut std::task::Context::from_waker(waker)).is_ready()
}

/// Runs a scenario as a simulated node.
pub(crate) fn simulate<T>(seed: u64, scenario: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(scope(Arc::new(Node(Mutex::new(SplitMix::new(seed)))), scenario))
}
