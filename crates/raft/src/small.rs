//! Machines whose state fits into memory, and into one write.

#[cfg(test)]
mod tests;

use std::any::Any;
use std::future::ready;
use std::io;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::RwLock;
use quorate_types::disk::{Disk, DiskFile};
use quorate_types::{NodeId, ReplicaId};

use crate::consensus::wire::{host_row_index, seeded_host_row};
use crate::machine::{
    Batch, MachineError, MachineFuture, SnapshotReader, SnapshotWriter, StateMachine,
};

/// The newest format of what is stored: `[version u8][crc32c u32][sequence u64]
/// [row length u32][row][state]`, the checksum over all that follows it, seeded with
/// the version.
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 1 + 4 + 8 + 4;

/// A state that is small enough to be saved as a whole, again and again: a counter,
/// a configuration, a table of leases (port, of [`SmallMachine`]).
pub trait SmallState: Default + Send + Sync + 'static {
    /// Applies a command and answers it. The state afterwards is a function of the
    /// state before and the command alone.
    fn apply(&mut self, command: &[u8]) -> Bytes;

    /// All of it, for [`load`](Self::load).
    fn save(&self) -> Bytes;

    /// What was saved.
    ///
    /// # Errors
    /// When these bytes are none that [`save`](Self::save) gave, in words for the
    /// operator. The replica does not run then.
    fn load(saved: &[u8]) -> Result<Self, String>;
}

/// The state of a [`SmallMachine`], to be read beside it. What is read is
/// linearizable once [`read_index`](crate::Group::read_index) was confirmed and
/// [applied](crate::Group::wait_applied).
#[derive(Debug)]
pub struct View<S>(Arc<RwLock<S>>);

impl<S> Clone for View<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> View<S> {
    /// Reads the state as of now. Applying waits meanwhile.
    pub fn read<R>(&self, read: impl FnOnce(&S) -> R) -> R {
        read(&self.0.read())
    }
}

/// A [`StateMachine`] over a [`SmallState`].
///
/// The state lives in memory. A flush, and so every snapshot and every purge of the
/// log, writes all of it into the older one of two files, so that a crash leaves the
/// newer. What was applied since comes from the log again.
///
/// It writes to the disk where it is called, in the time of whoever else the
/// runtime's thread serves; that is what "small" is about. Megabytes belong into an
/// engine.
#[derive(Debug)]
pub struct SmallMachine<S> {
    files: [Arc<dyn DiskFile>; 2],
    name: String,
    /// Of the last save; odd ones are in the second file.
    sequence: u64,
    row: Option<Bytes>,
    state: View<S>,
}

impl<S: SmallState> SmallMachine<S> {
    /// Opens the state that was flushed last, in two files whose names begin with
    /// `name`; an empty one the first time.
    ///
    /// One file that is damaged counts as torn by a crash. If it was not, the state
    /// is older than what was flushed, and the host refuses to run it over a log
    /// that was purged since.
    ///
    /// # Errors
    /// When the files cannot be read, or what is in both of them is damaged.
    pub fn open(disk: &dyn Disk, name: &str) -> Result<Self, MachineError> {
        let failed =
            |error: io::Error| MachineError::caused_by(format!("cannot open {name}"), error);
        let open = |slot: usize| disk.open(&format!("{name}-{slot}"));
        let files = [open(0).map_err(failed)?, open(1).map_err(failed)?];
        let mut newest: Option<Saved> = None;
        let mut damaged = 0;
        for file in &files {
            match Saved::read(&**file).map_err(failed)? {
                Found::Nothing => {}
                // Torn by a crash: then the other one is whole.
                Found::Damage => damaged += 1,
                Found::Saved(saved) => {
                    if newest.as_ref().is_none_or(|other| other.sequence < saved.sequence) {
                        newest = Some(saved);
                    }
                }
            }
        }
        if damaged == files.len() {
            return Err(MachineError::new(format!(
                "both copies of the state, {name}-0 and {name}-1, are damaged: remove the replica \
                 and add another"
            )));
        }
        let mut machine = Self {
            files,
            name: name.to_owned(),
            sequence: 0,
            row: None,
            state: View(Arc::new(RwLock::new(S::default()))),
        };
        if let Some(Saved { sequence, row, state }) = newest {
            (machine.sequence, machine.row) = (sequence, Some(row));
            *machine.state.0.write() = machine.load(&state)?;
        }
        Ok(machine)
    }

    /// The same as a first replica of a new group of these members, if nothing was
    /// stored yet: see [`seeded_host_row`]. A replica that is added later is not.
    #[must_use]
    pub fn seeded(mut self, members: &[(ReplicaId, NodeId)]) -> Self {
        self.row.get_or_insert_with(|| seeded_host_row(members));
        self
    }

    /// Removes what is stored under a name, for a replica that is gone for good.
    /// Nothing may hold it open.
    ///
    /// # Errors
    /// When the files cannot be removed; some of them may be.
    pub fn erase(disk: &dyn Disk, name: &str) -> Result<(), MachineError> {
        let remove = |slot: usize| disk.remove(&format!("{name}-{slot}"));
        let removed = remove(0).and_then(|()| remove(1));
        removed.map_err(|error| MachineError::caused_by(format!("cannot remove {name}"), error))
    }

    /// The state, for reads.
    #[must_use]
    pub fn view(&self) -> View<S> {
        self.state.clone()
    }

    fn load(&self, saved: &[u8]) -> Result<S, MachineError> {
        S::load(saved)
            .map_err(|why| MachineError::new(format!("the state of {}: {why}", self.name)))
    }

    /// Stores a state and its row, durably.
    fn store(&mut self, state: &[u8], row: &[u8]) -> Result<(), MachineError> {
        let sequence = self.sequence + 1;
        let bytes = Saved::encode(sequence, row, state);
        let [first, second] = &self.files;
        let file = if sequence.is_multiple_of(2) { first } else { second };
        let store = || {
            file.write(0, &bytes)?;
            file.set_len(bytes.len() as u64)?;
            file.sync()
        };
        store().map_err(|error| {
            MachineError::caused_by(format!("cannot store {}", self.name), error)
        })?;
        self.sequence = sequence;
        Ok(())
    }

    fn flushed(&mut self) -> Result<u64, MachineError> {
        let row = self.row.clone().ok_or_else(|| MachineError::new("nothing was applied yet"))?;
        let state = self.state.read(S::save);
        self.store(&state, &row)?;
        Ok(host_row_index(&row).unwrap_or_default())
    }
}

impl<S: SmallState> StateMachine for SmallMachine<S> {
    fn recovered(&mut self) -> Result<Option<Bytes>, MachineError> {
        Ok(self.row.clone())
    }

    fn apply(&mut self, batch: Batch) -> MachineFuture<'_, Vec<Bytes>> {
        let mut state = self.state.0.write();
        let outcome = |command: Option<Bytes>| {
            command.map(|command| state.apply(&command)).unwrap_or_default()
        };
        let outcomes = batch.entries.into_iter().map(|entry| entry.command).map(outcome).collect();
        self.row = Some(batch.host_row);
        Box::pin(ready(Ok(outcomes)))
    }

    fn flush(&mut self) -> MachineFuture<'_, u64> {
        let flushed = self.flushed();
        Box::pin(ready(flushed))
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotReader>, MachineError> {
        let row = self.row.clone().ok_or_else(|| MachineError::new("nothing was applied yet"))?;
        Ok(Box::new(Reader { row, rest: self.state.read(S::save) }))
    }

    fn install(&mut self) -> Result<Box<dyn SnapshotWriter>, MachineError> {
        Ok(Box::new(Writer(BytesMut::new())))
    }

    fn installed(&mut self, staged: Box<dyn SnapshotWriter>, row: Bytes) -> MachineFuture<'_, ()> {
        let install = || {
            let staged = (staged as Box<dyn Any>).downcast::<Writer>();
            let Ok(staged) = staged else { return Err(MachineError::new("staged elsewhere")) };
            let state = self.load(&staged.0)?;
            self.store(&staged.0, &row)?;
            *self.state.0.write() = state;
            self.row = Some(row);
            Ok(())
        };
        let installed = install();
        Box::pin(ready(installed))
    }
}

struct Reader {
    row: Bytes,
    rest: Bytes,
}

impl SnapshotReader for Reader {
    fn host_row(&self) -> Bytes {
        self.row.clone()
    }

    fn next_chunk(&mut self, bytes_max: usize) -> MachineFuture<'_, Option<Bytes>> {
        let bytes = bytes_max.max(1).min(self.rest.len());
        let chunk = (bytes > 0).then(|| self.rest.split_to(bytes));
        Box::pin(ready(Ok(chunk)))
    }
}

struct Writer(BytesMut);

impl SnapshotWriter for Writer {
    fn write(&mut self, chunk: Bytes) -> MachineFuture<'_, ()> {
        self.0.extend_from_slice(&chunk);
        Box::pin(ready(Ok(())))
    }
}

/// What one file holds.
struct Saved {
    sequence: u64,
    row: Bytes,
    state: Bytes,
}

enum Found {
    Nothing,
    Damage,
    Saved(Saved),
}

impl Saved {
    fn encode(sequence: u64, row: &[u8], state: &[u8]) -> Bytes {
        let mut body = BytesMut::with_capacity(HEADER_BYTES + row.len() + state.len());
        body.put_u64(sequence);
        body.put_u32(u32::try_from(row.len()).unwrap_or(u32::MAX));
        body.put_slice(row);
        body.put_slice(state);
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + row.len() + state.len());
        bytes.put_u8(VERSION);
        bytes.put_u32(crc32c::crc32c_append(u32::from(VERSION), &body));
        bytes.put_slice(&body);
        bytes.freeze()
    }

    fn read(file: &dyn DiskFile) -> io::Result<Found> {
        let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
        if len == 0 {
            return Ok(Found::Nothing);
        }
        let mut bytes = vec![0; len];
        file.read(0, &mut bytes)?;
        let mut body = Bytes::from(bytes);
        let (version, sum) = (body.try_get_u8(), body.try_get_u32());
        let (Ok(version), Ok(sum)) = (version, sum) else { return Ok(Found::Damage) };
        if crc32c::crc32c_append(u32::from(version), &body) != sum {
            return Ok(Found::Damage);
        }
        if version != VERSION {
            let other = format!("format {version} is none that this program knows ({VERSION})");
            return Err(io::Error::new(io::ErrorKind::Unsupported, other));
        }
        Ok(Self::decode(body).map_or(Found::Damage, Found::Saved))
    }

    fn decode(mut bytes: Bytes) -> Option<Self> {
        let sequence = bytes.try_get_u64().ok()?;
        let row_bytes = usize::try_from(bytes.try_get_u32().ok()?).ok()?;
        if row_bytes > bytes.len() {
            return None;
        }
        let row = bytes.split_to(row_bytes);
        Some(Self { sequence, row, state: bytes })
    }
}
