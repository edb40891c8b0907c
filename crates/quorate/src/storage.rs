//! Adapters between the machines' stores and the engine.

use std::sync::Arc;

use quorate_calvin::{Space, Store, StoreError, WriteSet};
use quorate_engine::{Batch, Engine, Fork, Mutation, ScanLimit};
use quorate_meta::{BoxError, Mutations, Page, Rows};
use quorate_raft::{SEED_INDEX, seeded_host_row};
use quorate_types::{Blob, KeyRange, ShardId};

/// Where the metadata machine's rows live in the engine.
pub(crate) const METADATA_SPACE: ShardId = ShardId(u64::MAX);
/// Where the sequencer's rows live in the engine.
pub(crate) const SEQUENCER_SPACE: ShardId = ShardId(u64::MAX - 1);
/// The system row that belongs to the Raft host.
pub(crate) const HOST_ROW_KEY: &[u8] = b"h";

/// Bytes of one scanned page.
const PAGE_BYTES: usize = 1 << 20;

/// One shard's rows in the node's engine.
#[derive(Clone)]
pub(crate) struct EngineStore {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) shard: ShardId,
}

impl Store for EngineStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Blob>, StoreError> {
        self.engine.get(self.shard, engine_space(space), key).map_err(store_error)
    }

    fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        rows_max: usize,
    ) -> Result<(Vec<(Blob, Blob)>, bool), StoreError> {
        if self.engine.range(self.shard).map_err(store_error)?.is_none() {
            return Ok((Vec::new(), false)); // Not filled yet.
        }
        let limit = ScanLimit { rows: rows_max, bytes: PAGE_BYTES };
        let page =
            self.engine.scan(self.shard, engine_space(space), range, limit).map_err(store_error)?;
        Ok((page.rows, page.more))
    }

    fn middle_key(&self) -> Result<Option<Blob>, StoreError> {
        self.engine.middle_key(self.shard).map_err(store_error)
    }

    fn commit(&self, index: u64, host_row: Blob, writes: WriteSet) -> Result<(), StoreError> {
        let mut system = mutations(writes.system);
        system.push(Mutation::put(HOST_ROW_KEY, host_row));
        let batch = Batch {
            index,
            clears: writes.clears,
            data: mutations(writes.data),
            system,
            forks: writes.forks.into_iter().map(fork).collect(),
        };
        self.engine.apply(self.shard, batch).map_err(store_error)
    }
}

impl Rows for EngineStore {
    fn scan(&self, range: &KeyRange, rows_max: usize) -> Result<Page, BoxError> {
        Ok(Store::scan(self, Space::Data, range, rows_max)?)
    }

    fn commit(&self, index: u64, host_row: Blob, mutations: Mutations) -> Result<(), BoxError> {
        let writes = WriteSet { data: mutations, ..WriteSet::default() };
        Ok(Store::commit(self, index, host_row, writes)?)
    }
}

/// A child starts at the synthetic position of its group's first membership,
/// so that only a fork or a snapshot can fill it.
fn fork(fork: quorate_calvin::Fork) -> Fork {
    let members: Vec<_> = fork.members.iter().map(|member| (member.replica, member.node)).collect();
    let mut child_system: Vec<Mutation> =
        fork.system.into_iter().map(|(key, row)| Mutation::put(key, row)).collect();
    child_system.push(Mutation::put(HOST_ROW_KEY, Blob(seeded_host_row(&members))));
    Fork { child: fork.child, at: fork.at, child_index: SEED_INDEX, child_system }
}

fn mutations(rows: impl IntoIterator<Item = (Blob, Option<Blob>)>) -> Vec<Mutation> {
    rows.into_iter().map(|(key, value)| Mutation { key, value }).collect()
}

const fn engine_space(space: Space) -> quorate_engine::Space {
    match space {
        Space::Data => quorate_engine::Space::Data,
        Space::System => quorate_engine::Space::System,
    }
}

fn store_error(error: quorate_engine::EngineError) -> StoreError {
    StoreError(error.to_string())
}
