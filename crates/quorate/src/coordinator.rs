//! What the metadata's leader brings about in the other layers.

use std::sync::Arc;

use quorate_calvin::{ChangeOrder, MapChange, Member, NeverFits, order_change};
use quorate_crdt::Allocation;
use quorate_meta::{
    ClusterView, Cut, CutRefusal, Effects, Operator, Ordered, Role, Shard, Splitting,
};
use quorate_types::runtime::BoxFuture;
use quorate_types::{GroupId, ShardId};

use crate::error::AdminError;
use crate::node::NodeInner;

impl Effects for NodeInner {
    fn coordinates(&self, term: Option<u64>) {
        self.authority.modify(|known| std::mem::replace(known, term) != term);
    }

    fn publish(&self, view: &ClusterView) {
        let allocation = |(shard, record): (ShardId, &Shard)| Allocation {
            shard,
            range: record.range.clone(),
            epoch: record.epoch,
            leader: None,
            voters: view.nodes_with(record.group, Role::Voter).into(),
            group: record.group,
        };
        let allocations = view.shards().map(allocation);
        self.spread(|registry, now| registry.publish(allocations, view.version(), now));
    }

    fn begin_move(self: Arc<Self>, operator: Operator) -> BoxFuture<Result<(), AdminError>> {
        Box::pin(async move { self.begin_migration(&operator).await })
    }
}

/// Meta's driver of splits has the calvin sequencer order the cut, wherever it
/// is, and asks the child's group.
impl Splitting for NodeInner {
    fn order(&self, cut: Cut) -> BoxFuture<Result<Ordered, AdminError>> {
        let (calls, directory) = (Arc::clone(&self.calls), Arc::clone(&self.directory));
        let members = cut.members.into_iter().map(|(replica, node)| Member { replica, node });
        let change = MapChange {
            version: 0, // The sequencer's to give.
            parent: cut.shard,
            at: cut.at,
            child: cut.child,
            members: members.collect(),
            epoch: cut.epoch,
        };
        Box::pin(async move {
            match order_change(&*calls, &*directory, change).await {
                Ok(ChangeOrder::Now(epoch)) => Ok(Ordered::Now(epoch)),
                Ok(ChangeOrder::Before) => Ok(Ordered::Before),
                Ok(ChangeOrder::Never(reason)) => Ok(Ordered::Never(refusal(reason))),
                Err(error) => Err(AdminError::Unavailable(error.to_string())),
            }
        })
    }

    fn is_born(&self, child: GroupId) -> BoxFuture<bool> {
        let groups = self.groups.clone();
        Box::pin(async move {
            groups.progress(child).await.is_ok_and(|child| child.is_held_by_majority())
        })
    }
}

const fn refusal(reason: NeverFits) -> CutRefusal {
    match reason {
        NeverFits::ChildTaken => CutRefusal::ChildTaken,
        NeverFits::KeyOutside => CutRefusal::KeyOutside,
        NeverFits::EpochPassed => CutRefusal::EpochPassed,
    }
}
