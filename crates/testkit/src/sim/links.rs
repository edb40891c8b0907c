//! The ways between nodes, and what may go wrong with them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_types::NodeId;
use quorate_types::env::SplitMix;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::SimNetwork;
use crate::shuffle::shuffle;

/// How one direction between two nodes behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkConfig {
    /// The shortest time a message takes.
    pub latency_min: Duration,
    /// The longest time a message takes.
    pub latency_max: Duration,
    /// Of a thousand messages, so many are lost.
    pub loss_per_mille: u16,
    /// Of a thousand one-way messages, so many arrive twice.
    pub duplicate_per_mille: u16,
    /// Whether messages arrive in the order in which they were sent, as on one
    /// TCP connection.
    pub is_ordered: bool,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            latency_min: Duration::from_millis(1),
            latency_max: Duration::from_millis(5),
            loss_per_mille: 0,
            duplicate_per_mille: 0,
            is_ordered: true,
        }
    }
}

/// One step of a [`swizzle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwizzleStep {
    /// The node is cut off from all others.
    Isolate(NodeId),
    /// The node's isolation ends.
    Rejoin(NodeId),
}

/// The pairs to cut so that each of `nodes` sees a majority of them, itself
/// included, and no two see the same one (the *majority ring* of Jepsen). The
/// order of `nodes` is that of the ring: each sees its neighbours. One or two
/// nodes have no two majorities, and nothing is cut.
#[must_use]
pub fn majority_ring_cuts(nodes: &[NodeId]) -> Vec<(NodeId, NodeId)> {
    let count = nodes.len();
    // A majority is a node and half of the number of nodes as peers. On a ring
    // peers come in pairs; with an even number of nodes the one opposite makes
    // an odd number of peers.
    let peers = count / 2;
    let sees_opposite = !peers.is_multiple_of(2) && count.is_multiple_of(2);
    let neighbours = if sees_opposite { peers / 2 } else { peers.div_ceil(2) };
    let is_cut = |(a, b): (usize, usize)| {
        let distance = (b - a).min(count - (b - a));
        match count {
            // Of three all are neighbours: the ring has to be opened.
            3 => b - a == 2,
            _ => distance > neighbours && !(sees_opposite && distance == peers),
        }
    };
    let numbered = || nodes.iter().copied().enumerate();
    numbered()
        .flat_map(|a| numbered().skip(a.0 + 1).map(move |b| (a, b)))
        .filter(|((a, _), (b, _))| is_cut((*a, *b)))
        .map(|((_, a), (_, b))| (a, b))
        .collect()
}

/// Isolates `nodes` one after another and lets them rejoin in another order:
/// found by others to meet defects that whole partitions do not. The caller
/// chooses the time between the steps.
#[must_use]
pub fn swizzle(nodes: &[NodeId], seed: u64) -> Vec<SwizzleStep> {
    let mut chance = SplitMix::new(seed);
    let mut leaving = nodes.to_vec();
    shuffle(&mut leaving, &mut chance);
    let mut rejoining = leaving.clone();
    shuffle(&mut rejoining, &mut chance);
    if rejoining == leaving && !leaving.is_empty() {
        rejoining.rotate_left(1);
    }
    let leaving = leaving.into_iter().map(SwizzleStep::Isolate);
    leaving.chain(rejoining.into_iter().map(SwizzleStep::Rejoin)).collect()
}

/// The state of all ways.
#[derive(Debug, Default)]
pub(super) struct Links {
    usual: LinkConfig,
    unusual: BTreeMap<(NodeId, NodeId), LinkConfig>,
    slow_ways: BTreeMap<(NodeId, NodeId), Spike>,
    slow_nodes: BTreeMap<NodeId, Spike>,
    cuts: BTreeSet<(NodeId, NodeId)>,
    isolated: BTreeSet<NodeId>,
    /// Who waits for the release of a held direction, in order of arrival.
    held: BTreeMap<(NodeId, NodeId), Vec<oneshot::Sender<()>>>,
}

/// What is sent until then takes so much longer.
#[derive(Debug, Clone, Copy)]
struct Spike {
    extra: Duration,
    until: Instant,
}

impl Spike {
    fn extra_now(spike: Option<&Self>) -> Duration {
        let spike = spike.filter(|spike| Instant::now() < spike.until);
        spike.map_or(Duration::ZERO, |spike| spike.extra)
    }
}

impl Links {
    pub(super) fn new(usual: LinkConfig) -> Self {
        Self { usual, ..Self::default() }
    }

    /// How a direction behaves now.
    pub(super) fn config(&self, from: NodeId, to: NodeId) -> LinkConfig {
        self.unusual.get(&(from, to)).copied().unwrap_or(self.usual)
    }

    /// How much longer than usual a message takes that is sent now.
    pub(super) fn extra(&self, from: NodeId, to: NodeId) -> Duration {
        Spike::extra_now(self.slow_ways.get(&(from, to)))
            + Spike::extra_now(self.slow_nodes.get(&from))
            + Spike::extra_now(self.slow_nodes.get(&to))
    }

    pub(super) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        let is_isolated = self.isolated.contains(&from) || self.isolated.contains(&to);
        from != to && (is_isolated || self.cuts.contains(&(from, to)))
    }

    /// Waits for a release if the direction is held.
    pub(super) fn wait_if_held(
        &mut self,
        from: NodeId,
        to: NodeId,
    ) -> Option<oneshot::Receiver<()>> {
        let waiting = self.held.get_mut(&(from, to))?;
        let (release, released) = oneshot::channel();
        waiting.push(release);
        Some(released)
    }
}

fn let_go(waiting: Vec<oneshot::Sender<()>>) {
    for message in waiting {
        // One that is gone with its runtime needs no release.
        let _ = message.send(());
    }
}

/// Faults between nodes. Each is a line in the trace.
impl SimNetwork {
    /// Changes how every direction behaves that has no behaviour of its own.
    /// Healing does not change it back.
    pub fn set_link(&self, link: LinkConfig) {
        self.trace.record(format_args!("all ways: {link:?}"));
        self.state.lock().links.usual = link;
    }

    /// Changes how one direction behaves, until [`SimNetwork::reset_link_of`]
    /// or [`SimNetwork::heal`].
    pub fn set_link_of(&self, from: NodeId, to: NodeId, link: LinkConfig) {
        self.trace.record(format_args!("{from} -> {to}: {link:?}"));
        self.state.lock().links.unusual.insert((from, to), link);
    }

    /// Lets one direction behave like all others.
    pub fn reset_link_of(&self, from: NodeId, to: NodeId) {
        self.trace.record(format_args!("{from} -> {to} as usual"));
        self.state.lock().links.unusual.remove(&(from, to));
    }

    /// What is sent in one direction until `lasts` from now takes `extra`
    /// longer. On an ordered link what is sent later waits behind it. Replaces
    /// an earlier spike of the direction.
    pub fn spike(&self, from: NodeId, to: NodeId, extra: Duration, lasts: Duration) {
        self.trace.record(format_args!("spike {from} -> {to}, {extra:?} for {lasts:?}"));
        let spike = Spike { extra, until: Instant::now() + lasts };
        self.state.lock().links.slow_ways.insert((from, to), spike);
    }

    /// The same for everything to and from a node, in addition to spikes of
    /// its directions.
    pub fn spike_node(&self, node: NodeId, extra: Duration, lasts: Duration) {
        self.trace.record(format_args!("spike {node}, {extra:?} for {lasts:?}"));
        let spike = Spike { extra, until: Instant::now() + lasts };
        self.state.lock().links.slow_nodes.insert(node, spike);
    }

    /// Loses everything from one node to another, in this direction only.
    pub fn cut_one_way(&self, from: NodeId, to: NodeId) {
        self.trace.record(format_args!("cut {from} -> {to}"));
        self.state.lock().links.cuts.insert((from, to));
    }

    /// Ends the cut of one direction, whoever made it.
    pub fn mend_one_way(&self, from: NodeId, to: NodeId) {
        self.trace.record(format_args!("mend {from} -> {to}"));
        self.state.lock().links.cuts.remove(&(from, to));
    }

    /// Loses everything between the nodes of `left` and those of `right`.
    pub fn partition(&self, left: &[NodeId], right: &[NodeId]) {
        for (a, b) in left.iter().flat_map(|a| right.iter().map(move |b| (*a, *b))) {
            self.cut_one_way(a, b);
            self.cut_one_way(b, a);
        }
    }

    /// Loses everything that the nodes of `from` say to those of `to`, and
    /// nothing of what they hear.
    pub fn partition_one_way(&self, from: &[NodeId], to: &[NodeId]) {
        for (a, b) in from.iter().flat_map(|a| to.iter().map(move |b| (*a, *b))) {
            self.cut_one_way(a, b);
        }
    }

    /// Lets each node see a majority and no two the same
    /// ([`majority_ring_cuts`]).
    pub fn majority_ring(&self, nodes: &[NodeId]) {
        for (a, b) in majority_ring_cuts(nodes) {
            self.partition(&[a], &[b]);
        }
    }

    /// Loses everything to and from a node.
    pub fn isolate(&self, node: NodeId) {
        self.trace.record(format_args!("isolate {node}"));
        self.state.lock().links.isolated.insert(node);
    }

    /// Ends a node's isolation; cuts of its directions stay.
    pub fn rejoin(&self, node: NodeId) {
        self.trace.record(format_args!("rejoin {node}"));
        self.state.lock().links.isolated.remove(&node);
    }

    /// Does one step of a [`swizzle`].
    pub fn swizzle_step(&self, step: SwizzleStep) {
        match step {
            SwizzleStep::Isolate(node) => self.isolate(node),
            SwizzleStep::Rejoin(node) => self.rejoin(node),
        }
    }

    /// Ends every cut, partition, isolation and spike, lets every direction
    /// behave like all others, and releases what is held.
    pub fn heal(&self) {
        self.trace.record("heal");
        let held = {
            let mut state = self.state.lock();
            let healed = Links::new(state.links.usual);
            std::mem::replace(&mut state.links, healed).held
        };
        held.into_values().for_each(let_go);
    }

    /// Keeps what would arrive in this direction until [`SimNetwork::release`]
    /// or [`SimNetwork::heal`].
    pub fn hold(&self, from: NodeId, to: NodeId) {
        self.trace.record(format_args!("hold {from} -> {to}"));
        self.state.lock().links.held.entry((from, to)).or_default();
    }

    /// Lets arrive, in order, what was held in this direction.
    pub fn release(&self, from: NodeId, to: NodeId) {
        self.trace.record(format_args!("release {from} -> {to}"));
        let waiting = self.state.lock().links.held.remove(&(from, to));
        let_go(waiting.unwrap_or_default());
    }
}
