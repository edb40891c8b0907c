//! A machine with a state of many rows, in the embedded engine.

use std::any::Any;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_engine::{Engine, EngineError, EngineSnapshot, Mutation, Space, Staging};
use quorate_raft::{
    Batch, Entry, MachineError, MachineFuture, SEED_INDEX, SnapshotReader, SnapshotWriter,
    StateMachine, seeded_host_row,
};
use quorate_types::env::{Rng, SplitMix};
use quorate_types::{Blob, KeyRange, NodeId, ReplicaId, ShardId};

const HOST_ROW: &[u8] = b"host row";
/// A row that a [`fill`] makes.
const ROW_BYTES: u64 = 1 << 10;
/// Rows that one command fills.
pub(crate) const FILLED_AT_ONCE: u64 = 1_024;

/// How many commands make a state of so many MiB.
pub(crate) const fn fills(mib: u64) -> u64 {
    (mib << 20) / (ROW_BYTES * FILLED_AT_ONCE)
}

/// The command that writes the next rows, the same ones on each replica and hard to
/// compress.
pub(crate) fn fill(nth: u64) -> Bytes {
    let mut command = BytesMut::new();
    command.put_u64(nth * FILLED_AT_ONCE);
    command.put_u64(FILLED_AT_ONCE);
    command.freeze()
}

/// The command that overwrites one of the rows.
pub(crate) fn write(row: u64, payload: &[u8]) -> Bytes {
    let mut command = BytesMut::new();
    command.put_u64(row);
    command.put_u64(0);
    command.put_slice(payload);
    command.freeze()
}

pub(crate) struct Rows {
    engine: Arc<dyn Engine>,
    shard: ShardId,
}

impl Rows {
    /// A first replica of a new group of these members, or what is stored of it.
    pub(crate) fn seeded(
        engine: Arc<dyn Engine>,
        shard: ShardId,
        members: &[(ReplicaId, NodeId)],
    ) -> Result<Self, EngineError> {
        let row = Mutation::put(HOST_ROW.to_vec(), Blob(seeded_host_row(members)));
        engine.create(shard, KeyRange::all(), SEED_INDEX, vec![row])?;
        Ok(Self { engine, shard })
    }
}

fn changes(entry: &Entry) -> Vec<Mutation> {
    let Some(mut command) = entry.command.clone() else { return Vec::new() };
    let (first, count) = (command.get_u64(), command.get_u64());
    if count == 0 {
        return vec![Mutation::put(first.to_be_bytes().to_vec(), command)];
    }
    let rows = (first..first + count).map(|row| {
        let mut chance = SplitMix::new(row);
        let mut value = BytesMut::new();
        while (value.len() as u64) < ROW_BYTES {
            value.put_u64(chance.next_u64());
        }
        Mutation::put(row.to_be_bytes().to_vec(), value.freeze())
    });
    rows.collect()
}

impl StateMachine for Rows {
    fn recovered(&mut self) -> Result<Option<Bytes>, MachineError> {
        let row = self.engine.get(self.shard, Space::System, HOST_ROW).map_err(failed)?;
        Ok(row.map(|row| row.0))
    }

    fn apply(&mut self, batch: Batch) -> MachineFuture<'_, Vec<Bytes>> {
        Box::pin(async move {
            self.engine.ready().await.map_err(failed)?;
            let index = batch.entries.last().map_or(0, |entry| entry.index);
            let changes = quorate_engine::Batch {
                index,
                data: batch.entries.iter().flat_map(changes).collect(),
                system: vec![Mutation::put(HOST_ROW.to_vec(), Blob(batch.host_row))],
                ..quorate_engine::Batch::default()
            };
            self.engine.apply(self.shard, changes).map_err(failed)?;
            Ok(vec![Bytes::new(); batch.entries.len()])
        })
    }

    fn flush(&mut self) -> MachineFuture<'_, u64> {
        Box::pin(async move { self.engine.flush(self.shard).await.map_err(failed) })
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotReader>, MachineError> {
        let snapshot = self.engine.snapshot(self.shard).map_err(failed)?;
        let row = snapshot.system_row(HOST_ROW).map_err(failed)?;
        let row = row.ok_or_else(|| MachineError::new("there is no host row"))?;
        Ok(Box::new(Reader { snapshot, row: row.0 }))
    }

    fn install(&mut self) -> Result<Box<dyn SnapshotWriter>, MachineError> {
        Ok(Box::new(Writer(self.engine.staging(self.shard).map_err(failed)?)))
    }

    fn installed(&mut self, staged: Box<dyn SnapshotWriter>, row: Bytes) -> MachineFuture<'_, ()> {
        Box::pin(async move {
            let staged = (staged as Box<dyn Any>).downcast::<Writer>();
            let staged = staged.map_err(|_| MachineError::new("staged elsewhere"))?;
            let row = vec![Mutation::put(HOST_ROW.to_vec(), Blob(row))];
            self.engine.install(self.shard, staged.0, row).await.map_err(failed)
        })
    }
}

struct Reader {
    snapshot: Box<dyn EngineSnapshot>,
    row: Bytes,
}

impl SnapshotReader for Reader {
    fn host_row(&self) -> Bytes {
        self.row.clone()
    }

    fn next_chunk(&mut self, bytes_max: usize) -> MachineFuture<'_, Option<Bytes>> {
        let chunk = self.snapshot.next_chunk(bytes_max).map_err(failed);
        Box::pin(async move { chunk })
    }
}

struct Writer(Box<dyn Staging>);

impl SnapshotWriter for Writer {
    fn write(&mut self, chunk: Bytes) -> MachineFuture<'_, ()> {
        Box::pin(async move { self.0.write(chunk).await.map_err(failed) })
    }
}

fn failed(error: EngineError) -> MachineError {
    MachineError::caused_by("the engine failed", error)
}
