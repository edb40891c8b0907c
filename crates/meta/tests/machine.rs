//! The registry as a state machine over rows that can fail.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::sync::{Arc, Mutex};

use common::drivers::MemoryRows;
use common::*;
use quorate_meta::{ClusterView, Command, MetaError, RegistryMachine, Reply};
use quorate_types::Blob;
use quorate_types::group_log::GroupMachine as _;

/// The applied indexes that were shown, in order.
type Shown = Arc<Mutex<Vec<u64>>>;

fn open(rows: &MemoryRows) -> (RegistryMachine, Shown) {
    let shown = Shown::default();
    let told = Arc::clone(&shown);
    let on_change = move |view: &ClusterView| told.lock().unwrap().push(view.applied());
    let machine = RegistryMachine::open(Box::new(rows.clone()), Box::new(on_change)).unwrap();
    (machine, shown)
}

fn entries(commands: &[Command]) -> Vec<bytes::Bytes> {
    commands.iter().map(|command| command.encode().unwrap()).collect()
}

fn founded(rows: &MemoryRows) -> (RegistryMachine, Shown) {
    let (machine, shown) = open(rows);
    let encoded = entries(&[Command::Bootstrap(bootstrap(3, &["m"])), Command::Join(node(4))]);
    let batch = [(1, Some(&*encoded[0])), (2, None), (3, Some(&*encoded[1]))];
    let outcomes = machine.apply(&batch, "host".into()).unwrap();
    assert!(matches!(Reply::decode(&outcomes[0]), Ok(Reply::Bootstrapped { .. })));
    assert!(outcomes[1].is_empty(), "the log's own entry has no answer");
    assert!(matches!(Reply::decode(&outcomes[2]), Ok(Reply::Done { .. })));
    (machine, shown)
}

#[test]
fn a_batch_is_one_commit_and_shown_after_it() {
    let rows = MemoryRows::default();
    let (_, shown) = founded(&rows);
    assert_eq!(rows.edit(|stored| stored.committed.clone()), [(3, Blob::from("host"))]);
    assert_eq!(*shown.lock().unwrap(), [0, 3]);
}

#[test]
fn a_restart_reads_every_page_of_what_was_committed() {
    let rows = MemoryRows::default();
    founded(&rows);
    let (_, shown) = open(&rows);
    assert_eq!(*shown.lock().unwrap(), [3]);
}

#[test]
fn what_could_not_be_committed_is_not_shown_and_gone_after_a_reload() {
    let rows = MemoryRows::default();
    let (machine, shown) = founded(&rows);
    rows.edit(|stored| stored.commits_fail = true);
    let encoded = entries(&[Command::Join(node(5))]);
    let batch = [(4, Some(&*encoded[0]))];
    assert!(matches!(machine.apply(&batch, Blob::new()), Err(MetaError::Store(_))));
    assert_eq!(*shown.lock().unwrap(), [0, 3]);

    rows.edit(|stored| stored.commits_fail = false);
    machine.reload(3).unwrap();
    let outcomes = machine.apply(&batch, Blob::new()).unwrap();
    assert!(matches!(Reply::decode(&outcomes[0]), Ok(Reply::Done { .. })), "not redelivered");
    assert_eq!(*shown.lock().unwrap(), [0, 3, 3, 4]);
}

#[test]
fn an_entry_that_is_no_command_halts_before_anything_is_committed() {
    let rows = MemoryRows::default();
    let (machine, _) = founded(&rows);
    let batch = [(4, Some(&b"nonsense"[..]))];
    assert!(matches!(machine.apply(&batch, Blob::new()), Err(MetaError::Command { index: 4, .. })));
    assert_eq!(rows.edit(|stored| stored.committed.len()), 1);
}
