//! Exactly once, through the facade: three nodes in one process. The gateway
//! has no request ids, so this is seen from inside only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::future::Future;
use std::time::Duration;

use quorate::types::{Blob, NodeId, RequestId, ShardId};
use quorate::{Answer, ExecuteError, Node, NodeConfig, Transaction};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// Nodes 1 to 3 over loopback; `None` while one is down.
struct Cluster {
    nodes: Vec<Option<Node>>,
    directories: Vec<TempDir>,
    members: Vec<(NodeId, String)>,
}

impl Cluster {
    async fn start() -> Self {
        let (mut listeners, mut members) = (Vec::new(), Vec::new());
        for id in 1..=3 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            members.push((NodeId(id), listener.local_addr().unwrap().to_string()));
            listeners.push(listener);
        }
        let directories = (0..3).map(|_| TempDir::new().unwrap()).collect();
        let mut cluster = Self { nodes: Vec::new(), directories, members };
        for (place, listener) in listeners.into_iter().enumerate() {
            let builder = Node::builder(cluster.config(place)).listener(listener);
            cluster.nodes.push(Some(builder.start().await.unwrap()));
        }
        cluster.serve().await;
        cluster
    }

    /// Four shards: up to h, n, t, and the rest.
    fn config(&self, place: usize) -> NodeConfig {
        let (node, address) = self.members[place].clone();
        let mut config = NodeConfig::new(node, self.directories[place].path());
        config.address = address;
        config.initial_cluster = self.members.clone();
        config.shards = 4;
        config.split_keys = ["h", "n", "t"].map(|key| key.as_bytes().to_vec()).to_vec();
        config
    }

    fn node(&self, place: usize) -> &Node {
        self.nodes[place].as_ref().expect("the node is up")
    }

    async fn serve(&self) {
        for node in self.nodes.iter().flatten() {
            let serving = tokio::time::timeout(PATIENCE, node.serving()).await;
            serving.expect("serves in time").unwrap();
        }
    }

    /// Ends a node at once, as a crash would.
    fn crash(&mut self, place: usize) {
        drop(self.nodes[place].take());
    }

    /// Starts every node that is down, as soon as its address and directory
    /// are free again.
    async fn revive(&mut self) {
        for place in 0..self.nodes.len() {
            if self.nodes[place].is_none() {
                let config = self.config(place);
                let started = eventually("the node starts", || async {
                    Node::builder(config.clone()).start().await.map_err(|error| error.to_string())
                });
                self.nodes[place] = Some(started.await);
            }
        }
        self.serve().await;
    }

    /// Where the leader of a key's shard is.
    async fn leader_of(&self, key: &str) -> usize {
        eventually("the shard has a leader", || async {
            let seen = self.nodes.iter().flatten().next().expect("a node is up");
            let leader = seen.route(key.as_bytes()).and_then(|(_, leader, _)| leader);
            let place = leader.and_then(|id| self.members.iter().position(|(n, _)| *n == id));
            place.filter(|place| self.nodes[*place].is_some()).ok_or_else(|| format!("{leader:?}"))
        })
        .await
    }
}

async fn eventually<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(seen) => return seen,
            Err(instead) => {
                assert!(tokio::time::Instant::now() < until, "never: {what}; last: {instead}");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A command that tells whether it ran again: it reads what it overwrites.
struct Swap {
    keys: &'static [&'static str],
    request: RequestId,
    first: Answer,
}

impl Swap {
    /// Runs it for the first time, on keys that hold `before`, and lets
    /// somebody else overwrite what it wrote.
    async fn run(cluster: &Cluster, place: usize, keys: &'static [&'static str]) -> Self {
        write(cluster, place, keys, "before").await;
        let session = cluster.node(place).session();
        let request = session.reserve();
        let result = session.retry(request, Self::transaction(keys).call()).await.unwrap();
        let first = Answer::of(&result).unwrap();
        assert_eq!(first.values.0, vec![Some(Blob::from("before")); keys.len()]);
        assert_holds(cluster, keys, "swapped").await;
        write(cluster, (place + 1) % 3, keys, "later").await;
        Self { keys, request, first }
    }

    fn transaction(keys: &[&str]) -> Transaction {
        let read = keys.iter().fold(Transaction::new(), |so_far, key| so_far.get(*key));
        keys.iter().fold(read, |so_far, key| so_far.put(*key, "swapped"))
    }

    /// Retries it on every node that is up: the first result, no effect.
    async fn assert_once(&self, cluster: &Cluster) {
        for node in cluster.nodes.iter().flatten() {
            let result = eventually("the retry is resolved", || async {
                let call = Self::transaction(self.keys).call();
                match node.session().retry(self.request, call).await {
                    Ok(result) => Ok(result),
                    Err(ExecuteError::Unknown(_) | ExecuteError::Refused(_)) => {
                        Err("not resolved yet".to_owned())
                    }
                    Err(other) => panic!("{:?} on node {}: {other}", self.keys, node.id()),
                }
            })
            .await;
            let answer = Answer::of(&result).unwrap();
            assert_eq!(answer, self.first, "{:?} on node {}", self.keys, node.id());
        }
        assert_holds(cluster, self.keys, "later").await;
    }
}

/// Keys of one shard, of two, and of all four; the first also lies on both
/// sides of the cut at "d".
const FOOTPRINTS: [&[&str]; 4] = [&["b", "f"], &["e"], &["c", "x"], &["a", "i", "o", "z"]];

async fn swaps(cluster: &Cluster) -> Vec<Swap> {
    let mut swaps = Vec::new();
    for (turn, keys) in FOOTPRINTS.into_iter().enumerate() {
        swaps.push(Swap::run(cluster, turn % 3, keys).await);
    }
    swaps
}

async fn write(cluster: &Cluster, place: usize, keys: &[&str], value: &str) {
    let write = keys.iter().fold(Transaction::new(), |so_far, key| so_far.put(*key, value));
    cluster.node(place).session().execute(write.call()).await.unwrap();
}

async fn assert_holds(cluster: &Cluster, keys: &[&str], value: &str) {
    let read = keys.iter().fold(Transaction::new(), |so_far, key| so_far.get(*key));
    let node = cluster.nodes.iter().flatten().next().expect("a node is up");
    let result = eventually("the keys can be read", || async {
        node.session().execute(read.call()).await.map_err(|error| error.to_string())
    });
    let answer = Answer::of(&result.await).unwrap();
    assert_eq!(answer.values.0, vec![Some(Blob::from(value)); keys.len()], "{keys:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_on_another_node_gets_the_first_result() {
    let cluster = Cluster::start().await;
    for swap in swaps(&cluster).await {
        swap.assert_once(&cluster).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_at_the_same_time_execute_once() {
    let cluster = Cluster::start().await;
    for keys in FOOTPRINTS {
        write(&cluster, 0, keys, "before").await;
        let sessions = [0, 1, 2].map(|place| cluster.node(place).session());
        let request = sessions[0].reserve();
        let ask = |place: usize| {
            let session = &sessions[place];
            async move { session.retry(request, Swap::transaction(keys).call()).await }
        };
        let (first, second, third) = tokio::join!(ask(0), ask(1), ask(2));
        let expected = vec![Some(Blob::from("before")); keys.len()];
        for result in [first, second, third] {
            assert_eq!(Answer::of(&result.unwrap()).unwrap().values.0, expected, "{keys:?}");
        }
        assert_holds(&cluster, keys, "swapped").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_after_the_death_of_the_leader_gets_the_first_result() {
    let mut cluster = Cluster::start().await;
    let swaps = swaps(&cluster).await;
    // By request first, then by force.
    for key in ["a", "i", "o", "z"] {
        let (shard, ..) = cluster.node(0).route(key.as_bytes()).unwrap();
        let to = NodeId((cluster.leader_of(key).await as u64 + 1) % 3 + 1);
        eventually("the leadership moves", || async {
            let moved = cluster.node(0).transfer_leader(shard, to).await;
            moved.map_err(|error| error.to_string())
        })
        .await;
    }
    for swap in &swaps {
        swap.assert_once(&cluster).await;
    }
    for key in ["b", "z"] {
        let leader = cluster.leader_of(key).await;
        cluster.crash(leader);
        for swap in &swaps {
            swap.assert_once(&cluster).await;
        }
        cluster.revive().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_across_a_split_gets_the_first_result() {
    let cluster = Cluster::start().await;
    let swaps = swaps(&cluster).await;
    let parent = ShardId(1);
    assert_eq!(cluster.node(0).route(b"f").unwrap().0, parent);
    cluster.node(1).split_shard(parent, Some("d".into())).await.unwrap();
    for place in 0..3 {
        eventually("the split is known", || async {
            let seen = cluster.node(place).route(b"f").map(|(shard, ..)| shard);
            if seen == Some(parent) { Err("not yet".to_owned()) } else { Ok(()) }
        })
        .await;
    }
    // What was one shard's own command is one of two shards now.
    for swap in &swaps {
        swap.assert_once(&cluster).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_after_the_restart_of_all_nodes_gets_the_first_result() {
    let mut cluster = Cluster::start().await;
    let swaps = swaps(&cluster).await;
    for place in 0..3 {
        cluster.nodes[place].take().unwrap().shutdown().await.unwrap();
    }
    cluster.revive().await;
    for swap in &swaps {
        swap.assert_once(&cluster).await;
    }
    for place in 0..3 {
        cluster.crash(place);
    }
    cluster.revive().await;
    for swap in &swaps {
        swap.assert_once(&cluster).await;
    }
}
