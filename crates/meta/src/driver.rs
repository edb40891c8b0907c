//! Carrying a split out, step by step.

use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, Epoch, MigrationId, NodeId, ReplicaId, ShardEpoch, ShardId};

use crate::client::{AdminError, MetadataClient};
use crate::command::Command;
use crate::operators::Operator;
use crate::splits::{CutRefusal, Split, SplitPhase};
use crate::view::ClusterView;

/// Where the cut of a shard gets its place in the order of transactions.
pub trait Sequencer: Send + Sync {
    /// Orders a cut, unless it was ordered before: the sequencer's map decides.
    ///
    /// # Errors
    /// [`AdminError::Unavailable`] when it cannot be known whether the cut is
    /// ordered, or it was refused for a reason that may pass; asking again is
    /// safe.
    fn order(&self, cut: Cut) -> BoxFuture<Result<Ordered, AdminError>>;
}

/// A cut that is to be ordered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cut {
    /// The shard that is cut.
    pub shard: ShardId,
    /// The first key of the child.
    pub at: Blob,
    /// The shard that the cut creates.
    pub child: ShardId,
    /// The members that its group begins with.
    pub members: Vec<(ReplicaId, NodeId)>,
    /// The epoch of both halves.
    pub epoch: ShardEpoch,
}

/// How a cut stands in the order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ordered {
    /// It was ordered now, at this epoch.
    Now(Epoch),
    /// The sequencer's map shows it since an earlier attempt.
    Before,
    /// It is not ordered and never will be, by nobody's proposal, be it an
    /// earlier one that is still on its way: the sequencer's map has come to
    /// where no later map has a place for it.
    Never(CutRefusal),
}

impl MetadataClient {
    /// One step of a split. Every step is repeated until the metadata shows
    /// that it was done, by whichever leader: the barrier in the sequencer's
    /// log is the decision, and its map tells whether it was taken.
    ///
    /// A split is given up only when it can never be ordered. That needs more
    /// than a refusal: proposals of former leaders may still be on their way or
    /// wait in the sequencer's log. But all proposals of a split ask for the
    /// same cut, with the same ids, key and epoch: the ids are drawn once, and
    /// the parent's epoch, from which the cut's follows, stays as it is while
    /// the split runs, since its group has no other operator. They differ in
    /// the version of the sequencer's map at the most, and
    /// [`Ordered::Never`] is said of a cut whichever version it is asked for.
    ///
    /// # Errors
    /// [`AdminError`]; the split stays in its phase and the next look decides
    /// anew.
    pub async fn advance_split(
        &self,
        operator: MigrationId,
        split: &Split,
        sequencer: &dyn Sequencer,
    ) -> Result<(), AdminError> {
        let view = self.directory().view();
        if !view.operator(operator).is_some_and(Operator::is_running) {
            // It ended elsewhere; from here on the parent has another epoch.
            return Ok(());
        }
        let epoch = epoch_after(&view, split);
        let finish = Command::FinishSplit { operator, parent_epoch: epoch, child_epoch: epoch };
        let command = match split.phase {
            SplitPhase::Planned => advance(operator, split.phase, SplitPhase::Ordering),
            SplitPhase::Ordering => match sequencer.order(Cut::of(split, epoch)).await? {
                Ordered::Now(epoch) => {
                    advance(operator, split.phase, SplitPhase::Ordered { epoch })
                }
                Ordered::Before => finish,
                Ordered::Never(reason) => {
                    let shard = split.shard;
                    tracing::warn!(%operator, %shard, ?reason, "a split is given up");
                    Command::AbortSplit { operator, expected: split.phase, reason }
                }
            },
            SplitPhase::Ordered { .. } => finish,
            SplitPhase::Installed { .. } | SplitPhase::Refused { .. } => return Ok(()),
        };
        self.run(&command).await.map(drop)
    }
}

impl Cut {
    fn of(split: &Split, epoch: ShardEpoch) -> Self {
        let members = split.child_replicas.iter().map(|child| (child.id, child.node));
        Self {
            shard: split.shard,
            at: split.at.clone(),
            child: split.child,
            members: members.collect(),
            epoch,
        }
    }
}

const fn advance(operator: MigrationId, from: SplitPhase, to: SplitPhase) -> Command {
    Command::AdvanceSplit { operator, from, to }
}

/// The epoch that a split gives both halves.
fn epoch_after(view: &ClusterView, split: &Split) -> ShardEpoch {
    view.shard(split.shard).map_or(ShardEpoch(1), |shard| shard.epoch).next()
}
