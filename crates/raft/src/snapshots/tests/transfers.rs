//! Whole transfers, over a network that does something to them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_types::{NodeId, ReplicaId};
use tokio::time::Instant;

use super::support::{
    Fate, Network, TestNode, config, groups_of, leader_of, propose, seeded_cluster_with, simulate,
};
use crate::config::HostConfig;
use crate::consensus::wire::{Body, Message, SnapshotChunk};
use crate::group::Group;
use crate::host::HostMetrics;

/// Nobody rests, so that what is sent is what the snapshot takes.
fn awake() -> HostConfig {
    HostConfig { quiet_after: None, ..config() }
}

/// Lower rates may be asked for.
fn patient() -> HostConfig {
    HostConfig { snapshot_staging_idle_max: Duration::from_secs(600), ..awake() }
}

/// Three replicas of each of these groups, whose logs were purged, so that a
/// fourth needs a snapshot.
struct Scene {
    network: Network,
    nodes: Vec<TestNode>,
    leaders: Vec<Group>,
    /// The chunks that were sent, when and what.
    chunks: Arc<Mutex<Vec<(Instant, SnapshotChunk)>>>,
}

const COMMANDS: usize = 200;

impl Scene {
    async fn new(groups: &[u64], config: HostConfig) -> Self {
        let network = Network::default();
        let mut nodes = seeded_cluster_with(&network, groups, config.clone()).await;
        let mut leaders = Vec::new();
        for &group in groups {
            let leader = leader_of(&groups_of(&nodes, group)).await;
            for nth in 0..COMMANDS {
                propose(&leader, &format!("{nth:090}")).await;
            }
            leaders.push(leader);
        }
        nodes.push(TestNode::start_with(4, &network, config));
        let scene = Self { network, nodes, leaders, chunks: Arc::default() };
        scene.judge(|_| Fate::Arrives);
        scene
    }

    async fn of_one() -> Self {
        Self::new(&[1], awake()).await
    }

    /// One node leads all groups, and so sends all their snapshots.
    async fn lead_from_one_node(&mut self) {
        let home = self.leaders[0].replica().0 % 10;
        for leader in &mut self.leaders[1..] {
            let group = leader.id().0;
            if leader.replica().0 % 10 != home {
                leader.transfer_leader(ReplicaId(group * 10 + home)).await.unwrap();
                *leader = leader_of(&groups_of(&self.nodes[..3], group)).await;
            }
        }
    }

    /// Decides on each chunk by how many were sent before, and notes it.
    fn judge(&self, mut judge: impl FnMut(usize) -> Fate + Send + 'static) {
        let chunks = Arc::clone(&self.chunks);
        self.network.judge(move |_, payload| match chunk_of(payload) {
            None => Fate::Arrives,
            Some(chunk) => {
                let mut chunks = chunks.lock();
                chunks.push((Instant::now(), chunk));
                judge(chunks.len() - 1)
            }
        });
    }

    /// Adds a fourth replica of each group, which begins to be sent a snapshot.
    async fn add(&mut self) -> Vec<Group> {
        let mut learners = Vec::new();
        for leader in &self.leaders {
            let group = leader.id().0;
            let learner = self.nodes[3].create(group, group * 10 + 4).await;
            leader.add_learner(ReplicaId(group * 10 + 4), NodeId(4)).await.unwrap();
            learners.push(learner);
        }
        learners
    }

    /// Waits until the learners have everything.
    async fn caught_up(&self, learners: &[Group]) {
        for (leader, learner) in self.leaders.iter().zip(learners) {
            let last = propose(leader, "after").await.index;
            learner.wait_applied(last).await.unwrap();
            let group = leader.id().0;
            assert_eq!(self.nodes[3].tape(group).len(), COMMANDS + 1);
            let led = self.nodes.iter().position(|node| {
                node.host.group(leader.id()).is_some_and(|it| it.replica() == leader.replica())
            });
            assert_eq!(self.nodes[3].tape(group), self.nodes[led.unwrap()].tape(group));
        }
        // The leader hears of it, too.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    fn begun(&self) -> usize {
        self.network.snapshots.lock().begun
    }

    fn sequences(&self) -> Vec<u32> {
        self.chunks.lock().iter().map(|(_, chunk)| chunk.sequence).collect()
    }

    /// Of the node that leads the first group.
    fn metrics(&self) -> HostMetrics {
        let own = self.leaders[0].replica().0 % 10;
        let node = self.nodes.iter().find(|node| node.id.0 == own);
        node.unwrap().host.metrics()
    }
}

fn chunk_of(payload: &Bytes) -> Option<SnapshotChunk> {
    match Message::from_bytes(payload).unwrap().body {
        Body::SnapshotChunk(chunk) => Some(chunk),
        _ => None,
    }
}

/// The numbers of all chunks, in order, and `twice` once more.
fn all_and(sequences: &[u32], twice: Option<u32>) -> Vec<u32> {
    let last = sequences.iter().max().unwrap();
    (0..=*last).flat_map(|it| vec![it; if Some(it) == twice { 2 } else { 1 }]).collect()
}

#[test]
fn a_lost_chunk_is_sent_again_and_nothing_before_it() {
    simulate(async {
        let mut scene = Scene::of_one().await;
        scene.judge(|nth| if nth == 20 { Fate::IsLost } else { Fate::Arrives });
        let learners = scene.add().await;
        scene.caught_up(&learners).await;
        let sequences = scene.sequences();
        assert!(sequences.len() > 60, "{sequences:?}");
        assert_eq!(sequences, all_and(&sequences, Some(20)));
        assert_eq!(scene.begun(), 2, "it began, and was asked how far it was");
        let now = scene.metrics();
        assert_eq!((now.snapshots_sent, now.snapshots_failed), (1, 0));
        assert_eq!((now.snapshots_resumed, now.snapshot_chunks_repeated), (1, 1));
    });
}

#[test]
fn a_chunk_whose_answer_is_lost_is_not_sent_again() {
    simulate(async {
        let mut scene = Scene::of_one().await;
        scene.judge(|nth| if nth == 20 { Fate::IsNotAnswered } else { Fate::Arrives });
        let learners = scene.add().await;
        scene.caught_up(&learners).await;
        let sequences = scene.sequences();
        assert_eq!(sequences, all_and(&sequences, None));
        let now = scene.metrics();
        assert_eq!((now.snapshots_resumed, now.snapshot_chunks_repeated), (1, 0));
    });
}

#[test]
fn a_transfer_that_goes_on_soon_keeps_its_turn() {
    simulate(async {
        let config = HostConfig { snapshots_sending_max: 1, ..awake() };
        let mut scene = Scene::new(&[1, 2], config).await;
        scene.lead_from_one_node().await;
        scene.judge(|nth| if nth == 20 { Fate::IsNotAnswered } else { Fate::Arrives });
        let learners = scene.add().await;
        scene.caught_up(&learners).await;
        let mut transfers: Vec<_> =
            scene.chunks.lock().iter().map(|(_, chunk)| chunk.transfer).collect();
        transfers.dedup();
        assert_eq!(transfers.len(), 2, "one after the other");
        assert_eq!(scene.metrics().snapshots_resumed, 1);
    });
}

#[test]
fn a_follower_that_is_out_of_reach_for_a_while_is_sent_the_rest() {
    simulate(async {
        let mut scene = Scene::of_one().await;
        let network = scene.network.clone();
        scene.judge(move |nth| {
            if nth == 20 {
                network.isolate(NodeId(4));
            }
            Fate::Arrives
        });
        let learners = scene.add().await;
        tokio::time::sleep(config().snapshot_staging_idle_max * 2 / 3).await;
        assert_eq!(scene.metrics().snapshots_sending, 0, "others may be sent theirs meanwhile");
        scene.network.heal();
        scene.caught_up(&learners).await;
        let sequences = scene.sequences();
        assert_eq!(sequences, all_and(&sequences, Some(20)));
        assert_eq!((scene.metrics().snapshots_sent, scene.metrics().snapshots_failed), (1, 0));
    });
}

#[test]
fn a_follower_that_is_out_of_reach_for_long_is_given_up_and_sent_another() {
    simulate(async {
        let mut scene = Scene::of_one().await;
        let network = scene.network.clone();
        scene.judge(move |nth| {
            if nth == 20 {
                network.isolate(NodeId(4));
            }
            Fate::Arrives
        });
        let learners = scene.add().await;
        tokio::time::sleep(config().snapshot_staging_idle_max * 2).await;
        assert_eq!(scene.metrics().snapshots_failed, 1);
        assert_eq!(scene.nodes[3].host.metrics().snapshots_receiving, 0);
        scene.network.heal();
        scene.caught_up(&learners).await;
        assert_eq!(scene.sequences().iter().filter(|it| **it == 0).count(), 2);
    });
}

#[test]
fn a_follower_that_is_started_again_is_sent_another() {
    simulate(async {
        let mut scene = Scene::of_one().await;
        let network = scene.network.clone();
        scene.judge(move |nth| {
            if nth == 20 {
                network.isolate(NodeId(4));
            }
            Fate::Arrives
        });
        scene.add().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        scene.nodes[3].crash_and_restart().await;
        let learner = scene.nodes[3].create(1, 14).await;
        scene.network.heal();
        scene.caught_up(&[learner]).await;
        assert_eq!((scene.metrics().snapshots_sent, scene.metrics().snapshots_failed), (1, 1));
    });
}

#[test]
fn a_flipped_byte_is_refused_and_sent_again() {
    simulate(async {
        let mut scene = Scene::of_one().await;
        let chunks = Arc::clone(&scene.chunks);
        scene.network.judge(move |_, payload| {
            let Some(chunk) = chunk_of(payload) else { return Fate::Arrives };
            let mut chunks = chunks.lock();
            chunks.push((Instant::now(), chunk));
            if chunks.len() != 21 {
                return Fate::Arrives;
            }
            // Its bytes come last.
            let mut flipped = payload.to_vec();
            *flipped.last_mut().unwrap() ^= 1;
            Fate::ArrivesAs(flipped.into())
        });
        let learners = scene.add().await;
        scene.caught_up(&learners).await;
        let sequences = scene.sequences();
        assert_eq!(sequences, all_and(&sequences, Some(20)));
        assert_eq!(scene.begun(), 1);
        assert_eq!(scene.nodes[3].host.metrics().snapshot_chunks_damaged, 1);
    });
}

#[test]
fn what_is_always_damaged_is_given_up_and_never_installed() {
    simulate(async {
        let mut scene = Scene::of_one().await;
        scene.network.judge(|_, payload| {
            let mut flipped = payload.to_vec();
            *flipped.last_mut().unwrap() ^= 1;
            let is_chunk = chunk_of(payload).is_some();
            if is_chunk { Fate::ArrivesAs(flipped.into()) } else { Fate::Arrives }
        });
        let learners = scene.add().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(scene.metrics().snapshots_failed > 1);
        assert_eq!(learners[0].applied(), 0);
        scene.judge(|_| Fate::Arrives);
        scene.caught_up(&learners).await;
    });
}

#[test]
fn chunks_that_come_twice_are_written_once() {
    simulate(async {
        let mut scene = Scene::of_one().await;
        scene.judge(|_| Fate::ArrivesTwice);
        let learners = scene.add().await;
        scene.caught_up(&learners).await;
        assert_eq!((scene.begun(), scene.metrics().snapshots_resumed), (1, 0));
    });
}

#[test]
fn a_leader_that_is_cut_off_midway_is_followed_by_another_ones_snapshot() {
    simulate(async {
        let mut scene = Scene::of_one().await;
        let (network, own) = (scene.network.clone(), scene.leaders[0].replica().0 % 10);
        scene.judge(move |nth| {
            if nth == 20 {
                network.isolate(NodeId(own));
            }
            Fate::Arrives
        });
        let learners = scene.add().await;
        let others: Vec<Group> = groups_of(&scene.nodes[..3], 1)
            .into_iter()
            .filter(|group| group.replica() != scene.leaders[0].replica())
            .collect();
        scene.leaders = vec![leader_of(&others).await];
        scene.caught_up(&learners).await;
        assert_eq!(scene.metrics().snapshots_sent, 1, "by the one that leads now");
        // The one before comes back with a transfer that nobody wants.
        scene.network.heal();
        tokio::time::sleep(config().snapshot_staging_idle_max).await;
        assert_eq!(scene.nodes.iter().map(|it| it.host.metrics().snapshots_sent).sum::<u64>(), 1);
    });
}

#[test]
fn snapshots_of_a_node_keep_to_its_rate_together() {
    simulate(async {
        const RATE: u64 = 150_000;
        let slow = HostConfig { snapshot_bytes_per_second_max: Some(RATE), ..patient() };
        let mut scene = Scene::new(&[1, 2, 3], slow).await;
        scene.lead_from_one_node().await;
        let learners = scene.add().await;
        scene.caught_up(&learners).await;
        let chunks = scene.chunks.lock();
        let sent: Vec<(Instant, u64)> =
            chunks.iter().map(|(at, chunk)| (*at, chunk.bytes.len() as u64)).collect();
        let largest = sent.iter().map(|(_, bytes)| *bytes).max().unwrap();
        let total: u64 = sent.iter().map(|(_, bytes)| bytes).sum();
        assert!(total > 50_000, "{total}");
        for (first, (begins, _)) in sent.iter().enumerate() {
            let mut bytes = 0;
            for (at, more) in &sent[first..] {
                bytes += more;
                // A timer is late by a millisecond at most.
                let took = (*at - *begins).as_secs_f64() + 0.001;
                let allowed = RATE as f64 * took + largest as f64;
                assert!(bytes as f64 <= allowed + 1.0, "{bytes} in {:?}", *at - *begins);
            }
        }
    });
}

#[test]
fn a_follower_needs_one_snapshot_however_much_is_written_meanwhile() {
    for (waits, is_one) in [(100_000, true), (0, false)] {
        simulate(async move {
            // Several seconds for a snapshot, and a purge each second.
            let slow = HostConfig {
                purge_waits_entries: waits,
                snapshots_sending_max: 1,
                snapshot_bytes_per_second_max: Some(70_000),
                ..patient()
            };
            let mut scene = Scene::new(&[1], slow).await;
            scene.judge(|_| Fate::Arrives);
            let learners = scene.add().await;
            let leader = scene.leaders[0].clone();
            let purged = leader.status().purged;
            while scene.chunks.lock().len() < 20 {
                propose(&leader, "meanwhile").await;
            }
            for _ in 0..300 {
                propose(&leader, "meanwhile").await;
            }
            let last = propose(&leader, "after").await.index;
            learners[0].wait_applied(last).await.unwrap();
            let (begun, now) = (scene.begun(), leader.status().purged);
            assert_eq!(begun == 1, is_one, "{begun} begun; purged {purged:?}, then {now:?}");
        });
    }
}

#[test]
fn a_rate_that_receivers_would_take_for_silence_is_refused_in_words() {
    simulate(async {
        let slow = HostConfig { snapshot_bytes_per_second_max: Some(1_000), ..config() };
        let log = super::support::open_log(&super::support::RamDisk::default());
        let wire = Network::default().wire(NodeId(1));
        let refused = crate::Host::open(slow, log, wire).unwrap_err().to_string();
        assert!(refused.contains("snapshot_bytes_per_second_max is 1000"), "{refused}");
    });
}
