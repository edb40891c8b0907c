//! What the coordinator needs from outside: a journal that remembers, and a
//! hand on the groups.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_types::membership::{Fence, GroupProgress, MemberProgress, VoterChange};
use quorate_types::runtime::BoxFuture;
use quorate_types::{GroupId, MigrationId, NodeId, ReplicaId};

use crate::row::{Change, MigrationRow, Position, Refusal, RowError};

/// Remembers migrations durably, for the authority of a term.
///
/// Inside a node it is an adapter over the metadata log; used alone,
/// [`crate::LocalJournal`].
pub trait Journal: Send + Sync + 'static {
    /// Stores `row` if the stored row of its migration is at `expected`
    /// (`None`: there is none) and [`MigrationRow::follows`] allows it. Once
    /// this returns `Ok` the row is durable. A checkpoint that is stored
    /// already, by the same term, is no conflict: recording again after an
    /// unknown outcome is safe.
    ///
    /// A first row is refused with a conflict while another migration of the
    /// same group is unfinished: two moves in one group would each take the
    /// other's replica for a stranger.
    fn record(
        &self,
        row: MigrationRow,
        expected: Option<Position>,
        term: u64,
    ) -> BoxFuture<Result<(), JournalError>>;

    /// Every row that is not yet removed, in the order of their ids.
    fn rows(&self) -> BoxFuture<Result<Vec<MigrationRow>, JournalError>>;

    /// Removes the row of a migration that is over; no error when it is gone.
    fn finish(&self, id: MigrationId) -> BoxFuture<Result<(), JournalError>>;
}

/// Why the journal did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// Another row stands in the way: a later row of the same migration, or an
    /// unfinished migration of the same group. Read again and decide anew.
    #[error("in the way: {:?} at {}", .0.id, .0.position())]
    Conflict(Box<MigrationRow>),
    /// The term is over, or has not begun here. Stop.
    #[error("not the authority of that term")]
    NotAuthority,
    /// The journal could not be reached or did not answer in time; the row may
    /// or may not be stored. Record it again.
    #[error("the journal is unavailable, the outcome unknown")]
    Unavailable,
    /// The row can never be stored.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The journal holds a damaged row of this migration, set aside for the
    /// operator. It is neither served nor replaced.
    #[error("the stored row of {0} is damaged and quarantined")]
    Quarantined(MigrationId),
    /// As many migrations as the journal takes; refused before it was stored.
    #[error("{0} rows, as many as the journal takes")]
    Full(usize),
    /// The journal's storage failed for good. Stop; the node needs its operator.
    #[error("the journal's storage failed for good")]
    Failed,
}

/// The rule of [`Journal::record`], for whoever implements one: `row` is to be
/// stored where `rows` are, by a writer that expects `expected`.
///
/// # Errors
/// [`JournalError::Conflict`] or [`JournalError::Row`].
pub fn admit(
    rows: &BTreeMap<MigrationId, MigrationRow>,
    row: &MigrationRow,
    expected: Option<Position>,
) -> Result<Change, JournalError> {
    let current = rows.get(&row.id);
    let change = row.follows(current);
    if change == Ok(Change::Repeated) {
        return Ok(Change::Repeated);
    }
    let in_the_way = match current {
        Some(current) => (expected != Some(current.position())).then_some(current),
        None => rows.values().find(|other| other.blocks(row)),
    };
    if let Some(other) = in_the_way {
        return Err(JournalError::Conflict(Box::new(other.clone())));
    }
    Ok(change?)
}

/// A hand on the Raft groups of the cluster.
///
/// Every effect is idempotent: done twice, or found done, it is `Ok`. An
/// effect whose outcome is unknown is [`ControlError::Unavailable`]; the
/// coordinator observes and tries again.
///
/// The adapter keeps the newest [`Fence`] of each migration that has touched a
/// group and refuses older ones ([`Refusal::Fenced`]), so that a call that was
/// delayed on its way cannot undo what a later attempt did. Keeping it in the
/// memory of the group's leader suffices, together with a deadline on calls: a
/// leader elected meanwhile refuses a late call by that deadline.
pub trait ReplicaControl: Send + Sync + 'static {
    /// What the group's leader knows now. The leader must have confirmed that
    /// it still leads, and the membership must be committed, or this is
    /// [`ControlError::Unavailable`].
    fn progress(&self, group: GroupId) -> BoxFuture<Result<Progress, ControlError>>;

    /// Creates `replica` on `node` and adds it as a learner. A replica that is
    /// a voter already stays one.
    fn add_learner(
        &self,
        fence: Fence,
        group: GroupId,
        replica: ReplicaId,
        node: NodeId,
    ) -> BoxFuture<Result<(), ControlError>>;

    /// Changes the voters by a joint change, and returns when the group has
    /// left the joint membership again. From a joint membership that an earlier
    /// call left behind it goes on to the voters asked for, or back to them.
    fn change_voters(
        &self,
        fence: Fence,
        group: GroupId,
        change: VoterChange,
    ) -> BoxFuture<Result<(), ControlError>>;

    /// Moves the leadership to the voter `to` and returns how long the group
    /// took no writes. Nothing brings an old leader back once it has let go, so
    /// the budget is kept beforehand: while a successor is not at hand, or not
    /// nearly up to date, this is [`ControlError::Unavailable`].
    fn transfer_leader(
        &self,
        fence: Fence,
        group: GroupId,
        to: ReplicaId,
    ) -> BoxFuture<Result<Duration, ControlError>>;

    /// Takes a learner, or a replica that is no member, out of the group for
    /// good: once this returns `Ok` the group's leader sends it nothing. Then
    /// destroys it on its node, which leaves a tombstone. A voter is refused.
    fn remove(
        &self,
        fence: Fence,
        group: GroupId,
        replica: ReplicaId,
    ) -> BoxFuture<Result<Removal, ControlError>>;
}

/// What became of a removed replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Its node has destroyed it and left a tombstone.
    Destroyed,
    /// It is out of the group, but its node did not answer.
    NodeUnreachable,
}

/// A group as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// The leader, if the group has one.
    pub leader: Option<ReplicaId>,
    /// The index of the leader's last log entry.
    pub last_log: u64,
    /// How far each voter and learner is, the leader included.
    pub replicas: BTreeMap<ReplicaId, ReplicaProgress>,
    /// The voters.
    pub voters: BTreeSet<ReplicaId>,
    /// The voters that are being left, while the membership is joint.
    pub outgoing: Option<BTreeSet<ReplicaId>>,
    /// The learners.
    pub learners: BTreeSet<ReplicaId>,
}

/// One replica as its group's leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplicaProgress {
    /// The last index known to equal the leader's.
    pub matched: u64,
    /// Whether it has answered the leader lately, by the group's own timings.
    /// In an idle group a dead replica's log matches for ever; only this tells.
    pub is_fresh: bool,
}

impl From<GroupProgress> for Progress {
    fn from(seen: GroupProgress) -> Self {
        let progress = |member: &MemberProgress| {
            let MemberProgress { replica, matched, is_fresh, .. } = *member;
            (replica, ReplicaProgress { matched, is_fresh })
        };
        Self {
            leader: Some(seen.leader),
            last_log: seen.last_log,
            replicas: seen.members.iter().map(progress).collect(),
            voters: seen.replicas(true).collect(),
            learners: seen.replicas(false).collect(),
            outgoing: seen.outgoing.map(|voters| voters.into_iter().collect()),
        }
    }
}

impl Progress {
    /// Whether the membership is not between two sets of voters.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.outgoing.is_none()
    }

    /// Whether `replica` votes, in either set while the membership is joint.
    #[must_use]
    pub fn is_voter(&self, replica: ReplicaId) -> bool {
        self.voters.contains(&replica)
            || self.outgoing.as_ref().is_some_and(|voters| voters.contains(&replica))
    }

    /// Whether `replica` is a voter or a learner.
    #[must_use]
    pub fn is_member(&self, replica: ReplicaId) -> bool {
        self.is_voter(replica) || self.learners.contains(&replica)
    }

    /// Whether `replica` answers and lacks at most `lag_entries_max` entries.
    #[must_use]
    pub fn keeps_up(&self, replica: ReplicaId, lag_entries_max: u64) -> bool {
        self.replicas.get(&replica).is_some_and(|progress| {
            progress.is_fresh && self.last_log.saturating_sub(progress.matched) <= lag_entries_max
        })
    }
}

/// Why the group did not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// No leader, not the leader, or no answer in time; it may have happened.
    #[error("the group is unavailable, the outcome unknown")]
    Unavailable,
    /// It did not happen and will not.
    #[error("refused: {0:?}")]
    Refused(Refusal),
}
