//! The sequencer: its replicated order and its leader's inbox and watermarks.

use std::time::Duration;

use quorate_calvin::sequencer::{
    NotAdmitted, NotOrdered, SequencerEvent, SequencerLeader, SequencerLimits, SequencerMachine,
};
use quorate_calvin::{
    Access, Call, Footprint, RangeAccess, SequencerBatch, SequencerCommand, SliceBody, Submission,
    WriteSet,
};
use quorate_types::{Blob, ClientId, Epoch, KeyRange, RequestId, Seq, ShardId, TxnId};

use crate::support::procedures::Op;
use crate::support::store::MemStore;
use crate::support::{blob, blobs, map_cut_at, request};

const A: ShardId = ShardId(1);
const B: ShardId = ShardId(2);

struct Replica {
    machine: SequencerMachine,
    store: MemStore,
    index: u64,
}

impl Replica {
    /// A sequencer with a map of two shards, cut at "m".
    fn new(retention_millis: u64) -> Self {
        let store = MemStore::default();
        let machine = SequencerMachine::load(&store, 0).unwrap();
        let mut replica = Self { machine, store, index: 0 };
        replica.apply(SequencerCommand::Init { map: map_cut_at(&["m"]), retention_millis });
        replica
    }

    fn apply(&mut self, command: SequencerCommand) -> Vec<SequencerEvent> {
        self.index += 1;
        let mut writes = WriteSet::default();
        let bytes = command.to_bytes();
        let events = self.machine.apply(&mut writes, self.index, Some(&bytes)).unwrap();
        self.machine.finish(&mut writes);
        self.store.commit_at(self.index, writes);
        events
    }

    fn restart(&mut self) {
        self.machine = SequencerMachine::load(&self.store, self.index).unwrap();
    }

    fn batch(&mut self, submissions: Vec<Submission>) -> Vec<SequencerEvent> {
        self.batch_at(0, Epoch(0), submissions)
    }

    fn batch_at(
        &mut self,
        time_millis: u64,
        done: Epoch,
        submissions: Vec<Submission>,
    ) -> Vec<SequencerEvent> {
        let txns = submissions.into();
        self.apply(SequencerCommand::Batch(SequencerBatch { time_millis, seed: 0, done, txns }))
    }
}

fn submission(request: RequestId, reads: &[&str], writes: &[&str]) -> Submission {
    let op = Op::ReadWrite {
        reads: blobs(reads).into(),
        writes: blobs(writes).into(),
        value: blob("T"),
    };
    Submission { request, call: op.call() }
}

fn ordered(events: &[SequencerEvent]) -> Vec<(RequestId, TxnId, ShardId)> {
    events
        .iter()
        .filter_map(|event| match event {
            SequencerEvent::Ordered { request, txn, home } => Some((*request, *txn, *home)),
            _ => None,
        })
        .collect()
}

fn txn(epoch: u64, position: u32) -> TxnId {
    TxnId { epoch: Epoch(epoch), position }
}

#[test]
fn nodedb_conflicts_are_ordered_not_rejected() {
    let mut replica = Replica::new(1_000);
    let conflicting = (0..3).map(|at| submission(request(1, at), &["a"], &["a", "z"]));
    let events = replica.batch(conflicting.collect());
    let places: Vec<TxnId> = ordered(&events).iter().map(|(_, txn, _)| *txn).collect();
    assert_eq!(places, [txn(2, 0), txn(2, 1), txn(2, 2)]);
}

#[test]
fn nodedb_who_only_is_read_takes_part() {
    let mut replica = Replica::new(1_000);
    replica.batch(vec![submission(request(1, 0), &["z"], &["a"])]);
    let slice = replica.machine.slice(B, Epoch(2)).expect("B is read");
    let SliceBody::Transactions(txns) = &slice.body else { panic!("{slice:?}") };
    let roles: Vec<_> =
        txns[0].participants.iter().map(|it| (it.shard, it.reads, it.writes)).collect();
    assert_eq!(roles, [(A, false, true), (B, true, false)]);
}

#[test]
fn a_chain_names_each_shards_previous_epoch_and_outlives_a_restart() {
    let mut replica = Replica::new(1_000);
    replica.batch(vec![submission(request(1, 0), &[], &["a", "z"])]);
    replica.batch(vec![submission(request(1, 1), &[], &["a"])]);
    replica.restart();
    replica.batch(vec![submission(request(1, 2), &[], &["a", "z"])]);
    let chain = |shard| {
        let slices = replica.machine.slices_after(shard, Epoch(0), 10);
        slices.map(|slice| (slice.prev.0, slice.epoch.0)).collect::<Vec<_>>()
    };
    assert_eq!(chain(A), [(0, 2), (2, 3), (3, 4)]);
    assert_eq!(chain(B), [(0, 2), (2, 4)]);
}

#[test]
fn a_request_is_ordered_once_however_often_it_is_submitted() {
    let mut replica = Replica::new(1_000);
    let twice = vec![submission(request(1, 0), &[], &["a"]); 2];
    let first = ordered(&replica.batch(twice));
    replica.restart();
    let again = ordered(&replica.batch(vec![submission(request(1, 0), &[], &["a"])]));
    assert_eq!(first, [again[0], again[0]]);
    assert_eq!(replica.machine.slices_after(A, Epoch(2), 10).count(), 0);
    let acknowledging = RequestId { ack_below: 1, ..request(1, 1) };
    replica.batch(vec![submission(acknowledging, &[], &["a"])]);
    let late = replica.batch(vec![submission(request(1, 0), &[], &["a"])]);
    let expired = SequencerEvent::Refused { request: request(1, 0), reason: NotOrdered::Expired };
    assert_eq!(late, [expired]);
}

#[test]
fn nodedb_a_lost_batch_leaves_its_numbers_to_nobody() {
    // The epoch is the log index: a batch that is not in the log has none.
    let mut replica = Replica::new(1_000);
    let mut leader =
        SequencerLeader::new(&replica.machine, SequencerLimits::default(), Duration::ZERO);
    leader
        .submit(&replica.machine, submission(request(1, 0), &[], &["a"]), Duration::ZERO)
        .unwrap();
    drop(leader.next_batch(&replica.machine, Duration::ZERO, 0, 0).unwrap());
    let events = replica.batch(vec![submission(request(2, 0), &[], &["a"])]);
    assert_eq!(ordered(&events), [(request(2, 0), txn(2, 0), A)]);
    assert_eq!(replica.machine.lookup(&request(1, 0)), None);
}

fn range_call(ranges: &[(KeyRange, Access)], reads: &[&str]) -> Call {
    let ranges: Vec<_> = ranges
        .iter()
        .map(|(range, access)| RangeAccess { range: range.clone(), access: *access })
        .collect();
    let footprint =
        Footprint { reads: blobs(reads).into(), writes: Seq::new(), ranges: ranges.into() };
    Call { procedure: 0, args: Blob::new(), footprint }
}

#[test]
fn what_touches_nothing_is_refused_and_the_home_takes_part() {
    let mut replica = Replica::new(1_000);
    let nothing = (KeyRange::new("z", "z"), Access::Write);
    let call = range_call(std::slice::from_ref(&nothing), &[]);
    let events = replica.batch(vec![Submission { request: request(1, 0), call }]);
    let refused = SequencerEvent::Refused { request: request(1, 0), reason: NotOrdered::Empty };
    assert_eq!(events, [refused]);
    // An empty range at B must not make B the home of what A alone takes part in.
    let call = range_call(&[nothing], &["a"]);
    let events = replica.batch(vec![Submission { request: request(1, 1), call }]);
    assert_eq!(ordered(&events)[0].2, A);
}

#[test]
fn floors_let_slices_and_requests_go() {
    let mut replica = Replica::new(5_000);
    replica.batch_at(10_000, Epoch(0), vec![submission(request(1, 0), &[], &["a", "z"])]);
    assert_eq!(replica.machine.slice_count(), 2);
    replica.batch_at(11_000, Epoch(2), vec![]);
    assert_eq!(replica.machine.slice_count(), 0, "done everywhere");
    assert!(replica.machine.lookup(&request(1, 0)).is_some(), "but young");
    replica.batch_at(17_000, Epoch(3), vec![]);
    replica.restart();
    assert_eq!(replica.machine.floors().expired, Epoch(1), "who was born before the second batch");
    assert_eq!(replica.machine.lookup(&request(1, 0)), None);
    let events = replica.batch(vec![submission(request(1, 0), &[], &["a"])]);
    assert!(matches!(events[0], SequencerEvent::Refused { reason: NotOrdered::Expired, .. }));
}

/// What is done stands still with the watermark, at which new requests are
/// born; when it goes on, they are as young as they are.
#[test]
fn a_shard_that_is_silent_for_longer_than_the_retention_expires_nothing_new() {
    let mut replica = Replica::new(5_000);
    replica.batch_at(10_000, Epoch(0), vec![]);
    replica.batch_at(11_000, Epoch(0), vec![submission(request(1, 0), &[], &["z"])]);
    let stuck_at = Epoch(2);
    for second in 12..100 {
        replica.batch_at(second * 1_000, stuck_at, vec![]);
    }
    assert!(replica.machine.floors().expired < stuck_at, "{:?}", replica.machine.floors());
    let born = |client| RequestId { birth: stuck_at, ..request(client, 0) };
    let events = replica.batch(vec![submission(born(2), &[], &["a"])]);
    assert_eq!(ordered(&events).len(), 1, "{events:?}");
    // The shard is back.
    let back = Epoch(replica.machine.applied().0);
    let events = replica.batch_at(100_000, back, vec![submission(born(3), &[], &["a"])]);
    assert_eq!(ordered(&events).len(), 1, "{events:?}");
    assert!(replica.machine.lookup(&born(2)).is_some(), "its retry gets its place");
    for second in 101..110 {
        replica.batch_at(second * 1_000, back, vec![]);
    }
    assert!(replica.machine.floors().expired >= stuck_at);
}

/// Its row, and its client's mark, would never go.
#[test]
fn a_request_that_was_born_later_than_its_batch_is_refused() {
    let mut replica = Replica::new(1_000);
    let born = |client, birth| RequestId { birth: Epoch(birth), ..request(client, 0) };
    let of = |request| submission(request, &[], &["a"]);
    let last = replica.machine.applied().0;
    let births = [last, last + 1, u64::MAX];
    let txns = births.into_iter().zip(1..).map(|(birth, client)| of(born(client, birth)));
    let events = replica.batch(txns.collect());
    assert_eq!(ordered(&events).len(), 1, "{events:?}");
    let unborn = |client, birth| SequencerEvent::Refused {
        request: born(client, birth),
        reason: NotOrdered::Unborn,
    };
    assert!(events.contains(&unborn(2, last + 1)), "{events:?}");
    assert!(events.contains(&unborn(3, u64::MAX)), "{events:?}");
    assert_eq!(replica.machine.remembered_count(), 2, "one request and its client");
}

#[test]
fn a_long_retention_ends_too() {
    let day_millis = 24 * 3_600 * 1_000;
    let mut replica = Replica::new(day_millis);
    replica.batch_at(1_000, Epoch(0), vec![submission(request(1, 0), &[], &["a"])]);
    for second in 0..10_000 {
        let done = Epoch(replica.index);
        replica.batch_at(2_000 + second * 20_000, done, vec![]);
    }
    assert_eq!(replica.machine.lookup(&request(1, 0)), None, "after two days");
}

#[test]
fn the_logs_clock_never_goes_back() {
    let mut replica = Replica::new(1_000);
    replica.batch_at(9_000, Epoch(0), vec![submission(request(1, 0), &[], &["a"])]);
    replica.batch_at(4_000, Epoch(0), vec![submission(request(1, 1), &[], &["a"])]);
    assert_eq!(replica.machine.slice(A, Epoch(3)).unwrap().time_millis, 9_000);
}

#[test]
fn l_and_c_wait_for_every_participant() {
    let mut replica = Replica::new(1_000);
    let mut leader =
        SequencerLeader::new(&replica.machine, SequencerLimits::default(), Duration::ZERO);
    replica.batch(vec![submission(request(1, 0), &[], &["a", "z"])]);
    leader.catch_up(&replica.machine, Duration::ZERO);
    let marks = |leader: &SequencerLeader, replica: &Replica| {
        let marks = leader.watermarks(&replica.machine);
        (marks.logged.0, marks.done.0)
    };
    assert_eq!(marks(&leader, &replica), (1, 1));
    leader.reported(&replica.machine, A, Epoch(2), Epoch(2));
    leader.reported(&replica.machine, B, Epoch(2), Epoch(1));
    assert_eq!(marks(&leader, &replica), (2, 1), "logged at both, not done at B");
    leader.reported(&replica.machine, B, Epoch(2), Epoch(2));
    assert_eq!(marks(&leader, &replica), (2, 2));
    let next = SequencerLeader::new(&replica.machine, SequencerLimits::default(), Duration::ZERO);
    assert_eq!(marks(&next, &replica), (1, 1), "a new leader knows only what it is told");
}

#[test]
fn l_and_c_do_not_pass_an_epoch_that_the_leader_was_not_told_of() {
    let mut replica = Replica::new(1_000);
    let leader = SequencerLeader::new(&replica.machine, SequencerLimits::default(), Duration::ZERO);
    // Applied, but the event has not reached the leader's role yet.
    replica.batch(vec![submission(request(1, 0), &[], &["a", "z"])]);
    let marks = leader.watermarks(&replica.machine);
    assert_eq!((marks.logged, marks.done), (Epoch(1), Epoch(1)));
    assert_eq!(leader.idle_batch(&replica.machine, 0).done, Epoch(1));
}

#[test]
fn the_inbox_is_fair_between_clients() {
    let replica = Replica::new(1_000);
    let limits = SequencerLimits { batch_txns_max: 4, ..SequencerLimits::default() };
    let mut leader = SequencerLeader::new(&replica.machine, limits, Duration::ZERO);
    for sequence in 0..10 {
        leader
            .submit(&replica.machine, submission(request(1, sequence), &[], &["a"]), Duration::ZERO)
            .unwrap();
    }
    leader
        .submit(&replica.machine, submission(request(2, 0), &[], &["a"]), Duration::ZERO)
        .unwrap();
    let batch = leader.next_batch(&replica.machine, Duration::ZERO, 0, 0).unwrap();
    let clients: Vec<ClientId> = batch.txns.iter().map(|txn| txn.request.client).collect();
    assert_eq!(clients, [1, 2, 1, 1].map(ClientId), "a busy client does not shut out another");
}

#[test]
fn nodedb_limits_count_every_byte_and_never_stall() {
    let replica = Replica::new(1_000);
    let limits = SequencerLimits {
        inbox_bytes_max: 4_000,
        batch_bytes_max: 10,
        ..SequencerLimits::default()
    };
    let mut leader = SequencerLeader::new(&replica.machine, limits, Duration::ZERO);
    let long = "k".repeat(1_500);
    for sequence in 0..2 {
        let range = (KeyRange::new(long.as_str(), "z"), Access::Write);
        let call = range_call(&[range], &[]);
        leader
            .submit(
                &replica.machine,
                Submission { request: request(1, sequence), call },
                Duration::ZERO,
            )
            .unwrap();
    }
    let call = range_call(&[(KeyRange::new(long.as_str(), "z"), Access::Write)], &[]);
    let refused = leader.submit(
        &replica.machine,
        Submission { request: request(1, 2), call },
        Duration::ZERO,
    );
    assert!(refused.is_err(), "the keys of ranges count");
    for _ in 0..2 {
        let batch = leader.next_batch(&replica.machine, Duration::ZERO, 0, 0).unwrap();
        assert_eq!(batch.txns.len(), 1, "one always fits");
    }
    assert!(leader.next_batch(&replica.machine, Duration::ZERO, 0, 0).is_none());
}

#[test]
fn a_report_of_a_shard_that_the_map_does_not_know_leaves_no_trace() {
    let replica = Replica::new(1_000);
    let mut leader = SequencerLeader::new(&replica.machine, defaults(), Duration::ZERO);
    let before = format!("{leader:?}");
    for shard in 3..1_000 {
        leader.reported(&replica.machine, ShardId(shard), Epoch(9), Epoch(9));
    }
    assert_eq!(format!("{leader:?}"), before);
    leader.reported(&replica.machine, A, Epoch(1), Epoch(1));
    assert_ne!(format!("{leader:?}"), before, "a known one does");
}

#[test]
fn a_slow_shard_stops_admission() {
    let mut replica = Replica::new(1_000);
    let limits = SequencerLimits { undone_slices_max: 2, ..SequencerLimits::default() };
    let mut leader = SequencerLeader::new(&replica.machine, limits, Duration::ZERO);
    replica.batch(vec![submission(request(1, 0), &[], &["a", "z"])]);
    leader.catch_up(&replica.machine, Duration::ZERO);
    assert!(
        leader
            .submit(&replica.machine, submission(request(1, 1), &[], &["a"]), Duration::ZERO)
            .is_err()
    );
    leader.reported(&replica.machine, A, Epoch(2), Epoch(0));
    assert!(
        leader
            .submit(&replica.machine, submission(request(1, 1), &[], &["a"]), Duration::ZERO)
            .is_err()
    );
    leader.reported(&replica.machine, A, Epoch(2), Epoch(2));
    assert!(
        leader
            .submit(&replica.machine, submission(request(1, 1), &[], &["a"]), Duration::ZERO)
            .is_ok()
    );
}

#[test]
fn the_bytes_of_undone_slices_and_what_is_remembered_stop_admission() {
    let mut replica = Replica::new(1_000);
    replica.batch(vec![submission(request(1, 0), &[], &["a", "z"])]);
    let is_admitted = |limits, replica: &Replica| {
        let mut leader = SequencerLeader::new(&replica.machine, limits, Duration::ZERO);
        let before =
            leader.submit(&replica.machine, submission(request(1, 1), &[], &["a"]), Duration::ZERO);
        leader.reported(&replica.machine, A, Epoch(2), Epoch(2));
        leader.reported(&replica.machine, B, Epoch(2), Epoch(2));
        let after =
            leader.submit(&replica.machine, submission(request(1, 2), &[], &["a"]), Duration::ZERO);
        (before.is_ok(), after.is_ok())
    };
    let bytes = SequencerLimits { undone_bytes_max: 400, ..defaults() };
    assert_eq!(is_admitted(bytes, &replica), (false, true));
    let remembered = SequencerLimits { remembered_max: 1, ..defaults() };
    assert_eq!(is_admitted(remembered, &replica), (false, false));
    assert_eq!(is_admitted(defaults(), &replica), (true, true));
}

#[test]
fn what_a_silent_shard_takes_part_in_is_refused_before_admission() {
    let mut replica = Replica::new(1_000);
    let limits = SequencerLimits { unlogged_wait_max: Duration::from_secs(2), ..defaults() };
    let mut leader = SequencerLeader::new(&replica.machine, limits, Duration::ZERO);
    let submit = |leader: &mut SequencerLeader, replica: &Replica, keys: &[&str], millis| {
        let submission = submission(request(1, 1), &[], keys);
        leader.submit(&replica.machine, submission, Duration::from_millis(millis))
    };
    // A logs its slice; B does not.
    replica.batch(vec![submission(request(1, 0), &[], &["a", "z"])]);
    leader.catch_up(&replica.machine, Duration::from_secs(10));
    leader.reported(&replica.machine, A, Epoch(2), Epoch(2));
    assert_eq!(submit(&mut leader, &replica, &["a", "z"], 12_000), Ok(()), "it may be slow");
    assert_eq!(
        submit(&mut leader, &replica, &["a", "z"], 12_001),
        Err(NotAdmitted::ShardDown(B)),
        "or down"
    );
    assert_eq!(submit(&mut leader, &replica, &["a"], 12_001), Ok(()), "A is not");
    // A report without progress is no sign of a quorum.
    leader.reported(&replica.machine, B, Epoch(0), Epoch(0));
    assert!(submit(&mut leader, &replica, &["z"], 12_002).is_err());
    leader.reported(&replica.machine, B, Epoch(2), Epoch(0));
    assert_eq!(submit(&mut leader, &replica, &["z"], 12_003), Ok(()), "it has logged its work");
}

#[test]
fn the_wait_of_a_slice_begins_anew_with_each_leader_and_each_slice() {
    let mut replica = Replica::new(1_000);
    let limits = SequencerLimits { unlogged_wait_max: Duration::from_secs(2), ..defaults() };
    let submit = |leader: &mut SequencerLeader, replica: &Replica, millis| {
        let submission = submission(request(1, 1), &[], &["a", "z"]);
        leader.submit(&replica.machine, submission, Duration::from_millis(millis)).is_ok()
    };
    replica.batch(vec![submission(request(1, 0), &[], &["z"])]);
    let mut leader = SequencerLeader::new(&replica.machine, limits, Duration::from_secs(100));
    assert!(submit(&mut leader, &replica, 102_000), "nobody knows how old the slice is");
    assert!(!submit(&mut leader, &replica, 102_001));
    // The next slice of the same shard has waited for a second less.
    replica.batch(vec![submission(request(1, 2), &[], &["z"])]);
    leader.catch_up(&replica.machine, Duration::from_secs(101));
    leader.reported(&replica.machine, B, Epoch(2), Epoch(2));
    assert!(submit(&mut leader, &replica, 103_000));
    assert!(!submit(&mut leader, &replica, 103_001));
}

fn defaults() -> SequencerLimits {
    SequencerLimits::default()
}
