//! What the drivers need from outside: rows, the Raft group, other nodes, and
//! the node that they run on.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, KeyRange, NodeId, ReplicaId};

use crate::membership::MembershipError;

/// An error of whatever stands behind a port.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// One page of rows, and whether more follow.
pub type Page = (Vec<(Blob, Blob)>, bool);

/// Rows to write, or with `None` to delete.
pub type Mutations = BTreeMap<Blob, Option<Blob>>;

/// The rows of a [`RegistryMachine`](crate::RegistryMachine).
pub trait Rows: Send + 'static {
    /// Rows of the range in key order, at most `rows_max`; fewer only where
    /// none follow or a page is full otherwise.
    ///
    /// # Errors
    /// When they cannot be read.
    fn scan(&self, range: &KeyRange, rows_max: usize) -> Result<Page, BoxError>;

    /// Writes all mutations, the index and the host's row at once or not at all.
    ///
    /// # Errors
    /// When that is not certain; the machine halts then.
    fn commit(&self, index: u64, host_row: Blob, mutations: Mutations) -> Result<(), BoxError>;
}

/// This node's replica of the metadata group.
pub trait LocalReplica: Send + Sync + 'static {
    /// The term in which it leads and has applied everything from before it.
    fn authority(&self) -> Option<u64>;

    /// Appends an entry; resolves to what the machine answered once it is
    /// applied here.
    fn propose(&self, entry: Bytes, deadline: Duration) -> BoxFuture<Result<Bytes, ProposeError>>;

    /// Forms the group from its first members.
    ///
    /// # Errors
    /// When it was formed before, among others.
    fn initialize(&self, members: Vec<(ReplicaId, NodeId)>) -> BoxFuture<Result<(), BoxError>>;
}

/// Why a proposal has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Not the leader; the entry is not in the log and never will be.
    #[error("not the leader")]
    NotLeader(Option<NodeId>),
    /// It may or may not take effect.
    #[error("{0}")]
    Unavailable(String),
}

/// The way to other nodes.
pub trait Peers: Send + Sync + 'static {
    /// Brings a request to the other node's [`Membership::handle`](crate::Membership::handle)
    /// and its answer back.
    ///
    /// # Errors
    /// When no answer came; the request may have arrived.
    fn ask(
        &self,
        to: NodeId,
        request: Bytes,
        deadline: Duration,
    ) -> BoxFuture<Result<Bytes, BoxError>>;

    /// Introduces this node at an address and learns who is there; `None`
    /// while nobody answers.
    ///
    /// # Errors
    /// [`MembershipError::Refused`] when this node is not welcome there.
    fn introduce(&self, address: &str) -> BoxFuture<Result<Option<NodeId>, MembershipError>>;
}

/// What runs replicas on this node.
pub trait Host: Send + Sync + 'static {
    /// Runs this node's replica of the metadata group, before there is any
    /// metadata that says so.
    ///
    /// # Errors
    /// When it cannot run.
    fn open_metadata(&self, replica: ReplicaId) -> BoxFuture<Result<(), BoxError>>;
}
