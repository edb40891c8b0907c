//! A log of one's own: in memory, for tests that want no disk. Whoever stores
//! something runs `quorate_raft::conformance::log_engine_suite` over it, which cuts
//! the power; this one would not pass.
//!
//! `cargo run -p quorate-raft --example another_log`

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_raft::tcp::Standalone;
use quorate_raft::{
    Completion, GroupClass, GroupSpec, LogEngine, LogEntry, LogError, LogFuture, LogPosition,
    LogState, LogStats, SmallMachine, SmallState, Vote,
};
use quorate_types::disk::DirectoryDisk;
use quorate_types::{GroupId, NodeId, ReplicaId};
use tokio::net::TcpListener;

#[derive(Default)]
struct Log {
    owner: ReplicaId,
    vote: Option<Vote>,
    purged: Option<LogPosition>,
    entries: BTreeMap<u64, LogEntry>,
}

#[derive(Default)]
struct MemoryLog {
    logs: Mutex<BTreeMap<GroupId, Log>>,
    tombstones: Mutex<BTreeSet<(GroupId, ReplicaId)>>,
}

impl MemoryLog {
    fn with<T>(&self, group: GroupId, act: impl FnOnce(&mut Log) -> T) -> Result<T, LogError> {
        self.logs.lock().get_mut(&group).map(act).ok_or(LogError::UnknownGroup(group))
    }
}

impl LogEngine for MemoryLog {
    fn admit(&self, group: GroupId, replica: ReplicaId) -> LogFuture<'_, LogState> {
        if self.is_tombstoned(group, replica) {
            return Box::pin(ready(Err(LogError::Tombstoned { group, replica })));
        }
        let owner =
            self.logs.lock().entry(group).or_insert(Log { owner: replica, ..Log::default() }).owner;
        let state = if owner == replica {
            self.state(group)
        } else {
            Err(LogError::Occupied { group, owner })
        };
        Box::pin(ready(state))
    }

    fn groups(&self) -> Vec<(GroupId, ReplicaId)> {
        self.logs.lock().iter().map(|(&group, log)| (group, log.owner)).collect()
    }

    fn is_tombstoned(&self, group: GroupId, replica: ReplicaId) -> bool {
        self.tombstones.lock().contains(&(group, replica))
    }

    fn state(&self, group: GroupId) -> Result<LogState, LogError> {
        self.with(group, |log| {
            let last = log.entries.values().next_back().map(|entry| entry.position);
            LogState { vote: log.vote, purged: log.purged, last: last.or(log.purged) }
        })
    }

    fn save_vote(&self, group: GroupId, vote: Vote) -> LogFuture<'_, ()> {
        Box::pin(ready(self.with(group, |log| log.vote = Some(vote))))
    }

    fn append(
        &self,
        group: GroupId,
        entries: Vec<LogEntry>,
        done: Completion,
    ) -> LogFuture<'_, ()> {
        let entries = entries.into_iter().map(|entry| (entry.position.index, entry));
        let appended = self.with(group, |log| log.entries.extend(entries));
        done(appended.clone()); // As durable as it will ever be.
        Box::pin(ready(appended))
    }

    fn truncate(&self, group: GroupId, from: u64) -> LogFuture<'_, ()> {
        Box::pin(ready(self.with(group, |log| drop(log.entries.split_off(&from)))))
    }

    fn purge(&self, group: GroupId, upto: LogPosition) -> LogFuture<'_, ()> {
        Box::pin(ready(self.with(group, |log| {
            log.entries = log.entries.split_off(&(upto.index + 1));
            log.purged = log.purged.max(Some(upto));
        })))
    }

    fn read(
        &self,
        group: GroupId,
        range: Range<u64>,
        bytes_max: usize,
    ) -> Result<Vec<LogEntry>, LogError> {
        self.with(group, |log| {
            let mut bytes = 0;
            let fits = |entry: &&LogEntry| {
                bytes += entry.payload.len();
                bytes <= bytes_max || bytes == entry.payload.len()
            };
            log.entries.range(range).map(|(_, entry)| entry).take_while(fits).cloned().collect()
        })
    }

    fn term_at(&self, group: GroupId, index: u64) -> Result<Option<u64>, LogError> {
        self.with(group, |log| log.entries.get(&index).map(|entry| entry.position.term))
    }

    fn forget(&self, group: GroupId, replica: ReplicaId) -> LogFuture<'_, ()> {
        self.tombstones.lock().insert((group, replica));
        self.logs.lock().remove(&group);
        Box::pin(ready(Ok(())))
    }

    fn entry_bytes_max(&self) -> usize {
        usize::MAX
    }

    fn stats(&self) -> LogStats {
        LogStats::default()
    }

    fn close(&self) -> LogFuture<'_, ()> {
        Box::pin(ready(Ok(())))
    }
}

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
