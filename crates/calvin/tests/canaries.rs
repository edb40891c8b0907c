//! The planted bugs, each found by random runs of the model: what is planted is
//! what its name says, and nothing heals it. Only in a build that has them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(missing_docs, unreachable_pub, dead_code, reason = "the support is shared between files")]

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use quorate_calvin::sequencer::SequencerMachine;
use quorate_calvin::shard::{ReadOutcome, ShardMachine};
use quorate_calvin::{
    Call, Direct, Floors, Participant, SequencedTxn, SequencerBatch, SequencerCommand,
    ShardCommand, Slice, SliceBody, Submission, WriteSet,
};
use quorate_testkit::canary::with;
use quorate_types::fault::Canary;
use quorate_types::{Blob, Epoch, KeyRange, ShardEpoch, ShardId};

use support::procedures::{Op, Service, quiet_contained_panics};
use support::random::{MIXED, Run};
use support::store::MemStore;
use support::{blob, blobs, map_cut_at, request};

/// Whether a few random runs of the model find it.
fn is_found(canary: Canary) -> bool {
    quiet_contained_panics();
    (0..100).any(|seed| {
        let run = || {
            let mut run = Run::new(seed, MIXED);
            run.finish();
            run.judge();
        };
        catch_unwind(AssertUnwindSafe(|| with(canary, run))).is_err()
    })
}

#[test]
fn random_runs_find_what_is_planted_in_the_shard_machine() {
    for canary in [
        Canary::LockReleasedEarly,
        Canary::SliceGapAccepted,
        Canary::InputsForgotten,
        Canary::RetryWithoutDedup,
    ] {
        assert!(is_found(canary), "{} goes unnoticed", canary.name());
    }
}

/// Writes keys of both of two shards, cut at "m".
fn write(keys: &[&str]) -> Call {
    Op::Write { keys: blobs(keys).into(), value: blob("v") }.call()
}

#[test]
fn a_busy_shard_loses_slices_and_its_chain_does_not_show_it() {
    let chain = with(Canary::SliceLost, || {
        let mut machine = SequencerMachine::load(&MemStore::seeded(Vec::new()), 0).unwrap();
        let mut apply = |index, command: &SequencerCommand| {
            machine.apply(&mut WriteSet::default(), index, Some(&command.to_bytes())).unwrap();
        };
        apply(1, &SequencerCommand::Init { map: map_cut_at(&["m"]), retention_millis: 1_000 });
        for epoch in 2..22 {
            let call = write(&["a", "z"]);
            let request = request(1, epoch);
            let (time_millis, seed, done) = (0, 0, Epoch(0));
            let txns = vec![Submission { request, call }].into();
            let batch = SequencerBatch { time_millis, seed, done, txns };
            apply(epoch, &SequencerCommand::Batch(batch));
        }
        let kept = machine.slices_after(ShardId(1), Epoch(0), 100);
        kept.map(|slice| (slice.prev, slice.epoch)).collect::<Vec<_>>()
    });
    assert_eq!(chain.len(), 16, "the last four are lost");
    assert!(chain.windows(2).all(|pair| pair[1].0 == pair[0].1), "{chain:?}");
}

/// The position of a read of `k`, which a direct command wrote together with
/// `a`, which the transaction of epoch 5 wrote.
fn position_behind_a_chain() -> Epoch {
    let range = KeyRange { start: Blob::new(), end: Some(blob("m")) };
    let store = MemStore::seeded(ShardMachine::seed(range.clone(), ShardEpoch(1)));
    let mut machine = ShardMachine::load(ShardId(1), Arc::new(Service), &store).unwrap().unwrap();
    let mut apply = |index, command: ShardCommand| {
        let mut writes = WriteSet::default();
        machine.apply(&store, &mut writes, index, &command.to_bytes()).unwrap();
        machine.finish(&mut writes);
        store.commit_at(index, writes);
    };
    let writes = |shard| Participant { shard: ShardId(shard), reads: false, writes: true };
    let txn = SequencedTxn {
        position: 0,
        request: request(1, 1),
        call: write(&["a", "z"]),
        home: ShardId(1),
        participants: vec![writes(1), writes(2)].into(),
    };
    let slice = Slice {
        epoch: Epoch(5),
        prev: Epoch(0),
        time_millis: 0,
        seed: 0,
        range,
        floors: Floors::default(),
        body: SliceBody::Transactions(vec![txn].into()),
    };
    apply(1, ShardCommand::Slices(vec![slice].into()));
    let (request, call) = (request(2, 1), write(&["a", "k"]));
    let (epoch, time_millis, seed) = (ShardEpoch(1), 0, 0);
    apply(2, ShardCommand::Direct(Direct { request, epoch, time_millis, seed, call }));
    let read = Op::Read(blobs(&["k"]).into()).call();
    match machine.read(&store, &read, ShardEpoch(1), 0).unwrap() {
        ReadOutcome::Answer { position, .. } => position,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_read_behind_a_chain_waits_for_less_than_it_has_to() {
    assert_eq!(position_behind_a_chain(), Epoch(5));
    assert_eq!(with(Canary::EarlyReply, position_behind_a_chain), Epoch(5));
    assert_eq!(with(Canary::EarlyReplyChain, position_behind_a_chain), Epoch(0));
}
