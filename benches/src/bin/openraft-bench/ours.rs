//! Three hosts with a group, over a log in memory and calls for messages.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use quorate_raft::{
    Batch, Group, GroupClass, GroupSpec, Host, HostConfig, Lane, MachineError, MachineFuture,
    SnapshotReader, SnapshotWriter, StateMachine, Timing, Transport, TransportError,
    host_row_index, seeded_host_row,
};
use quorate_types::runtime::BoxFuture;
use quorate_types::{GroupId, NodeId, ReplicaId};

use crate::Outcome;
use crate::memory::MemoryLog;
use crate::run::Leader;

const GROUP: GroupId = GroupId(1);
const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
const DEADLINE: Duration = Duration::from_secs(10);

/// What openraft's benchmark sets, and what it leaves to openraft.
fn config() -> HostConfig {
    let shard = Timing {
        heartbeat: Duration::from_millis(50),
        election_min: Duration::from_millis(2_200),
        election_max: Duration::from_millis(4_000),
    };
    HostConfig {
        shard,
        purge_after_entries: 5_000,
        purge_pause: Duration::ZERO,
        purge_keeps_entries: 1_000,
        quiet_after: None,
        ..HostConfig::default()
    }
}

type Hosts = Arc<OnceLock<BTreeMap<NodeId, Host>>>;

/// Starts them, and waits for a leader.
pub(crate) async fn start() -> Outcome<Group> {
    let members = NODES.map(|node| (ReplicaId(node.0), node));
    let hosts = Hosts::default();
    let mut all = BTreeMap::new();
    for node in NODES {
        let wire = Arc::new(Wire { from: node, hosts: Arc::clone(&hosts) });
        all.insert(node, Host::open(config(), Arc::new(MemoryLog::default()), wire)?);
    }
    let all = hosts.get_or_init(|| all);
    let mut groups = Vec::new();
    for (node, host) in all {
        let machine = Box::new(Nothing { host_row: seeded_host_row(&members), applied: 0 });
        let (replica, class) = (ReplicaId(node.0), GroupClass::Shard);
        groups.push(host.create(GroupSpec { group: GROUP, replica, class, machine }).await?);
    }
    let leader = groups.swap_remove(0);
    leader.campaign();
    leader.leadership().wait_for(|now| now.leading && now.noop_applied).await?;
    Ok(leader)
}

impl Leader for Group {
    async fn write(&self) -> Outcome {
        self.propose(Bytes::new(), DEADLINE).await?;
        Ok(())
    }
}

/// Calls the other host.
struct Wire {
    from: NodeId,
    hosts: Hosts,
}

impl Transport for Wire {
    fn call(
        &self,
        to: NodeId,
        _lane: Lane,
        payload: Bytes,
        _deadline: Duration,
    ) -> BoxFuture<Result<Bytes, TransportError>> {
        let host = self.hosts.get().and_then(|hosts| hosts.get(&to));
        let Some(host) = host else {
            let reason = "not started".to_owned();
            return Box::pin(ready(Err(TransportError::Unreachable { to, reason })));
        };
        let mut handled = host.handle(self.from, payload);
        // Polled once, so that it begins now and in the order of calls.
        let begun = (&mut handled).now_or_never();
        Box::pin(async move {
            let reply = match begun {
                Some(reply) => reply,
                None => handled.await,
            };
            let rejected = |reason| TransportError::Rejected { to, reason };
            reply.map_err(|error| rejected(error.to_string()))
        })
    }
}

/// A machine without a state.
struct Nothing {
    host_row: Bytes,
    applied: u64,
}

impl StateMachine for Nothing {
    fn recovered(&mut self) -> Result<Option<Bytes>, MachineError> {
        Ok(Some(self.host_row.clone()))
    }

    fn apply(&mut self, batch: Batch) -> MachineFuture<'_, Vec<Bytes>> {
        self.host_row = batch.host_row;
        self.applied = batch.entries.last().map_or(self.applied, |last| last.index);
        let outcomes = batch.entries.iter().map(|_| Bytes::new()).collect();
        Box::pin(ready(Ok(outcomes)))
    }

    fn flush(&mut self) -> MachineFuture<'_, u64> {
        let recorded = host_row_index(&self.host_row).unwrap_or_default();
        Box::pin(ready(Ok(self.applied.max(recorded))))
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotReader>, MachineError> {
        Ok(Box::new(Row(self.host_row.clone())))
    }

    fn install(&mut self) -> Result<Box<dyn SnapshotWriter>, MachineError> {
        Ok(Box::new(Row(Bytes::new())))
    }

    fn installed(
        &mut self,
        _staged: Box<dyn SnapshotWriter>,
        host_row: Bytes,
    ) -> MachineFuture<'_, ()> {
        self.host_row = host_row;
        Box::pin(ready(Ok(())))
    }
}

struct Row(Bytes);

impl SnapshotReader for Row {
    fn host_row(&self) -> Bytes {
        self.0.clone()
    }

    fn next_chunk(&mut self, _bytes_max: usize) -> MachineFuture<'_, Option<Bytes>> {
        Box::pin(ready(Ok(None)))
    }
}

impl SnapshotWriter for Row {
    fn write(&mut self, _chunk: Bytes) -> MachineFuture<'_, ()> {
        Box::pin(ready(Ok(())))
    }
}
