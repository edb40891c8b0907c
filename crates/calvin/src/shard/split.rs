//! The fork of a shard (rule 14): a barrier in the global order, executed when
//! everything before it is done.

use quorate_types::{Epoch, sometimes};

use super::machine::{Event, ShardMachine, new_header};
use super::rows::{SplitWork, header_key};
use crate::command::seal;
use crate::store::{Fork, WriteSet};

impl ShardMachine {
    /// Splits the child off. Its cursor is the barrier's epoch, whatever this
    /// shard has accepted since: the child's chain of slices starts there.
    ///
    /// Nothing that was granted is pending now, since the barrier is exclusive
    /// on the whole shard; what queues behind it was checked against the
    /// shrunken range when it entered. So no pending row travels.
    ///
    /// Later entries of the same commit touch only what is left of this shard,
    /// so the order of the fork among the commit's writes does not matter.
    pub(super) fn fork(&mut self, writes: &mut WriteSet, work: &SplitWork) {
        sometimes!("a shard is split while work waits", self.gate.len() > 0);
        let mut header = new_header(work.child_range.clone(), work.change.epoch);
        header.cursor = work.epoch;
        header.clock_millis = self.header.clock_millis;
        header.version = self.header.version;
        header.tombstone_floor = self.header.tombstone_floor;
        header.floors = self.header.floors;
        debug_assert!(header.cursor > Epoch(0), "invariant: a split has an epoch");
        let mut system = vec![(header_key(), seal(&header))];
        let range = &work.child_range;
        system.extend(self.dedup.split_off(writes, |row| range.contains(&row.home)));
        system.extend(self.tombstones.split_off(writes, range));
        writes.forks.push(Fork {
            child: work.change.child,
            at: work.change.at.clone(),
            system,
            members: work.change.members.clone(),
        });
        self.events.push_back(Event::Forked {
            child: work.change.child,
            members: work.change.members.0.clone(),
        });
    }
}
