//! Long fork: of two writes to two keys, one reader saw the first without the
//! second, and another the second without the first. No serial order has both.
//! Snapshots that are taken in several places at once show it first.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::monotonic::told;
use super::rising::{Rising, Version};
use super::verdict::Findings;
use super::{AnomalyKind, Verdict};
use crate::history::{Key, MicroOp, Operation, Outcome};

/// A read of more keys than this leaves the verdict open: each pair of keys
/// that are read together is looked at.
pub const KEYS_READ_MAX: usize = 256;

/// So many different sights of pairs of keys are kept, some hundred bytes
/// each; more leave the verdict open.
pub const SIGHTS_MAX: usize = 1 << 20;

/// Checks transactions that read at least two of the keys that `rises` names:
/// registers that are written once or only raised, counters that are only
/// added to, lists by their length. Of two such reads one must be the later on
/// all keys that they share.
///
/// Undecided if a key might fall without any fault, as after two blind writes
/// that were under way together, if nothing read two keys, or beyond the
/// limits.
#[must_use]
pub fn check(operations: &[Operation], rises: impl Fn(&Key) -> bool) -> Verdict {
    let rising = match Rising::survey(operations, rises) {
        Ok(rising) => rising,
        Err(reason) => return Verdict::Undecided(reason),
    };
    let mut findings = Findings::default();
    let mut chains: BTreeMap<(&Key, &Key), Chain<'_>> = BTreeMap::new();
    let mut sights = 0;
    let mut undecided = None;
    for by in operations.iter().filter(|operation| operation.outcome == Outcome::Ok) {
        let read: Vec<(&Key, Version)> = read_from_outside(by, &rising).into_iter().collect();
        if read.len() > KEYS_READ_MAX {
            undecided.get_or_insert_with(|| format!("#{} reads {} keys", by.id, read.len()));
            continue;
        }
        for (place, (first_key, first)) in read.iter().enumerate() {
            for (second_key, second) in read.iter().skip(place + 1) {
                let chain = chains.entry((first_key, second_key)).or_default();
                let sight = Sight { version: *second, by };
                match chain.insert(*first, sight) {
                    Ok(is_new) => sights += usize::from(is_new),
                    Err(other) => {
                        let told = Fork { keys: [first_key, second_key], first: *first, sight };
                        findings.add(AnomalyKind::LongFork, told.against(other), [other.1.by, by]);
                    }
                }
            }
        }
        if sights > SIGHTS_MAX {
            undecided.get_or_insert_with(|| format!("more than {SIGHTS_MAX} different sights"));
            break;
        }
    }
    if chains.is_empty() {
        undecided.get_or_insert_with(|| "nothing read two keys".to_owned());
    }
    match (findings.verdict(), undecided) {
        (Verdict::Valid, Some(reason)) => Verdict::Undecided(reason),
        (verdict, _) => verdict,
    }
}

/// What a transaction read of each key before it changed the key itself.
fn read_from_outside<'a>(by: &'a Operation, rising: &Rising<'_>) -> BTreeMap<&'a Key, Version> {
    let mut read = BTreeMap::new();
    let mut changed = Vec::new();
    for step in &by.txn {
        for key in step.keys().filter(|key| rising.has(key)) {
            let seen = match step {
                MicroOp::Read { seen: Some(seen), .. } => Some(rising.version(key, seen)),
                MicroOp::CompareAndSet { expected, .. } => Some(Some(*expected)),
                _ => None,
            };
            if let Some(seen) = seen.filter(|_| !changed.contains(&key)) {
                read.entry(key).or_insert(seen);
            }
            if !step.is_read() {
                changed.push(key);
            }
        }
    }
    read
}

/// Who saw what of the second key.
#[derive(Clone, Copy)]
struct Sight<'a> {
    version: Version,
    by: &'a Operation,
}

/// All that was seen of two keys together: for each version of the first the
/// least and the greatest of the second. As both only rise, the second rises
/// with the first.
#[derive(Default)]
struct Chain<'a>(BTreeMap<Version, [Sight<'a>; 2]>);

impl<'a> Chain<'a> {
    /// Whether the sight was new, or which other one it forks from. That one
    /// stays.
    fn insert(&mut self, first: Version, second: Sight<'a>) -> Result<bool, (Version, Sight<'a>)> {
        let before = self.0.range(..first).next_back();
        if let Some((other, [_, most])) = before
            && most.version > second.version
        {
            return Err((*other, *most));
        }
        let after = self.0.range((Bound::Excluded(first), Bound::Unbounded)).next();
        if let Some((other, [least, _])) = after
            && least.version < second.version
        {
            return Err((*other, *least));
        }
        let Some([least, most]) = self.0.get_mut(&first) else {
            self.0.insert(first, [second, second]);
            return Ok(true);
        };
        if second.version < least.version {
            *least = second;
        }
        if second.version > most.version {
            *most = second;
        }
        Ok(false)
    }
}

struct Fork<'a> {
    keys: [&'a Key; 2],
    first: Version,
    sight: Sight<'a>,
}

impl Fork<'_> {
    fn against(&self, (first, sight): (Version, Sight<'_>)) -> String {
        let [first_key, second_key] = self.keys;
        format!(
            "#{} saw {first_key} at {} and {second_key} at {}, #{} saw them at {} and {}: each is \
             ahead of the other",
            sight.by.id,
            told(first),
            told(sight.version),
            self.sight.by.id,
            told(self.first),
            told(self.sight.version),
        )
    }
}
