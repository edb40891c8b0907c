//! The procedures, the stores and the logs of these tests against the suites of
//! their ports, and what the suites have to refuse. A suite that finds no
//! planted flaw proves nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(missing_docs, unreachable_pub, dead_code, reason = "the support is shared between files")]

mod support;

#[path = "conformance/flawed_procedures.rs"]
mod flawed_procedures;
#[path = "conformance/flawed_store.rs"]
mod flawed_store;
#[path = "services/log.rs"]
mod log;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use flawed_procedures::{FlawedProcedures, ProceduresFlaw};
use flawed_store::{StoreFlaw, shard};
use log::MemLog;
use parking_lot::Mutex;
use quorate_calvin::conformance::{procedures_suite, store_suite};
use quorate_calvin::kv::{KeyValue, Transaction};
use quorate_calvin::{Call, Procedures};
use quorate_types::conformance::{Replica, group_log_suite};
use quorate_types::{Blob, KeyRange, NodeId};
use support::procedures::{Op, Service};

fn rows() -> BTreeMap<Blob, Blob> {
    let rows = [("a", "100"), ("b", "7"), ("c", "x,y"), ("d", "")];
    rows.map(|(key, value)| (key.into(), value.into())).into()
}

fn blobs(keys: &[&str]) -> quorate_types::Seq<Blob> {
    keys.iter().map(|key| Blob::from(*key)).collect()
}

fn calls() -> Vec<Call> {
    let (keys, value) = (blobs(&["a", "z"]), Blob::from("v"));
    let ops = [
        Op::Read(blobs(&["a", "b", "z"])),
        Op::Write { keys: keys.clone(), value: value.clone() },
        Op::ReadWrite { reads: blobs(&["b"]), writes: keys.clone(), value: value.clone() },
        Op::Append { keys: blobs(&["c", "z"]), item: value.clone() },
        Op::Watch(keys.clone()),
        Op::WriteIf { keys: keys.clone(), version: 4, value: value.clone() },
        Op::WriteIf { keys: keys.clone(), version: 9, value: value.clone() },
        Op::Delete(keys),
        Op::WriteExpiring { key: "e".into(), value, ttl_millis: 5 },
        Op::Count(KeyRange::new("a", "c")),
        Op::Clear(KeyRange::new("a", "c")),
    ];
    ops.iter().map(Op::call).collect()
}

#[test]
fn keys_and_values_conform() {
    let calls = [
        Transaction::new().put("a", "1").delete("b"),
        Transaction::new().get("a").get("z"),
        Transaction::new().expect("a", Some("100".into())).expect("z", None).put("z", "1"),
        Transaction::new().expect("a", None).delete("a").get("c"),
        Transaction::new(),
    ];
    let calls = calls.map(|transaction| transaction.call());
    procedures_suite(|| Arc::new(KeyValue), &calls, &rows());
}

#[test]
fn the_service_of_the_tests_conforms() {
    procedures_suite(|| Arc::new(Service), &calls(), &rows());
}

#[test]
#[should_panic(expected = "`Write::key` must be in the footprint's writes")]
fn a_write_that_was_not_declared_is_refused() {
    let stray = Op::Stray { declared: "a".into(), written: "b".into() };
    procedures_suite(|| Arc::new(Service), &[stray.call()], &rows());
}

#[test]
#[should_panic(expected = "`Procedures` must be total")]
fn a_procedure_that_panics_is_refused() {
    procedures_suite(|| Arc::new(Service), &[Op::Panic(blobs(&["a"])).call()], &rows());
}

macro_rules! procedures_refused {
    ($($test:ident, $flaw:ident, $sentence:tt;)+) => {$(
        #[test]
        #[should_panic(expected = $sentence)]
        fn $test() {
            let make = || -> Arc<dyn Procedures> {
                Arc::new(FlawedProcedures::new(ProceduresFlaw::$flaw))
            };
            procedures_suite(make, &calls(), &rows());
        }
    )+};
}

procedures_refused! {
    procedures_that_count_are_refused, Counts, "`Procedures` must be deterministic";
    procedures_that_know_their_node_are_refused, KnowsNode, "run on another node";
    procedures_that_know_their_thread_are_refused, KnowsThread, "run on another thread";
    a_scan_that_counts_is_refused, ScanCounts, "`Procedures::scan` must be deterministic";
    a_range_cleared_beyond_is_refused, ClearsBeyond, "`Outcome::clears` must be within";
}

#[test]
fn the_store_of_the_tests_conforms() {
    store_suite(|| shard(StoreFlaw::None));
}

macro_rules! stores_refused {
    ($($test:ident, $flaw:ident, $sentence:tt;)+) => {$(
        #[test]
        #[should_panic(expected = $sentence)]
        fn $test() {
            store_suite(|| shard(StoreFlaw::$flaw));
        }
    )+};
}

stores_refused! {
    a_store_that_clears_last_is_refused, ClearsLast, "data ranges emptied before `data` is written";
    a_store_that_mixes_its_spaces_is_refused, MixesSpaces, "data is not the machine's";
    a_store_that_hides_what_follows_is_refused, HidesMore, "`Store::scan`: whether more follow";
    a_store_without_order_is_refused, ScansBackwards, "rows of the range in key order";
    a_store_that_counts_the_end_in_is_refused, CountsEndIn, "`Store::scan`: rows of the range";
    a_commit_in_two_steps_is_refused, CommitsTwice, "others saw half of it";
    a_commit_that_panics_while_others_read_is_refused, PanicsWhileRead, "the commit panics";
    a_middle_key_as_long_as_a_row_s_is_refused, LongMiddle, "no longer than it has to be";
    a_middle_key_at_the_edge_is_refused, FirstIsMiddle, "halves the data, closely";
    a_fork_that_leaves_its_rows_is_refused, ForkLeavesRows, "become the child's";
    a_fork_that_loses_its_rows_is_refused, ForkLosesRows, "what the same commit left of its rows";
}

#[tokio::test(start_paused = true)]
async fn the_log_of_the_tests_conforms() {
    group_log_suite(|| async {
        let applied: Arc<Mutex<Vec<Bytes>>> = Arc::default();
        let applying = Arc::clone(&applied);
        let apply = move |entries: &[(u64, Option<&[u8]>)]| {
            let commands = entries.iter().filter_map(|(_, command)| *command);
            applying.lock().extend(commands.map(Bytes::copy_from_slice));
        };
        let node = NodeId(1);
        let log = MemLog::start(node, Box::new(apply));
        let applied = Box::new(move || applied.lock().clone());
        vec![Replica { node, log, applied, end: None }]
    })
    .await;
}
