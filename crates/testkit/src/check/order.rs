//! The orders that do not come from data.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::{Edge, EdgeKind, Graph};
use crate::history::{Operation, Outcome, ProcessId};

/// Each operation comes after the one that its process completed before. One
/// of unknown outcome may take effect later than what its process did next.
pub(super) fn link_processes(
    operations: &[Operation],
    happened: &BTreeSet<usize>,
    graph: &mut Graph,
) {
    let mut latest: BTreeMap<ProcessId, usize> = BTreeMap::new();
    for operation in operations.iter().filter(|operation| happened.contains(&operation.id)) {
        if let Some(before) = latest.get(&operation.process) {
            graph.link(*before, Edge::order(operation.id, EdgeKind::Process));
        }
        if operation.outcome == Outcome::Ok {
            latest.insert(operation.process, operation.id);
        }
    }
}

/// Each operation comes after all that were over when it began. Edges from
/// the latest of those suffice: an operation leaves the frontier when another
/// that began after it is over, so that the frontier is never longer than
/// there are processes.
pub(super) fn link_real_time(
    operations: &[Operation],
    happened: &BTreeSet<usize>,
    graph: &mut Graph,
) {
    let mut moments = Vec::new();
    for operation in operations.iter().filter(|operation| happened.contains(&operation.id)) {
        moments.push((operation.invoked.position, operation, false));
        let end = operation.completed.filter(|_| operation.outcome == Outcome::Ok);
        moments.extend(end.map(|end| (end.position, operation, true)));
    }
    moments.sort_unstable_by_key(|(position, _, _)| *position);
    let mut frontier: Vec<&Operation> = Vec::new();
    for (_, operation, is_end) in moments {
        if is_end {
            frontier.retain(|earlier| !earlier.precedes(operation));
            frontier.push(operation);
        } else {
            for earlier in &frontier {
                graph.link(earlier.id, Edge::order(operation.id, EdgeKind::RealTime));
            }
        }
    }
}
