//! Three nodes over loopback TCP in one process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::cell::Cell;
use std::future::Future;
use std::time::Duration;

use quorate::types::{Blob, NodeId, ShardId};
use quorate::{Answer, ExecuteError, Node, NodeConfig, Transaction};
use quorate_engine::{Engine, RedbConfig, RedbEngine};
use quorate_types::disk::DirectoryDisk;
use tempfile::TempDir;
use tokio::net::TcpListener;

/// Far beyond what anything here takes: a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

struct Cluster {
    nodes: Vec<Option<Node>>,
    directories: Vec<TempDir>,
    members: Vec<(NodeId, String)>,
}

impl Cluster {
    async fn start(count: u64) -> Self {
        let mut listeners = Vec::new();
        let mut members = Vec::new();
        for node in 1..=count {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            members.push((NodeId(node), listener.local_addr().unwrap().to_string()));
            listeners.push(listener);
        }
        let directories: Vec<TempDir> = (0..count).map(|_| TempDir::new().unwrap()).collect();
        let mut cluster = Self { nodes: Vec::new(), directories, members };
        for (place, listener) in listeners.into_iter().enumerate() {
            let builder = Node::builder(cluster.config(place)).listener(listener);
            cluster.nodes.push(Some(builder.start().await.unwrap()));
        }
        for node in cluster.nodes.iter().flatten() {
            serving(node).await;
        }
        cluster
    }

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
        self.nodes[place].as_ref().unwrap()
    }

    async fn restart(&mut self, place: usize) {
        self.nodes[place].take().unwrap().shutdown().await.unwrap();
        // Its address and files are free as soon as its last task has ended.
        let config = self.config(place);
        let node = eventually("the node starts again", || async {
            Node::builder(config.clone()).start().await.map_err(|error| error.to_string())
        })
        .await;
        serving(&node).await;
        self.nodes[place] = Some(node);
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

async fn serving(node: &Node) {
    tokio::time::timeout(PATIENCE, node.serving()).await.expect("serves in time").unwrap();
}

/// Executes once, however often it takes: a group may be without a leader for
/// a while, after a restart above all.
async fn execute(node: &Node, transaction: &Transaction) -> Answer {
    let session = node.session();
    let unresolved = Cell::new(None);
    let result = eventually("the transaction is executed", || async {
        let outcome = match unresolved.get() {
            None => session.execute(transaction.call()).await,
            Some(request) => session.retry(request, transaction.call()).await,
        };
        outcome.map_err(|error| {
            match error {
                ExecuteError::Unknown(request) => unresolved.set(Some(request)),
                ExecuteError::Refused(_) => {}
                _ => panic!("{error}"),
            }
            error.to_string()
        })
    });
    Answer::of(&result.await).unwrap()
}

async fn put(node: &Node, pairs: &[(&str, &str)]) {
    let write = |so_far: Transaction, (key, value): &(&str, &str)| so_far.put(*key, *value);
    assert!(execute(node, &pairs.iter().fold(Transaction::new(), write)).await.committed);
}

async fn get(node: &Node, keys: &[&str]) -> Vec<Option<Blob>> {
    let read = keys.iter().fold(Transaction::new(), |so_far, key| so_far.get(*key));
    execute(node, &read).await.values.0
}

fn some(value: &str) -> Option<Blob> {
    Some(value.into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_sees_what_any_node_wrote_across_shards() {
    let cluster = Cluster::start(3).await;
    put(cluster.node(0), &[("apple", "1"), ("pear", "2"), ("zucchini", "3")]).await;
    for place in 0..3 {
        let seen = get(cluster.node(place), &["apple", "pear", "zucchini"]).await;
        assert_eq!(seen, [some("1"), some("2"), some("3")]);
        assert_eq!(get(cluster.node(place), &["pear"]).await, [some("2")]);
    }
    let transfer = Transaction::new()
        .expect("apple", some("1"))
        .expect("zucchini", some("4"))
        .put("apple", "wrong")
        .put("zucchini", "wrong");
    assert!(!execute(cluster.node(1), &transfer).await.committed);
    assert_eq!(get(cluster.node(2), &["apple", "zucchini"]).await, [some("1"), some("3")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_after_each_node_restarted() {
    let mut cluster = Cluster::start(3).await;
    put(cluster.node(0), &[("a", "1"), ("p", "2")]).await;
    for place in 0..3 {
        cluster.restart(place).await;
        put(cluster.node((place + 1) % 3), &[("k", &place.to_string()), ("z", "x")]).await;
        assert_eq!(get(cluster.node(place), &["a", "p", "k"]).await[..2], [some("1"), some("2")]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_has_all_it_applied_in_its_engine() {
    let mut cluster = Cluster::start(3).await;
    for number in 0..20 {
        put(cluster.node(0), &[("a", &number.to_string())]).await;
    }
    let node = cluster.nodes[1].take().unwrap();
    let (shard, ..) = node.route(b"a").unwrap();
    let applied = node.state_hash(shard).unwrap().unwrap().index;
    node.shutdown().await.unwrap();

    let disk = DirectoryDisk::open(cluster.directories[1].path()).unwrap();
    let engine = RedbEngine::open(&disk, "engine.redb", RedbConfig::default()).unwrap();
    let durable = engine.durable(shard).unwrap().unwrap();
    assert!(durable >= applied, "{durable} of {applied}");
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_shard_answers_for_both_halves() {
    let cluster = Cluster::start(3).await;
    for key in ["a", "b", "c", "d", "e", "f"] {
        put(cluster.node(0), &[(key, key)]).await;
    }
    let first = ShardId(1);
    cluster.node(1).split_shard(first, Some("d".into())).await.unwrap();
    eventually("the split is known", || async {
        let seen = cluster.node(2).route(b"e").map(|(shard, ..)| shard);
        if seen == Some(first) { Err(format!("{seen:?}")) } else { Ok(()) }
    })
    .await;
    let seen = get(cluster.node(2), &["a", "c", "d", "f"]).await;
    assert_eq!(seen, [some("a"), some("c"), some("d"), some("f")]);
    put(cluster.node(0), &[("a", "new"), ("e", "new")]).await;
    assert_eq!(get(cluster.node(1), &["e"]).await, [some("new")]);
    assert_eq!(get(cluster.node(1), &["a"]).await, [some("new")]);
}
