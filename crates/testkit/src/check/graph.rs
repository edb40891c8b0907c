//! A directed graph of operations, and its strongly connected components.

use std::collections::BTreeMap;

/// Why one operation comes before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EdgeKind {
    /// The later one wrote to a key after the earlier one.
    WriteWrite,
    /// The later one saw a write of the earlier one as the last.
    WriteRead,
    /// The earlier one did not see a write of the later one.
    ReadWrite,
    /// Goes on from a virtual node.
    Then,
    /// The same process did one after the other.
    Process,
    /// One was over before the other began.
    RealTime,
}

/// A set of kinds of edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kinds(u8);

impl Kinds {
    pub(super) const fn of(kinds: &[EdgeKind]) -> Self {
        let mut bits = 0;
        let mut rest = kinds;
        while let [first, tail @ ..] = rest {
            bits |= 1 << *first as u8;
            rest = tail;
        }
        Self(bits)
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn contains(self, kind: EdgeKind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }
}

/// An edge, and the write that is its reason where it is one of data.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edge {
    pub(super) to: usize,
    pub(super) kind: EdgeKind,
    pub(super) key: usize,
    pub(super) value: i64,
}

impl Edge {
    pub(super) fn data(to: usize, kind: EdgeKind, key: usize, value: i64) -> Self {
        Self { to, kind, key, value }
    }

    pub(super) fn order(to: usize, kind: EdgeKind) -> Self {
        Self { to, kind, key: 0, value: 0 }
    }
}

/// Nodes are numbered from zero: first the operations, then virtual ones.
#[derive(Debug, Default)]
pub(super) struct Graph {
    edges: Vec<Vec<Edge>>,
}

impl Graph {
    pub(super) fn new(nodes: usize) -> Self {
        Self { edges: vec![Vec::new(); nodes] }
    }

    pub(super) fn len(&self) -> usize {
        self.edges.len()
    }

    pub(super) fn add_virtual(&mut self) -> usize {
        self.edges.push(Vec::new());
        self.edges.len() - 1
    }

    /// Adds an edge. Nothing comes before itself.
    pub(super) fn link(&mut self, from: usize, edge: Edge) {
        if from != edge.to
            && let Some(edges) = self.edges.get_mut(from)
        {
            edges.push(edge);
        }
    }

    pub(super) fn edges(&self, from: usize) -> &[Edge] {
        self.edges.get(from).map_or(&[], Vec::as_slice)
    }

    /// The graph between `nodes` only, renumbered by their place in it.
    pub(super) fn between(&self, nodes: &[usize]) -> Self {
        let places: BTreeMap<usize, usize> =
            nodes.iter().enumerate().map(|(place, node)| (*node, place)).collect();
        let edges = nodes.iter().map(|node| {
            let inside = self
                .edges(*node)
                .iter()
                .filter_map(|edge| places.get(&edge.to).map(|place| Edge { to: *place, ..*edge }));
            inside.collect()
        });
        Self { edges: edges.collect() }
    }

    /// The strongly connected components of more than one node, by edges of
    /// these kinds (Tarjan 1972, with a stack of its own).
    pub(super) fn components(&self, kinds: Kinds) -> Vec<Vec<usize>> {
        let mut search = Tarjan {
            marks: vec![Mark::default(); self.len()],
            stack: Vec::new(),
            next: 1,
            components: Vec::new(),
        };
        for root in 0..self.len() {
            search.visit(self, kinds, root);
        }
        search.components
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    /// When it was found, from 1; zero before.
    found: usize,
    /// The earliest node on the stack that it leads back to.
    low: usize,
    is_on_stack: bool,
}

struct Tarjan {
    marks: Vec<Mark>,
    stack: Vec<usize>,
    next: usize,
    components: Vec<Vec<usize>>,
}

// Every index is a node of the graph for which `marks` was made.
#[expect(clippy::indexing_slicing, reason = "nodes are numbered densely, see above")]
impl Tarjan {
    fn find(&mut self, node: usize) {
        self.marks[node] = Mark { found: self.next, low: self.next, is_on_stack: true };
        self.next += 1;
        self.stack.push(node);
    }

    fn visit(&mut self, graph: &Graph, kinds: Kinds, root: usize) {
        if self.marks[root].found != 0 {
            return;
        }
        self.find(root);
        // Nodes under way, each with the place of its next edge.
        let mut path = vec![(root, 0)];
        while let Some((node, place)) = path.last_mut() {
            let node = *node;
            let Some(edge) = graph.edges(node).get(*place) else {
                path.pop();
                if let Some((parent, _)) = path.last() {
                    self.marks[*parent].low = self.marks[*parent].low.min(self.marks[node].low);
                }
                self.close(node);
                continue;
            };
            *place += 1;
            if !kinds.contains(edge.kind) {
                continue;
            }
            let to = self.marks[edge.to];
            if to.found == 0 {
                self.find(edge.to);
                path.push((edge.to, 0));
            } else if to.is_on_stack {
                self.marks[node].low = self.marks[node].low.min(to.found);
            }
        }
    }

    /// Takes a component off the stack if `node` is the first of one.
    fn close(&mut self, node: usize) {
        if self.marks[node].low != self.marks[node].found {
            return;
        }
        let mut component = Vec::new();
        while let Some(member) = self.stack.pop() {
            self.marks[member].is_on_stack = false;
            component.push(member);
            if member == node {
                break;
            }
        }
        if component.len() > 1 {
            component.sort_unstable();
            self.components.push(component);
        }
    }
}
