//! What the tests stand on: a disk that forgets, a machine that counts, a
//! network in memory, a runtime that replays.

#![allow(dead_code, unreachable_pub)]

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::select_all;
use parking_lot::Mutex;
use quorate_raft::{
    Batch, DurableLog, Group, GroupClass, GroupSpec, Host, HostConfig, Lane, LogConfig, LogEngine,
    LogMedium, MachineError, MachineFuture, SnapshotReader, SnapshotWriter, StateMachine,
    Transport, TransportError,
};
use quorate_types::disk::{Disk, DiskFile};
use quorate_types::env::{Rng, SplitMix};
use quorate_types::runtime::{BoxFuture, Runtime, scope, spawn};
use quorate_types::{GroupId, NodeId, ReplicaId};

/// Runs a test on virtual time with seeded chance; the log's writer is a task.
pub fn simulate<F: Future<Output = ()>>(test: F) {
    simulate_seed(7, test);
}

/// The same with a chance of one's choice.
pub fn simulate_seed<F: Future<Output = ()>>(seed: u64, test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(scope(Arc::new(Seeded(Mutex::new(SplitMix::new(seed)))), test));
}

struct Seeded(Mutex<SplitMix>);

impl Runtime for Seeded {
    fn spawned(&self, _task: tokio::task::AbortHandle) {}

    fn random(&self) -> u64 {
        self.0.lock().next_u64()
    }

    fn sync_delay(&self) -> Duration {
        Duration::from_millis(1)
    }
}

/// Files in memory. What was not synced is lost in a [`RamDisk::crash`].
#[derive(Clone, Default, Debug)]
pub struct RamDisk {
    files: Arc<Mutex<BTreeMap<String, Arc<Mutex<RamFile>>>>>,
}

#[derive(Default, Debug)]
struct RamFile {
    durable: Vec<u8>,
    cached: Vec<u8>,
    life: u64,
    syncs_lie: bool,
    fails: bool,
}

#[derive(Debug)]
struct RamHandle {
    file: Arc<Mutex<RamFile>>,
    life: u64,
}

impl RamDisk {
    /// Power loss: unsynced writes are gone, open handles are dead.
    pub fn crash(&self) {
        for file in self.files.lock().values() {
            let mut file = file.lock();
            file.cached = file.durable.clone();
            file.life += 1;
        }
    }

    /// From now on a sync reports success and does nothing.
    pub fn lie_about_syncs(&self) {
        self.files.lock().values().for_each(|file| file.lock().syncs_lie = true);
    }

    /// From now on every write and sync fails.
    pub fn fail(&self) {
        self.files.lock().values().for_each(|file| file.lock().fails = true);
    }

    /// Flips a bit wherever `pattern` occurs in the stored bytes.
    pub fn corrupt(&self, pattern: &[u8]) -> usize {
        let mut flipped = 0;
        for file in self.files.lock().values() {
            let mut file = file.lock();
            let at: Vec<usize> = file
                .cached
                .windows(pattern.len())
                .enumerate()
                .filter_map(|(at, bytes)| (bytes == pattern).then_some(at))
                .collect();
            for at in at {
                file.cached[at] ^= 1;
                file.durable[at] ^= 1;
                flipped += 1;
            }
        }
        flipped
    }
}

impl Disk for RamDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = Arc::clone(self.files.lock().entry(name.to_owned()).or_default());
        let life = file.lock().life;
        Ok(Arc::new(RamHandle { file, life }))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.files.lock().contains_key(name))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.lock().remove(name);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.lock().keys().cloned().collect())
    }
}

impl RamHandle {
    fn file(&self, writes: bool) -> io::Result<parking_lot::MutexGuard<'_, RamFile>> {
        let file = self.file.lock();
        if file.life != self.life || (writes && file.fails) {
            return Err(io::Error::other("the disk is gone"));
        }
        Ok(file)
    }
}

impl DiskFile for RamHandle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file(false)?.cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let file = self.file(false)?;
        let start = offset as usize;
        let bytes = file.cached.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut file = self.file(true)?;
        let end = offset as usize + data.len();
        if file.cached.len() < end {
            file.cached.resize(end, 0);
        }
        file.cached[offset as usize..end].copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file(true)?.cached.resize(len as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut file = self.file(true)?;
        if !file.syncs_lie {
            file.durable = file.cached.clone();
        }
        Ok(())
    }
}

pub fn open_log(disk: &RamDisk) -> Arc<dyn LogEngine> {
    open_on(disk, REDB)
}

pub fn open_on(disk: &RamDisk, medium: LogMedium) -> Arc<dyn LogEngine> {
    let config = LogConfig { medium, ..small_log() };
    Arc::new(DurableLog::open(Arc::new(disk.clone()), "raft", config).unwrap())
}

/// What logs are kept on, small.
pub const MEDIA: [LogMedium; 2] = [REDB, SEGMENTS];
pub const REDB: LogMedium = LogMedium::Redb { cache_bytes: 1 << 20 };
pub const SEGMENTS: LogMedium = LogMedium::Segments { segment_bytes: 64 << 10 };

/// A log with a tail so small that reads go to the disk.
pub fn small_log() -> LogConfig {
    LogConfig { medium: REDB, tail_bytes_max: 256, ..LogConfig::default() }
}

/// A machine's state: every command it applied.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Tape {
    pub host_row: Option<Bytes>,
    pub commands: Vec<Bytes>,
}

/// Where a [`TapeMachine`] keeps its state across restarts.
#[derive(Clone, Default)]
pub struct TapeStore {
    current: Arc<Mutex<Tape>>,
    durable: Arc<Mutex<Tape>>,
    /// How long it takes to install a snapshot.
    pub installs_in: Arc<Mutex<Duration>>,
}

impl TapeStore {
    pub fn seeded(host_row: Bytes) -> Self {
        let store = Self::default();
        store.current.lock().host_row = Some(host_row);
        store.flush();
        store
    }

    pub fn machine(&self) -> Box<dyn StateMachine> {
        Box::new(TapeMachine(self.clone()))
    }

    pub fn commands(&self) -> Vec<Bytes> {
        self.current.lock().commands.clone()
    }

    /// Power loss.
    pub fn crash(&self) {
        *self.current.lock() = self.durable.lock().clone();
    }

    /// Makes durable what is there.
    pub fn flush(&self) {
        *self.durable.lock() = self.current.lock().clone();
    }
}

/// Writes every command on a tape and answers with the tape's length. A
/// command `poison` is an error.
struct TapeMachine(TapeStore);

impl StateMachine for TapeMachine {
    fn recovered(&mut self) -> Result<Option<Bytes>, MachineError> {
        self.0.crash();
        Ok(self.0.current.lock().host_row.clone())
    }

    fn apply(&mut self, batch: Batch) -> MachineFuture<'_, Vec<Bytes>> {
        Box::pin(async move {
            let mut tape = self.0.current.lock();
            let mut outcomes = Vec::new();
            for entry in batch.entries {
                match entry.command {
                    None => outcomes.push(Bytes::new()),
                    Some(command) if &command[..] == b"poison" => {
                        return Err(MachineError::new("poisoned"));
                    }
                    Some(command) => {
                        tape.commands.push(command);
                        outcomes.push(Bytes::copy_from_slice(
                            &(tape.commands.len() as u64).to_be_bytes(),
                        ));
                    }
                }
            }
            tape.host_row = Some(batch.host_row);
            Ok(outcomes)
        })
    }

    fn flush(&mut self) -> MachineFuture<'_, u64> {
        Box::pin(async move {
            self.0.flush();
            let row = self.0.durable.lock().host_row.clone();
            Ok(quorate_raft::host_row_index(&row.unwrap()).unwrap())
        })
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotReader>, MachineError> {
        let tape = self.0.current.lock().clone();
        Ok(Box::new(TapeReader { tape, next: 0 }))
    }

    fn install(&mut self) -> Result<Box<dyn SnapshotWriter>, MachineError> {
        Ok(Box::new(TapeWriter::default()))
    }

    fn installed(
        &mut self,
        staged: Box<dyn SnapshotWriter>,
        host_row: Bytes,
    ) -> MachineFuture<'_, ()> {
        Box::pin(async move {
            let staged: Box<dyn Any> = staged;
            let staged = staged.downcast::<TapeWriter>().unwrap();
            let commands = staged.commands;
            let takes = *self.0.installs_in.lock();
            tokio::time::sleep(takes).await;
            *self.0.current.lock() = Tape { host_row: Some(host_row), commands };
            self.0.flush();
            Ok(())
        })
    }
}

struct TapeReader {
    tape: Tape,
    next: usize,
}

impl SnapshotReader for TapeReader {
    fn host_row(&self) -> Bytes {
        self.tape.host_row.clone().unwrap()
    }

    fn next_chunk(&mut self, bytes_max: usize) -> MachineFuture<'_, Option<Bytes>> {
        Box::pin(async move {
            let mut chunk = BytesMut::new();
            while let Some(command) = self.tape.commands.get(self.next) {
                if !chunk.is_empty() && chunk.len() + command.len() + 4 > bytes_max.min(256) {
                    break;
                }
                chunk.put_u32(command.len() as u32);
                chunk.put_slice(command);
                self.next += 1;
            }
            Ok((!chunk.is_empty()).then(|| chunk.freeze()))
        })
    }
}

#[derive(Default)]
struct TapeWriter {
    commands: Vec<Bytes>,
}

impl SnapshotWriter for TapeWriter {
    fn write(&mut self, mut chunk: Bytes) -> MachineFuture<'_, ()> {
        Box::pin(async move {
            while !chunk.is_empty() {
                let len = chunk.get_u32() as usize;
                self.commands.push(chunk.split_to(len));
            }
            Ok(())
        })
    }
}

/// Carries messages between hosts in a millisecond, except over cut ways.
#[derive(Clone, Default)]
pub struct Network {
    hosts: Arc<Mutex<BTreeMap<NodeId, Host>>>,
    cut: Arc<Mutex<BTreeSet<NodeId>>>,
    /// From whom nothing arrives at whom.
    mute: Arc<Mutex<BTreeSet<(NodeId, NodeId)>>>,
    /// How long entries take to a node.
    slow: Arc<Mutex<BTreeMap<NodeId, Duration>>>,
    calls: Arc<Mutex<u64>>,
    pub snapshots: Arc<Mutex<Snapshots>>,
    judge: Arc<Mutex<Option<Judge>>>,
}

/// Decides on each message of snapshots to a node.
pub type Judge = Box<dyn FnMut(NodeId, &Bytes) -> Fate + Send>;

/// What becomes of a message.
pub enum Fate {
    Arrives,
    /// Something else arrives in its place.
    ArrivesAs(Bytes),
    /// It arrives, and once more somewhat later.
    ArrivesTwice,
    /// It does not arrive.
    IsLost,
    /// It arrives, and its answer does not.
    IsNotAnswered,
}

/// The snapshots on a network.
#[derive(Default)]
pub struct Snapshots {
    pub begun: usize,
    pub ends: usize,
    /// So many of the next answers to their ends are lost.
    pub ends_to_lose: usize,
}

impl Snapshots {
    /// Whether the answer to a message is lost.
    fn note(&mut self, message: &[u8]) -> bool {
        let is = |what: &[u8]| message.windows(what.len()).any(|bytes| bytes == what);
        self.begun += usize::from(is(b"SnapshotBegin"));
        if !is(b"SnapshotEnd") {
            return false;
        }
        self.ends += 1;
        let is_lost = self.ends_to_lose > 0;
        self.ends_to_lose -= usize::from(is_lost);
        is_lost
    }
}

impl Network {
    /// Has entries take so long to a node.
    pub fn slow(&self, to: NodeId, by: Duration) {
        self.slow.lock().insert(to, by);
    }

    pub fn isolate(&self, node: NodeId) {
        self.cut.lock().insert(node);
    }

    /// Loses what a node sends to another and answers it, and nothing of what
    /// it is sent.
    pub fn mute(&self, from: NodeId, to: NodeId) {
        self.mute.lock().insert((from, to));
    }

    pub fn heal(&self) {
        self.cut.lock().clear();
        self.mute.lock().clear();
        self.slow.lock().clear();
    }

    /// Has each message of snapshots judged.
    pub fn judge(&self, judge: impl FnMut(NodeId, &Bytes) -> Fate + Send + 'static) {
        *self.judge.lock() = Some(Box::new(judge));
    }

    /// Calls since this was asked last.
    pub fn take_calls(&self) -> u64 {
        std::mem::take(&mut self.calls.lock())
    }

    pub fn wire(&self, from: NodeId) -> Arc<dyn Transport> {
        Arc::new(Wire { from, network: self.clone() })
    }

    pub fn route(&self, from: NodeId, to: NodeId) -> Option<Host> {
        let cut = self.cut.lock();
        if cut.contains(&from) || cut.contains(&to) || self.mute.lock().contains(&(from, to)) {
            return None;
        }
        self.hosts.lock().get(&to).cloned()
    }
}

struct Wire {
    from: NodeId,
    network: Network,
}

impl Transport for Wire {
    fn call(
        &self,
        to: NodeId,
        lane: Lane,
        mut payload: Bytes,
        deadline: Duration,
    ) -> BoxFuture<Result<Bytes, TransportError>> {
        let (from, network) = (self.from, self.network.clone());
        let fate = match self.network.judge.lock().as_mut() {
            Some(judge) if lane == Lane::Snapshot => judge(to, &payload),
            _ => Fate::Arrives,
        };
        let unreachable = move || TransportError::Unreachable { to, reason: "cut".to_owned() };
        let mut is_lost = self.network.snapshots.lock().note(&payload);
        let mut again = None;
        let arrives = !matches!(fate, Fate::IsLost);
        match fate {
            Fate::Arrives => {}
            Fate::ArrivesAs(other) => payload = other,
            Fate::ArrivesTwice => again = Some(payload.clone()),
            Fate::IsLost | Fate::IsNotAnswered => is_lost = true,
        }
        *self.network.calls.lock() += 1;
        let slow = self.network.slow.lock().get(&to).copied().filter(|_| lane == Lane::Data);
        let exchange = async move {
            tokio::time::sleep(Duration::from_millis(1) + slow.unwrap_or_default()).await;
            let host = network.route(from, to).ok_or_else(unreachable)?;
            if !arrives {
                std::future::pending::<()>().await;
            }
            let reply = host.handle(from, payload).await;
            if let Some(again) = again {
                drop(spawn(async move {
                    tokio::time::sleep(Duration::from_millis(3)).await;
                    drop(host.handle(from, again).await);
                }));
            }
            if is_lost {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
            network.route(to, from).ok_or_else(unreachable)?;
            reply.map_err(|error| TransportError::Rejected { to, reason: error.to_string() })
        };
        let reply = spawn(async move {
            let reply = tokio::time::timeout(deadline, exchange).await;
            reply.unwrap_or(Err(TransportError::Deadline { to }))
        });
        async move { reply.await.unwrap() }.boxed()
    }
}

/// A node: its disk and its machines' stores outlive the host.
pub struct TestNode {
    pub id: NodeId,
    pub disk: RamDisk,
    pub stores: BTreeMap<GroupId, TapeStore>,
    pub host: Host,
    config: HostConfig,
    network: Network,
}

pub fn config() -> HostConfig {
    HostConfig {
        purge_after_entries: 50,
        purge_keeps_entries: 10,
        purge_pause: Duration::ZERO,
        ..HostConfig::default()
    }
}

impl TestNode {
    pub fn start(id: u64, network: &Network) -> Self {
        Self::start_with(id, network, config())
    }

    pub fn start_with(id: u64, network: &Network, config: HostConfig) -> Self {
        let disk = RamDisk::default();
        let id = NodeId(id);
        let host = Self::host(id, &disk, network, config.clone());
        Self { id, disk, stores: BTreeMap::new(), host, config, network: network.clone() }
    }

    fn host(id: NodeId, disk: &RamDisk, network: &Network, config: HostConfig) -> Host {
        let host = Host::open(config, open_log(disk), network.wire(id)).unwrap();
        network.hosts.lock().insert(id, host.clone());
        host
    }

    /// Power loss and restart; groups are to be created anew.
    pub async fn crash_and_restart(&mut self) {
        self.network.hosts.lock().remove(&self.id);
        self.disk.crash();
        // The old log fails to close: its disk is gone.
        let _closed = self.host.shutdown().await;
        self.host = Self::host(self.id, &self.disk, &self.network, self.config.clone());
    }

    /// The same, with another configuration from then on.
    pub async fn restart_with(&mut self, config: HostConfig) {
        self.config = config;
        self.crash_and_restart().await;
    }

    pub async fn create(&mut self, group: u64, replica: u64) -> Group {
        self.try_create(group, replica).await.unwrap()
    }

    pub async fn try_create(
        &mut self,
        group: u64,
        replica: u64,
    ) -> Result<Group, quorate_raft::RaftError> {
        let group = GroupId(group);
        let machine = self.stores.entry(group).or_default().machine();
        let replica = ReplicaId(replica);
        self.host.create(GroupSpec { group, replica, class: GroupClass::Shard, machine }).await
    }

    pub fn tape(&self, group: u64) -> Vec<Bytes> {
        self.stores[&GroupId(group)].commands()
    }
}

/// Three nodes that each run the given groups, seeded; replica ids are
/// `group * 10 + node`.
pub async fn seeded_cluster(network: &Network, groups: &[u64]) -> Vec<TestNode> {
    seeded_cluster_with(network, groups, config()).await
}

/// The same with another configuration.
pub async fn seeded_cluster_with(
    network: &Network,
    groups: &[u64],
    config: HostConfig,
) -> Vec<TestNode> {
    let start = |id| TestNode::start_with(id, network, config.clone());
    let mut nodes: Vec<TestNode> = (1..=3).map(start).collect();
    for &group in groups {
        let members: Vec<_> =
            (1..=3).map(|node| (ReplicaId(group * 10 + node), NodeId(node))).collect();
        let row = quorate_raft::seeded_host_row(&members);
        for node in &mut nodes {
            node.stores.insert(GroupId(group), TapeStore::seeded(row.clone()));
            node.create(group, group * 10 + node.id.0).await;
        }
    }
    nodes
}

pub fn groups_of(nodes: &[TestNode], group: u64) -> Vec<Group> {
    nodes.iter().filter_map(|node| node.host.group(GroupId(group))).collect()
}

/// Waits until one of the replicas leads and has applied an entry of its term.
pub async fn leader_of(groups: &[Group]) -> Group {
    let waits = groups.iter().map(|group| {
        let mut leadership = group.leadership();
        async move {
            match leadership.wait_for(|now| now.leading && now.noop_applied).await {
                Ok(_) => group.clone(),
                Err(_) => std::future::pending().await,
            }
        }
        .boxed()
    });
    select_all(waits).await.0
}

pub const DEADLINE: Duration = Duration::from_secs(10);

pub async fn propose(group: &Group, command: &str) -> quorate_raft::Proposed {
    group.propose(Bytes::copy_from_slice(command.as_bytes()), DEADLINE).await.unwrap()
}

/// Waits until every replica has applied `index`.
pub async fn applied_everywhere(groups: &[Group], index: u64) {
    for group in groups {
        group.wait_applied(index).await.unwrap();
    }
}
