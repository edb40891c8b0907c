//! The admin interface over HTTP, through the command line's own client.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_server::cli::{AdminClient, ClientError};
use quorate_server::{
    Admin, AdminError, AdminFuture, Doors, DrainStatus, GatewayLimits, MigrationInfo, MoveRequest,
    NodeInfo, Operation, ReplicaInfo, ServeConfig, ServeError, ShardInfo, SplitRequest, StatusInfo,
    TransferRequest,
};
use quorate_types::{runtime, watch};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::memory::MemoryBackend;
use crate::support::Client;

/// Remembers what was asked of it.
#[derive(Default)]
pub(crate) struct ReferenceAdmin {
    ready: Mutex<bool>,
    asked: Mutex<Vec<String>>,
}

impl ReferenceAdmin {
    fn operation(&self, shard: u64, asked: String) -> AdminFuture<Operation> {
        self.asked.lock().push(asked);
        Box::pin(async move {
            match shard {
                1 => Ok(Operation { migration: None, message: "begun".into() }),
                2 => Err(AdminError::Refused("shard 2 is moving already".into())),
                3 => Err(AdminError::Unavailable("no leader".into())),
                other => Err(AdminError::NotFound(format!("there is no shard {other}"))),
            }
        })
    }
}

fn value<T: Send + 'static>(value: T) -> AdminFuture<T> {
    Box::pin(async move { Ok(value) })
}

impl Admin for ReferenceAdmin {
    fn readiness(&self) -> Result<(), String> {
        if *self.ready.lock() { Ok(()) } else { Err("shard 4 has no leader".into()) }
    }

    fn metrics(&self) -> String {
        "quorate_shards 1\n".into()
    }

    fn status(&self) -> AdminFuture<StatusInfo> {
        value(StatusInfo { cluster: "reference".into(), node: 1, ..StatusInfo::default() })
    }

    fn nodes(&self) -> AdminFuture<Vec<NodeInfo>> {
        value(vec![NodeInfo { id: 1, state: "alive".into(), ..NodeInfo::default() }])
    }

    fn shards(&self) -> AdminFuture<Vec<ShardInfo>> {
        value(vec![ShardInfo {
            id: 1,
            range: "[, ∞)".into(),
            leader: Some(1),
            replicas: vec![ReplicaInfo { id: 9, node: 1, voter: true }],
            epoch: 3,
            applied: Some(17),
            state_hash: Some("00ff".into()),
        }])
    }

    fn migrations(&self) -> AdminFuture<Vec<MigrationInfo>> {
        value(Vec::new())
    }

    fn transfer(&self, shard: u64, request: TransferRequest) -> AdminFuture<Operation> {
        self.operation(shard, format!("transfer {shard} to {}", request.to))
    }

    fn move_replica(&self, shard: u64, request: MoveRequest) -> AdminFuture<Operation> {
        self.operation(shard, format!("move {shard} {}->{}", request.from, request.to))
    }

    fn split(&self, shard: u64, request: SplitRequest) -> AdminFuture<Operation> {
        self.operation(shard, format!("split {shard} at {:?}", request.key))
    }

    fn drain(&self, node: u64) -> AdminFuture<DrainStatus> {
        value(DrainStatus { node, replicas_left: 2 })
    }
}

pub(crate) struct Node {
    pub(crate) admin: Arc<ReferenceAdmin>,
    pub(crate) gateway_address: SocketAddr,
    pub(crate) admin_address: SocketAddr,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) task: tokio::task::JoinHandle<Result<(), ServeError>>,
}

impl Node {
    pub(crate) async fn start() -> Self {
        let any = "127.0.0.1:0".parse().unwrap();
        let config = ServeConfig { gateway: any, admin: any, limits: GatewayLimits::default() };
        let doors = Doors::open(&config).await.unwrap();
        let gateway_address = doors.gateway_address().unwrap();
        let admin_address = doors.admin_address().unwrap();
        let admin = Arc::new(ReferenceAdmin::default());
        let (stop, stopped) = watch::channel(false);
        let serve = doors.serve(MemoryBackend::new(), Arc::clone(&admin) as _, stopped);
        let task = runtime::spawn(serve);
        Self { admin, gateway_address, admin_address, stop, task }
    }

    pub(crate) fn client(&self) -> AdminClient {
        AdminClient::new(self.admin_address)
    }

    /// A request as bytes; the answer's status and body.
    async fn raw(&self, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin_address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.raw(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
    }

    async fn post(&self, path: &str, body: &str) -> (u16, String) {
        let length = body.len();
        self.raw(&format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
        .await
    }
}

#[tokio::test]
async fn health_is_the_process_and_readiness_is_the_service() {
    let node = Node::start().await;
    assert_eq!(node.get("/healthz").await, (200, "ok\n".into()));
    assert_eq!(node.get("/readyz").await, (503, r#"{"error":"shard 4 has no leader"}"#.into()));
    let error = node.client().ready().await.unwrap_err();
    assert!(matches!(error, ClientError::Failed(reason) if reason == "shard 4 has no leader"));
    *node.admin.ready.lock() = true;
    assert_eq!(node.get("/readyz").await, (200, "ready\n".into()));
    node.client().ready().await.unwrap();
}

#[tokio::test]
async fn lists_are_arrays_of_objects() {
    let node = Node::start().await;
    let shards = node.client().get("/v1/shards").await.unwrap();
    assert_eq!(
        shards,
        json!([{
            "id": 1, "range": "[, ∞)", "leader": 1, "epoch": 3, "applied": 17,
            "state_hash": "00ff", "replicas": [{"id": 9, "node": 1, "voter": true}],
        }])
    );
    assert_eq!(node.client().get("/v1/nodes").await.unwrap()[0]["state"], "alive");
    assert_eq!(node.client().get("/v1/migrations").await.unwrap(), json!([]));
    assert_eq!(node.client().get("/v1/status").await.unwrap()["cluster"], "reference");
}

#[tokio::test]
async fn operations_reach_the_port() {
    let node = Node::start().await;
    let client = node.client();
    let begun = client.post("/v1/shards/1/transfer", &json!({"to": 2})).await.unwrap();
    assert_eq!(begun["message"], "begun");
    client.post("/v1/shards/1/move", &json!({"from": 1, "to": 2})).await.unwrap();
    client.post("/v1/shards/1/split", &json!({"key": "m"})).await.unwrap();
    assert_eq!(node.post("/v1/shards/1/split", "").await.0, 202);
    assert_eq!(node.post("/v1/nodes/3/drain", "").await.1, r#"{"node":3,"replicas_left":2}"#);
    let asked = node.admin.asked.lock().clone();
    assert_eq!(
        asked,
        ["transfer 1 to 2", "move 1 1->2", "split 1 at Some(\"m\")", "split 1 at None"]
    );
}

#[tokio::test]
async fn errors_have_their_status_and_a_text() {
    let node = Node::start().await;
    let to = r#"{"to":2}"#;
    let refused = r#"{"error":"shard 2 is moving already"}"#;
    assert_eq!(node.post("/v1/shards/2/transfer", to).await, (409, refused.into()));
    assert_eq!(node.post("/v1/shards/3/transfer", to).await.0, 503);
    let missing = r#"{"error":"there is no shard 4"}"#;
    assert_eq!(node.post("/v1/shards/4/transfer", to).await, (404, missing.into()));
    for (path, body, status) in [
        ("/v1/shards/x/transfer", to, 400),
        ("/v1/shards/1/transfer", "", 400),
        ("/v1/shards/1/transfer", "{", 400),
        ("/v1/shards/1/transfer", r#"{"to":2,"from":1}"#, 400),
        ("/v1/shards/1/nonsense", to, 404),
        ("/v1/shards", to, 405),
        ("/v1/shards/1/split", &"x".repeat(600 << 10), 413),
    ] {
        let (found, answer) = node.post(path, body).await;
        assert_eq!(found, status, "{path} {answer}");
        assert!(answer.starts_with(r#"{"error":""#), "{answer}");
    }
    assert!(node.admin.asked.lock().len() == 3, "what is malformed is not asked");
}

#[tokio::test]
async fn metrics_are_counted_and_printed() {
    let node = Node::start().await;
    let mut client = Client::connect(node.gateway_address).await;
    for line in ["SET a 1", "get a", "GET b", "GET"] {
        client.ask(line).await;
    }
    let (status, text) = node.get("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "quorate_gateway_commands_total{command=\"get\"} 3",
        "quorate_gateway_commands_total{command=\"set\"} 1",
        "quorate_gateway_error_replies_total 1",
        "quorate_gateway_connections_open 1",
        "quorate_gateway_latency_seconds_bucket{le=\"+Inf\"} 3",
        "quorate_gateway_latency_seconds_count 3",
        "quorate_shards 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
}

#[tokio::test]
async fn both_doors_close_on_request() {
    let node = Node::start().await;
    node.stop.send(true);
    node.task.await.unwrap().unwrap();
    assert!(TcpStream::connect(node.admin_address).await.is_err());
    assert!(TcpStream::connect(node.gateway_address).await.is_err());
    let error = AdminClient::new(node.admin_address).get("/v1/status").await.unwrap_err();
    assert!(error.to_string().contains("is the node running"), "{error}");
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let node = Node::start().await;
    let config = ServeConfig {
        gateway: node.gateway_address,
        admin: "127.0.0.1:0".parse().unwrap(),
        limits: GatewayLimits::default(),
    };
    let error = Doors::open(&config).await.unwrap_err().to_string();
    assert!(error.contains(&node.gateway_address.to_string()), "{error}");
}
