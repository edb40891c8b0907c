//! What the services need from outside: a replicated log per group, a way to
//! other nodes, and a map of who is where.

use std::time::Duration;

use quorate_types::runtime::BoxFuture;
use quorate_types::{KeyRange, NodeId, ShardEpoch, ShardId};

pub use quorate_types::group_log::{GroupLog, GroupMachine, Leadership, ProposeError, ReadIndex};

use crate::wire::{PeerMessage, Reply, Request};

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
