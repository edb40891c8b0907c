//! Shards: which keys belong together.

use quorate_types::{Blob, GroupId, KeyRange, ShardEpoch, ShardId};
use zerompk::{FromMessagePack, ToMessagePack};

/// Where a shard was split from.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct Lineage {
    /// The shard that held the range before.
    pub shard: ShardId,
    /// The key at which it was cut.
    pub at: Blob,
}

/// A contiguous range of keys. One that a split is about to create appears with
/// [`Command::InstallSplit`](crate::Command::InstallSplit), and until then only
/// in the split's own record; it is in service once the split has ended, or
/// soon before.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct Shard {
    /// The group that replicates it.
    pub group: GroupId,
    /// The keys that it holds.
    pub range: KeyRange,
    /// Rises with every change of the range.
    pub epoch: ShardEpoch,
    /// Where it came from, unless the bootstrap created it.
    pub parent: Option<Lineage>,
}
