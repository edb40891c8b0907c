//! Strict serializability of list-append histories, by the method of Elle
//! (Kingsbury and Alvaro, VLDB 2020).
//!
//! Elements of a list are unique, so a read of a list tells who wrote what it
//! saw, in which order, and what it did not see yet. That gives the order of
//! transactions over data: who wrote after whom (ww), who read from whom (wr),
//! who read before whom wrote (rw). Together with the order of each process
//! and of real time it must be free of cycles. The check is sound: what it
//! reports cannot be explained by any serial order. It finds everything if
//! each list is read after its last append.

mod versions;

use super::graph::Graph;
use super::internal::{self, Elements};
use super::verdict::Findings;
use super::{Verdict, cycles, order};
use crate::history::Operation;
use versions::Lists;

/// What a history is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// Some serial order explains everything.
    Serializable,
    /// And it agrees with real time.
    #[default]
    StrictSerializable,
}

/// Checks the lists of a history, and each transaction against itself; else
/// steps on other keys are passed over.
///
/// An operation of unknown outcome counts as having happened if anyone saw any
/// of its appends, and then all of it happened. Undecided if two operations
/// that may both have happened append the same element to the same list.
#[must_use]
pub fn check(operations: &[Operation], consistency: Consistency) -> Verdict {
    let mut findings = Findings::default();
    let mut lists = match Lists::collect(operations) {
        Ok(lists) => lists,
        Err(reason) => return Verdict::Undecided(reason),
    };
    internal::find(operations, Elements::Unique, &mut findings);
    lists.infer_order(&mut findings);
    lists.check_intermediate(&mut findings);
    let happened = lists.happened();
    let is_strict = consistency == Consistency::StrictSerializable;
    if is_strict {
        lists.check_lost(&mut findings);
    }
    let mut graph = Graph::new(operations.len());
    lists.link(&happened, &mut graph);
    if is_strict {
        order::link_processes(operations, &happened, &mut graph);
        order::link_real_time(operations, &happened, &mut graph);
    }
    cycles::check(&graph, &lists.story(), &mut findings);
    findings.verdict()
}
