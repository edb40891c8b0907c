//! A machine that writes every command on a tape, with a flaw of one's choice.

use std::any::Any;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use quorate_raft::conformance::Subject;
use quorate_raft::{
    Batch, MachineError, MachineFuture, SnapshotReader, SnapshotWriter, StateMachine,
    host_row_index,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TapeFlaw {
    None,
    SeesBatches,
    SkipsBlanks,
    RowApart,
    FlushLies,
    FlushLosesRow,
    SnapshotMoves,
    StagingShows,
    InstallNotDurable,
    InstallAdds,
    InstallKeepsRow,
    EmptyChunks,
    OneChunk,
}

#[derive(Clone, Default)]
struct Tape {
    host_row: Option<Bytes>,
    commands: Vec<Bytes>,
}

/// Where a tape survives its machine.
#[derive(Clone, Default)]
struct Storage {
    current: Arc<Mutex<Tape>>,
    durable: Arc<Mutex<Tape>>,
}

pub(crate) fn commands() -> Vec<Bytes> {
    let long = vec![b'l'; 3_000];
    vec![Bytes::from_static(b"one"), Bytes::from_static(b"two"), long.into()]
}

pub(crate) fn subject(flaw: TapeFlaw) -> Subject {
    let storage = Storage::default();
    let (current, durable) = (Arc::clone(&storage.current), Arc::clone(&storage.durable));
    let open = move || -> Box<dyn StateMachine> {
        let before = durable.lock().clone();
        let mut now = current.lock();
        let row = now.host_row.take();
        *now = before;
        if flaw == TapeFlaw::RowApart {
            now.host_row = row;
        }
        drop(now);
        let storage = Storage { current: Arc::clone(&current), durable: Arc::clone(&durable) };
        Box::new(Machine { flaw, storage })
    };
    let state = move || {
        let mut state = BytesMut::new();
        for command in &storage.current.lock().commands {
            state.put_u32(u32::try_from(command.len()).unwrap());
            state.put_slice(command);
        }
        state.freeze()
    };
    Subject { open: Box::new(open), state: Box::new(state) }
}

struct Machine {
    flaw: TapeFlaw,
    storage: Storage,
}

impl StateMachine for Machine {
    fn recovered(&mut self) -> Result<Option<Bytes>, MachineError> {
        Ok(self.storage.current.lock().host_row.clone())
    }

    fn apply(&mut self, batch: Batch) -> MachineFuture<'_, Vec<Bytes>> {
        let mut tape = self.storage.current.lock();
        let mut outcomes = Vec::new();
        let batch_len = batch.entries.len();
        for entry in batch.entries {
            match entry.command {
                None if self.flaw == TapeFlaw::SkipsBlanks => {}
                None => outcomes.push(Bytes::new()),
                Some(command) => {
                    tape.commands.push(command);
                    let mut outcome = tape.commands.len();
                    if self.flaw == TapeFlaw::SeesBatches {
                        outcome += batch_len;
                    }
                    outcomes.push(outcome.to_string().into());
                }
            }
        }
        tape.host_row = Some(batch.host_row);
        Box::pin(async move { Ok(outcomes) })
    }

    fn flush(&mut self) -> MachineFuture<'_, u64> {
        let now = self.storage.current.lock().clone();
        let index = now.host_row.as_ref().and_then(|row| host_row_index(row)).unwrap();
        let mut durable = self.storage.durable.lock();
        match self.flaw {
            // What an installation made durable stays so.
            TapeFlaw::FlushLies => durable.host_row.clone_from(&now.host_row),
            TapeFlaw::FlushLosesRow => durable.commands = now.commands,
            _ => *durable = now,
        }
        Box::pin(async move { Ok(index) })
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotReader>, MachineError> {
        let (tape, flaw) = (self.storage.current.lock().clone(), self.flaw);
        let storage = self.storage.clone();
        Ok(Box::new(Reader { flaw, storage, tape, next: 0, is_fresh: true }))
    }

    fn install(&mut self) -> Result<Box<dyn SnapshotWriter>, MachineError> {
        let shows = (self.flaw == TapeFlaw::StagingShows).then(|| self.storage.clone());
        Ok(Box::new(Writer { commands: Vec::new(), shows }))
    }

    fn installed(
        &mut self,
        staged: Box<dyn SnapshotWriter>,
        host_row: Bytes,
    ) -> MachineFuture<'_, ()> {
        let staged: Box<dyn Any> = staged;
        let staged = staged.downcast::<Writer>().unwrap();
        let mut now = self.storage.current.lock();
        if self.flaw == TapeFlaw::InstallAdds {
            now.commands.extend(staged.commands);
        } else {
            now.commands = staged.commands;
        }
        if self.flaw != TapeFlaw::InstallKeepsRow || now.host_row.is_none() {
            now.host_row = Some(host_row);
        }
        if self.flaw != TapeFlaw::InstallNotDurable {
            *self.storage.durable.lock() = now.clone();
        }
        Box::pin(async { Ok(()) })
    }
}

struct Reader {
    flaw: TapeFlaw,
    storage: Storage,
    tape: Tape,
    next: usize,
    is_fresh: bool,
}

impl SnapshotReader for Reader {
    fn host_row(&self) -> Bytes {
        let row = match self.flaw {
            TapeFlaw::SnapshotMoves => self.storage.current.lock().host_row.clone(),
            _ => self.tape.host_row.clone(),
        };
        row.unwrap()
    }

    fn next_chunk(&mut self, bytes_max: usize) -> MachineFuture<'_, Option<Bytes>> {
        let mut chunk = BytesMut::new();
        if self.flaw == TapeFlaw::EmptyChunks && std::mem::take(&mut self.is_fresh) {
            return Box::pin(async { Ok(Some(Bytes::new())) });
        }
        let bytes_max = if self.flaw == TapeFlaw::OneChunk { usize::MAX } else { bytes_max };
        while let Some(command) = self.tape.commands.get(self.next) {
            if !chunk.is_empty() && chunk.len() + command.len() + 4 > bytes_max {
                break;
            }
            chunk.put_u32(u32::try_from(command.len()).unwrap());
            chunk.put_slice(command);
            self.next += 1;
        }
        Box::pin(async move { Ok((!chunk.is_empty()).then(|| chunk.freeze())) })
    }
}

struct Writer {
    commands: Vec<Bytes>,
    shows: Option<Storage>,
}

impl SnapshotWriter for Writer {
    fn write(&mut self, mut chunk: Bytes) -> MachineFuture<'_, ()> {
        while chunk.has_remaining() {
            let len = chunk.get_u32() as usize;
            self.commands.push(chunk.split_to(len));
        }
        if let Some(storage) = &self.shows {
            storage.current.lock().commands.clone_from(&self.commands);
        }
        Box::pin(async { Ok(()) })
    }
}
