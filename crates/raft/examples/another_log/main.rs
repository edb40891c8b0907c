//! A log of one's own: in memory, for tests that want no disk. Whoever stores
//! something runs `quorate_raft::conformance::log_engine_suite` over it, which cuts
//! the power; this one would not pass.
//!
//! `cargo run -p quorate-raft --example another_log`

mod memory;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use quorate_raft::tcp::Standalone;
use quorate_raft::{GroupClass, GroupSpec, SmallMachine, SmallState};
use quorate_types::disk::DirectoryDisk;
use quorate_types::{GroupId, NodeId, ReplicaId};
use tokio::net::TcpListener;

use memory::MemoryLog;

/// The longest command so far.
#[derive(Default)]
struct Longest(Bytes);

impl SmallState for Longest {
    fn apply(&mut self, command: &[u8]) -> Bytes {
        if command.len() > self.0.len() {
            self.0 = Bytes::copy_from_slice(command);
        }
        self.save()
    }

    fn save(&self) -> Bytes {
        self.0.clone()
    }

    fn load(saved: &[u8]) -> Result<Self, String> {
        Ok(Self(Bytes::copy_from_slice(saved)))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let node = Standalone::new(NodeId(1), BTreeMap::new(), directory.path());
    let log = Arc::new(MemoryLog::default());
    let (host, mesh) = node.start_on(log, listener)?;
    let disk = DirectoryDisk::open(directory.path())?;
    let machine = SmallMachine::<Longest>::open(&disk, "longest")?;
    let machine = Box::new(machine.seeded(&[(ReplicaId(11), NodeId(1))]));
    let (group, replica, class) = (GroupId(1), ReplicaId(11), GroupClass::Shard);
    let group = host.create(GroupSpec { group, replica, class, machine }).await?;
    group.leadership().wait_for(|now| now.leading && now.noop_applied).await?;
    for command in ["a word", "a sentence of five words", "no"] {
        let proposed = group.propose(command.into(), std::time::Duration::from_secs(5)).await?;
        println!("entry {}: the longest is {:?}", proposed.index, proposed.outcome);
    }
    host.shutdown().await?;
    mesh.shutdown();
    Ok(())
}
