//! Changes of a group's members, as those who plan them and those who carry
//! them out say it to each other.

use std::collections::BTreeSet;

use zerompk::{FromMessagePack, ToMessagePack};

use crate::{MigrationId, ReplicaId, Seq};

/// On whose behalf a group is changed. Of one migration the later
/// `(term, attempt)` is right: once it has acted on a group, an earlier one
/// that was delayed on its way must not undo that.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, ToMessagePack, FromMessagePack,
)]
pub struct Fence {
    /// What the change is a part of.
    pub migration: MigrationId,
    /// The term of the authority that coordinates it.
    pub term: u64,
    /// The migration's attempt.
    pub attempt: u32,
}

impl Fence {
    /// Whether an effect under `self` must be refused once `seen` has acted.
    #[must_use]
    pub fn is_older_than(&self, seen: &Self) -> bool {
        self.migration == seen.migration && (self.term, self.attempt) < (seen.term, seen.attempt)
    }
}

/// Who comes and who goes in one joint change. Relative to the membership
/// found, so that a repetition changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ToMessagePack, FromMessagePack)]
pub struct VoterChange {
    /// The learner that becomes a voter.
    pub add: Option<ReplicaId>,
    /// The voter that leaves the group; it does not stay as a learner.
    pub remove: Option<ReplicaId>,
}

impl VoterChange {
    /// The voters after the change.
    #[must_use]
    pub fn applied_to(&self, voters: impl IntoIterator<Item = ReplicaId>) -> BTreeSet<ReplicaId> {
        let kept = voters.into_iter().filter(|voter| Some(*voter) != self.remove);
        kept.chain(self.add).collect()
    }
}

/// A group as its leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub struct GroupProgress {
    /// The leading replica.
    pub leader: ReplicaId,
    /// The leader's last log index.
    pub last_log: u64,
    /// Voters and learners, the leader included.
    pub members: Seq<MemberProgress>,
    /// The voters being left, while the membership is joint.
    pub outgoing: Option<Seq<ReplicaId>>,
}

/// One member of a group as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToMessagePack, FromMessagePack)]
pub struct MemberProgress {
    /// The replica.
    pub replica: ReplicaId,
    /// Whether it votes.
    pub is_voter: bool,
    /// The last index known to equal the leader's.
    pub matched: u64,
    /// Whether it answered the leader lately.
    pub is_fresh: bool,
}

impl GroupProgress {
    /// Whether a majority of the voters, in both memberships while it is
    /// joint, is known to hold a part of the log or a snapshot.
    #[must_use]
    pub fn is_held_by_majority(&self) -> bool {
        let holds = |replica: &ReplicaId| {
            self.members.iter().any(|member| member.replica == *replica && member.matched > 0)
        };
        let is_majority = |voters: &[ReplicaId]| {
            voters.iter().filter(|voter| holds(voter)).count() * 2 > voters.len()
        };
        let voters: Vec<ReplicaId> = self.replicas(true).collect();
        is_majority(&voters) && self.outgoing.as_ref().is_none_or(|left| is_majority(left))
    }

    /// The members that vote, or those that do not.
    pub fn replicas(&self, is_voter: bool) -> impl Iterator<Item = ReplicaId> {
        let members = self.members.iter().filter(move |member| member.is_voter == is_voter);
        members.map(|member| member.replica)
    }
}

#[cfg(test)]
mod tests;
