#![doc = include_str!("../README.md")]

pub mod anti_entropy;
mod blob;
pub mod codec;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod contain;
pub mod disk;
pub mod env;
pub mod fault;
pub mod frame;
pub mod group_log;
pub mod hello;
pub mod hlc;
mod ids;
pub mod membership;
pub mod owner;
mod range;
pub mod runtime;
pub mod watch;

pub use blob::{Blob, Seq};
pub use hlc::Hlc;
pub use ids::{
    ClientId, ClusterId, DiskId, Epoch, GroupId, MigrationId, NodeId, ReplicaId, RequestId,
    ShardEpoch, ShardId, TxnId,
};
pub use range::KeyRange;
