//! A Raft group reduced to what a migration can see and break: voters, a joint
//! membership in two steps, learners, one leader, logs that grow, replicas
//! that die, calls that arrive late.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_migration::{
    ControlError, Done, Effect, Fence, MigrationRow, Outcome, Place, Progress, Refusal, Removal,
    ReplicaProgress, VoterChange,
};
use quorate_types::{GroupId, Hlc, MigrationId, NodeId, ReplicaId, ShardId};

pub(crate) const SOURCE: ReplicaId = ReplicaId(1);
pub(crate) const TARGET: ReplicaId = ReplicaId(9);
pub(crate) const GROUP: GroupId = GroupId(5);
pub(crate) const PAUSE: Duration = Duration::from_millis(7);

/// The move that all models make: replica 1 on node 1 goes, 9 on node 9 comes.
pub(crate) fn planned() -> MigrationRow {
    let from = Place { node: NodeId(1), replica: SOURCE };
    let to = Place { node: NodeId(9), replica: TARGET };
    MigrationRow::planned(MigrationId(77), (ShardId(5), GROUP), from, to, 1, Hlc::default())
}

#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) original: BTreeSet<ReplicaId>,
    pub(crate) voters: BTreeSet<ReplicaId>,
    pub(crate) outgoing: Option<BTreeSet<ReplicaId>>,
    pub(crate) learners: BTreeSet<ReplicaId>,
    pub(crate) leader: Option<ReplicaId>,
    pub(crate) last_log: u64,
    pub(crate) matched: BTreeMap<ReplicaId, u64>,
    pub(crate) dead: BTreeSet<ReplicaId>,
    pub(crate) tombstones: BTreeSet<ReplicaId>,
    pub(crate) fences: BTreeMap<MigrationId, Fence>,
    /// Off in the test that shows what fences are for.
    pub(crate) has_fences: bool,
}

impl Group {
    /// Replicas 1 to `count`, led by the source.
    pub(crate) fn of(count: u64) -> Self {
        let voters: BTreeSet<_> = (1..=count).map(ReplicaId).collect();
        Self {
            original: voters.clone(),
            matched: voters.iter().map(|voter| (*voter, 200)).collect(),
            voters,
            outgoing: None,
            learners: BTreeSet::new(),
            leader: Some(SOURCE),
            last_log: 200,
            dead: BTreeSet::new(),
            tombstones: BTreeSet::new(),
            fences: BTreeMap::new(),
            has_fences: true,
        }
    }

    fn sets(&self) -> impl Iterator<Item = &BTreeSet<ReplicaId>> {
        std::iter::once(&self.voters).chain(self.outgoing.as_ref())
    }

    fn live_count(&self, set: &BTreeSet<ReplicaId>) -> usize {
        set.difference(&self.dead).count()
    }

    pub(crate) fn has_quorum(&self) -> bool {
        self.sets().all(|set| self.live_count(set) * 2 > set.len())
    }

    pub(crate) fn is_member(&self, replica: ReplicaId) -> bool {
        self.learners.contains(&replica) || self.sets().any(|set| set.contains(&replica))
    }

    /// Keeps at most one leader, and the least convenient one.
    fn elect(&mut self) {
        let electable = |group: &Self, replica: &ReplicaId| {
            !group.dead.contains(replica) && group.sets().any(|set| set.contains(replica))
        };
        if !self.has_quorum() {
            self.leader = None;
        } else if !self.leader.is_some_and(|leader| electable(self, &leader)) {
            let all: BTreeSet<_> = self.sets().flatten().copied().collect();
            self.leader = all.into_iter().find(|replica| electable(self, replica));
        }
    }

    /// An election that a returning or impatient source wins.
    pub(crate) fn give_leadership_to(&mut self, replica: ReplicaId) {
        let votes = self.sets().any(|set| set.contains(&replica));
        if self.has_quorum() && votes && !self.dead.contains(&replica) {
            self.leader = Some(replica);
        }
    }

    pub(crate) fn progress(&mut self) -> Result<Progress, ControlError> {
        self.elect();
        if self.leader.is_none() {
            return Err(ControlError::Unavailable);
        }
        self.last_log += 2;
        let (last_log, dead) = (self.last_log, &self.dead);
        for (replica, matched) in &mut self.matched {
            if !dead.contains(replica) {
                *matched = last_log.min(*matched + 90);
            }
        }
        let replicas = self
            .matched
            .iter()
            .filter(|(replica, _)| self.is_member(**replica))
            .map(|(replica, matched)| {
                let is_fresh = !self.dead.contains(replica);
                (*replica, ReplicaProgress { matched: *matched, is_fresh })
            })
            .collect();
        Ok(Progress {
            leader: self.leader,
            last_log: self.last_log,
            replicas,
            voters: self.voters.clone(),
            outgoing: self.outgoing.clone(),
            learners: self.learners.clone(),
        })
    }

    /// Performs an effect, or only its first half where it has two.
    pub(crate) fn perform(
        &mut self,
        effect: Effect,
        fence: Fence,
        is_half: bool,
    ) -> Result<Done, ControlError> {
        self.elect();
        if self.leader.is_none() {
            return Err(ControlError::Unavailable);
        }
        let seen = self.fences.entry(fence.migration).or_insert(fence);
        if fence.is_older_than(seen) && self.has_fences {
            return Err(ControlError::Refused(Refusal::Fenced));
        }
        *seen = fence;
        match effect {
            Effect::AddLearner { replica, .. } => self.add_learner(replica, is_half),
            Effect::ChangeVoters(change) => self.change_voters(change, is_half),
            Effect::TransferLeader { to } => self.transfer(to),
            Effect::Remove { replica } => self.remove(replica, is_half),
        }
    }

    fn add_learner(&mut self, replica: ReplicaId, is_half: bool) -> Result<Done, ControlError> {
        if self.tombstones.contains(&replica) && self.has_fences {
            return Err(ControlError::Refused(Refusal::Tombstoned));
        }
        if self.is_member(replica) {
            return Ok(Done::Plain);
        }
        if self.dead.contains(&replica) && !is_half {
            return Err(ControlError::Unavailable);
        }
        self.learners.insert(replica);
        self.matched.insert(replica, 0);
        Ok(Done::Plain)
    }

    fn change_voters(&mut self, change: VoterChange, is_half: bool) -> Result<Done, ControlError> {
        let mut next = self.voters.clone();
        if let Some(add) = change.add {
            if !self.is_member(add) {
                return Err(ControlError::Refused(Refusal::Invalid));
            }
            next.insert(add);
        }
        if let Some(remove) = change.remove {
            next.remove(&remove);
        }
        if next != self.voters {
            if next.is_empty() {
                return Err(ControlError::Refused(Refusal::Invalid));
            }
            self.learners.retain(|learner| !next.contains(learner));
            let before = std::mem::replace(&mut self.voters, next);
            // A joint membership goes on, or back to the set it was leaving.
            let was_left = self.outgoing.take();
            self.outgoing = (was_left.as_ref() != Some(&self.voters)).then_some(before);
        }
        if is_half || !self.has_quorum() {
            return Err(ControlError::Unavailable);
        }
        self.outgoing = None;
        self.elect();
        Ok(Done::Plain)
    }

    fn transfer(&mut self, to: ReplicaId) -> Result<Done, ControlError> {
        let votes = self.sets().all(|set| set.contains(&to));
        let is_complete = self.last_log - self.matched[&to] <= 16;
        if !votes || !is_complete || self.dead.contains(&to) {
            return Err(ControlError::Unavailable);
        }
        self.leader = Some(to);
        Ok(Done::Transferred(PAUSE))
    }

    fn remove(&mut self, replica: ReplicaId, is_half: bool) -> Result<Done, ControlError> {
        if self.sets().any(|set| set.contains(&replica)) {
            return Err(ControlError::Refused(Refusal::Invalid));
        }
        self.learners.remove(&replica);
        if is_half {
            return Err(ControlError::Unavailable);
        }
        if self.dead.contains(&replica) {
            return Ok(Done::Removed(Removal::NodeUnreachable));
        }
        self.tombstones.insert(replica);
        Ok(Done::Removed(Removal::Destroyed))
    }

    /// What must hold at every instant.
    pub(crate) fn check_always(&self) -> Result<(), String> {
        for set in self.sets() {
            if set.len() < self.original.len() {
                return Err(format!("{set:?}: fewer voters than {:?}", self.original));
            }
            if self.live_count(set) + self.dead.len() < self.original.len() {
                return Err(format!("{set:?}: more voters lost than died"));
            }
        }
        if self.original.len() >= 3 && !self.has_quorum() {
            return Err("the group lost its quorum".into());
        }
        Ok(())
    }

    /// What must hold once the migration is over.
    pub(crate) fn check_home(&self, outcome: Outcome) -> Result<(), String> {
        let (is_completed, is_destroyed) = match outcome {
            Outcome::Completed { source_destroyed } => (true, source_destroyed),
            Outcome::Aborted { target_destroyed, .. } => (false, target_destroyed),
        };
        let mut moved = self.original.clone();
        moved.remove(&SOURCE);
        moved.insert(TARGET);
        let home = if is_completed { &moved } else { &self.original };
        if self.voters != *home || self.outgoing.is_some() {
            return Err(format!("{:?} / {:?} is not {home:?}", self.voters, self.outgoing));
        }
        if !self.learners.is_empty() {
            return Err(format!("learners left over: {:?}", self.learners));
        }
        let gone = if is_completed { SOURCE } else { TARGET };
        // Destroyed for an earlier coordinator and unreachable for the last is
        // reported as not confirmed.
        if is_destroyed && !self.tombstones.contains(&gone) {
            return Err(format!("{gone} was reported as destroyed and is not"));
        }
        Ok(())
    }
}
