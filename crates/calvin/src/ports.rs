//! What the services need from outside: a replicated log per group, a way to
//! other nodes, and a map of who is where.

use bytes::Bytes;
use std::time::Duration;

use quorate_types::runtime::BoxFuture;
use quorate_types::{KeyRange, NodeId, ShardEpoch, ShardId, watch};

use crate::wire::{PeerMessage, Reply, Request};

/// Who leads a group, as this replica sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Leadership {
    /// The newest term seen.
    pub term: u64,
    /// The leader of it, where known.
    pub leader: Option<NodeId>,
    /// This replica leads it and has applied an entry of its own term, so that
    /// its machine reflects everything committed before.
    pub leads: bool,
}

/// Why a proposal has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Not the leader; the command is not in the log and never will be.
    #[error("not the leader")]
    NotLeader(Option<NodeId>),
    /// Not taken, for instance because a queue is full; the command is not in
    /// the log and never will be.
    #[error("refused: {0}")]
    Refused(String),
    /// The command may or may not take effect.
    #[error("outcome unknown")]
    Unknown,
}

/// A confirmed read index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadIndex {
    /// The term in which leadership was confirmed.
    pub term: u64,
    /// Everything committed when the confirmation began is at or below.
    pub index: u64,
}

/// A group's log as one replica sees it (the design's `ShardLog`; the
/// sequencer's log needs nothing more).
pub trait GroupLog: Send + Sync + 'static {
    /// Appends a command; resolves once it is applied by this replica.
    fn propose(&self, command: Bytes) -> BoxFuture<Result<(), ProposeError>>;

    /// Confirms leadership and learns how far a linearizable read must have
    /// applied; the error names the leader where known.
    fn read_index(&self) -> BoxFuture<Result<ReadIndex, Option<NodeId>>>;

    /// Resolves once the entry is applied here; false when it cannot be any more.
    fn applied(&self, index: u64) -> BoxFuture<bool>;

    /// Who leads.
    fn leadership(&self) -> watch::Receiver<Leadership>;
}

/// A call to another node failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The request never left or was refused before anything happened.
    #[error("the peer cannot be reached")]
    Unreachable,
    /// The request may have arrived; there is no reply.
    #[error("no reply from the peer")]
    NoReply,
}

/// Where a one-way message goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// The leader of a shard, or all its replicas while it is not known.
    Shard(ShardId),
    /// The leader of the sequencer, or all its replicas while it is not known.
    Sequencer,
    /// Every node.
    Everyone,
}

/// Other nodes (port). Delivery may fail, repeat and reorder.
pub trait Peers: Send + Sync + 'static {
    /// Sends without waiting; may drop.
    fn send(&self, to: Destination, message: PeerMessage);

    /// Asks one node, which may be this one.
    fn call(
        &self,
        to: NodeId,
        request: Request,
        deadline: Duration,
    ) -> BoxFuture<Result<Reply, CallError>>;
}

/// A shard and where to find it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// The shard.
    pub shard: ShardId,
    /// Its epoch.
    pub epoch: ShardEpoch,
    /// Its keys.
    pub range: KeyRange,
    /// Its leader, where known.
    pub leader: Option<NodeId>,
    /// The nodes of its voters.
    pub voters: Vec<NodeId>,
}

/// Where the sequencer is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SequencerRoute {
    /// Its leader, where known.
    pub leader: Option<NodeId>,
    /// The nodes of its voters.
    pub voters: Vec<NodeId>,
}

/// Who is where (port). All of it is a hint: a stale route costs a redirect,
/// never a wrong answer (law 6).
pub trait Router: Send + Sync + 'static {
    /// The shard that holds a key.
    fn locate(&self, key: &[u8]) -> Option<Route>;

    /// The shards that hold keys of a range, in key order.
    fn overlapping(&self, range: &KeyRange) -> Vec<Route>;

    /// The sequencer.
    fn sequencer(&self) -> SequencerRoute;

    /// A reply named this leader (or no longer that one).
    fn learned(&self, of: Destination, leader: Option<NodeId>);

    /// A shard said that it does not own a key at the epoch of our route.
    fn moved(&self, shard: ShardId);
}
