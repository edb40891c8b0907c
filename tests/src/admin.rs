//! A client of the admin interface. Its shapes are written down here a second
//! time on purpose: they are what operators rely on.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use quorate_server::partition_key;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// `GET /v1/status`, as far as the tests look.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// The node that answers.
    pub node: u64,
    /// Whether it serves.
    pub serving: bool,
    /// Who leads the metadata group.
    pub metadata_leader: Option<u64>,
    /// Who leads the sequencer.
    pub sequencer_leader: Option<u64>,
    /// How many shards there are.
    pub shards: u64,
}

/// An element of `GET /v1/nodes`.
#[derive(Debug, Clone, Deserialize)]
pub struct Node {
    /// Its number.
    pub id: u64,
    /// `alive`, `suspect` or `dead`.
    pub state: String,
    /// Whether it gives up its replicas.
    pub draining: bool,
    /// Replicas of shards it holds.
    pub replicas: u64,
    /// Shards it leads.
    pub leaders: u64,
}

/// A replica of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Replica {
    /// Its number.
    pub id: u64,
    /// Its node.
    pub node: u64,
    /// Whether it votes.
    pub voter: bool,
}

/// An element of `GET /v1/shards`.
#[derive(Debug, Clone, Deserialize)]
pub struct Shard {
    /// Its number.
    pub id: u64,
    /// Its keys, `[0x.., 0x..)`.
    pub range: String,
    /// Its leader.
    pub leader: Option<u64>,
    /// Its replicas.
    pub replicas: Vec<Replica>,
    /// The version of its range.
    pub epoch: u64,
    /// How far the answering node's replica is.
    pub applied: Option<u64>,
    /// The hash of its state there.
    pub state_hash: Option<String>,
}

impl Shard {
    /// Whether a user's key lies in it.
    #[must_use]
    pub fn holds(&self, key: &str) -> bool {
        let hex: String =
            partition_key(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let inside = self.range.trim_start_matches('[').trim_end_matches(')');
        let (start, end) = inside.split_once(", ").expect("a range has two ends");
        let bound = |text: &str| text.strip_prefix("0x").map(str::to_owned);
        bound(start).is_some_and(|start| start <= hex) && bound(end).is_none_or(|end| hex < end)
    }

    /// The nodes whose replicas vote, in order.
    #[must_use]
    pub fn voters(&self) -> Vec<u64> {
        let voters = self.replicas.iter().filter(|replica| replica.voter);
        let mut nodes: Vec<u64> = voters.map(|replica| replica.node).collect();
        nodes.sort_unstable();
        nodes
    }
}

/// An element of `GET /v1/migrations`.
#[derive(Debug, Clone, Deserialize)]
pub struct Migration {
    /// Its identity.
    pub id: String,
    /// `move` or `split`.
    pub kind: String,
    /// Of which group: `shard 4`, `metadata`, `sequencer`.
    pub group: String,
    /// The phase it has reached.
    pub phase: String,
    /// Whether it is over.
    pub finished: bool,
    /// Why it failed, if so.
    pub error: Option<String>,
}

/// One node's admin interface.
#[derive(Debug, Clone, Copy)]
pub struct Admin {
    address: SocketAddr,
}

impl Admin {
    /// The interface at an address.
    #[must_use]
    pub const fn at(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Sends a request; returns the status code and the body.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub fn request(&self, method: &str, path: &str, body: &str) -> Result<(u16, String), String> {
        let exchange = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            write!(
                stream,
                "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
                 content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                self.address,
                body.len()
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = exchange().map_err(|error| format!("{method} {path}: {error}"))?;
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        status.zip(body).ok_or_else(|| format!("{method} {path}: no HTTP answer: {answer}"))
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let (status, body) = self.request("GET", path, "")?;
        if status != 200 {
            return Err(format!("GET {path}: {status} {body}"));
        }
        serde_json::from_str(&body).map_err(|error| format!("GET {path}: {error} in {body}"))
    }

    /// Asks for an operation; returns its migration's id, if it has one.
    ///
    /// # Errors
    /// The status and the text of the refusal.
    pub fn post(&self, path: &str, body: &Value) -> Result<Option<String>, String> {
        let (status, answer) = self.request("POST", path, &body.to_string())?;
        if status != 202 {
            return Err(format!("POST {path}: {status} {answer}"));
        }
        let answer: Value = serde_json::from_str(&answer).map_err(|error| error.to_string())?;
        Ok(answer.get("migration").and_then(Value::as_str).map(str::to_owned))
    }

    /// Whether the node serves.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.request("GET", "/readyz", "").is_ok_and(|(status, _)| status == 200)
    }

    /// `GET /v1/status`.
    ///
    /// # Errors
    /// When there is no such answer; so for the others below.
    pub fn status(&self) -> Result<Status, String> {
        self.get("/v1/status")
    }

    /// `GET /v1/nodes`.
    ///
    /// # Errors
    /// As [`Admin::status`].
    pub fn nodes(&self) -> Result<Vec<Node>, String> {
        self.get("/v1/nodes")
    }

    /// One of them.
    ///
    /// # Errors
    /// As [`Admin::status`].
    pub fn node(&self, id: u64) -> Result<Node, String> {
        let nodes = self.nodes()?;
        let found = nodes.iter().find(|node| node.id == id).cloned();
        found.ok_or_else(|| format!("no node {id} among {nodes:?}"))
    }

    /// `GET /v1/shards`.
    ///
    /// # Errors
    /// As [`Admin::status`].
    pub fn shards(&self) -> Result<Vec<Shard>, String> {
        self.get("/v1/shards")
    }

    /// The shard that holds a user's key.
    ///
    /// # Errors
    /// As [`Admin::status`].
    pub fn shard_of(&self, key: &str) -> Result<Shard, String> {
        let shards = self.shards()?;
        let mut holders = shards.iter().filter(|shard| shard.holds(key));
        match (holders.next(), holders.next()) {
            (Some(shard), None) => Ok(shard.clone()),
            (first, second) => Err(format!("{key} is held by {first:?} and {second:?}")),
        }
    }

    /// `GET /v1/migrations`, one of them.
    ///
    /// # Errors
    /// As [`Admin::status`].
    pub fn migration(&self, id: &str) -> Result<Migration, String> {
        let migrations: Vec<Migration> = self.get("/v1/migrations")?;
        let found = migrations.iter().find(|migration| migration.id == id).cloned();
        found.ok_or_else(|| format!("no migration {id} among {migrations:?}"))
    }

    /// Makes a node lead a shard.
    ///
    /// # Errors
    /// Why it does not.
    pub fn transfer(&self, shard: u64, to: u64) -> Result<(), String> {
        self.post(&format!("/v1/shards/{shard}/transfer"), &serde_json::json!({ "to": to }))
            .map(drop)
    }
}
