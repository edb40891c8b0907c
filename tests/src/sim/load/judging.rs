//! What judges of several kinds of work share.

use std::collections::BTreeSet;

use quorate_testkit::check::Verdict;
use quorate_testkit::history::{Key, Operation};

use crate::sim::cluster::Cluster;

/// Rules, and what is to be said of each.
pub(super) type Judgement = Vec<(&'static str, Verdict)>;

/// All keys of a history.
pub(super) fn keys(operations: &[Operation]) -> BTreeSet<Key> {
    let steps = operations.iter().flat_map(|operation| &operation.txn);
    steps.flat_map(|step| step.keys().cloned()).collect()
}

/// A history as one sees it who looks at some keys only. What is strictly
/// serializable is so in every part of it.
pub(super) fn part(operations: &[Operation], is_seen: impl Fn(&Key) -> bool) -> Vec<Operation> {
    let mut seen = Vec::new();
    for operation in operations {
        let mut operation = operation.clone();
        operation.txn.retain(|step| step.keys().all(&is_seen));
        if !operation.txn.is_empty() {
            operation.id = seen.len();
            seen.push(operation);
        }
    }
    seen
}

/// Makes a finding of a bad verdict. Where a checker cannot tell in its time,
/// nothing is known of that history, and the run does not count.
pub(super) fn tell(cluster: &Cluster, rule: &str, verdict: &Verdict) {
    match verdict {
        Verdict::Valid => {}
        Verdict::Invalid(_) => cluster.find(rule, verdict.to_string()),
        Verdict::Undecided(_) => cluster.leave_open(rule, verdict),
    }
}
