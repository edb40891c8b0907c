//! What only rises is never seen to fall.

use std::collections::BTreeMap;

use super::rising::{Rising, Version};
use super::verdict::Findings;
use super::{AnomalyKind, Verdict};
use crate::history::{Key, MicroOp, Operation, Outcome, ProcessId};

/// Whose earlier reads a read is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Those of its own process.
    Process,
    /// Those of all processes that were over before it began.
    RealTime,
}

/// Checks the keys that `rises` names: counters that are only added to,
/// registers that are only raised, lists by their length.
///
/// A process that added to a counter, raised a register or appended to a list
/// and was told so must see that too. What an operation of unknown outcome did
/// may show at any time, or never. Undecided if a key might fall without any
/// fault, as after two blind writes that were under way together.
#[must_use]
pub fn check(operations: &[Operation], rises: impl Fn(&Key) -> bool, scope: Scope) -> Verdict {
    let rising = match Rising::survey(operations, rises) {
        Ok(rising) => rising,
        Err(reason) => return Verdict::Undecided(reason),
    };
    let mut moments = Vec::new();
    for operation in operations.iter().filter(|operation| operation.outcome == Outcome::Ok) {
        moments.push((operation.invoked.position, operation, false));
        moments.extend(operation.completed.map(|end| (end.position, operation, true)));
    }
    moments.sort_unstable_by_key(|(position, _, _)| *position);

    let mut findings = Findings::default();
    let mut floors: BTreeMap<(Option<ProcessId>, &Key), Floor<'_>> = BTreeMap::new();
    // What stood when an operation in flight began.
    let mut begun: BTreeMap<usize, BTreeMap<&Key, Floor<'_>>> = BTreeMap::new();
    for (_, operation, is_end) in moments {
        let whose = (scope == Scope::Process).then_some(operation.process);
        if !is_end {
            let keys = operation.txn.iter().flat_map(MicroOp::keys).filter(|key| rising.has(key));
            let at = keys.filter_map(|key| Some((key, *floors.get(&(whose, key))?))).collect();
            begun.insert(operation.id, at);
            continue;
        }
        let mut own = begun.remove(&operation.id).unwrap_or_default();
        walk(operation, &rising, &mut own, &mut findings);
        for (key, floor) in own {
            let known = floors.entry((whose, key)).or_insert(floor);
            if known.version < floor.version {
                *known = floor;
            }
        }
    }
    findings.verdict()
}

/// The least that a key can be, and who knows.
#[derive(Clone, Copy)]
struct Floor<'a> {
    version: Version,
    by: &'a Operation,
}

/// Holds an operation's steps against what was known when it began, and adds
/// what they show.
fn walk<'a>(
    operation: &'a Operation,
    rising: &Rising<'_>,
    own: &mut BTreeMap<&'a Key, Floor<'a>>,
    findings: &mut Findings,
) {
    for step in &operation.txn {
        for key in step.keys().filter(|key| rising.has(key)) {
            let least = own.get(key).copied();
            let risen =
                |by: i64| least.and_then(|least| least.version).unwrap_or(0).checked_add(by);
            let (seen, now) = match step {
                MicroOp::Read { seen: Some(seen), .. } => {
                    let seen = rising.version(key, seen);
                    (Some(seen), seen)
                }
                MicroOp::CompareAndSet { expected, new, .. } => (Some(Some(*expected)), Some(*new)),
                MicroOp::Write { value, .. } => (None, Some(*value)),
                MicroOp::Append { .. } => (None, risen(1)),
                MicroOp::Add { delta, request, .. } if rising.counts(key, request.as_ref()) => {
                    (None, risen(*delta))
                }
                _ => continue,
            };
            let fell = seen.zip(least).filter(|(seen, least)| *seen < least.version);
            if let Some((seen, least)) = fell {
                let what = format!(
                    "#{} found {key} at {}, but it had come to {} with #{}",
                    operation.id,
                    told(seen),
                    told(least.version),
                    least.by.id
                );
                findings.add(AnomalyKind::WentBack, what, [operation, least.by]);
            }
            if least.is_none_or(|least| least.version < now) {
                own.insert(key, Floor { version: now, by: operation });
            }
        }
    }
}

pub(super) fn told(version: Version) -> String {
    version.map_or_else(|| "nothing".to_owned(), |version| version.to_string())
}
