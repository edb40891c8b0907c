//! A counter on three processes. Each has a directory of its own, so that any of
//! them may be killed and started again.
//!
//! `cargo run -p quorate-raft --example replicated_counter` runs all three, counts
//! to twenty and ends. Behind it `1`, `2` or `3` runs one of them, for good.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use bytes::Bytes;
use quorate_raft::tcp::Standalone;
use quorate_raft::{Group, GroupClass, GroupSpec, SmallMachine, SmallState};
use quorate_types::disk::DirectoryDisk;
use quorate_types::{GroupId, NodeId, ReplicaId};
use tokio::net::TcpListener;

type Failure = Box<dyn std::error::Error>;

const GROUP: GroupId = GroupId(1);
const NODES: [u64; 3] = [1, 2, 3];
const DEADLINE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);
const ENOUGH: u64 = 20;

#[derive(Default)]
struct Counter(u64);

impl SmallState for Counter {
    fn apply(&mut self, _increment: &[u8]) -> Bytes {
        self.0 += 1;
        self.save()
    }

    fn save(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0.to_be_bytes())
    }

    fn load(saved: &[u8]) -> Result<Self, String> {
        let bytes = saved.try_into().map_err(|_| "not eight bytes".to_owned())?;
        Ok(Self(u64::from_be_bytes(bytes)))
    }
}

fn address(node: NodeId) -> String {
    format!("127.0.0.1:{}", 17_310 + node.0)
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let directory = std::env::temp_dir().join("replicated-counter");
    match arguments.next() {
        None => run_all(&directory),
        Some(id) => {
            let directory = arguments.next().map_or(directory, PathBuf::from);
            run_one(NodeId(id.parse()?), &directory)
        }
    }
}

/// Runs the three as processes, in a directory that is gone afterwards.
fn run_all(directory: &Path) -> Result<(), Failure> {
    let directory = directory.with_extension(std::process::id().to_string());
    let run = |id: u64| {
        let mut program = Command::new(std::env::current_exe()?);
        program.arg(id.to_string()).arg(&directory).env("ENOUGH", ENOUGH.to_string()).spawn()
    };
    let running: Vec<_> = NODES.into_iter().map(run).collect::<Result<_, _>>()?;
    let ended: Vec<ExitStatus> =
        running.into_iter().map(|mut process| process.wait()).collect::<Result<_, _>>()?;
    std::fs::remove_dir_all(&directory)?;
    if ended.iter().all(ExitStatus::success) { Ok(()) } else { Err("a node failed".into()) }
}

#[tokio::main]
async fn run_one(node: NodeId, directory: &Path) -> Result<(), Failure> {
    let directory = directory.join(node.to_string());
    let listener = TcpListener::bind(address(node)).await?;
    let peers: BTreeMap<NodeId, String> = NODES.map(|id| (NodeId(id), address(NodeId(id)))).into();
    let (host, mesh) = Standalone::new(node, peers, &directory).start(listener)?;

    let members = NODES.map(|id| (ReplicaId(10 + id), NodeId(id)));
    let disk = DirectoryDisk::open(directory.join("counter"))?;
    let counter = SmallMachine::<Counter>::open(&disk, "counter")?.seeded(&members);
    let view = counter.view();
    let (replica, class) = (ReplicaId(10 + node.0), GroupClass::Shard);
    let machine = Box::new(counter);
    let group = host.create(GroupSpec { group: GROUP, replica, class, machine }).await?;

    let enough = std::env::var("ENOUGH").ok().and_then(|text| text.parse().ok());
    while enough.is_none_or(|enough| view.read(|counter| counter.0) < enough) {
        count(&group, &|| view.read(|counter| counter.0)).await;
        tokio::time::sleep(PAUSE).await;
    }
    println!("{node}: the counter is {}", view.read(|counter| counter.0));
    tokio::time::sleep(PAUSE * 20).await; // The others hear of the last entry from it.
    host.shutdown().await?;
    mesh.shutdown();
    Ok(())
}

/// Reads and increments, where the leader is.
async fn count(group: &Group, value: &(dyn Fn() -> u64 + Sync)) {
    let Ok(read) = group.read_index().await else { return };
    if group.wait_applied(read.index).await.is_err() {
        return;
    }
    println!("{group:?} leads and reads {}", value());
    if let Err(error) = group.propose(Bytes::from_static(b"increment"), DEADLINE).await {
        println!("{group:?}: {error}");
    }
}
