//! The rows that the registry is stored as: one small row per thing, so that
//! a command writes what it changed and no more.
//!
//! A key is a letter that names the kind, followed by the id in big endian; a
//! value is `types::codec`'s sealed row around the zerompk encoding.

use quorate_types::codec::{CodecError, decode, encode, open_row, seal_row};
use quorate_types::{Blob, ClusterId, GroupId, MigrationId, NodeId, ReplicaId, ShardId};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::error::{MetaError, Violation};
use crate::view::ClusterView;

/// The newest row format of this build.
const ROW_VERSION: u8 = 1;

/// What there is once per cluster.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct Header {
    /// The cluster, once bootstrapped.
    pub(crate) cluster: Option<ClusterId>,
    /// The newest formats that may be written.
    pub(crate) cluster_version: u32,
    /// The version of the map.
    pub(crate) version: u64,
    /// The last log index that was applied.
    pub(crate) applied: u64,
    /// The next replica id that nobody ever had.
    pub(crate) next_replica: ReplicaId,
    /// The next shard id that nobody ever had. Zero is never given, so that
    /// a forgotten id is not a shard.
    pub(crate) next_shard: ShardId,
}

impl Default for Header {
    fn default() -> Self {
        Self {
            cluster: None,
            cluster_version: 0,
            version: 0,
            applied: 0,
            next_replica: ReplicaId(1),
            next_shard: ShardId(1),
        }
    }
}

/// The name of a row. Their order is the order in which mutations are written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum RowKey {
    Header,
    Bootstrap,
    Setting(String),
    Node(NodeId),
    Group(GroupId),
    Shard(ShardId),
    Operator(MigrationId),
    Journal(MigrationId),
}

impl RowKey {
    pub(crate) fn encode(&self) -> Blob {
        let (kind, id) = match self {
            Self::Header => (b'h', Vec::new()),
            Self::Bootstrap => (b'b', Vec::new()),
            Self::Setting(name) => (b'c', name.as_bytes().to_vec()),
            Self::Node(id) => (b'n', id.0.to_be_bytes().to_vec()),
            Self::Group(id) => (b'g', id.0.to_be_bytes().to_vec()),
            Self::Shard(id) => (b's', id.0.to_be_bytes().to_vec()),
            Self::Operator(id) => (b'o', id.0.to_be_bytes().to_vec()),
            Self::Journal(id) => (b'j', id.0.to_be_bytes().to_vec()),
        };
        let mut key = vec![kind];
        key.extend_from_slice(&id);
        Blob::from(key)
    }

    fn decode(key: &[u8]) -> Option<Self> {
        let (kind, id) = key.split_first()?;
        let narrow = || id.try_into().map(u64::from_be_bytes).ok();
        let wide = || id.try_into().map(u128::from_be_bytes).ok();
        match kind {
            b'h' if id.is_empty() => Some(Self::Header),
            b'b' if id.is_empty() => Some(Self::Bootstrap),
            b'c' => Some(Self::Setting(std::str::from_utf8(id).ok()?.to_owned())),
            b'n' => narrow().map(|id| Self::Node(NodeId(id))),
            b'g' => narrow().map(|id| Self::Group(GroupId(id))),
            b's' => narrow().map(|id| Self::Shard(ShardId(id))),
            b'o' => wide().map(|id| Self::Operator(MigrationId(id))),
            b'j' => wide().map(|id| Self::Journal(MigrationId(id))),
            _ => None,
        }
    }
}

impl ClusterView {
    /// The row of that name as it is to be stored; `None` if there is nothing
    /// of that name.
    pub(crate) fn row(&self, row: &RowKey) -> Option<Blob> {
        let payload = match row {
            RowKey::Header => Some(encode(&self.header)),
            RowKey::Bootstrap => self.bootstrap.as_ref().map(encode),
            RowKey::Setting(name) => self.settings.get(name).map(encode),
            RowKey::Node(id) => self.nodes.get(id).map(encode),
            RowKey::Group(id) => self.groups.get(id).map(encode),
            RowKey::Shard(id) => self.shards.get(id).map(encode),
            RowKey::Operator(id) => self.operators.get(id).map(encode),
            RowKey::Journal(id) => self.journal.get(id).map(encode),
        };
        payload.map(|payload| Blob(seal_row(&row.encode(), ROW_VERSION, &payload)))
    }

    /// The names of all rows, in order.
    pub(crate) fn row_keys(&self) -> impl Iterator<Item = RowKey> {
        std::iter::once(RowKey::Header)
            .chain(self.bootstrap.iter().map(|_| RowKey::Bootstrap))
            .chain(self.settings.keys().cloned().map(RowKey::Setting))
            .chain(self.nodes.keys().copied().map(RowKey::Node))
            .chain(self.groups.keys().copied().map(RowKey::Group))
            .chain(self.shards.keys().copied().map(RowKey::Shard))
            .chain(self.operators.keys().copied().map(RowKey::Operator))
            .chain(self.journal.keys().copied().map(RowKey::Journal))
    }

    /// Takes a stored row in.
    pub(crate) fn read_row(&mut self, key: &Blob, row: &[u8]) -> Result<(), MetaError> {
        let Some(name) = RowKey::decode(key) else {
            return Err(MetaError::UnknownRow { key: key.clone() });
        };
        self.read_named(&name, key, row)
            .map_err(|source| MetaError::Row { key: key.clone(), source })?;
        match name {
            RowKey::Operator(id) if self.operator(id).is_none_or(|found| found.id != id) => {
                Err(Violation::OperatorMisnamed(id).into())
            }
            _ => Ok(()),
        }
    }

    fn read_named(&mut self, name: &RowKey, key: &[u8], row: &[u8]) -> Result<(), CodecError> {
        let (_, payload) = open_row(key, ROW_VERSION, row)?;
        match name {
            RowKey::Header => self.header = decode(payload)?,
            RowKey::Bootstrap => self.bootstrap = Some(decode(payload)?),
            RowKey::Setting(name) => {
                self.settings.insert(name.clone(), decode(payload)?);
            }
            RowKey::Node(id) => self.insert_node(*id, decode(payload)?),
            RowKey::Group(id) => self.insert_group(*id, decode(payload)?),
            RowKey::Shard(id) => self.insert_shard(*id, decode(payload)?),
            RowKey::Operator(_) => self.insert_operator(decode(payload)?),
            RowKey::Journal(id) => self.insert_journal(*id, decode(payload)?),
        }
        Ok(())
    }
}
