//! What the metadata leader does besides answering: publish the allocation
//! table, carry out splits, and hand planned moves to the executor.

use std::sync::Weak;
use std::time::Duration;

use quorate_calvin::{MapChange, Member, Peers, Reply, Request, ShardMap};
use quorate_crdt::{Allocation, CrdtError};
use quorate_meta::{ClusterView, Command, Operator, Split, SplitPhase, Task};
use quorate_types::{NodeId, ShardEpoch};

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
            inner.refresh_view().await;
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
    /// A node without a metadata replica asks those that have one.
    async fn refresh_view(&self) {
        if self.metadata.group().is_some() {
            return;
        }
        for target in self.directory.metadata_targets() {
            if target != self.node && self.metadata.fetch(target).await {
                return;
            }
        }
    }

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

    async fn advance(&self, operator: &Operator) {
        let outcome = match &operator.task {
            Task::Split(split) => self.advance_split(operator, split).await,
            Task::Move(_) => self.begin_migration(operator).await,
        };
        if let Err(error) = outcome {
            tracing::debug!(operator = %operator.id, %error, "an operator waits");
        }
    }

    /// One step of a split. Every step is repeated until the metadata shows
    /// that it was done, by whichever leader: the barrier in the sequencer's
    /// log is the decision, and its map tells whether it was taken.
    async fn advance_split(&self, operator: &Operator, split: &Split) -> Result<(), AdminError> {
        let view = self.directory.view();
        let id = operator.id;
        match split.phase {
            SplitPhase::Planned => {
                let (from, to) = (SplitPhase::Planned, SplitPhase::Ordering);
                self.metadata.run(&Command::AdvanceSplit { operator: id, from, to }).await?;
                Ok(())
            }
            SplitPhase::Ordering => self.order_split(&view, operator, split).await,
            SplitPhase::Ordered { .. } => self.finish_split(&view, operator, split).await,
            SplitPhase::Installed { .. } => Ok(()),
        }
    }

    async fn order_split(
        &self,
        view: &ClusterView,
        operator: &Operator,
        split: &Split,
    ) -> Result<(), AdminError> {
        let map = self.sequencer_map().await?;
        if map.shards.iter().any(|shard| shard.shard == split.child) {
            return self.finish_split(view, operator, split).await;
        }
        let change = MapChange {
            version: map.version + 1,
            parent: split.shard,
            at: split.at.clone(),
            child: split.child,
            members: split
                .child_replicas
                .iter()
                .map(|child| Member { replica: child.id, node: child.node })
                .collect(),
            epoch: epoch_after(view, split),
        };
        let route = quorate_calvin::Router::sequencer(&*self.directory);
        let target = route.leader.or_else(|| route.voters.first().copied());
        let target =
            target.ok_or_else(|| AdminError::Unavailable("no sequencer is known".into()))?;
        match self.calls.call(target, Request::Change(change), CALL_DEADLINE).await {
            Ok(Reply::Changed(epoch)) => {
                let (from, to) = (SplitPhase::Ordering, SplitPhase::Ordered { epoch });
                let command = Command::AdvanceSplit { operator: operator.id, from, to };
                self.metadata.run(&command).await.map(drop)
            }
            // The next look reads the map again and decides by it.
            other => Err(AdminError::Unavailable(format!("the barrier is not ordered: {other:?}"))),
        }
    }

    async fn finish_split(
        &self,
        view: &ClusterView,
        operator: &Operator,
        split: &Split,
    ) -> Result<(), AdminError> {
        let epoch = epoch_after(view, split);
        let command =
            Command::FinishSplit { operator: operator.id, parent_epoch: epoch, child_epoch: epoch };
        self.metadata.run(&command).await.map(drop)
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

/// The epoch that a split gives both halves.
fn epoch_after(view: &ClusterView, split: &Split) -> ShardEpoch {
    view.shard(split.shard).map_or(ShardEpoch(1), |shard| shard.epoch).next()
}
