#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::Ordering;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use quorate_types::{GroupId, ReplicaId};

use super::applier::{Applier, Progress};
use super::storage::GroupLog;
use super::types::TypeConfig;
use support::{RamDisk, TapeStore, open_log, simulate};

#[path = "../../tests/support/mod.rs"]
pub(crate) mod support;

struct Stores;

impl StoreBuilder<TypeConfig, GroupLog, Applier, TapeStore> for Stores {
    async fn build(&self) -> Result<(TapeStore, GroupLog, Applier), StorageError<TypeConfig>> {
        let group = GroupId(1);
        let engine = open_log(&RamDisk::default());
        engine.admit(group, ReplicaId(1)).await.unwrap();
        let progress = Arc::new(Progress::new());
        // The suite purges without a machine behind the log.
        progress.durable_index.store(u64::MAX, Ordering::Release);
        let durable_index = Arc::clone(&progress.durable_index);
        let store = TapeStore::default();
        let applier = Applier::recover(group, store.machine(), progress).unwrap();
        Ok((store, GroupLog { engine, group, durable_index }, applier))
    }
}

#[test]
fn log_and_machine_pass_the_suite_of_openraft() {
    simulate(async { Suite::test_all(Stores).await.unwrap() });
}
