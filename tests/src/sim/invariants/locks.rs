//! Who waits for whom in a shard's gate.

use std::collections::BTreeMap;

use quorate::types::{KeyRange, ShardId};
use quorate_calvin::shard::rows::{PendingRow, Work};
use quorate_calvin::{Access, LockSet, Place};

use crate::sim::ledger::Report;

/// O3: whoever holds its locks waits for nobody before it, and whoever does
/// not waits for somebody. (What has its locks and all its inputs is never
/// found here: it has run.)
pub(crate) fn check_locks<'a>(
    space: ShardId,
    index: u64,
    rows: impl Iterator<Item = (Place, &'a PendingRow)>,
    report: &mut Report,
) {
    let mut earlier: Vec<(Place, LockSet)> = Vec::new();
    for (place, row) in rows {
        let own = locks(&row.work);
        let blocker = earlier.iter().find(|(_, earlier)| excludes(earlier, &own));
        let blocker = blocker.map(|(place, _)| *place);
        let is_granted = row.granted.is_some();
        report.check("O3", is_granted == blocker.is_none(), || {
            format!(
                "at {index} of {space} the work of {place:?} has its locks: {is_granted}, and \
                 before it stands {blocker:?}"
            )
        });
        earlier.push((place, own));
    }
}

/// What a piece of work locks.
fn locks(work: &Work) -> LockSet {
    let (footprint, local) = match work {
        Work::Direct(work) => (&work.call.footprint, KeyRange::all()),
        Work::Sequenced(work) => (&work.txn.call.footprint, work.range.clone()),
        Work::Split(_) => {
            return LockSet { keys: BTreeMap::new(), whole: Some(Access::Write) };
        }
    };
    let mut locks = LockSet::default();
    for (keys, access) in [(&footprint.reads, Access::Read), (&footprint.writes, Access::Write)] {
        for key in keys.iter().filter(|key| local.contains(key)) {
            locks.add(key.clone(), access);
        }
    }
    for access in footprint.ranges.iter().filter(|access| access.range.overlaps(&local)) {
        locks.add_whole(access.access);
    }
    locks
}

fn strongest(locks: &LockSet) -> Access {
    let keys = locks.keys.values().copied().max();
    locks.whole.max(keys).unwrap_or(Access::Read)
}

/// Whether the later must wait for the earlier.
fn excludes(earlier: &LockSet, later: &LockSet) -> bool {
    let is_write = |access: Access| access == Access::Write;
    let by_whole = |whole: Option<Access>, other: &LockSet| {
        whole.is_some_and(|access| is_write(access) || is_write(strongest(other)))
    };
    by_whole(earlier.whole, later)
        || by_whole(later.whole, earlier)
        || later.keys.iter().any(|(key, access)| {
            earlier.keys.get(key).is_some_and(|held| is_write(*held) || is_write(*access))
        })
}
