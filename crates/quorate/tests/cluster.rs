//! Three nodes over loopback TCP in one process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::time::Duration;

use quorate::types::{Blob, NodeId, ShardId};
use quorate::{Answer, Node, NodeConfig, Transaction};
use tempfile::TempDir;
use tokio::net::TcpListener;

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
        let node = loop {
            match Node::builder(self.config(place)).start().await {
                Ok(node) => break node,
                Err(error) => {
                    println!("restart: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        };
        serving(&node).await;
        self.nodes[place] = Some(node);
    }
}

async fn serving(node: &Node) {
    let bound = Duration::from_secs(60);
    tokio::time::timeout(bound, node.serving()).await.expect("serves in time").unwrap();
}

async fn put(node: &Node, pairs: &[(&str, &str)]) {
    let mut transaction = Transaction::new();
    for (key, value) in pairs {
        transaction = transaction.put(*key, *value);
    }
    node.session().execute(transaction.call()).await.unwrap();
}

async fn get(node: &Node, keys: &[&str]) -> Vec<Option<Blob>> {
    let mut transaction = Transaction::new();
    for key in keys {
        transaction = transaction.get(*key);
    }
    let result = node.session().execute(transaction.call()).await.unwrap();
    Answer::of(&result).unwrap().values.0
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
    let result = cluster.node(1).session().execute(transfer.call()).await.unwrap();
    assert!(!Answer::of(&result).unwrap().committed);
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
async fn a_split_shard_answers_for_both_halves() {
    let cluster = Cluster::start(3).await;
    for key in ["a", "b", "c", "d", "e", "f"] {
        put(cluster.node(0), &[(key, key)]).await;
    }
    let first = ShardId(1);
    cluster.node(1).split_shard(first, Some("d".into())).await.unwrap();
    while cluster.node(2).route(b"e").unwrap().0 == first {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let seen = get(cluster.node(2), &["a", "c", "d", "f"]).await;
    assert_eq!(seen, [some("a"), some("c"), some("d"), some("f")]);
    put(cluster.node(0), &[("a", "new"), ("e", "new")]).await;
    assert_eq!(get(cluster.node(1), &["e"]).await, [some("new")]);
    assert_eq!(get(cluster.node(1), &["a"]).await, [some("new")]);
}
