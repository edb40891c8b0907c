//! Transactions dealt into chains, in each of which every one is surely before
//! the next. What comes before a transaction is then one number for each chain,
//! as in vector clocks.

use std::collections::BTreeMap;

use super::collect::Registers;
use crate::history::Outcome;

/// Where a transaction stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) chain: usize,
    pub(super) place: u32,
}

/// Transactions are numbered by invocation, chains as they are needed.
pub(super) struct Chains {
    pub(super) places: Vec<Place>,
    pub(super) members: Vec<Vec<usize>>,
    /// For each key the chains that write it, and their writers in order.
    pub(super) writers: Vec<BTreeMap<usize, Vec<(u32, usize)>>>,
}

impl Chains {
    /// To a chain goes what began after its last was over.
    pub(super) fn deal(registers: &Registers<'_>) -> Self {
        let ends = ends(registers);
        let mut lasts: Vec<usize> = Vec::new();
        let mut chains = Self {
            places: Vec::new(),
            members: Vec::new(),
            writers: vec![BTreeMap::new(); registers.keys.len()],
        };
        for (node, (id, txn)) in registers.txns.iter().enumerate() {
            let end = ends.get(id).copied().unwrap_or(usize::MAX);
            let begin = txn.by.invoked.position;
            let chain = lasts.iter().position(|last| *last < begin).unwrap_or(lasts.len());
            if chain == lasts.len() {
                lasts.push(end);
                chains.members.push(Vec::new());
            }
            let last = lasts.get_mut(chain);
            let Some((last, members)) = last.zip(chains.members.get_mut(chain)) else { continue };
            *last = end;
            let place = u32::try_from(members.len()).unwrap_or(u32::MAX);
            members.push(node);
            chains.places.push(Place { chain, place });
            for (key, _) in &txn.writes {
                if let Some(writers) = chains.writers.get_mut(*key) {
                    writers.entry(chain).or_insert_with(Vec::new).push((place, node));
                }
            }
        }
        chains
    }
}

/// When each transaction had surely taken effect: when it was over itself, or
/// somebody who had seen it.
fn ends(registers: &Registers<'_>) -> BTreeMap<usize, usize> {
    let mut ends = BTreeMap::new();
    for txn in registers.txns.values().filter(|txn| txn.by.outcome == Outcome::Ok) {
        let Some(end) = txn.by.completed.map(|end| end.position) else { continue };
        let seen = txn.reads.iter().filter_map(|read| read.source);
        for id in seen.chain([txn.by.id]) {
            let known = ends.entry(id).or_insert(end);
            *known = end.min(*known);
        }
    }
    ends
}
