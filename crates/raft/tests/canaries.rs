//! The planted bugs do what their names say. Only in a build that has them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

mod support;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_raft::{Group, LogEntry, LogPosition, LogState, RaftError, Vote};
use quorate_types::env::{Rng, SplitMix};
use quorate_types::fault::Canary;
use quorate_types::runtime::{Runtime, scope};
use quorate_types::{GroupId, ReplicaId};
use support::{
    Network, RamDisk, TestNode, applied_everywhere, groups_of, leader_of, open_log, propose,
    seeded_cluster, simulate,
};
use tokio::task::AbortHandle;

const GROUP: GroupId = GroupId(1);
const REPLICA: ReplicaId = ReplicaId(11);

struct Planted {
    canary: Option<Canary>,
    chance: Mutex<SplitMix>,
}

impl Runtime for Planted {
    fn spawned(&self, _task: AbortHandle) {}

    fn random(&self) -> u64 {
        self.chance.lock().next_u64()
    }

    fn sync_delay(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn canary(&self) -> Option<Canary> {
        self.canary
    }
}

/// The outcome of `test`, without a bug and with it.
fn without_and_with<T, F: Future<Output = T>>(canary: Canary, test: fn() -> F) -> [T; 2] {
    [None, Some(canary)].map(|canary| {
        let mut outcome = None;
        simulate(async {
            let planted = Planted { canary, chance: Mutex::new(SplitMix::new(7)) };
            outcome = Some(scope(Arc::new(planted), test()).await);
        });
        outcome.unwrap()
    })
}

async fn reopened(disk: &RamDisk) -> LogState {
    disk.crash();
    open_log(disk).admit(GROUP, REPLICA).await.unwrap()
}

/// Whether an answered vote is still there after a power loss.
async fn keeps_its_vote() -> bool {
    let disk = RamDisk::default();
    let log = open_log(&disk);
    log.admit(GROUP, REPLICA).await.unwrap();
    log.save_vote(GROUP, Vote { term: 3, candidate: REPLICA, committed: false }).await.unwrap();
    reopened(&disk).await.vote.is_some()
}

#[test]
fn a_vote_is_answered_before_it_is_durable() {
    assert_eq!(without_and_with(Canary::VoteNotSynced, keeps_its_vote), [true, false]);
}

/// The same for an entry.
async fn keeps_its_entry() -> bool {
    let disk = RamDisk::default();
    let log = open_log(&disk);
    log.admit(GROUP, REPLICA).await.unwrap();
    let (done, durable) = tokio::sync::oneshot::channel();
    let completion = Box::new(move |result| drop(done.send(result)));
    let position = LogPosition { term: 1, index: 0 };
    let entry = LogEntry { position, payload: Bytes::from_static(b"entry") };
    log.append(GROUP, vec![entry], completion).await.unwrap();
    durable.await.unwrap().unwrap();
    reopened(&disk).await.last.is_some()
}

#[test]
fn an_entry_is_acknowledged_before_the_sync() {
    let kept = without_and_with(Canary::AcknowledgedBeforeSync, keeps_its_entry);
    assert_eq!(kept, [true, false]);
}

/// Three nodes of which each has applied `c0` and so on.
async fn cluster_of(commands: usize) -> (Network, Vec<TestNode>, Group) {
    let network = Network::default();
    let nodes = seeded_cluster(&network, &[GROUP.0]).await;
    let leader = leader_of(&groups_of(&nodes, GROUP.0)).await;
    let mut last = 0;
    for number in 0..commands {
        last = propose(&leader, &format!("c{number}")).await.index;
    }
    applied_everywhere(&groups_of(&nodes, GROUP.0), last).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    (network, nodes, leader)
}

/// Whether a leader that reaches nobody has its command committed.
async fn commits_alone() -> bool {
    let (network, nodes, leader) = cluster_of(3).await;
    let node = nodes.iter().find(|node| leader.replica().0 == 10 + node.id.0).unwrap();
    network.isolate(node.id);
    let command = Bytes::from_static(b"alone");
    leader.propose(command, Duration::from_millis(100)).await.is_ok()
}

#[test]
fn an_entry_is_committed_by_less_than_a_majority() {
    assert_eq!(without_and_with(Canary::QuorumOffByOne, commits_alone), [false, true]);
}

/// How often a restarted node has applied some command too much.
async fn repetitions() -> usize {
    let (_network, mut nodes, _leader) = cluster_of(120).await;
    nodes[0].crash_and_restart().await;
    nodes[0].create(GROUP.0, 11).await;
    let leader = leader_of(&groups_of(&nodes, GROUP.0)).await;
    let last = propose(&leader, "last").await.index;
    applied_everywhere(&groups_of(&nodes, GROUP.0), last).await;
    let tape = nodes[0].tape(GROUP.0);
    tape.len() - tape.iter().collect::<std::collections::BTreeSet<_>>().len()
}

#[test]
fn a_restarted_machine_applies_its_last_entry_again() {
    assert_eq!(without_and_with(Canary::AppliedTwice, repetitions), [0, 1]);
}

/// Whether a node that lost power finds all of its state.
async fn finds_its_state() -> bool {
    let (_network, mut nodes, _leader) = cluster_of(120).await;
    nodes[0].crash_and_restart().await;
    !matches!(nodes[0].try_create(GROUP.0, 11).await, Err(RaftError::StateLost { .. }))
}

#[test]
fn a_log_is_purged_past_what_is_durable() {
    assert_eq!(without_and_with(Canary::PurgePastDurable, finds_its_state), [true, false]);
}
