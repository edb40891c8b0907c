//! The drivers: thin tokio code around the pure cores, one service per
//! replica, and the switchboard of a node.

mod change;
mod gauges;
mod leadership;
mod node;
mod peers;
mod sequencer;
mod shard;
mod waiters;

pub use change::{ChangeError, ChangeOrder, order_change};
pub use gauges::Gauges;
pub use node::{NodeServices, ServiceConfig};
pub use peers::{Purpose, Wire, WirePeers};
pub use sequencer::{InitialMap, SequencerReplica, SequencerService};
pub use shard::{Forked, OnFork, ShardReplica, ShardService};
