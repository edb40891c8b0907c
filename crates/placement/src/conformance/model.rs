//! A cluster reduced to its placement: members change in the steps of a real
//! move, and nothing is stored.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_types::{Blob, KeyRange, NodeId, ShardEpoch, ShardId};

use super::Violation;
use crate::history::{History, InFlight, OperatorId};
use crate::operator::{Group, Operator, Plan, Proposal};
use crate::policy::PlacementPolicy;
use crate::safety;
use crate::view::{ClusterView, Members, NodeState, NodeView, ShardView, SystemGroupView};

/// No operator has more steps: a learner is added, then the voters change.
const STEPS_MAX: usize = 2;

/// An accepted operator and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The operator.
    pub operator: InFlight,
    /// Whether its learner is in place.
    pub has_learner: bool,
}

/// See the module's description.
#[derive(Debug, Clone, Default)]
pub struct ModelCluster {
    /// The cluster as it is.
    pub view: ClusterView,
    /// What is in flight.
    pub running: Vec<Running>,
    /// What the planner remembers.
    pub history: History,
    next_operator: u128,
    next_shard: u64,
}

impl ModelCluster {
    /// A cluster of nothing whose shards will have `replicas` voters.
    #[must_use]
    pub fn new(replicas: u32) -> Self {
        let view = ClusterView { shard_replicas: replicas, ..ClusterView::default() };
        Self { view, ..Self::default() }
    }

    /// Adds an active node without a disk limit; the caller may change it.
    pub fn add_node(&mut self, id: u64, zone: &str) -> &mut NodeView {
        self.view.nodes.push(NodeView {
            id: NodeId(id),
            zone: zone.to_owned(),
            state: NodeState::Active,
            weight: 1,
            disk_used_bytes: 0,
            disk_total_bytes: 0,
        });
        let last = self.view.nodes.len() - 1;
        #[expect(clippy::indexing_slicing, reason = "it was pushed just above")]
        &mut self.view.nodes[last]
    }

    /// Adds an empty shard, led by the first of `voters`, owning the keys
    /// right of the shard added before it; the caller may change it.
    pub fn add_shard(&mut self, voters: &[u64]) -> &mut ShardView {
        self.next_shard += 1;
        let id = self.next_shard;
        let key = |at: u64| Blob::from((at << 40).to_be_bytes().to_vec());
        self.view.shards.push(ShardView {
            id: ShardId(id),
            range: KeyRange { start: key(id), end: Some(key(id + 1)) },
            epoch: ShardEpoch(1),
            members: members(voters),
            bytes: 0,
            rows: 1_000,
            load_ops: 0,
            split_key: None,
        });
        let last = self.view.shards.len() - 1;
        #[expect(clippy::indexing_slicing, reason = "it was pushed just above")]
        &mut self.view.shards[last]
    }

    /// Sets the metadata group, led by the first of `voters`.
    pub fn set_metadata(&mut self, replicas: u32, voters: &[u64]) {
        self.view.metadata = Some(SystemGroupView { members: members(voters), replicas });
    }

    /// Sets the sequencer group, led by the first of `voters`.
    pub fn set_sequencer(&mut self, replicas: u32, voters: &[u64]) {
        self.view.sequencer = Some(SystemGroupView { members: members(voters), replicas });
    }

    /// The state of a node.
    pub fn state_mut(&mut self, id: NodeId) -> Option<&mut NodeState> {
        self.view.nodes.iter_mut().find(|node| node.id == id).map(|node| &mut node.state)
    }

    /// What is in flight, as a planner is told.
    #[must_use]
    pub fn in_flight(&self) -> Vec<InFlight> {
        self.running.iter().map(|running| running.operator.clone()).collect()
    }

    /// Lets time pass, for the silent as well.
    pub fn advance(&mut self, time: Duration) {
        self.history.advance(self.history.now().saturating_add(time));
        for node in &mut self.view.nodes {
            if let NodeState::Suspect { duration } | NodeState::Dead { duration } = &mut node.state
            {
                *duration = duration.saturating_add(time);
            }
        }
    }

    /// Plans, and remembers which kinds of balancing are under way.
    pub fn plan(&mut self, policy: &dyn PlacementPolicy) -> Plan {
        let plan = policy.plan(&self.view, &self.in_flight(), &self.history);
        self.history.set_balancing(plan.balancing);
        plan
    }

    /// Accepts a proposal, as a proposer would: only if it is safe and its
    /// preconditions hold.
    ///
    /// # Errors
    /// [`Violation::Unsafe`] or [`Violation::StalePrecondition`].
    pub fn accept(&mut self, proposal: &Proposal) -> Result<OperatorId, Violation> {
        let operator = proposal.operator.clone();
        safety::check(&self.view, &self.in_flight(), &operator)
            .map_err(|hazard| Violation::Unsafe(operator.clone(), hazard))?;
        for expected in &proposal.preconditions {
            let members = safety::members(&self.view, expected.group);
            let holds = members.is_some_and(|members| {
                members.sorted_voters() == expected.voters && members.leader == expected.leader
            });
            if !holds || self.epoch(expected.group) != expected.epoch {
                return Err(Violation::StalePrecondition(operator));
            }
        }
        self.next_operator += 1;
        let id = OperatorId(self.next_operator);
        self.history.record(&operator);
        self.running.push(Running { operator: InFlight { id, operator }, has_learner: false });
        Ok(id)
    }

    /// Gives an operator up unless it has ended; its learner goes.
    pub fn cancel(&mut self, id: OperatorId) {
        let Some(position) = self.position(id) else { return };
        let running = self.running.remove(position);
        let (group, to) = match running.operator.operator {
            Operator::MoveReplica { group, to, .. } | Operator::AddReplica { group, to } => {
                (group, to)
            }
            _ => return,
        };
        if running.has_learner {
            self.drop_learner(group, to);
            self.store(group, to, false);
        }
    }

    /// Takes the next step of an operator. One that waits for a silent node
    /// stays where it is: only what has caught up is promoted.
    ///
    /// # Errors
    /// When the step costs a group its quorum or puts two replicas on a node.
    pub fn step(&mut self, id: OperatorId) -> Result<(), Violation> {
        let Some(position) = self.position(id) else { return Ok(()) };
        let Some(running) = self.running.get(position) else { return Ok(()) };
        let operator = running.operator.operator.clone();
        if self.waits(&operator) {
            return Ok(());
        }
        let Some(running) = self.running.get_mut(position) else { return Ok(()) };
        let needs_learner = match &operator {
            Operator::MoveReplica { to, .. } | Operator::AddReplica { to, .. } => Some(*to),
            _ => None,
        };
        if let Some(to) = needs_learner.filter(|_| !running.has_learner) {
            running.has_learner = true;
            self.add_learner(operator.group(), to)?;
            self.store(operator.group(), to, true);
            return Ok(());
        }
        self.running.remove(position);
        self.finish(&operator)
    }

    /// Takes every step that can be taken of everything in flight.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn run_all(&mut self) -> Result<(), Violation> {
        for operator in self.in_flight() {
            for _ in 0..STEPS_MAX {
                self.step(operator.id)?;
            }
        }
        Ok(())
    }

    /// Lets every group with a quorum and without a living leader elect one.
    pub fn elect(&mut self) {
        for group in self.groups() {
            let Some(members) = safety::members(&self.view, group) else { continue };
            let live = |node: &NodeId| self.is_live(*node);
            let leaderless = !members.leader.is_some_and(|leader| live(&leader));
            if leaderless && safety::has_quorum(&self.view, &members.voters) {
                let leader = members.voters.iter().copied().find(live);
                if let Some(members) = self.members_mut(group) {
                    members.leader = leader;
                }
            }
        }
    }

    /// Every group.
    #[must_use]
    pub fn groups(&self) -> Vec<Group> {
        let metadata = self.view.metadata.iter().map(|_| Group::Metadata);
        let sequencer = self.view.sequencer.iter().map(|_| Group::Sequencer);
        let shards = self.view.shards.iter().map(|shard| Group::Shard(shard.id));
        metadata.chain(sequencer).chain(shards).collect()
    }

    /// The groups that could commit something now.
    #[must_use]
    pub fn quorate(&self) -> BTreeSet<Group> {
        let quorate = |group: &Group| {
            let members = safety::members(&self.view, *group);
            members.is_some_and(|members| safety::has_quorum(&self.view, &members.voters))
        };
        self.groups().into_iter().filter(quorate).collect()
    }

    /// How many voters of `group` answer.
    #[must_use]
    pub fn live_voters(&self, group: Group) -> usize {
        let members = safety::members(&self.view, group);
        members.map_or(0, |members| members.voters.iter().filter(|v| self.is_live(**v)).count())
    }

    /// How many voters `group` should have.
    #[must_use]
    pub fn wanted_voters(&self, group: Group) -> usize {
        let system = |group: &Option<SystemGroupView>| group.as_ref().map_or(0, |g| g.replicas);
        let wanted = match group {
            Group::Metadata => system(&self.view.metadata),
            Group::Sequencer => system(&self.view.sequencer),
            Group::Shard(_) => self.view.shard_replicas,
        };
        usize::try_from(wanted).unwrap_or(usize::MAX)
    }

    fn is_live(&self, node: NodeId) -> bool {
        self.view.nodes.iter().any(|known| known.id == node && known.state.is_live())
    }

    /// Whether the operator's next step cannot be taken now.
    fn waits(&self, operator: &Operator) -> bool {
        let quorum = safety::members(&self.view, operator.group())
            .is_some_and(|members| safety::has_quorum(&self.view, &members.voters));
        let ready = match operator {
            Operator::MoveReplica { to, .. }
            | Operator::AddReplica { to, .. }
            | Operator::TransferLeader { to, .. } => self.is_live(*to),
            _ => true,
        };
        !quorum || !ready
    }

    fn position(&self, id: OperatorId) -> Option<usize> {
        self.running.iter().position(|running| running.operator.id == id)
    }

    fn epoch(&self, group: Group) -> Option<ShardEpoch> {
        let id = group.shard()?;
        self.view.shards.iter().find(|shard| shard.id == id).map(|shard| shard.epoch)
    }

    fn members_mut(&mut self, group: Group) -> Option<&mut Members> {
        match group {
            Group::Metadata => self.view.metadata.as_mut().map(|system| &mut system.members),
            Group::Sequencer => self.view.sequencer.as_mut().map(|system| &mut system.members),
            Group::Shard(id) => {
                let mut shards = self.view.shards.iter_mut();
                shards.find(|shard| shard.id == id).map(|shard| &mut shard.members)
            }
        }
    }

    fn add_learner(&mut self, group: Group, to: NodeId) -> Result<(), Violation> {
        let Some(members) = self.members_mut(group) else { return Ok(()) };
        if members.voters.contains(&to) || members.learners.contains(&to) {
            return Err(Violation::TwoReplicasOnOneNode(group, to));
        }
        members.learners.push(to);
        Ok(())
    }

    fn drop_learner(&mut self, group: Group, node: NodeId) {
        if let Some(members) = self.members_mut(group) {
            members.learners.retain(|learner| *learner != node);
        }
    }

    /// Adds the group's bytes to a node's disk, or takes them away.
    fn store(&mut self, group: Group, node: NodeId, add: bool) {
        let shard = self.view.shards.iter().find(|shard| Some(shard.id) == group.shard());
        let bytes = shard.map_or(0, |shard| shard.bytes);
        if let Some(node) = self.view.nodes.iter_mut().find(|known| known.id == node) {
            let used = node.disk_used_bytes;
            node.disk_used_bytes =
                if add { used.saturating_add(bytes) } else { used.saturating_sub(bytes) };
        }
    }

    fn finish(&mut self, operator: &Operator) -> Result<(), Violation> {
        match operator {
            Operator::MoveReplica { group, from, to } => {
                self.change_voters(*group, Some(*from), Some(*to))
            }
            Operator::AddReplica { group, to } => self.change_voters(*group, None, Some(*to)),
            Operator::RemoveReplica { group, from } => {
                self.change_voters(*group, Some(*from), None)
            }
            Operator::TransferLeader { group, to, .. } => {
                if let Some(members) = self.members_mut(*group) {
                    members.leader = Some(*to);
                }
                Ok(())
            }
            Operator::Split { shard, at } => {
                self.split(*shard, at.clone());
                Ok(())
            }
            Operator::Merge { .. } => Err(Violation::MergeProposed),
        }
    }

    /// One joint change.
    fn change_voters(
        &mut self,
        group: Group,
        from: Option<NodeId>,
        to: Option<NodeId>,
    ) -> Result<(), Violation> {
        let Some(mut new) = safety::members(&self.view, group).cloned() else { return Ok(()) };
        new.voters.retain(|voter| Some(*voter) != from);
        new.voters.extend(to);
        new.learners.retain(|learner| Some(*learner) != to);
        if new.leader == from {
            new.leader = to;
        }
        if !safety::has_quorum(&self.view, &new.voters) {
            return Err(Violation::QuorumLost(group));
        }
        if let Some(members) = self.members_mut(group) {
            *members = new;
        }
        if let Some(from) = from {
            self.store(group, from, false);
        }
        Ok(())
    }

    /// Halves everything about the shard; the halves stay where they are.
    fn split(&mut self, id: ShardId, at: Option<Blob>) {
        let Some(shard) = self.view.shards.iter_mut().find(|shard| shard.id == id) else { return };
        let at = at.unwrap_or_else(|| middle(&shard.range));
        let Some((left, right)) = shard.range.split_at(&at) else { return };
        self.next_shard += 1;
        let child_id = ShardId(1 << 32 | self.next_shard);
        shard.range = left;
        shard.epoch = shard.epoch.next();
        shard.bytes /= 2;
        shard.rows /= 2;
        shard.load_ops /= 2;
        shard.split_key = None;
        let child = ShardView { id: child_id, range: right, epoch: ShardEpoch(1), ..shard.clone() };
        self.view.shards.push(child);
        self.history.record_child(child_id);
    }
}

fn members(voters: &[u64]) -> Members {
    let voters: Vec<NodeId> = voters.iter().copied().map(NodeId).collect();
    Members { leader: voters.first().copied(), voters, learners: Vec::new() }
}

fn middle(range: &KeyRange) -> Blob {
    let number = |key: &Blob| key.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let start = number(&range.start);
    let end = range.end.as_ref().map_or(u64::MAX, number);
    Blob::from((start + end.saturating_sub(start) / 2).to_be_bytes().to_vec())
}
