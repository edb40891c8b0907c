//! Strict serializability of transactions over registers.
//!
//! A register forgets what was overwritten, so unlike a list it does not tell
//! in which order it was written. Where every value is written to a key at most
//! once, a read still tells whom it read from, and the rest follows by two
//! rules, applied until nothing new follows (as in Biswas and Enea, OOPSLA
//! 2019). Let a transaction read what W wrote, and let V write the same key:
//! if V comes before the read then V comes before W, and if V comes after W
//! then it comes after the read. What comes before what is known from reads,
//! from each process, from real time, and from what followed already. A circle
//! is an anomaly.
//!
//! Without a circle the transactions are lined up along the inferred order,
//! and what it leaves open is decided one by one; an order that explains every
//! read proves the history good. Where none is found that way, or where the
//! rules do not apply, the search of [`super::linearizable`] decides, as far as
//! its steps go. So both verdicts
//! are proofs: what is called invalid has no legal order, and what is called
//! valid has one.

mod chains;
mod collect;
mod inference;
mod line_up;

use std::collections::BTreeMap;

use super::cycles::{self, Story};
use super::graph::Graph;
use super::internal::{self, Elements};
use super::verdict::Findings;
use super::{Through, Verdict, linearizable, order};
use crate::history::{Datum, Key, Operation};
use collect::Registers;
use inference::{Inference, Stop};

/// Checks transactions of reads, writes and comparisons, from `initial` values
/// (missing ones are nothing).
///
/// A transaction of unknown outcome counts as having happened if anyone saw
/// any of its writes, and then all of it happened. Where a value may have been
/// written to a key twice, or keys are also lists or counters, only the search
/// judges. Undecided if it has to and takes more than `steps_max` steps.
#[must_use]
pub fn check(operations: &[Operation], initial: &BTreeMap<Key, Datum>, steps_max: u64) -> Verdict {
    let search = || linearizable::check(operations, initial, steps_max);
    let mut findings = Findings::default();
    internal::find(operations, Elements::Any, &mut findings);
    let Some(registers) = Registers::collect(operations, initial, &mut findings) else {
        return search();
    };
    if !findings.is_empty() {
        return findings.verdict();
    }
    let happened = registers.happened();
    let mut graph = Graph::new(operations.len());
    registers.link(&mut graph);
    order::link_processes(operations, &happened, &mut graph);
    order::link_real_time(operations, &happened, &mut graph);
    let stop = match Inference::of(&registers, &graph) {
        Ok(mut inference) => match inference.settle() {
            Ok(()) if line_up::is_explained(&registers, &mut inference) => return Verdict::Valid,
            Ok(()) => return search(),
            Err(stop) => {
                inference.tell(&mut graph);
                stop
            }
        },
        Err(stop) => stop,
    };
    if stop == Stop::TooLarge {
        return search();
    }
    // Which write came first was inferred from real time too.
    let (keys, wrote) = (registers.keys.clone(), "wrote");
    let story = Story { operations, keys, wrote, through_at_least: Through::RealTime };
    cycles::check(&graph, &story, &mut findings);
    findings.verdict()
}
