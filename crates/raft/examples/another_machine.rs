//! A machine of one's own: a table of strings. It keeps no more than the host asks
//! of it, so it shows what each method of the port is for; what it lacks is a disk.
//!
//! `cargo run -p quorate-raft --example another_machine`

use std::any::Any;
use std::collections::BTreeMap;
use std::future::ready;

use bytes::Bytes;
use quorate_raft::tcp::Standalone;
use quorate_raft::{
    Batch, GroupClass, GroupSpec, MachineError, MachineFuture, SnapshotReader, SnapshotWriter,
    StateMachine, host_row_index, seeded_host_row,
};
use quorate_types::{GroupId, NodeId, ReplicaId};
use tokio::net::TcpListener;

/// The state, and the row that belongs to it: always changed together.
#[derive(Clone, Default)]
struct Table {
    rows: BTreeMap<String, String>,
    host_row: Bytes,
}

impl StateMachine for Table {
    // What is durable. Here nothing is but the beginning, which is a constant.
    fn recovered(&mut self) -> Result<Option<Bytes>, MachineError> {
        Ok(Some(self.host_row.clone()))
    }

    // A command is `key=value`; its outcome is the value before. What makes no sense
    // is no error: an error halts the replica, a command must not.
    fn apply(&mut self, batch: Batch) -> MachineFuture<'_, Vec<Bytes>> {
        self.host_row = batch.host_row;
        let outcomes = batch.entries.into_iter().map(|entry| {
            let command = String::from_utf8(entry.command.unwrap_or_default().into());
            let put = command.ok().and_then(|text| {
                let (key, value) = text.split_once('=')?;
                self.rows.insert(key.to_owned(), value.to_owned())
            });
            Bytes::from(put.unwrap_or_default())
        });
        Box::pin(ready(Ok(outcomes.collect())))
    }

    // Where a store syncs. The log is purged up to the index it returns.
    fn flush(&mut self) -> MachineFuture<'_, u64> {
        Box::pin(ready(Ok(host_row_index(&self.host_row).unwrap_or_default())))
    }

    // A view that later entries do not change: a copy, or what an engine offers.
    fn snapshot(&mut self) -> Result<Box<dyn SnapshotReader>, MachineError> {
        let rows = self.rows.clone().into_iter().collect::<Vec<_>>().into_iter();
        Ok(Box::new(Reading { host_row: self.host_row.clone(), rows }))
    }

    // A place for one that comes, beside the state.
    fn install(&mut self) -> Result<Box<dyn SnapshotWriter>, MachineError> {
        Ok(Box::new(Self::default()))
    }

    // It came: the state is replaced as a whole.
    fn installed(&mut self, staged: Box<dyn SnapshotWriter>, row: Bytes) -> MachineFuture<'_, ()> {
        if let Ok(staged) = (staged as Box<dyn Any>).downcast::<Self>() {
            *self = Self { host_row: row, ..*staged };
        }
        Box::pin(ready(Ok(())))
    }
}

struct Reading {
    host_row: Bytes,
    rows: std::vec::IntoIter<(String, String)>,
}

impl SnapshotReader for Reading {
    fn host_row(&self) -> Bytes {
        self.host_row.clone()
    }

    // One row for each chunk; an engine would fill them.
    fn next_chunk(&mut self, _bytes_max: usize) -> MachineFuture<'_, Option<Bytes>> {
        let chunk = self.rows.next().map(|(key, value)| format!("{key}={value}").into());
        Box::pin(ready(Ok(chunk)))
    }
}

impl SnapshotWriter for Table {
    fn write(&mut self, chunk: Bytes) -> MachineFuture<'_, ()> {
        if let Some((key, value)) = String::from_utf8_lossy(&chunk).split_once('=') {
            self.rows.insert(key.to_owned(), value.to_owned());
        }
        Box::pin(ready(Ok(())))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (host, mesh) =
        Standalone::new(NodeId(1), BTreeMap::new(), directory.path()).start(listener)?;
    let host_row = seeded_host_row(&[(ReplicaId(11), NodeId(1))]);
    let machine = Box::new(Table { host_row, ..Table::default() });
    let (group, replica, class) = (GroupId(1), ReplicaId(11), GroupClass::Shard);
    let group = host.create(GroupSpec { group, replica, class, machine }).await?;
    group.leadership().wait_for(|now| now.leading && now.noop_applied).await?;
    for command in ["color=red", "color=green", "nonsense"] {
        let proposed = group.propose(command.into(), std::time::Duration::from_secs(5)).await?;
        println!("entry {}: {command}, before it {:?}", proposed.index, proposed.outcome);
    }
    host.shutdown().await?;
    mesh.shutdown();
    Ok(())
}
