//! What the metadata leader does besides answering: publish the allocation
//! table, carry out splits, and hand planned moves to the executor.

use std::sync::{Arc, Weak};
use std::time::Duration;

use quorate_calvin::{MapChange, Member, Peers, Reply, Request, ShardMap};
use quorate_crdt::{Allocation, CrdtError};
use quorate_meta::{Cut, Operator, Ordered, Sequencer, Task};
use quorate_types::NodeId;
use quorate_types::runtime::BoxFuture;

use crate::control::{ControlReply, ControlRequest};
use crate::error::AdminError;
use crate::node::NodeInner;

/// How often the coordinator looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const CALL_DEADLINE: Duration = Duration::from_secs(3);

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
    /// version: a deposed leader cannot overwrite a newer decision.
    fn publish_allocations(&self) {
        let view = self.directory.view();
        let now_millis = self.clock.wall_millis();
        let mut is_changed = false;
        let mut registry = self.registry.lock();
        for (shard, record) in view.shards() {
            let voters: Vec<NodeId> = view
                .group(record.group)
                .map(|group| group.voters().map(|voter| voter.node).collect())
                .unwrap_or_default();
            let allocation = Allocation {
                shard,
                range: record.range.clone(),
                epoch: record.epoch,
                leader: None,
                voters: voters.into(),
                group: record.group,
            };
            if registry.allocations().get(shard) == Some(&allocation) {
                continue;
            }
            match registry.allocate(&allocation, view.version(), now_millis) {
                Ok(()) => is_changed = true,
                Err(CrdtError::StaleAllocation { .. }) => {}
                Err(error) => tracing::warn!(%shard, %error, "an allocation is not published"),
            }
        }
        drop(registry);
        if is_changed {
            self.gossip.notify_changed();
        }
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

    /// Orders a cut, unless the sequencer's map shows it.
    async fn order(&self, cut: Cut) -> Result<Ordered, AdminError> {
        let map = self.sequencer_map().await?;
        if map.shards.iter().any(|shard| shard.shard == cut.child) {
            return Ok(Ordered::Before);
        }
        let members = cut.members.into_iter().map(|(replica, node)| Member { replica, node });
        let change = MapChange {
            version: map.version + 1,
            parent: cut.shard,
            at: cut.at,
            child: cut.child,
            members: members.collect(),
            epoch: cut.epoch,
        };
        let route = quorate_calvin::Router::sequencer(&*self.directory);
        let target = route.leader.or_else(|| route.voters.first().copied());
        let target =
            target.ok_or_else(|| AdminError::Unavailable("no sequencer is known".into()))?;
        match self.calls.call(target, Request::Change(change), CALL_DEADLINE).await {
            Ok(Reply::Changed(epoch)) => Ok(Ordered::Now(epoch)),
            // The next look reads the map again and decides by it.
            other => Err(AdminError::Unavailable(format!("the barrier is not ordered: {other:?}"))),
        }
    }

    /// The sequencer's map from its leader, which has applied every change
    /// that was ever acknowledged.
    async fn sequencer_map(&self) -> Result<ShardMap, AdminError> {
        if let Some(map) = self.own_sequencer_map() {
            return Ok(map);
        }
        for target in self.directory.sequencer_targets() {
            let call = self.peers.control(target, &ControlRequest::SequencerMap, CALL_DEADLINE);
            if let Ok(ControlReply::Map(map)) = call.await {
                return Ok(map);
            }
        }
        Err(AdminError::Unavailable("the sequencer does not answer".into()))
    }

    /// The map, if this node leads the sequencer.
    pub(crate) fn own_sequencer_map(&self) -> Option<ShardMap> {
        let sequencer = self.services.sequencer()?;
        if !sequencer.leadership().leads {
            return None;
        }
        sequencer.replica().machine().map().cloned()
    }
}

/// The calvin sequencer, wherever it is, as meta's driver of splits uses it.
struct CutOrder(Weak<NodeInner>);

impl Sequencer for CutOrder {
    fn order(&self, cut: Cut) -> BoxFuture<Result<Ordered, AdminError>> {
        let inner = self.0.upgrade();
        Box::pin(async move {
            let stopping = || AdminError::Unavailable("the node is stopping".into());
            inner.ok_or_else(stopping)?.order(cut).await
        })
    }
}
