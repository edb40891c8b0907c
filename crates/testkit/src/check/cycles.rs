//! Finds a cycle in each component, the worst there is, and explains it.

use std::collections::{BTreeMap, VecDeque};

use super::graph::{Edge, EdgeKind, Graph, Kinds};
use super::verdict::Findings;
use super::{AnomalyKind, CycleClass, Through};
use crate::history::{Key, Operation};

/// How many edges a search for cycles with exactly one rw edge may look at in
/// a component. Beyond it a cycle is still found, perhaps one of a milder name.
const EDGES_LOOKED_AT_MAX: usize = 20_000_000;

/// So many cycles of a component are compared for the shortest.
const CYCLES_COMPARED_MAX: usize = 64;

const WRITES: Kinds = Kinds::of(&[EdgeKind::WriteWrite, EdgeKind::Then]);
const READS: Kinds = Kinds::of(&[EdgeKind::WriteRead]);
const ANTI: Kinds = Kinds::of(&[EdgeKind::ReadWrite]);
const PROCESS: Kinds = Kinds::of(&[EdgeKind::Process]);
const REAL_TIME: Kinds = Kinds::of(&[EdgeKind::RealTime]);
const ALL: Kinds = WRITES.and(READS).and(ANTI).and(PROCESS).and(REAL_TIME);

/// Where an edge begins, and the edge.
type Step = (usize, Edge);

/// In which words a cycle is told.
pub(super) struct Story<'a> {
    pub(super) operations: &'a [Operation],
    /// The keys that edges of data name by their number.
    pub(super) keys: Vec<&'a Key>,
    /// What a write is called.
    pub(super) wrote: &'static str,
    /// Set if edges of data were inferred from other orders too.
    pub(super) through_at_least: Through,
}

impl Story<'_> {
    fn key(&self, number: usize) -> &str {
        self.keys.get(number).map_or("?", |key| key.as_str())
    }
}

pub(super) fn check(graph: &Graph, story: &Story<'_>, findings: &mut Findings) {
    for component in graph.components(ALL) {
        if findings.is_full() {
            return;
        }
        let Some(cycle) = worst_cycle(&graph.between(&component)) else { continue };
        let name = |place: usize| component.get(place).copied().unwrap_or(place);
        let cycle = cycle
            .into_iter()
            .map(|(from, edge)| (name(from), Edge { to: name(edge.to), ..edge }))
            .collect();
        explain(story, cycle, findings);
    }
}

/// The first cycle from the worst class to the mildest, first without any
/// order but the data's, then with process order, then with real time.
fn worst_cycle(graph: &Graph) -> Option<Vec<Step>> {
    let mut budget = EDGES_LOOKED_AT_MAX;
    for order in [Kinds::of(&[]), PROCESS, PROCESS.and(REAL_TIME)] {
        let (writes, flow) = (WRITES.and(order), WRITES.and(READS).and(order));
        let all = flow.and(ANTI);
        let classes = [(WRITES, writes), (READS, flow), (ANTI, flow), (ANTI, all)];
        for (pivot, rest) in classes {
            let cycle = shortest_cycle(graph, pivot, rest, &mut budget);
            if cycle.is_some() {
                return cycle;
            }
        }
    }
    None
}

/// A short cycle of one edge of the kinds `pivot` and else edges of `rest`.
fn shortest_cycle(
    graph: &Graph,
    pivot: Kinds,
    rest: Kinds,
    budget: &mut usize,
) -> Option<Vec<Step>> {
    let mut places = BTreeMap::new();
    for (number, component) in graph.components(pivot.and(rest)).into_iter().enumerate() {
        places.extend(component.into_iter().map(|node| (node, number)));
    }
    let mut shortest: Option<Vec<Step>> = None;
    let mut compared = 0;
    for from in places.keys() {
        for edge in graph.edges(*from).iter().filter(|edge| pivot.contains(edge.kind)) {
            if places.get(&edge.to) != places.get(from) {
                continue;
            }
            // When the pivot is one of the rest, the way back surely exists.
            let is_sure = rest.contains(edge.kind);
            if (*budget == 0 && !is_sure) || compared == CYCLES_COMPARED_MAX {
                return shortest;
            }
            let Some(back) = way(graph, edge.to, *from, rest, budget) else { continue };
            compared += 1;
            if shortest.as_ref().is_none_or(|shortest| back.len() + 1 < shortest.len()) {
                let cycle = std::iter::once((*from, *edge)).chain(back).collect();
                shortest = Some(cycle);
            }
            if *budget == 0 {
                return shortest;
            }
        }
    }
    shortest
}

/// The shortest way from one node to another, breadth first.
fn way(
    graph: &Graph,
    from: usize,
    to: usize,
    kinds: Kinds,
    budget: &mut usize,
) -> Option<Vec<Step>> {
    let mut came: BTreeMap<usize, Step> = BTreeMap::new();
    let mut queue = VecDeque::from([from]);
    while let Some(node) = queue.pop_front() {
        for edge in graph.edges(node).iter().filter(|edge| kinds.contains(edge.kind)) {
            *budget = budget.saturating_sub(1);
            if edge.to == from || came.contains_key(&edge.to) {
                continue;
            }
            came.insert(edge.to, (node, *edge));
            if edge.to == to {
                let mut way = Vec::new();
                let mut at = to;
                while at != from {
                    let step = *came.get(&at)?;
                    way.push(step);
                    at = step.0;
                }
                way.reverse();
                return Some(way);
            }
            queue.push_back(edge.to);
        }
    }
    None
}

/// Names the cycle by its edges and tells it as a story.
fn explain(story: &Story<'_>, cycle: Vec<Step>, findings: &mut Findings) {
    let steps = without_virtual(cycle, story.operations.len());
    let count = |kind: EdgeKind| steps.iter().filter(|(_, edge)| edge.kind == kind).count();
    let class = match (count(EdgeKind::ReadWrite), count(EdgeKind::WriteRead)) {
        (0, 0) => CycleClass::G0,
        (0, _) => CycleClass::G1c,
        (1, _) => CycleClass::GSingle,
        _ => CycleClass::G2,
    };
    let through = match (count(EdgeKind::RealTime), count(EdgeKind::Process)) {
        (0, 0) => Through::Data,
        (0, _) => Through::Process,
        _ => Through::RealTime,
    };
    let told: Vec<_> = steps.iter().map(|(from, edge)| tell(story, *from, edge)).collect();
    let what = format!("no order allows all of this: {}", told.join("; "));
    let shown = steps.iter().filter_map(|(from, _)| story.operations.get(*from));
    findings.add(AnomalyKind::Cycle(class, through.max(story.through_at_least)), what, shown);
}

/// Joins the edges to and from a virtual node, so that only operations remain.
fn without_virtual(mut cycle: Vec<Step>, operations: usize) -> Vec<Step> {
    if let Some(begin) = cycle.iter().position(|(from, _)| *from < operations) {
        cycle.rotate_left(begin);
    }
    let mut steps: Vec<Step> = Vec::new();
    for (from, edge) in cycle {
        match steps.last_mut() {
            Some((_, before)) if from >= operations => {
                *before = Edge { kind: before.kind, ..edge };
            }
            _ => steps.push((from, edge)),
        }
    }
    steps
}

fn tell(story: &Story<'_>, from: usize, edge: &Edge) -> String {
    let wrote = story.wrote;
    let (to, key, value) = (edge.to, story.key(edge.key), edge.value);
    let time = |id: usize, time: fn(&Operation) -> Option<std::time::Duration>| {
        story.operations.get(id).and_then(time).unwrap_or_default()
    };
    match edge.kind {
        EdgeKind::WriteWrite | EdgeKind::Then => {
            format!("#{to} {wrote} {value} to {key} after #{from} {wrote} to it")
        }
        EdgeKind::WriteRead => format!("#{to} saw {value} in {key}, which #{from} {wrote}"),
        EdgeKind::ReadWrite => {
            format!("#{from} read {key} without {value}, which #{to} {wrote}")
        }
        EdgeKind::Process => format!("#{to} came after #{from} in their process"),
        EdgeKind::RealTime => format!(
            "#{to} began (at {:?}) after #{from} was over (at {:?})",
            time(to, |operation| Some(operation.invoked.time)),
            time(from, |operation| operation.completed.map(|end| end.time)),
        ),
    }
}
