//! Three nodes in one process, over loopback TCP, replicate a counter.
//!
//! `cargo run -p quorate-raft --example replicated_counter`

use std::any::Any;
use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::future::select_all;
use quorate_raft::tcp::{Mesh, MeshConfig, RaftService};
use quorate_raft::{
    Batch, ChannelTransport, DurableLog, Group, GroupClass, GroupSpec, Host, HostConfig, LogConfig,
    MachineError, MachineFuture, SnapshotReader, SnapshotWriter, StateMachine, host_row_index,
    seeded_host_row,
};
use quorate_types::disk::DirectoryDisk;
use quorate_types::hello::{Hello, Protocol};
use quorate_types::{Blob, DiskId, GroupId, NodeId, ReplicaId};
use tokio::net::TcpListener;

type Failure = Box<dyn std::error::Error>;

const GROUP: GroupId = GroupId(1);
const RAFT_CHANNEL: u8 = 1;
const DEADLINE: Duration = Duration::from_secs(5);

/// A counter in memory; its copies serve as snapshots. A real machine stores
/// its state and the host row together, and `flush` syncs both.
#[derive(Clone, Default)]
struct Counter {
    value: u64,
    host_row: Bytes,
    is_sent: bool,
}

impl StateMachine for Counter {
    fn recovered(&mut self) -> Result<Option<Bytes>, MachineError> {
        Ok(Some(self.host_row.clone()))
    }

    fn apply(&mut self, batch: Batch) -> MachineFuture<'_, Vec<Bytes>> {
        self.host_row = batch.host_row;
        let outcomes = batch.entries.into_iter().map(|entry| {
            self.value += u64::from(entry.command.is_some());
            Bytes::copy_from_slice(&self.value.to_be_bytes())
        });
        Box::pin(ready(Ok(outcomes.collect())))
    }

    fn flush(&mut self) -> MachineFuture<'_, u64> {
        Box::pin(ready(Ok(host_row_index(&self.host_row).unwrap_or_default())))
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotReader>, MachineError> {
        Ok(Box::new(self.clone()))
    }

    fn install(&mut self) -> Result<Box<dyn SnapshotWriter>, MachineError> {
        Ok(Box::new(Self::default()))
    }

    fn installed(&mut self, staged: Box<dyn SnapshotWriter>, row: Bytes) -> MachineFuture<'_, ()> {
        if let Ok(staged) = (staged as Box<dyn Any>).downcast::<Self>() {
            *self = Self { host_row: row, ..*staged };
        }
        Box::pin(ready(Ok(())))
    }
}

impl SnapshotReader for Counter {
    fn host_row(&self) -> Bytes {
        self.host_row.clone()
    }

    fn next_chunk(&mut self, _bytes_max: usize) -> MachineFuture<'_, Option<Bytes>> {
        let is_first = !std::mem::replace(&mut self.is_sent, true);
        let chunk = is_first.then(|| Bytes::copy_from_slice(&self.value.to_be_bytes()));
        Box::pin(ready(Ok(chunk)))
    }
}

impl SnapshotWriter for Counter {
    fn write(&mut self, mut chunk: Bytes) -> MachineFuture<'_, ()> {
        self.value = chunk.try_get_u64().unwrap_or_default();
        Box::pin(ready(Ok(())))
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut listeners = BTreeMap::new();
    let mut addresses = BTreeMap::new();
    for id in 1..=3 {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        addresses.insert(NodeId(id), listener.local_addr()?.to_string());
        listeners.insert(NodeId(id), listener);
    }
    let directory = std::env::temp_dir().join(format!("replicated-counter-{}", std::process::id()));
    let mut hosts = Vec::new();
    let mut replicas = Vec::new();
    for (node, listener) in listeners {
        let (host, replica) = start(node, listener, &directory, addresses.clone()).await?;
        hosts.push(host);
        replicas.push(replica);
    }
    let mut leading: Vec<_> = replicas.iter().map(Group::leadership).collect();
    let waits = leading
        .iter_mut()
        .map(|watch| Box::pin(watch.wait_for(|now| now.noop_applied && now.leading)));
    let (_, first, _) = select_all(waits).await;
    let leader = replicas.get(first).ok_or("nobody leads")?;
    println!("{leader:?} leads");
    for _ in 0..5 {
        let proposed = leader.propose(Bytes::from_static(b"increment"), DEADLINE).await?;
        println!("entry {}: the counter is {:?}", proposed.index, &proposed.outcome[..]);
    }
    let read = leader.read_index().await?;
    for replica in &replicas {
        replica.wait_applied(read.index).await?;
        println!("{replica:?} has applied {}", replica.applied());
    }
    for host in hosts {
        println!("{:?}", host.metrics().log);
        host.shutdown().await?;
    }
    Ok(std::fs::remove_dir_all(directory)?)
}

async fn start(
    node: NodeId,
    listener: TcpListener,
    directory: &std::path::Path,
    addresses: BTreeMap<NodeId, String>,
) -> Result<(Host, Group), Failure> {
    let disk = DirectoryDisk::open(directory.join(node.to_string()))?;
    let log = Arc::new(DurableLog::open(Arc::new(disk), "raft", LogConfig::default())?);
    let hello = Hello {
        protocol: Protocol::Mesh,
        lane: 0,
        cluster: None,
        node,
        disk: DiskId::random(),
        incarnation: 1,
        address: Blob::new(),
    };
    let ours = hello.clone();
    let book = move |node: NodeId| addresses.get(&node).cloned();
    let mesh = Mesh::new(MeshConfig::default(), move || ours.clone(), book);
    let transport = Arc::new(ChannelTransport::new(Arc::new(mesh.clone()), RAFT_CHANNEL));
    let host = Host::open(HostConfig::default(), log, transport)?;
    let service = Arc::new(RaftService::new(host.clone(), RAFT_CHANNEL));
    mesh.listen(listener, service, Arc::new(move |_: &Hello| Ok(hello.clone())));

    let members: Vec<_> = (1..=3).map(|id| (ReplicaId(10 + id), NodeId(id))).collect();
    let machine = Counter { host_row: seeded_host_row(&members), ..Counter::default() };
    let replica = ReplicaId(10 + node.0);
    let spec =
        GroupSpec { group: GROUP, replica, class: GroupClass::Shard, machine: Box::new(machine) };
    let group = host.create(spec).await?;
    Ok((host, group))
}
