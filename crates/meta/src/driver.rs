//! Carrying a split out, step by step.

use std::time::Duration;

use quorate_types::runtime::BoxFuture;
use quorate_types::{
    Blob, Epoch, GroupId, MigrationId, NodeId, ReplicaId, ShardEpoch, ShardId, sometimes,
};
use tokio::time::timeout;

use crate::client::{AdminError, MetadataClient};
use crate::command::Command;
use crate::operators::Task;
use crate::splits::{CutRefusal, Split, SplitPhase};
use crate::view::ClusterView;

/// How long a child's group may take to tell whether it has its first state.
/// Whoever coordinates has other things to do meanwhile.
const BIRTH_DEADLINE: Duration = Duration::from_secs(1);

/// What a split brings about outside of the metadata (port): the cut gets its
/// place in the order of transactions, and the child its replicas.
pub trait Splitting: Send + Sync {
    /// Orders a cut, unless it was ordered before: the sequencer's map decides.
    ///
    /// # Errors
    /// [`AdminError::Unavailable`] when it cannot be known whether the cut is
    /// ordered, or it was refused for a reason that may pass; asking again is
    /// safe.
    fn order(&self, cut: Cut) -> BoxFuture<Result<Ordered, AdminError>>;

    /// Whether a majority of the group's voters holds its state durably, by a
    /// leader that has just confirmed that it leads. Not while nobody can tell.
    fn is_born(&self, child: GroupId) -> BoxFuture<bool>;
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
    /// Once both halves are in the map, the split runs on, and keeps its group
    /// from having another operator, until the child is born. The child's
    /// replicas are named by where the parent's were; those fork it when they
    /// apply the cut, which may be much later. Were one moved away before, its
    /// fork would come into being on a node that has no use for it: a move of
    /// an only replica, or moves of a majority, would lose every key of the
    /// child. While the parent's voters stay, whoever committed the cut is a
    /// majority of them and forks the child in due time.
    ///
    /// # Errors
    /// [`AdminError`]; the split stays in its phase and the next look decides
    /// anew.
    pub async fn advance_split(
        &self,
        operator: MigrationId,
        splitting: &dyn Splitting,
    ) -> Result<(), AdminError> {
        let view = self.directory().view();
        let running = view.operator(operator).filter(|operator| operator.is_running());
        let Some(Task::Split(split)) = running.map(|operator| &operator.task) else {
            return Ok(()); // It ended elsewhere.
        };
        // Of the view that the phase is of: once the split is installed, the
        // parent has another epoch.
        let epoch = epoch_after(&view, split);
        let install = Command::InstallSplit { operator, parent_epoch: epoch, child_epoch: epoch };
        let command = match split.phase {
            SplitPhase::Planned => advance(operator, split.phase, SplitPhase::Ordering),
            SplitPhase::Ordering => match splitting.order(Cut::of(split, epoch)).await? {
                Ordered::Now(epoch) => {
                    advance(operator, split.phase, SplitPhase::Ordered { epoch })
                }
                Ordered::Before => install,
                Ordered::Never(reason) => {
                    let shard = split.shard;
                    tracing::warn!(%operator, %shard, ?reason, "a split is given up");
                    Command::AbortSplit { operator, expected: split.phase, reason }
                }
            },
            SplitPhase::Ordered { .. } => install,
            SplitPhase::Installed { .. } => {
                let born = timeout(BIRTH_DEADLINE, splitting.is_born(split.child_group)).await;
                if !born.unwrap_or(false) {
                    sometimes!("a split waits for its child");
                    return Err(AdminError::Unavailable("the child is not born yet".into()));
                }
                Command::FinishSplit { operator }
            }
            SplitPhase::Refused { .. } => return Ok(()),
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
