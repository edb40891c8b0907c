//! What the Raft host replicates: calvin's and meta's machines over the engine.

use std::any::Any;

use bytes::Bytes;
use quorate_engine::{EngineError, EngineSnapshot, Mutation, Staging};
use quorate_raft::{
    Batch, MachineError, MachineFuture, SnapshotReader, SnapshotWriter, StateMachine,
};
use quorate_types::group_log::GroupMachine;
use quorate_types::{Blob, KeyRange};

use crate::storage::{EngineStore, HOST_ROW_KEY};

/// A core and its rows in the engine, as a Raft state machine.
pub(crate) struct EngineMachine<C> {
    store: EngineStore,
    core: C,
}

impl<C: GroupMachine> EngineMachine<C> {
    pub(crate) fn new(store: EngineStore, core: C) -> Self {
        Self { store, core }
    }
}

impl<C: GroupMachine> StateMachine for EngineMachine<C> {
    fn recovered(&mut self) -> Result<Option<Bytes>, MachineError> {
        if self.store.engine.range(self.store.shard).map_err(halt)?.is_none() {
            return Ok(None);
        }
        let row = self
            .store
            .engine
            .get(self.store.shard, quorate_engine::Space::System, HOST_ROW_KEY)
            .map_err(halt)?;
        Ok(row.map(|row| row.0))
    }

    fn apply(&mut self, batch: Batch) -> MachineFuture<'_, Vec<Bytes>> {
        Box::pin(async move {
            let EngineStore { engine, shard } = &self.store;
            engine.ready().await.map_err(halt)?;
            if batch.entries.last().is_some_and(|it| it.index == 0 && it.command.is_none()) {
                // The first membership alone; an engine counts index 0 as applied.
                let host_row = vec![Mutation::put(HOST_ROW_KEY, Blob(batch.host_row))];
                engine.remove(*shard).await.map_err(halt)?;
                engine.create(*shard, KeyRange::all(), 0, host_row).map_err(halt)?;
                return Ok(vec![Bytes::new(); batch.entries.len()]);
            }
            let entries = batch.entries.iter();
            let entries = entries.map(|entry| (entry.index, entry.command.as_deref()));
            let applied = self.core.apply(&entries.collect::<Vec<_>>(), Blob(batch.host_row));
            applied.map_err(|error| MachineError::caused_by("the machine halted", error))
        })
    }

    fn flush(&mut self) -> MachineFuture<'_, u64> {
        Box::pin(async move { self.store.engine.flush(self.store.shard).await.map_err(halt) })
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotReader>, MachineError> {
        let snapshot = self.store.engine.snapshot(self.store.shard).map_err(halt)?;
        let host_row = snapshot
            .system_row(HOST_ROW_KEY)
            .map_err(halt)?
            .ok_or_else(|| MachineError::new("the snapshot has no host row"))?;
        Ok(Box::new(Reader { snapshot, host_row: host_row.0 }))
    }

    fn install(&mut self) -> Result<Box<dyn SnapshotWriter>, MachineError> {
        let staging = self.store.engine.staging(self.store.shard).map_err(halt)?;
        Ok(Box::new(Writer { staging }))
    }

    fn installed(
        &mut self,
        staged: Box<dyn SnapshotWriter>,
        host_row: Bytes,
    ) -> MachineFuture<'_, ()> {
        Box::pin(async move {
            let staged: Box<dyn Any> = staged;
            let writer = staged
                .downcast::<Writer>()
                .map_err(|_| MachineError::new("the staging is not this engine's"))?;
            let host_row = vec![Mutation::put(HOST_ROW_KEY, Blob(host_row))];
            let shard = self.store.shard;
            self.core.unload();
            self.store.engine.install(shard, writer.staging, host_row).await.map_err(halt)?;
            let applied = self.store.engine.applied(shard).map_err(halt)?.unwrap_or_default();
            let reloaded = self.core.reload(applied);
            reloaded
                .map_err(|error| MachineError::caused_by("the snapshot cannot be loaded", error))
        })
    }
}

struct Reader {
    snapshot: Box<dyn EngineSnapshot>,
    host_row: Bytes,
}

impl SnapshotReader for Reader {
    fn host_row(&self) -> Bytes {
        self.host_row.clone()
    }

    fn next_chunk(&mut self, bytes_max: usize) -> MachineFuture<'_, Option<Bytes>> {
        let chunk = self.snapshot.next_chunk(bytes_max).map_err(halt);
        Box::pin(async move { chunk })
    }
}

struct Writer {
    staging: Box<dyn Staging>,
}

impl SnapshotWriter for Writer {
    fn write(&mut self, chunk: Bytes) -> MachineFuture<'_, ()> {
        Box::pin(async move { self.staging.write(chunk).await.map_err(halt) })
    }
}

pub(crate) fn halt(error: EngineError) -> MachineError {
    MachineError::caused_by("the engine failed", error)
}
