//! The cluster as it will be once everything in flight has landed, with the
//! sums that the tiers ask for kept up to date.
//!
//! A move counts at both ends while it lasts: the source still stores the
//! replica, the destination already must have room for it, and both spend
//! their limits. For balance only the end of the move counts: the replica is
//! where it will be.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::{NodeId, ShardEpoch};

use crate::history::{Balancing, History, InFlight};
use crate::operator::{Blocked, Group, Obstacle, Operator, Plan, Precondition, Proposal, Reason};
use crate::policy::Policy;
use crate::safety::majority;
use crate::view::{ClusterView, Members, NodeState, NodeView, ShardView};

/// A node's place in the ledger; among known nodes it ascends with the id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeSlot(usize);

/// A group's place in the ledger. Ascends with the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupSlot(usize);

impl GroupSlot {
    /// Not below any group: the end of a search by cost.
    pub(crate) const LAST: Self = Self(usize::MAX);
}

/// What a node may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// May give and receive.
    Active,
    /// May only give.
    Draining,
    /// Silent, perhaps only for a moment: neither gives nor receives.
    Silent,
    /// Dead for longer than the grace: is replaced.
    Gone,
}

impl Standing {
    pub(crate) const fn is_live(self) -> bool {
        matches!(self, Self::Active | Self::Draining)
    }
}

/// What a node carries and what it is busy with.
#[derive(Debug)]
pub(crate) struct NodeEntry {
    pub(crate) id: NodeId,
    pub(crate) zone: usize,
    pub(crate) standing: Standing,
    pub(crate) weight: u64,
    /// Sum of the costs of the shard replicas it will host.
    pub(crate) load_millis: u64,
    /// Sum of the costs of the shards it will lead.
    pub(crate) leader_load_millis: u64,
    /// What it will host, cheapest first.
    pub(crate) hosts: BTreeSet<(u64, GroupSlot)>,
    /// What it will lead, cheapest first.
    pub(crate) leads: BTreeSet<(u64, GroupSlot)>,
    /// Groups of the system among `hosts`.
    pub(crate) system_hosts: usize,
    pub(crate) disk_total_bytes: u64,
    /// While moves last: nothing has left yet, everything has arrived.
    pub(crate) disk_during_bytes: u64,
    /// After the moves.
    pub(crate) disk_after_bytes: u64,
    sends: u32,
    receives: u32,
    transfers: u32,
    /// Replicas on it now, learners and moves in flight included.
    occupants: usize,
}

impl NodeEntry {
    /// Load per weight, scaled: for ordering nodes, never for decisions that
    /// a rounding could turn.
    pub(crate) fn utilization(&self, extra_millis: u64) -> u128 {
        (u128::from(self.load_millis.saturating_add(extra_millis)) << 20) / u128::from(self.weight)
    }

    /// The same for what it leads.
    pub(crate) fn leader_utilization(&self) -> u128 {
        (u128::from(self.leader_load_millis) << 20) / u128::from(self.weight)
    }

    /// Whether `bytes` more stay within `percent` of the disk.
    pub(crate) fn disk_fits(&self, bytes: u64, percent: u32) -> bool {
        let after = u128::from(self.disk_during_bytes.saturating_add(bytes));
        self.disk_total_bytes == 0
            || after * 100 <= u128::from(self.disk_total_bytes) * u128::from(percent)
    }
}

/// A group: as it is (`members`), as it will be (`voters`, `leader`), and all
/// the nodes where it must not be placed again (`occupied`).
#[derive(Debug)]
pub(crate) struct GroupEntry<'a> {
    pub(crate) id: Group,
    pub(crate) shard: Option<&'a ShardView>,
    members: &'a Members,
    pub(crate) voters: Vec<NodeSlot>,
    occupied: Vec<NodeSlot>,
    pub(crate) leader: Option<NodeSlot>,
    pub(crate) replicas: usize,
    pub(crate) cost_millis: u64,
    pub(crate) leader_cost_millis: u64,
    pub(crate) bytes: u64,
    busy: bool,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Ledger<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) history: &'a History,
    nodes: Vec<NodeEntry>,
    groups: Vec<GroupEntry<'a>>,
    node_slots: BTreeMap<NodeId, NodeSlot>,
    group_slots: BTreeMap<Group, GroupSlot>,
    zones: usize,
    moves: u32,
    transfers: u32,
    splits: u32,
    plan: Plan,
}

impl<'a> Ledger<'a> {
    /// Opens the ledger with everything in flight already counted.
    pub(crate) fn new(
        view: &'a ClusterView,
        policy: &'a Policy,
        history: &'a History,
        in_flight: &[InFlight],
    ) -> Self {
        let mut ledger = Self {
            policy,
            history,
            nodes: Vec::new(),
            groups: Vec::new(),
            node_slots: BTreeMap::new(),
            group_slots: BTreeMap::new(),
            zones: 0,
            moves: 0,
            transfers: 0,
            splits: 0,
            plan: Plan { balancing: history.balancing(), ..Plan::default() },
        };
        ledger.open_nodes(view);
        ledger.open_groups(view);
        for operator in in_flight {
            ledger.count(&operator.operator);
        }
        ledger
    }

    fn open_nodes(&mut self, view: &ClusterView) {
        let known: BTreeMap<NodeId, &NodeView> =
            view.nodes.iter().rev().map(|node| (node.id, node)).collect();
        let zones: BTreeSet<&str> = known.values().map(|node| node.zone.as_str()).collect();
        self.zones = zones.len();
        let zones: BTreeMap<&str, usize> = zones.into_iter().zip(0..).collect();
        for (id, node) in known {
            let zone = zones.get(node.zone.as_str()).copied().unwrap_or_default();
            self.open_node(id, zone, node, standing(node.state, self.policy));
        }
        // A member that the registry does not know is treated like a silent
        // node: not counted on, not replaced on this evidence. It shares its
        // failure domain with nobody.
        for group in all_members(view) {
            for id in group.voters.iter().chain(&group.learners) {
                if !self.node_slots.contains_key(id) {
                    let nowhere = usize::MAX - self.nodes.len();
                    self.open_node(*id, nowhere, &NodeView::unknown(*id), Standing::Silent);
                }
            }
        }
    }

    fn open_node(&mut self, id: NodeId, zone: usize, node: &NodeView, standing: Standing) {
        self.node_slots.insert(id, NodeSlot(self.nodes.len()));
        self.nodes.push(NodeEntry {
            id,
            zone,
            standing,
            weight: u64::from(node.weight.max(1)),
            load_millis: 0,
            leader_load_millis: 0,
            hosts: BTreeSet::new(),
            leads: BTreeSet::new(),
            system_hosts: 0,
            disk_total_bytes: node.disk_total_bytes,
            disk_during_bytes: node.disk_used_bytes,
            disk_after_bytes: node.disk_used_bytes,
            sends: 0,
            receives: 0,
            transfers: 0,
            occupants: 0,
        });
    }

    fn open_groups(&mut self, view: &'a ClusterView) {
        let system = [(Group::Metadata, &view.metadata), (Group::Sequencer, &view.sequencer)];
        for (id, group) in system {
            if let Some(group) = group {
                self.open_group(id, None, &group.members, group.replicas);
            }
        }
        let shards: BTreeMap<_, _> =
            view.shards.iter().rev().map(|shard| (shard.id, shard)).collect();
        for (id, shard) in shards {
            self.open_group(Group::Shard(id), Some(shard), &shard.members, view.shard_replicas);
        }
    }

    fn open_group(
        &mut self,
        id: Group,
        shard: Option<&'a ShardView>,
        members: &'a Members,
        replicas: u32,
    ) {
        let slot = GroupSlot(self.groups.len());
        self.group_slots.insert(id, slot);
        let voters = self.slots(&members.voters);
        let learners = self.slots(&members.learners);
        let mut occupied = [voters.as_slice(), learners.as_slice()].concat();
        occupied.sort_unstable();
        occupied.dedup();
        for node in &occupied {
            self.node_mut(*node).occupants += 1;
        }
        self.groups.push(GroupEntry {
            id,
            shard,
            members,
            voters: Vec::new(),
            occupied,
            leader: None,
            replicas: usize::try_from(replicas.max(1)).unwrap_or(usize::MAX),
            cost_millis: shard.map_or(0, |shard| self.policy.cost.replica_millis(shard)),
            leader_cost_millis: shard.map_or(0, |shard| self.policy.cost.leader_millis(shard)),
            bytes: shard.map_or(0, |shard| shard.bytes),
            busy: self.history.is_resting(id),
        });
        for voter in &voters {
            self.host(slot, *voter);
        }
        let leader = members.leader.and_then(|leader| self.node_slots.get(&leader).copied());
        self.lead(slot, leader.filter(|leader| voters.contains(leader)));
    }

    fn slots(&self, nodes: &[NodeId]) -> Vec<NodeSlot> {
        let mut slots: Vec<_> =
            nodes.iter().filter_map(|node| self.node_slots.get(node).copied()).collect();
        slots.sort_unstable();
        slots.dedup();
        slots
    }
}

/// What the tiers ask.
impl<'a> Ledger<'a> {
    #[expect(
        clippy::indexing_slicing,
        reason = "slots are made for entries, which are never removed"
    )]
    pub(crate) fn node(&self, slot: NodeSlot) -> &NodeEntry {
        &self.nodes[slot.0]
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "slots are made for entries, which are never removed"
    )]
    fn node_mut(&mut self, slot: NodeSlot) -> &mut NodeEntry {
        &mut self.nodes[slot.0]
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "slots are made for entries, which are never removed"
    )]
    pub(crate) fn group(&self, slot: GroupSlot) -> &GroupEntry<'a> {
        &self.groups[slot.0]
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "slots are made for entries, which are never removed"
    )]
    fn group_mut(&mut self, slot: GroupSlot) -> &mut GroupEntry<'a> {
        &mut self.groups[slot.0]
    }

    pub(crate) fn group_slot(&self, group: Group) -> Option<GroupSlot> {
        self.group_slots.get(&group).copied()
    }

    pub(crate) fn standing_of(&self, node: NodeId) -> Option<Standing> {
        self.node_slots.get(&node).map(|slot| self.node(*slot).standing)
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeSlot> + use<> {
        (0..self.nodes.len()).map(NodeSlot)
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = GroupSlot> + use<> {
        (0..self.groups.len()).map(GroupSlot)
    }

    pub(crate) fn nodes_with(&self, standing: Standing) -> impl Iterator<Item = NodeSlot> {
        self.nodes().filter(move |slot| self.node(*slot).standing == standing)
    }

    pub(crate) fn shard_count(&self) -> u64 {
        self.groups.iter().filter(|group| group.shard.is_some()).count().try_into().unwrap_or(0)
    }

    /// How many failure domains the known nodes form.
    pub(crate) fn zones(&self) -> usize {
        self.zones
    }

    /// Whether the group has an operator, in flight or in this plan, or is to
    /// be left alone for now.
    pub(crate) fn is_busy(&self, slot: GroupSlot) -> bool {
        self.group(slot).busy
    }

    /// Whether enough voters live to commit a change.
    pub(crate) fn has_quorum(&self, slot: GroupSlot) -> bool {
        let voters = &self.group(slot).voters;
        self.live_voters(slot) >= majority(voters.len())
    }

    pub(crate) fn live_voters(&self, slot: GroupSlot) -> usize {
        let voters = &self.group(slot).voters;
        voters.iter().filter(|voter| self.node(**voter).standing.is_live()).count()
    }

    /// Whether a tier below quorum safety may touch the group: it is free,
    /// led, and every voter lives, so that a change costs no fault tolerance.
    pub(crate) fn is_movable(&self, slot: GroupSlot) -> bool {
        let group = self.group(slot);
        !group.busy && group.leader.is_some() && self.live_voters(slot) == group.voters.len()
    }

    pub(crate) fn occupies(&self, group: GroupSlot, node: NodeSlot) -> bool {
        self.group(group).occupied.contains(&node)
    }

    /// How many pairs of the group's voters would share a failure domain with
    /// `leaving` gone and `joining` there. Zero is a perfect spread.
    pub(crate) fn shared_zone_pairs(
        &self,
        group: GroupSlot,
        leaving: Option<NodeSlot>,
        joining: Option<NodeSlot>,
    ) -> usize {
        let stay = || {
            let voters = self.group(group).voters.iter().copied();
            voters.filter(move |voter| Some(*voter) != leaving).chain(joining)
        };
        let zone = |slot: NodeSlot| self.node(slot).zone;
        stay()
            .enumerate()
            .map(|(i, a)| stay().skip(i + 1).filter(|b| zone(*b) == zone(a)).count())
            .sum()
    }

    /// Whether any replica may still be moved by a repair.
    pub(crate) fn may_move(&self) -> bool {
        self.moves < self.policy.limits.moves_total
    }

    /// Whether any replica may still be moved for balance.
    pub(crate) fn may_move_for_balance(&self) -> bool {
        self.moves < self.policy.limits.balance_moves_total
    }

    /// Whether anything is being moved or handed over.
    pub(crate) fn is_moving(&self) -> bool {
        self.moves > 0 || self.transfers > 0
    }

    /// Whether the node that would send the group's data has a place free,
    /// `extra` beyond the limit included.
    pub(crate) fn may_send(&self, group: GroupSlot, from: Option<NodeSlot>, extra: u32) -> bool {
        let limit = self.policy.limits.moves_per_source.saturating_add(extra);
        self.sender(group, from).is_none_or(|node| self.node(node).sends < limit)
    }

    /// Whether the node may receive one more, `extra` beyond the limit
    /// included.
    pub(crate) fn may_receive(&self, node: NodeSlot, extra: u32) -> bool {
        self.node(node).receives < self.policy.limits.moves_per_destination.saturating_add(extra)
    }

    pub(crate) fn may_transfer(&self) -> bool {
        self.transfers < self.policy.limits.leader_transfers_total
    }

    pub(crate) fn may_transfer_at(&self, node: NodeSlot) -> bool {
        self.node(node).transfers < self.policy.limits.leader_transfers_per_node
    }

    pub(crate) fn splits(&self) -> u32 {
        self.splits
    }

    /// A replica's own node sends when it lives, else the leader does.
    fn sender(&self, group: GroupSlot, from: Option<NodeSlot>) -> Option<NodeSlot> {
        let own = from.filter(|from| self.node(*from).standing.is_live());
        own.or(self.group(group).leader)
    }

    /// Whether the active voter with the least to lead could take over from
    /// `from`, and which it is.
    pub(crate) fn successor(&self, group: GroupSlot, from: NodeSlot) -> Option<NodeSlot> {
        let voters = self.group(group).voters.iter().copied();
        voters
            .filter(|to| *to != from && self.node(*to).standing == Standing::Active)
            .min_by_key(|to| (!self.may_transfer_at(*to), self.node(*to).leader_utilization(), *to))
    }
}

/// What the tiers decide.
impl Ledger<'_> {
    pub(crate) fn move_replica(
        &mut self,
        group: GroupSlot,
        from: NodeSlot,
        to: NodeSlot,
        reason: Reason,
    ) {
        let operator = Operator::MoveReplica {
            group: self.group(group).id,
            from: self.node(from).id,
            to: self.node(to).id,
        };
        self.propose(operator, reason);
    }

    pub(crate) fn transfer_leader(
        &mut self,
        group: GroupSlot,
        from: NodeSlot,
        to: NodeSlot,
        reason: Reason,
    ) {
        let operator = Operator::TransferLeader {
            group: self.group(group).id,
            from: self.node(from).id,
            to: self.node(to).id,
        };
        self.propose(operator, reason);
    }

    /// Adds an operator to the plan and counts it.
    pub(crate) fn propose(&mut self, operator: Operator, reason: Reason) {
        let proposal = self.proposal(operator, reason);
        self.count(&proposal.operator);
        self.plan.operators.push(proposal);
    }

    /// Adds a merge to the plan's advice. It holds nothing up.
    pub(crate) fn advise(&mut self, operator: Operator, reason: Reason) {
        let proposal = self.proposal(operator, reason);
        self.plan.merges.push(proposal);
    }

    pub(crate) fn cancel(&mut self, operator: &InFlight) {
        self.plan.cancels.push(operator.id);
    }

    /// Notes what could not be done, up to the limit.
    pub(crate) fn block(&mut self, group: GroupSlot, obstacle: Obstacle) {
        let blocked = Blocked { group: self.group(group).id, obstacle };
        let limit = usize::try_from(self.policy.limits.blocked_total).unwrap_or(usize::MAX);
        if self.plan.blocked.len() < limit && !self.plan.blocked.contains(&blocked) {
            self.plan.blocked.push(blocked);
        }
    }

    pub(crate) fn balancing_mut(&mut self) -> &mut Balancing {
        &mut self.plan.balancing
    }

    /// Closes the ledger.
    pub(crate) fn into_plan(mut self) -> Plan {
        self.plan.drained = self
            .nodes_with(Standing::Draining)
            .map(|slot| self.node(slot))
            .filter(|node| node.occupants == 0)
            .map(|node| node.id)
            .collect();
        self.plan
    }

    fn proposal(&self, operator: Operator, reason: Reason) -> Proposal {
        let preconditions = operator
            .groups()
            .filter_map(|group| self.group_slot(group))
            .map(|slot| self.group(slot))
            .map(|group| Precondition {
                group: group.id,
                epoch: group.shard.map(|shard: &ShardView| -> ShardEpoch { shard.epoch }),
                voters: group.members.sorted_voters(),
                leader: group.members.leader,
            })
            .collect();
        Proposal { operator, preconditions, reason }
    }

    /// Counts an operator: limits at both ends now, loads where they will be.
    fn count(&mut self, operator: &Operator) {
        for group in operator.groups() {
            if let Some(slot) = self.group_slot(group) {
                self.group_mut(slot).busy = true;
            }
        }
        let Some(group) = self.group_slot(operator.group()) else { return };
        let slot = |node: &NodeId| self.node_slots.get(node).copied();
        match operator {
            Operator::MoveReplica { from, to, .. } => {
                let (from, to) = (slot(from), slot(to));
                self.count_move(group, from, to);
            }
            Operator::AddReplica { to, .. } => {
                let to = slot(to);
                self.count_move(group, None, to);
            }
            Operator::RemoveReplica { from, .. } => {
                let from = slot(from);
                self.moves += 1;
                from.into_iter().for_each(|from| self.unhost(group, from));
            }
            Operator::TransferLeader { from, to, .. } => {
                let ends = [slot(from), slot(to)];
                self.transfers += 1;
                for end in ends.into_iter().flatten() {
                    self.node_mut(end).transfers += 1;
                }
                let [_, to] = ends;
                self.lead(group, to);
            }
            Operator::Split { .. } => self.splits += 1,
            Operator::Merge { .. } => {}
        }
    }

    fn count_move(&mut self, group: GroupSlot, from: Option<NodeSlot>, to: Option<NodeSlot>) {
        self.moves += 1;
        if let Some(sender) = self.sender(group, from) {
            self.node_mut(sender).sends += 1;
        }
        let led = from.is_some() && self.group(group).leader == from;
        if let Some(to) = to {
            self.node_mut(to).receives += 1;
            self.occupy(group, to);
            self.host(group, to);
        }
        if led {
            self.lead(group, to);
        }
        if let Some(from) = from {
            self.unhost(group, from);
        }
    }

    /// Reserves room on `node` unless the group already takes some there.
    fn occupy(&mut self, group: GroupSlot, node: NodeSlot) {
        if self.occupies(group, node) {
            return;
        }
        let bytes = self.group(group).bytes;
        self.group_mut(group).occupied.push(node);
        let entry = self.node_mut(node);
        entry.occupants += 1;
        entry.disk_during_bytes = entry.disk_during_bytes.saturating_add(bytes);
        entry.disk_after_bytes = entry.disk_after_bytes.saturating_add(bytes);
    }

    fn host(&mut self, slot: GroupSlot, node: NodeSlot) {
        let group = self.group_mut(slot);
        if group.voters.contains(&node) {
            return;
        }
        group.voters.push(node);
        let (cost, is_shard) = (group.cost_millis, group.shard.is_some());
        let entry = self.node_mut(node);
        entry.load_millis = entry.load_millis.saturating_add(cost);
        entry.hosts.insert((cost, slot));
        entry.system_hosts += usize::from(!is_shard);
    }

    fn unhost(&mut self, slot: GroupSlot, node: NodeSlot) {
        let group = self.group_mut(slot);
        let Some(position) = group.voters.iter().position(|voter| *voter == node) else { return };
        group.voters.remove(position);
        let (cost, bytes, is_shard) = (group.cost_millis, group.bytes, group.shard.is_some());
        if group.leader == Some(node) {
            self.lead(slot, None);
        }
        let entry = self.node_mut(node);
        entry.load_millis = entry.load_millis.saturating_sub(cost);
        entry.disk_after_bytes = entry.disk_after_bytes.saturating_sub(bytes);
        entry.hosts.remove(&(cost, slot));
        entry.system_hosts -= usize::from(!is_shard);
    }

    fn lead(&mut self, slot: GroupSlot, leader: Option<NodeSlot>) {
        let group = self.group_mut(slot);
        let (cost, is_shard) = (group.leader_cost_millis, group.shard.is_some());
        let former = std::mem::replace(&mut group.leader, leader);
        if !is_shard {
            return;
        }
        if let Some(former) = former {
            let entry = self.node_mut(former);
            entry.leader_load_millis = entry.leader_load_millis.saturating_sub(cost);
            entry.leads.remove(&(cost, slot));
        }
        if let Some(leader) = leader {
            let entry = self.node_mut(leader);
            entry.leader_load_millis = entry.leader_load_millis.saturating_add(cost);
            entry.leads.insert((cost, slot));
        }
    }
}

impl NodeView {
    fn unknown(id: NodeId) -> Self {
        Self {
            id,
            zone: String::new(),
            state: NodeState::Suspect { duration: std::time::Duration::ZERO },
            weight: 1,
            disk_used_bytes: 0,
            disk_total_bytes: 0,
        }
    }
}

fn standing(state: NodeState, policy: &Policy) -> Standing {
    match state {
        NodeState::Active => Standing::Active,
        NodeState::Draining => Standing::Draining,
        NodeState::Dead { duration } if duration >= policy.dead_grace => Standing::Gone,
        NodeState::Dead { .. } | NodeState::Suspect { .. } => Standing::Silent,
    }
}

fn all_members(view: &ClusterView) -> impl Iterator<Item = &Members> {
    let system = view.metadata.iter().chain(&view.sequencer).map(|group| &group.members);
    system.chain(view.shards.iter().map(|shard| &shard.members))
}
