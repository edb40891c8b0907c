use std::collections::BTreeMap;

use quorate_types::{Blob, Hlc, NodeId, Seq, ShardId};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::allocation::{id_of, key_of};
use crate::wire::{self, Kind};
use crate::{CrdtError, DeltaMap, Keyspace, Put};

/// What a node carries and could carry.
#[derive(Clone, Debug, Default, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub struct NodeLoad {
    /// The node.
    pub node: NodeId,
    /// Bytes of storage it may fill, those it has filled included; 0 where
    /// that is not known.
    pub capacity_bytes: u64,
    /// Bytes of storage it has filled.
    pub used_bytes: u64,
    /// Its replicas.
    pub shards: Seq<ShardLoad>,
}

impl NodeLoad {
    /// What `node` carries with these replicas, of which each serves so many
    /// operations per second; none where no rate is known. It may fill the
    /// room that is `available_bytes` besides, where that is known.
    #[must_use]
    pub fn measured(
        node: NodeId,
        mut shards: Vec<ShardLoad>,
        rates: &BTreeMap<ShardId, u64>,
        available_bytes: Option<u64>,
    ) -> Self {
        for shard in &mut shards {
            shard.operations_per_second = rates.get(&shard.shard).copied().unwrap_or_default();
        }
        let used_bytes = shards.iter().map(|shard| shard.bytes).fold(0, u64::saturating_add);
        let capacity_bytes = available_bytes.map_or(0, |room| used_bytes.saturating_add(room));
        Self { node, capacity_bytes, used_bytes, shards: shards.into() }
    }
}

/// What one replica of a shard carries.
#[derive(Clone, Debug, Default, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub struct ShardLoad {
    /// The shard.
    pub shard: ShardId,
    /// Whether the reporting node leads it.
    pub leader: bool,
    /// The term in which that is so: of two that say they lead, the higher
    /// term is right.
    pub term: u64,
    /// The last log index applied.
    pub applied_index: u64,
    /// Rows stored.
    pub rows: u64,
    /// Bytes stored.
    pub bytes: u64,
    /// Operations served per second, lately.
    pub operations_per_second: u64,
}

/// The load reports in one [`Keyspace`] of a [`DeltaMap`]. Each node writes its
/// own report and no other, so reports need no fence.
#[derive(Clone, Copy, Debug)]
pub struct LoadTable {
    keyspace: Keyspace,
}

impl LoadTable {
    /// The table of `keyspace`.
    #[must_use]
    pub const fn new(keyspace: Keyspace) -> Self {
        Self { keyspace }
    }

    /// Replaces this node's report.
    ///
    /// # Errors
    /// [`CrdtError::ForeignLoad`] for another node's report,
    /// [`CrdtError::Stale`] when `hlc` was drawn before a report or removal
    /// that is known, [`CrdtError::TooLarge`] when the shards are too many for
    /// one value.
    pub fn report(&self, map: &mut DeltaMap, load: &NodeLoad, hlc: Hlc) -> Result<(), CrdtError> {
        let own = map.origin().node;
        if load.node != own {
            return Err(CrdtError::ForeignLoad { node: load.node, own });
        }
        let value = Blob(wire::seal(Kind::Load, load));
        settle(map.put(key_of(self.keyspace, own.0), value, 0, hlc)?)
    }

    /// Removes the report of a node that has left the cluster.
    ///
    /// # Errors
    /// [`CrdtError::Stale`] as for [`Self::report`], or a limit.
    pub fn remove(&self, map: &mut DeltaMap, node: NodeId, hlc: Hlc) -> Result<(), CrdtError> {
        settle(map.remove(key_of(self.keyspace, node.0), 0, hlc)?)
    }

    /// A node's latest report, if there is one.
    ///
    /// # Errors
    /// When this build cannot read it.
    pub fn get(&self, map: &DeltaMap, node: NodeId) -> Result<Option<NodeLoad>, CrdtError> {
        map.get(&key_of(self.keyspace, node.0)).map(|value| read(node, value)).transpose()
    }

    /// All reports in the order of nodes, each with the node's id in case it
    /// cannot be read.
    pub fn iter<'a>(
        &self,
        map: &'a DeltaMap,
    ) -> impl Iterator<Item = (NodeId, Result<NodeLoad, CrdtError>)> + use<'a> {
        let keyspace = self.keyspace;
        map.scan(keyspace).filter_map(move |(key, value)| {
            let node = NodeId(id_of(keyspace, key)?);
            Some((node, read(node, value)))
        })
    }
}

fn read(node: NodeId, value: &Blob) -> Result<NodeLoad, CrdtError> {
    let load: NodeLoad = wire::open_as(Kind::Load, value)?;
    if load.node == node { Ok(load) } else { Err(CrdtError::Malformed("load of another node")) }
}

fn settle(put: Put) -> Result<(), CrdtError> {
    match put {
        Put::Written(_) => Ok(()),
        Put::Stale { current } => Err(CrdtError::Stale { current }),
    }
}
