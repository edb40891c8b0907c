//! The first command: a cluster out of nodes that have reported their disks.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::{Blob, ClusterId, KeyRange, NodeId, ReplicaId, Seq, ShardEpoch, ShardId};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::groups::{METADATA_GROUP, ReplicaGroup, SEQUENCER_GROUP, shard_group};
use crate::limits::{INITIAL_SHARDS_MAX, NODES_MAX, REPLICAS_PER_GROUP_MAX, SPLIT_KEY_BYTES_MAX};
use crate::nodes::{NodeSpec, ZONE_LABEL};
use crate::registry::Registry;
use crate::reply::{BootstrapFlaw, Limited, Refusal, Reply};
use crate::settings::{SettingValue, TARGET_REPLICAS};
use crate::shards::Shard;

/// The epoch of every shard that is founded.
pub(crate) const FIRST_EPOCH: ShardEpoch = ShardEpoch(1);

/// A cluster to be. Everything else about it follows from this: the same
/// bootstrap allocates the same ids everywhere.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct Bootstrap {
    /// Its identity, freshly drawn.
    pub cluster: ClusterId,
    /// Its nodes. The cluster begins at the newest version that all of them
    /// support.
    pub nodes: Seq<NodeSpec>,
    /// The nodes that replicate the metadata; see [`metadata_replicas`].
    pub metadata_voters: Seq<NodeId>,
    /// The nodes that replicate the sequencer.
    pub sequencer_voters: Seq<NodeId>,
    /// The replicas of each shard, and the first value of [`TARGET_REPLICAS`].
    pub replicas_per_shard: u32,
    /// The first keys of all shards but the first, ascending: n keys make
    /// n + 1 shards.
    pub split_keys: Seq<Blob>,
}

/// The replica ids of the first metadata group: 1, 2, 3 ... in the order of
/// the node ids. A rule and not an allocation, because this group must run
/// before there is a registry to ask.
#[must_use]
pub fn metadata_replicas(voters: impl IntoIterator<Item = NodeId>) -> Vec<(ReplicaId, NodeId)> {
    let voters: BTreeSet<NodeId> = voters.into_iter().collect();
    (1..).map(ReplicaId).zip(voters).collect()
}

impl Registry {
    pub(crate) fn bootstrap(&mut self, index: u64, plan: Bootstrap) -> Result<Reply, Refusal> {
        if let Some(cluster) = self.view().cluster() {
            return if self.view().bootstrap() == Some(&plan) {
                Ok(Reply::Bootstrapped { cluster })
            } else {
                Err(Refusal::AlreadyBootstrapped { cluster })
            };
        }
        let cluster_version = plan.check()?;
        let cluster = plan.cluster;
        for spec in &plan.nodes {
            self.put_node(spec.node, spec.admitted(index));
        }
        self.seed_services(&plan);
        self.seed_shards(&plan);
        let replicas = SettingValue::Number(u64::from(plan.replicas_per_shard));
        self.put_setting(TARGET_REPLICAS.into(), Some(replicas));
        self.put_bootstrap(plan);
        let header = self.header_mut();
        header.cluster = Some(cluster);
        header.cluster_version = cluster_version;
        self.bump_version();
        Ok(Reply::Bootstrapped { cluster })
    }

    /// The metadata group first, so that its replica ids follow the rule of
    /// [`metadata_replicas`]; then the sequencer.
    fn seed_services(&mut self, plan: &Bootstrap) {
        for (group, voters) in
            [(METADATA_GROUP, &plan.metadata_voters), (SEQUENCER_GROUP, &plan.sequencer_voters)]
        {
            let voters: BTreeSet<NodeId> = voters.iter().copied().collect();
            let members: Vec<_> =
                voters.into_iter().map(|node| (self.allocate_replica(), node)).collect();
            self.put_group(group, ReplicaGroup::seeded(members));
        }
    }

    /// Each shard begins one node further round, so that replicas and first
    /// leaders are spread evenly.
    fn seed_shards(&mut self, plan: &Bootstrap) {
        let circle = plan.circle();
        let replicas_per_shard = plan.replicas_per_shard as usize;
        for (first, range) in plan.ranges().into_iter().enumerate() {
            let members: Vec<_> = circle
                .iter()
                .cycle()
                .skip(first % circle.len().max(1))
                .take(replicas_per_shard)
                .map(|node| (self.allocate_replica(), *node))
                .collect();
            let shard = self.allocate_shard();
            let group = shard_group(shard);
            self.put_group(group, ReplicaGroup::seeded(members));
            self.put_shard(shard, Shard { group, range, epoch: FIRST_EPOCH, parent: None });
        }
    }
}

impl Bootstrap {
    /// The cluster version it begins with, if it describes a cluster at all.
    fn check(&self) -> Result<u32, Refusal> {
        if self.nodes.len() > NODES_MAX {
            return Err(Limited::Nodes.at(NODES_MAX));
        }
        if self.split_keys.len() >= INITIAL_SHARDS_MAX {
            return Err(Limited::Shards.at(INITIAL_SHARDS_MAX));
        }
        self.nodes.iter().try_for_each(NodeSpec::check)?;
        self.flaw().map_err(|flaw| Refusal::Bootstrap { flaw })
    }

    fn flaw(&self) -> Result<u32, BootstrapFlaw> {
        let ids: BTreeSet<NodeId> = self.nodes.iter().map(|spec| spec.node).collect();
        let disks: BTreeSet<_> = self.nodes.iter().map(|spec| spec.disk).collect();
        if ids.len() != self.nodes.len() {
            return Err(BootstrapFlaw::NodeTwice);
        }
        if disks.len() != self.nodes.len() {
            return Err(BootstrapFlaw::DiskTwice);
        }
        check_voters(&self.metadata_voters, &ids)?;
        check_voters(&self.sequencer_voters, &ids)?;
        let replicas = self.replicas_per_shard as usize;
        if !(1..=REPLICAS_PER_GROUP_MAX.min(ids.len())).contains(&replicas) {
            return Err(BootstrapFlaw::Replicas);
        }
        let ascending = self.split_keys.windows(2).all(|pair| pair.first() < pair.last());
        let fitting =
            self.split_keys.iter().all(|key| (1..=SPLIT_KEY_BYTES_MAX).contains(&key.len()));
        if !ascending || !fitting {
            return Err(BootstrapFlaw::SplitKeys);
        }
        match self.nodes.iter().map(|spec| spec.supports).min() {
            None => Err(BootstrapFlaw::NoNodes),
            Some(0) => Err(BootstrapFlaw::Version),
            Some(version) => Ok(version),
        }
    }

    /// The nodes in an order whose neighbours lie in different zones as far
    /// as the zones allow: one of each zone, then the next of each zone.
    fn circle(&self) -> Vec<NodeId> {
        let mut zones: BTreeMap<&str, BTreeSet<NodeId>> = BTreeMap::new();
        for spec in &self.nodes {
            let zone = spec.labels.iter().find(|label| label.name == ZONE_LABEL);
            let zone = zone.map_or("", |label| label.value.as_str());
            zones.entry(zone).or_default().insert(spec.node);
        }
        let mut circle = Vec::with_capacity(self.nodes.len());
        while circle.len() < self.nodes.len() {
            circle.extend(zones.values_mut().filter_map(BTreeSet::pop_first));
        }
        circle
    }

    /// The keys of a shard that it founds, as they were then. Ids are given out
    /// from 1 on, in the order of the keys.
    pub(crate) fn range_of(&self, shard: ShardId) -> Option<KeyRange> {
        self.ranges().into_iter().zip(1..).find(|(_, id)| *id == shard.0).map(|(range, _)| range)
    }

    /// The ranges between the split keys.
    fn ranges(&self) -> Vec<KeyRange> {
        let starts = std::iter::once(Blob::new()).chain(self.split_keys.iter().cloned());
        let ends = self.split_keys.iter().cloned().map(Some).chain(std::iter::once(None));
        starts.zip(ends).map(|(start, end)| KeyRange { start, end }).collect()
    }
}

fn check_voters(voters: &[NodeId], nodes: &BTreeSet<NodeId>) -> Result<(), BootstrapFlaw> {
    let distinct: BTreeSet<NodeId> = voters.iter().copied().collect();
    if distinct.len() != voters.len() || !(1..=REPLICAS_PER_GROUP_MAX).contains(&voters.len()) {
        return Err(BootstrapFlaw::Voters);
    }
    if !distinct.is_subset(nodes) {
        return Err(BootstrapFlaw::VoterUnknown);
    }
    Ok(())
}
