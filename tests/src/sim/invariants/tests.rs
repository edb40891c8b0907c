//! Checks of what the cores do not let a test get wrong from outside.

use quorate::Transaction;
use quorate::types::{
    Blob, ClientId, Epoch, GroupId, KeyRange, MigrationId, NodeId, ReplicaId, RequestId, ShardId,
};
use quorate_calvin::shard::rows::{PendingRow, SequencedWork, Work};
use quorate_calvin::{Contribution, SequencedTxn};
use quorate_meta::{Move, Operator, OperatorState, Registry, ReplicaChange, Task};
use tokio::time::Instant;

use super::homes::check_end;
use super::*;
use crate::sim::finding::Findings;
use crate::sim::ledger::Report;

fn found(findings: &Findings) -> Vec<String> {
    findings.all().into_iter().map(|finding| finding.rule).collect()
}

/// A transaction that waits for inputs, or still for its locks.
fn waiting(transaction: &Transaction, is_granted: bool) -> PendingRow {
    let request = RequestId { client: ClientId(1), sequence: 1, birth: Epoch(1), ack_below: 0 };
    let txn = SequencedTxn {
        position: 0,
        request,
        call: transaction.call(),
        home: ShardId(1),
        participants: Vec::new().into(),
    };
    let range = KeyRange::new("", "m");
    let work = SequencedWork { epoch: Epoch(12), time_millis: 1, seed: 1, range, txn };
    PendingRow {
        work: Work::Sequenced(work),
        granted: is_granted.then(Contribution::default),
        inputs: None,
    }
}

fn judge(rows: &[PendingRow]) -> Vec<String> {
    let findings = Findings::default();
    let mut report = Report::new(Instant::now(), findings.clone());
    let places = (11..).map(|index| quorate_calvin::Place { index, position: 0 });
    check_locks(ShardId(1), 20, places.zip(rows), &mut report);
    found(&findings)
}

#[test]
fn o3_who_overtakes_and_who_sleeps_are_found() {
    let (put, get) = (Transaction::new().put("a", "1"), Transaction::new().get("a"));
    let elsewhere = Transaction::new().put("b", "1").put("z", "1");
    let late = Transaction::new().put("z", "1");
    let sound = [
        waiting(&get, true),
        waiting(&get, true),
        waiting(&put, false),
        waiting(&elsewhere, true),
        // Its key is of another shard.
        waiting(&late, true),
    ];
    assert_eq!(judge(&sound), [] as [&str; 0]);
    assert_eq!(judge(&[waiting(&put, true), waiting(&get, true)]), ["O3"]);
    assert_eq!(judge(&[waiting(&put, true), waiting(&elsewhere, false)]), ["O3"]);
}

#[test]
fn m2_a_move_that_ended_half_is_found() {
    let registry = Registry::default();
    let change =
        |added, removed| Move { change: ReplicaChange::Add { to: NodeId(1) }, added, removed };
    // No group has any of these replicas.
    let judge = |change: Move, state| {
        let operator = Operator {
            id: MigrationId(1),
            group: GroupId(17),
            begun_at: 1,
            task: Task::Move(change),
            state,
        };
        let findings = Findings::default();
        let mut report = Report::new(Instant::now(), findings.clone());
        check_end(registry.view(), &operator, &change, &mut report);
        found(&findings)
    };
    let (finished, aborted) = (OperatorState::Finished { at: 2 }, OperatorState::Aborted { at: 2 });
    assert_eq!(judge(change(None, Some(ReplicaId(1))), finished), [] as [&str; 0]);
    assert_eq!(judge(change(Some(ReplicaId(2)), None), finished), ["M2"]);
    assert_eq!(judge(change(Some(ReplicaId(2)), None), aborted), [] as [&str; 0]);
    assert_eq!(judge(change(None, Some(ReplicaId(1))), aborted), ["M2"]);
}

#[test]
fn a_digest_is_a_function_of_the_rows() {
    use quorate_engine::{Batch, Fork, Mutation, Space};
    let mut direct = Print::default();
    for (key, value) in [("a", "1"), ("n", "2"), ("z", "3")] {
        let hash = row_hash(Space::Data, key.as_bytes(), value.as_bytes());
        direct.set(Space::Data, key.as_bytes(), Some(hash));
    }
    let (node, space, child) = (NodeId(1), ShardId(1), ShardId(2));
    let findings = Findings::default();
    let mut report = Report::new(Instant::now(), findings.clone());
    let mut book = RowsBook::default();
    book.created(node, space, 10, Print::default());
    let put = |key: &str, value: &str| Mutation::put(key, value);
    let mut apply = |batch: &Batch| {
        book.applied(node, space, Change::of(batch), &mut report);
        book.print(node, space).unwrap().digest()
    };
    let data = vec![put("a", "0"), put("b", "1"), put("n", "2"), put("z", "2")];
    apply(&Batch { index: 11, data, ..Batch::default() });
    let clears = vec![KeyRange::new("b", "c")];
    let data = vec![put("a", "1"), put("z", "3")];
    let system = vec![put("h", "which belongs to the host")];
    let digest = apply(&Batch { index: 12, clears, data, system, ..Batch::default() });
    assert_eq!(digest, direct.digest());
    let fork = Fork { child, at: Blob::from("n"), child_index: 10, child_system: Vec::new() };
    let digest = apply(&Batch { index: 13, forks: vec![fork], ..Batch::default() });
    let upper = direct.split_off(b"n");
    assert_eq!(digest, direct.digest());
    assert_eq!(book.print(node, child).unwrap().digest(), upper.digest());
    assert_eq!(found(&findings), [] as [&str; 0]);
    assert_eq!(upper.difference(&Print::default()).len(), 2);
}
