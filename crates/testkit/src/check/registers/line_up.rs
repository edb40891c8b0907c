//! Looks for an order that explains every read.
//!
//! The transactions are taken one after the other. Before one that writes is
//! taken, it is decided to come before all others that write the same key and
//! are still waiting, one by one; what follows from that is inferred at once,
//! and where it leads to a circle the other comes first. No decision is taken
//! back once the next one is made: a history that needs that is left to the
//! search.

use super::collect::{Registers, Txn, Value};
use super::inference::{Inference, Stop};

/// Whether such an order was found. It is not taken on trust, but replayed.
pub(super) fn is_explained(registers: &Registers<'_>, inference: &mut Inference<'_>) -> bool {
    line_up(inference).is_ok_and(|order| explains(registers, inference, &order))
}

fn line_up(inference: &mut Inference<'_>) -> Result<Vec<usize>, Stop> {
    let mut order = Vec::new();
    // How many of each chain were taken.
    let mut taken: Vec<u32> = vec![0; inference.chains.members.len()];
    while order.len() < inference.txns.len() {
        let heads = inference.chains.members.iter().zip(&taken);
        let heads = heads.filter_map(|(members, taken)| members.get(*taken as usize));
        let is_ready = |node: &&usize| {
            inference.reach(**node).iter().zip(&taken).all(|(before, taken)| before <= taken)
        };
        let Some(node) = heads.filter(is_ready).min().copied() else { return Err(Stop::Circular) };
        if is_first(inference, node, &taken)? {
            order.push(node);
            let chain = inference.chains.places.get(node).map(|place| place.chain);
            if let Some(taken) = chain.and_then(|chain| taken.get_mut(chain)) {
                *taken += 1;
            }
        }
    }
    Ok(order)
}

/// Has `node` come before all who write the same keys and wait.
fn is_first(inference: &mut Inference<'_>, node: usize, taken: &[u32]) -> Result<bool, Stop> {
    let Some(txn) = inference.txns.get(node).copied() else { return Ok(true) };
    for (key, _) in &txn.writes {
        let Some(writers) = inference.chains.writers.get(*key) else { continue };
        let waiting = writers.iter().filter_map(|(chain, writers)| {
            let taken = taken.get(*chain).copied().unwrap_or(0);
            let (_, first) = writers.get(writers.partition_point(|(place, _)| *place < taken))?;
            (*first != node).then_some(*first)
        });
        for other in waiting.collect::<Vec<usize>>() {
            if !inference.is_before(node, other) && !inference.decide(node, other, *key)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Replays an order.
fn explains(registers: &Registers<'_>, inference: &Inference<'_>, order: &[usize]) -> bool {
    let mut stands: Vec<Value> = registers.initial.clone();
    order.iter().filter_map(|node| inference.txns.get(*node)).all(|txn| take(txn, &mut stands))
}

fn take(txn: &Txn<'_>, stands: &mut [Value]) -> bool {
    let is_seen = txn.reads.iter().all(|read| stands.get(read.key) == Some(&read.value));
    let is_other = |(key, value): &(usize, i64)| stands.get(*key) != Some(&Some(*value));
    let is_explained = is_seen && txn.differs.iter().all(is_other);
    for (key, value) in &txn.writes {
        if let Some(stands) = stands.get_mut(*key) {
            *stands = Some(*value);
        }
    }
    is_explained
}
