#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::Ordering;

use openraft::StorageError;
use openraft::storage::RaftStateMachine as _;
use openraft::testing::log::{StoreBuilder, Suite};
use quorate_types::{GroupId, ReplicaId, watch};

use super::applier::{Applier, Progress};
use super::storage::GroupLog;
use super::types::{Command, Payload, RaftEntry, TypeConfig, log_id};
use crate::log::{LogMedium, LogPosition};
use support::{MEDIA, RamDisk, TapeStore, open_on, simulate};

#[path = "../../tests/support/mod.rs"]
pub(crate) mod support;

struct Stores(LogMedium);

impl StoreBuilder<TypeConfig, GroupLog, Applier, TapeStore> for Stores {
    async fn build(&self) -> Result<(TapeStore, GroupLog, Applier), StorageError<TypeConfig>> {
        let group = GroupId(1);
        let engine = open_on(&RamDisk::default(), self.0);
        engine.admit(group, ReplicaId(1)).await.unwrap();
        let progress = Arc::new(Progress::new());
        // The suite purges without a machine behind the log.
        progress.durable_index.store(u64::MAX, Ordering::Release);
        let durable_index = Arc::clone(&progress.durable_index);
        let store = TapeStore::default();
        let applier = Applier::recover(group, store.machine(), progress).unwrap();
        Ok((store, GroupLog { engine, group, durable_index, end: watch::channel(0).0 }, applier))
    }
}

#[test]
fn log_and_machine_pass_the_suite_of_openraft() {
    for medium in MEDIA {
        simulate(async move { Suite::test_all(Stores(medium)).await.unwrap() });
    }
}

#[test]
fn an_entry_that_was_applied_never_reaches_the_machine_again() {
    simulate(async {
        for again in [0, 1, 2] {
            let store = TapeStore::default();
            let progress = Arc::new(Progress::new());
            let machine = store.machine();
            let mut applier = Applier::recover(GroupId(1), machine, Arc::clone(&progress)).unwrap();
            let entry = |index| {
                let log_id = log_id(LogPosition { term: 1, index });
                let payload = Payload::Normal(Command::new(b"once"));
                Ok((RaftEntry { log_id, payload }, None))
            };
            let entries = futures_util::stream::iter([entry(0), entry(1), entry(2)]);
            applier.apply(entries).await.unwrap();
            let redelivered = futures_util::stream::iter([entry(again), entry(3)]);
            assert!(applier.apply(redelivered).await.is_err(), "entry {again}");
            assert!(progress.halted().unwrap().contains("after 2 was applied"));
            assert_eq!(store.commands().len(), 3);
        }
    });
}
