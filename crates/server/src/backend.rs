//! What the gateway needs of the cluster (port).

use quorate_calvin::Call;
use quorate_types::Blob;
use quorate_types::runtime::BoxFuture;
use serde::{Deserialize, Serialize};

/// Why a call has no result.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BackendError {
    /// It was not executed and never will be; trying again is safe. The text
    /// says why.
    #[error("not executed: {0}")]
    Refused(String),
    /// It had no effect and would have none again. The text says why.
    #[error("aborted: {0}")]
    Aborted(String),
    /// It may or may not have been executed, now or later.
    #[error("the outcome is unknown")]
    Unknown,
}

/// A page of keys.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KeyPage {
    /// Stored keys, in order.
    pub keys: Vec<Blob>,
    /// The first key that the next page may contain, after everything that
    /// this one covers; `None` at the end of all keys. It need not be stored:
    /// it may be a shard's border.
    pub next: Option<Blob>,
}

/// What `INFO` and `CLUSTER` tell about the node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct BackendInfo {
    /// The node's number.
    pub node: u64,
    /// The cluster's identity, as text.
    pub cluster: String,
    /// Where clients reach this node, as `host:port`.
    pub gateway: String,
    /// How many nodes the cluster has.
    pub nodes: u64,
    /// How many shards the cluster has.
    pub shards: u64,
}

/// Executes calls. Everything that [`Backend::execute`] answers is strictly
/// serializable.
pub trait Backend: Send + Sync + 'static {
    /// Executes a call and answers its result. The future may be dropped; the
    /// call may then still take effect.
    fn execute(&self, call: Call) -> BoxFuture<Result<Blob, BackendError>>;

    /// Up to about `limit` live keys from `from` on, itself included. Weak: a
    /// page is true of each key at some instant during the call, nothing more.
    fn scan_keys(&self, from: Blob, limit: usize) -> BoxFuture<Result<KeyPage, BackendError>>;

    /// Whether calls are answered now. Until then clients are told to wait.
    fn serving(&self) -> bool;

    /// What there is to say about the node.
    fn info(&self) -> BackendInfo;
}
