//! The cluster as the metadata knows it, for everybody to read.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use quorate_types::{Blob, ClusterId, DiskId, GroupId, MigrationId, NodeId, ReplicaId, ShardId};

use crate::bootstrap::Bootstrap;
use crate::groups::{Replica, ReplicaGroup, Role};
use crate::journal::JournalRow;
use crate::nodes::{Node, NodeState};
use crate::operators::Operator;
use crate::rows::Header;
use crate::settings::{SettingValue, TARGET_REPLICAS};
use crate::shards::Shard;

/// Everything the registry holds, with the indexes that its readers need.
/// Byte strings inside are shared, so a clone costs its tree nodes only.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClusterView {
    pub(crate) header: Header,
    pub(crate) bootstrap: Option<Bootstrap>,
    pub(crate) settings: BTreeMap<String, SettingValue>,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) groups: BTreeMap<GroupId, ReplicaGroup>,
    pub(crate) shards: BTreeMap<ShardId, Shard>,
    pub(crate) operators: BTreeMap<MigrationId, Operator>,
    pub(crate) journal: BTreeMap<MigrationId, JournalRow>,

    // Indexes: functions of the above, kept by the `insert_` methods below.
    nodes_by_disk: BTreeMap<DiskId, NodeId>,
    groups_by_node: BTreeMap<NodeId, BTreeSet<GroupId>>,
    shards_by_start: BTreeMap<Blob, ShardId>,
    running_by_group: BTreeMap<GroupId, MigrationId>,
    ended: BTreeSet<(u64, MigrationId)>,
    finished: BTreeSet<(u64, MigrationId)>,
}

impl ClusterView {
    /// The cluster's identity, once bootstrapped.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.header.cluster
    }

    /// The newest version whose formats may be written; zero before the
    /// bootstrap. A node whose build does not support it must stop.
    #[must_use]
    pub fn cluster_version(&self) -> u32 {
        self.header.cluster_version
    }

    /// The version of the map. It rises with every command that changed
    /// nodes, groups, shards or operators, and fences hints about them:
    /// of two hints the one with the higher version is right.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.header.version
    }

    /// The last metadata log index that is in this view.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.header.applied
    }

    /// The command that created the cluster.
    #[must_use]
    pub fn bootstrap(&self) -> Option<&Bootstrap> {
        self.bootstrap.as_ref()
    }

    /// The value of a setting.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&SettingValue> {
        self.settings.get(name)
    }

    /// All settings, by name.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &SettingValue)> {
        self.settings.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// How many replicas placement aims at for each shard; one before the
    /// bootstrap, which sets it.
    #[must_use]
    pub fn target_replicas(&self) -> u64 {
        match self.setting(TARGET_REPLICAS) {
            Some(SettingValue::Number(count)) => *count,
            _ => 1,
        }
    }

    /// A node, removed or not.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// All nodes that ever joined, removed ones included.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// The nodes that are not removed.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes().filter(|(_, node)| node.state != NodeState::Removed)
    }

    /// The id that a disk is bound to, even if it was removed.
    #[must_use]
    pub fn node_of_disk(&self, disk: DiskId) -> Option<NodeId> {
        self.nodes_by_disk.get(&disk).copied()
    }

    /// A group's members.
    #[must_use]
    pub fn group(&self, id: GroupId) -> Option<&ReplicaGroup> {
        self.groups.get(&id)
    }

    /// The nodes whose replica of a group has this role.
    #[must_use]
    pub fn nodes_with(&self, group: GroupId, role: Role) -> Vec<NodeId> {
        let replicas = self.group(group).into_iter().flat_map(|group| &group.replicas);
        replicas.filter(|replica| replica.role == role).map(|replica| replica.node).collect()
    }

    /// All groups: the metadata's, the sequencer's and the shards'.
    pub fn groups(&self) -> impl Iterator<Item = (GroupId, &ReplicaGroup)> {
        self.groups.iter().map(|(id, group)| (*id, group))
    }

    /// What a node must host: its replicas, learners included, by group.
    pub fn replicas_on(&self, node: NodeId) -> impl Iterator<Item = (GroupId, &Replica)> {
        self.groups_by_node.get(&node).into_iter().flatten().filter_map(move |id| {
            self.groups.get(id)?.replica_on(node).map(|replica| (*id, replica))
        })
    }

    /// Whether a replica id was given out and is spent: it left its group, or
    /// the operator that it was meant for was given up. What is found on a
    /// disk under such an id is a remainder. Holds for ever, however long ago
    /// the replica left.
    #[must_use]
    pub fn is_retired(&self, group: GroupId, replica: ReplicaId) -> bool {
        let is_member = self.group(group).is_some_and(|group| group.replica(replica).is_some());
        let is_promised = || {
            let mut children = self.promised_children().flat_map(|split| &split.child_replicas);
            children.any(|child| child.id == replica)
        };
        replica < self.header.next_replica && !is_member && !is_promised()
    }

    /// A shard.
    #[must_use]
    pub fn shard(&self, id: ShardId) -> Option<&Shard> {
        self.shards.get(&id)
    }

    /// All shards, by id.
    pub fn shards(&self) -> impl ExactSizeIterator<Item = (ShardId, &Shard)> {
        self.shards.iter().map(|(id, shard)| (*id, shard))
    }

    /// All shards, by range.
    pub fn shards_in_key_order(&self) -> impl Iterator<Item = (ShardId, &Shard)> {
        self.shards_by_start.values().filter_map(|id| self.shards.get(id).map(|s| (*id, s)))
    }

    /// The shard that holds `key`; `None` only before the bootstrap.
    #[must_use]
    pub fn locate(&self, key: &[u8]) -> Option<(ShardId, &Shard)> {
        let until = (Bound::Unbounded, Bound::Included(key));
        let (_, id) = self.shards_by_start.range::<[u8], _>(until).next_back()?;
        self.shards.get(id).filter(|shard| shard.range.contains(key)).map(|shard| (*id, shard))
    }

    /// A split or move, running or lately ended.
    #[must_use]
    pub fn operator(&self, id: MigrationId) -> Option<&Operator> {
        self.operators.get(&id)
    }

    /// The operators that have not ended, by group.
    pub fn running_operators(&self) -> impl Iterator<Item = &Operator> {
        self.running_by_group.values().filter_map(|id| self.operators.get(id))
    }

    /// The operators that have ended and are not forgotten yet, oldest end
    /// first.
    pub fn ended_operators(&self) -> impl Iterator<Item = &Operator> {
        self.ended.iter().filter_map(|(_, id)| self.operators.get(id))
    }

    /// The operator that works on a group.
    #[must_use]
    pub fn operator_on(&self, group: GroupId) -> Option<&Operator> {
        self.running_by_group.get(&group).and_then(|id| self.operators.get(id))
    }

    /// A journal row.
    #[must_use]
    pub fn journal_row(&self, id: MigrationId) -> Option<&JournalRow> {
        self.journal.get(&id)
    }

    /// All journal rows, by id.
    pub fn journal(&self) -> impl Iterator<Item = (MigrationId, &JournalRow)> {
        self.journal.iter().map(|(id, row)| (*id, row))
    }

    /// The journal rows that are not final, by id.
    pub fn open_journal(&self) -> impl Iterator<Item = (MigrationId, &JournalRow)> {
        self.journal().filter(|(_, row)| !row.finished)
    }

    /// How many journal rows are unfinished.
    pub(crate) fn open_journal_rows(&self) -> usize {
        self.journal.len() - self.finished.len()
    }

    /// The finished journal rows, oldest first.
    pub(crate) fn finished_journal_rows(&self) -> impl ExactSizeIterator<Item = MigrationId> {
        self.finished.iter().map(|(_, id)| *id)
    }

    pub(crate) fn insert_node(&mut self, id: NodeId, node: Node) {
        self.nodes_by_disk.insert(node.disk, id);
        self.nodes.insert(id, node);
    }

    pub(crate) fn insert_group(&mut self, id: GroupId, group: ReplicaGroup) {
        for replica in self.groups.get(&id).iter().flat_map(|before| &before.replicas) {
            if let Some(groups) = self.groups_by_node.get_mut(&replica.node) {
                groups.remove(&id);
                if groups.is_empty() {
                    self.groups_by_node.remove(&replica.node);
                }
            }
        }
        for replica in &group.replicas {
            self.groups_by_node.entry(replica.node).or_default().insert(id);
        }
        self.groups.insert(id, group);
    }

    pub(crate) fn insert_shard(&mut self, id: ShardId, shard: Shard) {
        let start = shard.range.start.clone();
        if let Some(before) = self.shards.insert(id, shard) {
            self.shards_by_start.remove(&before.range.start);
        }
        self.shards_by_start.insert(start, id);
    }

    pub(crate) fn insert_operator(&mut self, operator: Operator) {
        self.drop_operator(operator.id);
        match operator.ended_at() {
            None => {
                self.running_by_group.insert(operator.group, operator.id);
            }
            Some(at) => {
                self.ended.insert((at, operator.id));
            }
        }
        self.operators.insert(operator.id, operator);
    }

    pub(crate) fn drop_operator(&mut self, id: MigrationId) {
        let Some(before) = self.operators.remove(&id) else {
            return;
        };
        match before.ended_at() {
            None => self.running_by_group.remove(&before.group).is_some(),
            Some(at) => self.ended.remove(&(at, id)),
        };
    }

    pub(crate) fn insert_journal(&mut self, id: MigrationId, row: JournalRow) {
        self.drop_journal(id);
        if row.finished {
            self.finished.insert((row.written_at, id));
        }
        self.journal.insert(id, row);
    }

    pub(crate) fn drop_journal(&mut self, id: MigrationId) {
        if let Some(before) = self.journal.remove(&id) {
            self.finished.remove(&(before.written_at, id));
        }
    }
}
