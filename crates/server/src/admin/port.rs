//! What the admin interface needs of the cluster (port), in the words of its
//! JSON.

use quorate_types::runtime::BoxFuture;
use serde::{Deserialize, Serialize};

/// Why an administrative request was not carried out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AdminError {
    /// There is no such node, shard or migration.
    #[error("{0}")]
    NotFound(String),
    /// It cannot be done as things stand; nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// The cluster cannot decide now; trying again may help.
    #[error("{0}")]
    Unavailable(String),
}

/// The cluster in a few numbers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct StatusInfo {
    /// The cluster's identity.
    pub cluster: String,
    /// The node that answers.
    pub node: u64,
    /// Whether that node serves clients.
    pub serving: bool,
    /// Why it does not, if so.
    pub reason: Option<String>,
    /// The leader of the metadata group, if known.
    pub metadata_leader: Option<u64>,
    /// The leader of the sequencer, if known.
    pub sequencer_leader: Option<u64>,
    /// The version of the shard map.
    pub map_version: u64,
    /// How many nodes are members.
    pub nodes: u64,
    /// How many of them are reachable.
    pub nodes_alive: u64,
    /// How many shards there are.
    pub shards: u64,
    /// How many of them have a leader.
    pub shards_led: u64,
    /// Migrations under way.
    pub migrations: u64,
}

/// A node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its number.
    pub id: u64,
    /// Where other nodes reach it.
    pub address: String,
    /// Where clients reach it, if known.
    pub gateway: Option<String>,
    /// Where operators reach it, if known.
    pub admin: Option<String>,
    /// How it is, as failure detection sees it: `alive`, `suspect`, `dead`.
    pub state: String,
    /// Whether it is to give up its replicas.
    pub draining: bool,
    /// Replicas it holds, those of the metadata and the sequencer included.
    pub replicas: u64,
    /// Shards it leads.
    pub leaders: u64,
}

/// One replica of a shard.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ReplicaInfo {
    /// Its number, never reused.
    pub id: u64,
    /// The node that holds it.
    pub node: u64,
    /// Whether it votes; learners do not.
    pub voter: bool,
}

/// A shard.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ShardInfo {
    /// Its number.
    pub id: u64,
    /// Its keys, for reading: `[start, end)`.
    pub range: String,
    /// The node of its leader, if known.
    pub leader: Option<u64>,
    /// Its replicas.
    pub replicas: Vec<ReplicaInfo>,
    /// The version of its range.
    pub epoch: u64,
    /// The last log index applied on the node that answers, if it holds a
    /// replica.
    pub applied: Option<u64>,
    /// The hash of the state at that index, in hexadecimal, if it holds one.
    pub state_hash: Option<String>,
}

/// A migration.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MigrationInfo {
    /// Its identity.
    pub id: String,
    /// What it does: `move`, `split`, `merge`.
    pub kind: String,
    /// Of which group: `shard 4`, `metadata`, `sequencer`.
    pub group: String,
    /// The shard, if it is a shard's.
    pub shard: Option<u64>,
    /// The node that gives, if there is one.
    pub from: Option<u64>,
    /// The node that takes, if there is one.
    pub to: Option<u64>,
    /// The phase it has reached.
    pub phase: String,
    /// How often it was started.
    pub attempt: u64,
    /// The longest time for which it kept its shard from taking writes, in
    /// microseconds, as far as it got.
    #[serde(default)]
    pub write_pause_micros: Option<u64>,
    /// Whether it is over.
    #[serde(default)]
    pub finished: bool,
    /// Why it stands still or failed, if so.
    pub error: Option<String>,
}

/// `POST /v1/shards/ID/transfer`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferRequest {
    /// The node that shall lead.
    pub to: u64,
}

/// `POST /v1/shards/ID/move`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveRequest {
    /// The node that gives its replica up.
    pub from: u64,
    /// The node that takes it.
    pub to: u64,
}

/// `POST /v1/shards/ID/split`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitRequest {
    /// The user key to split at; the middle of the shard's keys otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// `POST /v1/nodes/ID/drain`. Has no parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DrainRequest {}

/// An operation that was accepted and goes on by itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Operation {
    /// The migration that carries it out, if it takes one.
    pub migration: Option<String>,
    /// What happens now, for reading.
    pub message: String,
}

/// How far a node is drained.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DrainStatus {
    /// The node.
    pub node: u64,
    /// Replicas it still holds.
    pub replicas_left: u64,
}

/// A call's answer.
pub type AdminFuture<T> = BoxFuture<Result<T, AdminError>>;

/// What operators ask of a node.
pub trait Admin: Send + Sync + 'static {
    /// Whether this node serves clients.
    ///
    /// # Errors
    /// Why it does not.
    fn readiness(&self) -> Result<(), String>;

    /// More metrics, in the text format of Prometheus; empty when there are
    /// none.
    fn metrics(&self) -> String;

    /// The cluster in a few numbers.
    fn status(&self) -> AdminFuture<StatusInfo>;

    /// All nodes.
    fn nodes(&self) -> AdminFuture<Vec<NodeInfo>>;

    /// All shards.
    fn shards(&self) -> AdminFuture<Vec<ShardInfo>>;

    /// Migrations, unfinished ones and the last finished.
    fn migrations(&self) -> AdminFuture<Vec<MigrationInfo>>;

    /// Makes a node's replica lead a shard.
    fn transfer(&self, shard: u64, request: TransferRequest) -> AdminFuture<Operation>;

    /// Moves a replica of a shard.
    fn move_replica(&self, shard: u64, request: MoveRequest) -> AdminFuture<Operation>;

    /// Splits a shard. The key is a user's key; [`crate::partition_key`] is
    /// its place among stored keys.
    fn split(&self, shard: u64, request: SplitRequest) -> AdminFuture<Operation>;

    /// Takes every replica off a node.
    fn drain(&self, node: u64) -> AdminFuture<DrainStatus>;
}
