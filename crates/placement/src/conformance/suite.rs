//! The cases and what is checked in each.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use quorate_types::NodeId;
use quorate_types::env::{Rng, SplitMix};

use super::ModelCluster;
use crate::history::OperatorId;
use crate::operator::{Group, Operator, Plan};
use crate::policy::PlacementPolicy;
use crate::safety::{self, Hazard};
use crate::view::{Members, NodeState};

/// After this many rounds without a disturbance the cluster must be at rest.
/// The largest random cluster needs far fewer.
pub const ROUNDS_MAX: u32 = 2_000;

/// Rounds in which things happen to the cluster.
const DISTURBED_ROUNDS: u32 = 24;

/// A rule that a policy broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The same arguments gave different plans.
    #[error("the same view gave two plans")]
    NotDeterministic,
    /// The order of the view's lists changed the plan.
    #[error("the order of the view's lists changed the plan")]
    OrderMatters,
    /// An operator that is not safe.
    #[error("unsafe operator {0}: {1:?}")]
    Unsafe(Operator, Hazard),
    /// The preconditions did not describe the view that was planned from.
    #[error("the preconditions of {0} do not hold in the view it was planned from")]
    StalePrecondition(Operator),
    /// Two operators of one plan change the same group.
    #[error("the plan changes {0} twice")]
    GroupTwice(Group),
    /// An operator of a group that is to be left alone.
    #[error("the plan changes {0}, which is resting")]
    GroupResting(Group),
    /// A step cost a group its quorum.
    #[error("{0} lost its quorum through a step of a plan")]
    QuorumLost(Group),
    /// A step left a group with fewer living voters than it had and should have.
    #[error("{0} lost a living voter through a step of a plan")]
    VoterLost(Group),
    /// A step put two replicas of a group on one node.
    #[error("{0} has two replicas on {1}")]
    TwoReplicasOnOneNode(Group, NodeId),
    /// A merge among the operators.
    #[error("a merge was proposed")]
    MergeProposed,
    /// The cluster did not come to rest.
    #[error("not at rest after {ROUNDS_MAX} rounds")]
    Restless,
}

/// A violation and the seed that shows it again with [`check_seed`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}: {violation}")]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What was violated.
    #[source]
    pub violation: Violation,
}

/// Runs the case of every seed.
///
/// # Errors
/// The first failure.
pub fn check(policy: &dyn PlacementPolicy, seeds: Range<u64>) -> Result<(), Failure> {
    for seed in seeds {
        check_seed(policy, seed).map_err(|violation| Failure { seed, violation })?;
    }
    Ok(())
}

/// Runs the case of one seed.
///
/// # Errors
/// The first rule that the policy breaks in it.
pub fn check_seed(policy: &dyn PlacementPolicy, seed: u64) -> Result<(), Violation> {
    let mut case = Case::new(seed);
    for _ in 0..DISTURBED_ROUNDS {
        case.disturb();
        case.round(policy, Pace::Random)?;
    }
    case.settle(policy)
}

/// How operators advance in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Some proposals are refused, and some operators take some steps.
    Random,
    /// Everything is accepted and finished.
    Full,
}

struct Case {
    cluster: ModelCluster,
    rng: SplitMix,
    next_node: u64,
}

impl Case {
    fn new(seed: u64) -> Self {
        let mut rng = SplitMix::new(seed);
        let replicas = [1, 3, 3, 5].get(below(&mut rng, 4)).copied().unwrap_or(3);
        let mut case = Self { cluster: ModelCluster::new(replicas), rng, next_node: 0 };
        for _ in 0..=case.below(8) {
            case.join();
        }
        let voters = case.some_nodes(3);
        case.cluster.set_metadata(3, &voters);
        let voters = case.some_nodes(3);
        case.cluster.set_sequencer(3, &voters);
        for _ in 0..=case.below(24) {
            case.add_shard(replicas);
        }
        case
    }

    fn below(&mut self, bound: usize) -> usize {
        below(&mut self.rng, bound)
    }

    fn amount(&mut self, bound: u64) -> u64 {
        self.rng.below(bound)
    }

    fn join(&mut self) {
        self.next_node += 1;
        let zone = format!("zone {}", self.amount(4));
        let weight = u32::try_from(1 + self.amount(3)).unwrap_or(1);
        let disk_total_bytes = self.amount(3) * (16 << 30);
        let node = self.cluster.add_node(self.next_node, &zone);
        node.weight = weight;
        node.disk_total_bytes = disk_total_bytes;
    }

    /// At most `count` different nodes.
    fn some_nodes(&mut self, count: usize) -> Vec<u64> {
        let mut ids: Vec<u64> = self.cluster.view.nodes.iter().map(|node| node.id.0).collect();
        shuffle(&mut self.rng, &mut ids);
        ids.truncate(count);
        ids
    }

    fn add_shard(&mut self, replicas: u32) {
        let count = 1 + self.below(usize::try_from(replicas).unwrap_or(1));
        let voters = self.some_nodes(count);
        let (bytes, load_ops) = (self.amount(1 << 30), self.amount(15_000));
        let shard = self.cluster.add_shard(&voters);
        shard.bytes = bytes;
        shard.load_ops = load_ops;
        for id in voters {
            if let Some(node) = self.cluster.view.nodes.iter_mut().find(|node| node.id.0 == id) {
                node.disk_used_bytes += bytes;
            }
        }
    }

    /// Something happens to the cluster that costs no group its quorum.
    fn disturb(&mut self) {
        if self.below(3) == 0 {
            return;
        }
        if self.next_node < 12 && self.below(6) == 0 {
            return self.join();
        }
        let before = self.cluster.quorate();
        let choice = self.below(self.cluster.view.nodes.len());
        let duration = Duration::ZERO;
        let state = match self.below(4) {
            0 => NodeState::Active,
            1 => NodeState::Draining,
            2 => NodeState::Suspect { duration },
            _ => NodeState::Dead { duration },
        };
        let Some(node) = self.cluster.view.nodes.get(choice).map(|node| node.id) else { return };
        let Some(former) = self.cluster.state_mut(node).map(|now| std::mem::replace(now, state))
        else {
            return;
        };
        if !self.cluster.quorate().is_superset(&before)
            && let Some(now) = self.cluster.state_mut(node)
        {
            *now = former;
        }
        self.cluster.elect();
    }

    fn round(&mut self, policy: &dyn PlacementPolicy, pace: Pace) -> Result<Plan, Violation> {
        let pause = Duration::from_secs(10 + self.amount(200));
        self.cluster.advance(pause);
        self.check_determinism(policy)?;
        let plan = self.cluster.plan(policy);
        self.check_plan(&plan)?;
        for id in &plan.cancels {
            self.cluster.cancel(*id);
        }
        for proposal in &plan.operators {
            if pace == Pace::Random && self.below(4) == 0 {
                let until = self.cluster.history.now().saturating_add(Duration::from_secs(60));
                self.cluster.history.rest(proposal.operator.group(), until);
            } else {
                self.cluster.accept(proposal)?;
            }
        }
        self.steps(pace)?;
        Ok(plan)
    }

    fn steps(&mut self, pace: Pace) -> Result<(), Violation> {
        if pace == Pace::Full {
            for operator in self.cluster.in_flight() {
                self.step(operator.id)?;
                self.step(operator.id)?;
            }
            return Ok(());
        }
        for _ in 0..self.below(self.cluster.running.len() * 2 + 1) {
            let choice = self.below(self.cluster.running.len());
            let id = self.cluster.running.get(choice).map(|running| running.operator.id);
            self.step(id.unwrap_or_default())?;
        }
        Ok(())
    }

    fn step(&mut self, id: OperatorId) -> Result<(), Violation> {
        let groups = self.cluster.groups();
        let before: Vec<usize> =
            groups.iter().map(|group| self.cluster.live_voters(*group)).collect();
        self.cluster.step(id)?;
        for (group, before) in groups.into_iter().zip(before) {
            let least = before.min(self.cluster.wanted_voters(group));
            if self.cluster.live_voters(group) < least {
                return Err(Violation::VoterLost(group));
            }
        }
        for group in self.cluster.groups() {
            if let Some(members) = safety::members(&self.cluster.view, group) {
                check_members(group, members)?;
            }
        }
        Ok(())
    }

    fn check_determinism(&mut self, policy: &dyn PlacementPolicy) -> Result<(), Violation> {
        let (view, history) = (&self.cluster.view, &self.cluster.history);
        let in_flight = self.cluster.in_flight();
        let plan = policy.plan(view, &in_flight, history);
        if plan != policy.plan(view, &in_flight, history) {
            return Err(Violation::NotDeterministic);
        }
        let mut shuffled = view.clone();
        shuffle(&mut self.rng, &mut shuffled.nodes);
        shuffle(&mut self.rng, &mut shuffled.shards);
        for shard in &mut shuffled.shards {
            shuffle(&mut self.rng, &mut shard.members.voters);
        }
        if plan == policy.plan(&shuffled, &in_flight, history) {
            Ok(())
        } else {
            Err(Violation::OrderMatters)
        }
    }

    fn check_plan(&self, plan: &Plan) -> Result<(), Violation> {
        let mut touched = BTreeSet::new();
        for proposal in &plan.operators {
            let operator = &proposal.operator;
            if !operator.is_executed() {
                return Err(Violation::MergeProposed);
            }
            safety::check(&self.cluster.view, &self.cluster.in_flight(), operator)
                .map_err(|hazard| Violation::Unsafe(operator.clone(), hazard))?;
            for group in operator.groups() {
                if !touched.insert(group) {
                    return Err(Violation::GroupTwice(group));
                }
                if self.cluster.history.is_resting(group) {
                    return Err(Violation::GroupResting(group));
                }
            }
        }
        Ok(())
    }

    /// Leaves the cluster alone until nothing is planned, even after every
    /// window has passed.
    fn settle(&mut self, policy: &dyn PlacementPolicy) -> Result<(), Violation> {
        let mut idle_rounds = 0;
        for _ in 0..ROUNDS_MAX {
            let plan = self.round(policy, Pace::Full)?;
            idle_rounds = if plan.is_idle() { idle_rounds + 1 } else { 0 };
            if idle_rounds == 3 {
                return Ok(());
            }
            if plan.is_idle() {
                self.cluster.advance(Duration::from_secs(7_200));
            }
        }
        Err(Violation::Restless)
    }
}

fn check_members(group: Group, members: &Members) -> Result<(), Violation> {
    let mut seen = BTreeSet::new();
    for node in members.voters.iter().chain(&members.learners) {
        if !seen.insert(*node) {
            return Err(Violation::TwoReplicasOnOneNode(group, *node));
        }
    }
    Ok(())
}

fn below(rng: &mut SplitMix, bound: usize) -> usize {
    let bound = u64::try_from(bound).unwrap_or(u64::MAX);
    usize::try_from(rng.below(bound)).unwrap_or(0)
}

fn shuffle<T>(rng: &mut SplitMix, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        let other = below(rng, last + 1);
        items.swap(last, other);
    }
}
