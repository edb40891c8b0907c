//! Entries of many groups, one behind the other: what the rows of entries of
//! every medium consist of. Integers are big endian:
//!
//! ```text
//! run = [group u64][replica u64][first index u64][count u32] entry*count
//! ```
//!
//! What an entry looks like is the medium's own.

use bytes::{Buf, BufMut, BytesMut};
use quorate_types::{GroupId, ReplicaId};

use super::medium::NewEntry;

/// What a run costs besides its entries.
pub(super) const RUN_HEADER_BYTES: usize = 28;

/// Collects entries into runs.
#[derive(Default)]
pub(super) struct Runs {
    bytes: BytesMut,
    run: Option<Run>,
}

struct Run {
    group: GroupId,
    replica: ReplicaId,
    next_index: u64,
    count: u32,
    count_at: usize,
}

impl Runs {
    /// Runs behind what `bytes` holds.
    pub(super) fn behind(bytes: BytesMut) -> Self {
        Self { bytes, run: None }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Where the next entry is to be written.
    pub(super) fn begin(&mut self, entry: &NewEntry) -> &mut BytesMut {
        let index = entry.position.index;
        let continues = self.run.as_ref().is_some_and(|run| {
            run.group == entry.group && run.replica == entry.replica && run.next_index == index
        });
        if !continues {
            self.end_run();
            self.bytes.put_u64(entry.group.0);
            self.bytes.put_u64(entry.replica.0);
            self.bytes.put_u64(index);
            let count_at = self.bytes.len();
            self.bytes.put_u32(0);
            let (group, replica) = (entry.group, entry.replica);
            self.run = Some(Run { group, replica, next_index: index, count: 0, count_at });
        }
        if let Some(run) = &mut self.run {
            run.count += 1;
            run.next_index += 1;
        }
        &mut self.bytes
    }

    fn end_run(&mut self) {
        if let Some(run) = self.run.take()
            && let Some(count) = self.bytes.get_mut(run.count_at..run.count_at + 4)
        {
            count.copy_from_slice(&run.count.to_be_bytes());
        }
    }

    pub(super) fn finish(mut self) -> BytesMut {
        self.end_run();
        self.bytes
    }
}

/// Whose entry stands next in a run.
#[derive(Clone, Copy)]
pub(super) struct Next {
    pub(super) group: GroupId,
    pub(super) replica: ReplicaId,
    pub(super) index: u64,
}

/// Reads runs; `entry` takes one entry off the front. `None` when the structure
/// is broken, which bytes that passed their checksum never are.
pub(super) fn scan(
    mut rest: &[u8],
    mut entry: impl FnMut(Next, &mut &[u8]) -> Option<()>,
) -> Option<()> {
    while !rest.is_empty() {
        if rest.len() < RUN_HEADER_BYTES {
            return None;
        }
        let group = GroupId(rest.get_u64());
        let replica = ReplicaId(rest.get_u64());
        let first_index = rest.get_u64();
        let count = rest.get_u32();
        for nth in 0..count {
            // What follows an index is counted on everywhere.
            let index = first_index.checked_add(u64::from(nth)).filter(|it| *it < u64::MAX)?;
            entry(Next { group, replica, index }, &mut rest)?;
        }
    }
    Some(())
}
