//! Taps between real stores and the ledger.

use std::sync::Arc;
use std::time::Duration;

use quorate::types::{KeyRange, NodeId, ReplicaId, ShardId};
use quorate_calvin::kv::KeyValue;
use quorate_engine::{Batch, Engine, RedbConfig, RedbEngine};
use quorate_raft::{DurableLog, LogConfig, LogEngine, LogPosition};
use quorate_testkit::disk::CrashDisk;
use quorate_testkit::sim::{SimNode, SimOptions, run_with};
use quorate_tests::sim::{Findings, FoundSpace, Ledger, TappedLog};

const SPACE: ShardId = ShardId(1);
const GROUP: quorate::types::GroupId = quorate::types::GroupId(17);

/// What an engine shows of the space, as far as it has come.
fn shown(applied: u64) -> FoundSpace {
    FoundSpace { space: SPACE, applied, rows: Vec::new() }
}

/// Nobody has asked the engine to flush: it came that far by itself. But the
/// log relies on it from the purge on.
#[test]
fn what_a_log_was_purged_up_to_must_not_be_lost() {
    let options = SimOptions { seed: 1, duration_max: Duration::from_secs(60) };
    let finished = run_with(options, |sim| async move {
        let findings = Findings::default();
        let ledger = Ledger::new(sim.begun(), findings.clone(), Arc::new(KeyValue), None);
        let life = SimNode::new(NodeId(1), sim.seed());
        let disk = CrashDisk::new(sim.seed());
        let tap = ledger.tap(NodeId(1), 1);
        life.run(async {
            let engine = RedbEngine::open(&disk, "engine", RedbConfig::default()).unwrap();
            engine.create(SPACE, KeyRange::all(), 10, Vec::new()).unwrap();
            tap.engine_opened(&[shown(10)]);
            let batch = Batch { index: 11, ..Batch::default() };
            tap.applied(SPACE, &batch);
            engine.apply(SPACE, batch).unwrap();
            assert_eq!(engine.flush(SPACE).await.unwrap(), 11);
            let log = DurableLog::open(Arc::new(disk), "log", LogConfig::default()).unwrap();
            let log = TappedLog::over(Arc::new(log), Arc::new(engine), tap).unwrap();
            log.admit(GROUP, ReplicaId(1)).await.unwrap();
            log.purge(GROUP, LogPosition { term: 1, index: 11 }).await.unwrap();
        })
        .await;
        assert_eq!(findings.all(), []);
        ledger.tap(NodeId(1), 2).engine_opened(&[shown(10)]);
        let rules: Vec<String> = findings.all().into_iter().map(|it| it.rule).collect();
        assert_eq!(rules, ["E1"]);
    });
    finished.unwrap();
}
