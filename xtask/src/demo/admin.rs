//! A blocking client of a node's admin interface: HTTP/1.1 with JSON, one
//! connection for each request.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::Outcome;

const CONNECT_MAX: Duration = Duration::from_secs(1);

/// How long an answer may take; the longest is one that another node gives.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Far more than any list that a small cluster answers.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// A node as another sees it.
#[derive(Deserialize, Debug)]
pub(super) struct NodeView {
    /// Its number.
    pub(super) id: u64,
    /// `alive`, `suspect` or `dead`.
    pub(super) state: String,
}

/// A replica of a shard.
#[derive(Deserialize, Debug)]
pub(super) struct ReplicaView {
    /// The node that holds it.
    pub(super) node: u64,
    /// Whether it votes.
    pub(super) voter: bool,
}

/// A shard as a node sees it.
#[derive(Deserialize, Debug)]
pub(super) struct ShardView {
    /// Its number.
    pub(super) id: u64,
    /// Its keys, in words.
    pub(super) range: String,
    /// The node that leads it, if known.
    pub(super) leader: Option<u64>,
    /// Its replicas.
    pub(super) replicas: Vec<ReplicaView>,
    /// The last index applied on the node that answers, if it holds one.
    pub(super) applied: Option<u64>,
    /// The state's hash at that index.
    pub(super) state_hash: Option<String>,
}

impl ShardView {
    /// Whether a node holds a voting replica.
    pub(super) fn has_voter_on(&self, node: u64) -> bool {
        self.replicas.iter().any(|replica| replica.voter && replica.node == node)
    }
}

/// A migration.
#[derive(Deserialize, Debug)]
pub(super) struct MigrationView {
    /// Its identity.
    pub(super) id: String,
    /// What it does: `move`, `split`, `merge`.
    pub(super) kind: String,
    /// Of which group: `shard 4`, `metadata`, `sequencer`.
    pub(super) group: String,
    /// The node that gives.
    pub(super) from: Option<u64>,
    /// The node that takes.
    pub(super) to: Option<u64>,
    /// How far it is.
    pub(super) phase: String,
    /// Whether it is over.
    pub(super) finished: bool,
    /// Why it failed, if so.
    #[serde(deserialize_with = "Option::deserialize")]
    pub(super) error: Option<String>,
    /// The longest time during which the shard took no writes, in
    /// microseconds; null when the node does not measure it. A node that does
    /// not report it at all is not understood.
    #[serde(deserialize_with = "Option::deserialize")]
    pub(super) write_pause_micros: Option<u64>,
}

/// An operation that a node has accepted.
#[derive(Deserialize, Debug)]
struct Accepted {
    /// The migration that carries it out.
    migration: Option<String>,
}

/// A node's admin interface.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admin {
    address: SocketAddr,
}

impl Admin {
    /// The interface at an address.
    pub(super) fn at(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Whether the node serves; why not, otherwise.
    pub(super) fn ready(&self) -> Result<(), String> {
        let (status, body) = self.exchange("GET", "/readyz", "").map_err(|e| e.to_string())?;
        if status == 200 { Ok(()) } else { Err(problem(status, &body)) }
    }

    /// All nodes, as this one sees them.
    pub(super) fn nodes(&self) -> Outcome<Vec<NodeView>> {
        self.get("/v1/nodes")
    }

    /// All shards, with this node's own applied index and hash. The node
    /// hashes every row that it stores to answer.
    pub(super) fn shards(&self) -> Outcome<Vec<ShardView>> {
        self.get("/v1/shards")
    }

    /// Migrations under way and the last ones that ended.
    pub(super) fn migrations(&self) -> Outcome<Vec<MigrationView>> {
        self.get("/v1/migrations")
    }

    /// Asks a node's replica to lead a shard; answered when it does.
    pub(super) fn transfer(&self, shard: u64, to: u64) -> Outcome {
        self.post(&format!("/v1/shards/{shard}/transfer"), &json!({ "to": to })).map(drop)
    }

    /// Asks for a shard to be split in the middle of its keys; the migration
    /// that does it.
    pub(super) fn split(&self, shard: u64) -> Outcome<String> {
        let accepted = self.post(&format!("/v1/shards/{shard}/split"), &json!({}))?;
        accepted.migration.ok_or_else(|| "the split of a shard names no migration".into())
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Outcome<T> {
        self.request("GET", path, "")
    }

    fn post(&self, path: &str, body: &Value) -> Outcome<Accepted> {
        self.request("POST", path, &body.to_string())
    }

    fn request<T: DeserializeOwned>(&self, method: &str, path: &str, body: &str) -> Outcome<T> {
        let body = self.expect_success(method, path, body)?;
        let value = serde_json::from_str(&body);
        value.map_err(|error| format!("{method} {path} of {}: {error}", self.address).into())
    }

    fn expect_success(&self, method: &str, path: &str, body: &str) -> Outcome<String> {
        let at = self.address;
        let (status, body) = self
            .exchange(method, path, body)
            .map_err(|error| format!("{method} {path} of {at}: {error}"))?;
        match status {
            200..=299 => Ok(body),
            _ => Err(format!("{method} {path} of {at}: {}", problem(status, &body)).into()),
        }
    }

    /// One request, and the status and body of its answer.
    fn exchange(&self, method: &str, path: &str, body: &str) -> io::Result<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.address, CONNECT_MAX)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all((head + body).as_bytes())?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
        parse(&answer).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the answer is not complete HTTP")
        })
    }
}

/// Status and body of a whole answer.
fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    // A chunked answer has no length; the interface never sends one.
    (length?.ok()? == body.len()).then(|| (status, body.to_owned()))
}

/// What an answer that is no success says.
fn problem(status: u16, body: &str) -> String {
    let value: Option<Value> = serde_json::from_str(body).ok();
    let error = value.as_ref().and_then(|value| value.get("error")).and_then(Value::as_str);
    format!("{} (status {status})", error.unwrap_or(body.trim()))
}

#[cfg(test)]
mod tests;
