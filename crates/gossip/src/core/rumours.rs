//! What is still to be told: at most one record per member, the least told
//! first, each a bounded number of times.

use std::collections::BTreeMap;

use quorate_types::NodeId;

use crate::wire::Record;

struct Rumour {
    record: Record,
    told: u32,
}

/// Bounded by the membership table: only members are talked about.
#[derive(Default)]
pub(crate) struct RumourQueue {
    rumours: BTreeMap<NodeId, Rumour>,
}

impl RumourQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.rumours.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.rumours.len()
    }

    /// Replaces whatever was told about the same member.
    pub(crate) fn push(&mut self, record: Record) {
        self.rumours.insert(record.node, Rumour { record, told: 0 });
    }

    /// Up to `count` records for one peer; each counts as told once more and
    /// goes after `told_max` times.
    pub(crate) fn take(&mut self, count: usize, told_max: u32) -> Vec<Record> {
        let mut order: Vec<(u32, NodeId)> =
            self.rumours.iter().map(|(node, rumour)| (rumour.told, *node)).collect();
        order.sort_unstable();
        let mut records = Vec::with_capacity(count.min(order.len()));
        for (_, node) in order.into_iter().take(count) {
            let Some(rumour) = self.rumours.get_mut(&node) else { continue };
            rumour.told += 1;
            records.push(rumour.record.clone());
            if rumour.told >= told_max {
                self.rumours.remove(&node);
            }
        }
        records
    }
}
