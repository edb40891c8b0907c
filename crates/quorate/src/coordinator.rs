//! What the metadata leader does besides answering: publish the allocation
//! table, carry out splits, and hand planned moves to the executor.

use std::sync::{Arc, Weak};
use std::time::Duration;

use quorate_calvin::{ChangeOrder, MapChange, Member, order_change};
use quorate_crdt::Allocation;
use quorate_meta::{Cut, Operator, Ordered, Role, Sequencer, Shard, Task};
use quorate_types::ShardId;
use quorate_types::runtime::BoxFuture;

use crate::error::AdminError;
use crate::node::NodeInner;

/// How often the coordinator looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Coordinates while this node leads the metadata group, until it is dropped.
pub(crate) async fn coordinate(node: Weak<NodeInner>) {
    let Some(mut views) = node.upgrade().map(|inner| inner.directory.views()) else { return };
    loop {
        let Some(inner) = node.upgrade() else { return };
        let authority = inner.metadata.authority();
        inner.authority.modify(|known| std::mem::replace(known, authority) != authority);
        if authority.is_some() {
            inner.publish_allocations();
            for operator in inner.running_operators() {
                inner.advance(&operator).await;
            }
        } else {
            inner.metadata.refresh().await;
        }
        drop(inner);
        tokio::select! {
            biased;
            _ = views.changed() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

impl NodeInner {
    fn running_operators(&self) -> Vec<Operator> {
        self.directory.view().running_operators().cloned().collect()
    }

    /// Brings gossip's table to what the metadata says, fenced by the map's
    /// version.
    fn publish_allocations(&self) {
        let view = self.directory.view();
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

    async fn advance(self: &Arc<Self>, operator: &Operator) {
        let outcome = match &operator.task {
            Task::Split(split) => {
                let order = CutOrder(Arc::downgrade(self));
                self.metadata.advance_split(operator.id, split, &order).await
            }
            Task::Move(_) => self.begin_migration(operator).await,
        };
        if let Err(error) = outcome {
            tracing::debug!(operator = %operator.id, %error, "an operator waits");
        }
    }
}

/// The calvin sequencer, wherever it is, as meta's driver of splits uses it.
struct CutOrder(Weak<NodeInner>);

impl Sequencer for CutOrder {
    fn order(&self, cut: Cut) -> BoxFuture<Result<Ordered, AdminError>> {
        let inner = self.0.upgrade();
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
            let stopping = || AdminError::Unavailable("the node is stopping".into());
            let inner = inner.ok_or_else(stopping)?;
            match order_change(&*inner.calls, &*inner.directory, change).await {
                Ok(ChangeOrder::Now(epoch)) => Ok(Ordered::Now(epoch)),
                Ok(ChangeOrder::Before) => Ok(Ordered::Before),
                Err(error) => Err(AdminError::Unavailable(error.to_string())),
            }
        })
    }
}
