//! The shard machine, entry by entry.

use std::sync::Arc;
use std::time::Duration;

use quorate_calvin::shard::{
    Event, Feeder, FenceOutcome, LeaderOutput, ReadOutcome, Refusal, ShardLeader, ShardMachine,
    Verdict,
};
use quorate_calvin::{
    Call, Direct, Fence, Floors, MapChange, Member, Participant, SequencedTxn, ShardCommand, Slice,
    SliceBody, WriteSet,
};
use quorate_types::{
    Blob, Epoch, KeyRange, NodeId, ReplicaId, RequestId, Seq, ShardEpoch, ShardId, TxnId,
};

use crate::support::procedures::{Op, Service, quiet_contained_panics};
use crate::support::store::MemStore;
use crate::support::{blob, blobs, request};

const A: ShardId = ShardId(1);
const B: ShardId = ShardId(2);

/// A replica fed by hand.
struct Replica {
    machine: ShardMachine,
    store: MemStore,
    index: u64,
    now_millis: u64,
}

impl Replica {
    fn new(range: KeyRange) -> Self {
        let store = MemStore::seeded(ShardMachine::seed(range, ShardEpoch(1)));
        let machine = ShardMachine::load(A, Arc::new(Service), &store).unwrap().unwrap();
        Self { machine, store, index: 0, now_millis: 1_000 }
    }

    fn apply(&mut self, command: ShardCommand) -> Vec<Event> {
        self.index += 1;
        let mut writes = WriteSet::default();
        let bytes = command.to_bytes();
        let events = self.machine.apply(&self.store, &mut writes, self.index, &bytes).unwrap();
        self.machine.finish(&mut writes);
        self.store.commit_at(self.index, writes);
        events
    }

    fn restart(&mut self) {
        self.machine = ShardMachine::load(A, Arc::new(Service), &self.store).unwrap().unwrap();
    }

    fn direct(&mut self, request: RequestId, op: &Op) -> Vec<Event> {
        let epoch = self.machine.epoch();
        let (time_millis, call) = (self.now_millis, op.call());
        self.apply(ShardCommand::Direct(Direct { request, epoch, time_millis, seed: 0, call }))
    }

    /// Runs an operation under a fresh request and returns its result.
    fn result(&mut self, op: &Op) -> String {
        let request = RequestId { birth: Epoch(1_000), ..request(99, self.index) };
        match self.direct(request, op).as_slice() {
            [Event::Decided { verdict: Verdict::Done(result), .. }] => {
                String::from_utf8_lossy(result).into_owned()
            }
            other => panic!("{other:?}"),
        }
    }

    fn version(&mut self, key: &str) -> u64 {
        let seen = self.result(&Op::Watch(blobs(&[key]).into()));
        seen.rsplit_once('@').unwrap().1.parse().unwrap()
    }
}

fn write(keys: &[&str], value: &str) -> Op {
    Op::Write { keys: blobs(keys).into(), value: blob(value) }
}

fn read(keys: &[&str]) -> Op {
    Op::Read(blobs(keys).into())
}

fn append(key: &str, item: &str) -> Op {
    Op::Append { keys: blobs(&[key]).into(), item: blob(item) }
}

/// A transaction of A (keys below "m") and B, with the home at A.
fn cross(position: u32, request: RequestId, op: &Op) -> SequencedTxn {
    let footprint = op.footprint();
    let side = |keys: &Seq<Blob>, shard: ShardId| {
        keys.iter().any(|key| (*key < blob("m")) == (shard == A))
    };
    let participants = [A, B].map(|shard| Participant {
        shard,
        reads: side(&footprint.reads, shard),
        writes: side(&footprint.writes, shard),
    });
    let takes_part = |it: &Participant| it.reads || it.writes;
    let participants = participants.into_iter().filter(takes_part).collect();
    SequencedTxn { position, request, call: op.call(), home: A, participants }
}

fn slice(prev: u64, epoch: u64, txns: Vec<SequencedTxn>) -> Slice {
    Slice {
        epoch: Epoch(epoch),
        prev: Epoch(prev),
        time_millis: 0,
        seed: 0,
        range: low(),
        floors: Floors::default(),
        body: SliceBody::Transactions(txns.into()),
    }
}

fn slices(slices: Vec<Slice>) -> ShardCommand {
    ShardCommand::Slices(slices.into())
}

fn low() -> KeyRange {
    KeyRange { start: Blob::new(), end: Some(blob("m")) }
}

fn split(prev: u64, epoch: u64, at: &str) -> Slice {
    let change = MapChange {
        version: 2,
        parent: A,
        at: blob(at),
        child: ShardId(7),
        members: vec![Member { replica: ReplicaId(1), node: NodeId(1) }].into(),
        epoch: ShardEpoch(2),
    };
    Slice { body: SliceBody::Split(change), ..slice(prev, epoch, vec![]) }
}

fn decided(events: &[Event]) -> Vec<&Verdict> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Decided { verdict, .. } => Some(verdict),
            _ => None,
        })
        .collect()
}

fn accepted(events: &[Event]) -> Vec<Epoch> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Accepted(epoch) => Some(*epoch),
            _ => None,
        })
        .collect()
}

#[test]
fn nodedb_a_gap_in_the_chain_is_not_skipped() {
    let mut replica = Replica::new(low());
    assert_eq!(accepted(&replica.apply(slices(vec![slice(57, 60, vec![])]))), []);
    assert_eq!(replica.machine.cursor(), Epoch(0), "a gap moves nothing");
    // The first epoch of a shard may be any: the chain is named, not numbered.
    let chain = vec![slice(0, 57, vec![]), slice(57, 60, vec![])];
    assert_eq!(accepted(&replica.apply(slices(chain))), [Epoch(57), Epoch(60)]);
    let again = vec![slice(0, 57, vec![]), slice(57, 60, vec![]), slice(60, 61, vec![])];
    assert_eq!(accepted(&replica.apply(slices(again))), [Epoch(61)], "once each");
}

#[test]
fn the_feeder_proposes_the_chain_and_notices_gaps() {
    let mut feeder = Feeder::default();
    feeder.offer(Epoch(0), [slice(5, 9, vec![]), slice(2, 5, vec![])]);
    assert_eq!(feeder.next(Epoch(0)), None);
    assert!(feeder.has_gap(Epoch(0)));
    feeder.offer(Epoch(0), [slice(0, 2, vec![])]);
    let epochs = |slices: Vec<Slice>| slices.iter().map(|it| it.epoch.0).collect::<Vec<_>>();
    assert_eq!(feeder.next(Epoch(0)).map(epochs), Some(vec![2, 5, 9]));
    assert_eq!(feeder.next(Epoch(0)), None, "one entry is in flight");
    feeder.landed();
    assert_eq!(feeder.next(Epoch(5)).map(epochs), Some(vec![9]), "what was not accepted");
}

#[test]
fn the_feeder_keeps_no_more_bytes_than_it_may_and_drops_the_youngest() {
    let op = Op::Append { keys: blobs(&["a"]).into(), item: vec![7; 512 << 10].into() };
    let mut feeder = Feeder::default();
    for _ in 0..2 {
        for epoch in 1..=100 {
            let txn = cross(0, request(1, epoch), &op);
            feeder.offer(Epoch(0), [slice(epoch - 1, epoch, vec![txn])]);
        }
    }
    let mut cursor = Epoch(0);
    while let Some(chain) = feeder.next(cursor) {
        cursor = chain.last().unwrap().epoch;
        feeder.landed();
    }
    assert!((60..64).contains(&cursor.0), "of 50 MiB the first 32 are kept, and {cursor} slices");
    feeder.offer(cursor, [slice(cursor.0, 200, vec![])]);
    assert!(feeder.next(cursor).is_some(), "there is room again");
}

#[test]
fn a_retry_gets_the_first_result() {
    let mut replica = Replica::new(low());
    replica.direct(request(1, 0), &append("a", "1"));
    replica.restart();
    let retried = replica.direct(request(1, 0), &append("a", "1"));
    assert_eq!(decided(&retried), [&Verdict::Done(blob("-"))]);
    assert_eq!(replica.result(&read(&["a"])), ".1", "it ran once");
}

#[test]
fn a_request_acknowledged_or_born_below_the_floor_is_expired() {
    let mut replica = Replica::new(low());
    replica.direct(request(1, 0), &append("a", "1"));
    let acknowledging = RequestId { ack_below: 1, ..request(1, 1) };
    replica.direct(acknowledging, &append("a", "2"));
    let is_expired = |events: Vec<Event>| {
        matches!(events[..], [Event::Refused { refusal: Refusal::Expired, .. }])
    };
    assert!(is_expired(replica.direct(request(1, 0), &append("a", "1"))));
    let born = |sequence, birth| RequestId { birth: Epoch(birth), ..request(2, sequence) };
    replica.direct(born(0, 4), &append("a", "3"));
    replica.apply(ShardCommand::Floor(Floors { done: Epoch(9), expired: Epoch(4) }));
    assert!(is_expired(replica.direct(born(0, 4), &append("a", "3"))));
    assert!(is_expired(replica.direct(born(1, 4), &append("a", "4"))), "even if it never ran");
    assert!(!is_expired(replica.direct(born(2, 5), &append("a", "5"))));
    assert_eq!(replica.result(&read(&["a"])), ".1.2.3.5");
}

#[test]
fn a_floor_lets_clients_without_requests_go_too() {
    let mut replica = Replica::new(low());
    replica.direct(request(1, 0), &append("a", "1"));
    replica.direct(RequestId { ack_below: 1, ..request(1, 1) }, &append("a", "2"));
    assert_eq!(replica.machine.remembered_count(), 2, "a request and its client");
    replica.apply(ShardCommand::Floor(Floors { done: Epoch(9), expired: Epoch(4) }));
    assert_eq!(replica.machine.remembered_count(), 0);
    assert_eq!(replica.store.rows().tagged(b'c'), 0);
}

#[test]
fn a_fence_returns_the_result_or_poisons_the_request() {
    let mut replica = Replica::new(low());
    let fence = |request| ShardCommand::Fence(Fence { request, home: blob("a") });
    replica.direct(request(1, 0), &append("a", "1"));
    let outcome = |events: Vec<Event>| match events.into_iter().next() {
        Some(Event::Fenced { outcome, .. }) => outcome,
        other => panic!("{other:?}"),
    };
    let ran = FenceOutcome::Decided(Verdict::Done(blob("-")));
    assert_eq!(outcome(replica.apply(fence(request(1, 0)))), ran);
    assert_eq!(outcome(replica.apply(fence(request(1, 1)))), FenceOutcome::Poisoned);
    replica.restart();
    let late = replica.direct(request(1, 1), &append("a", "2"));
    assert!(matches!(late[..], [Event::Refused { refusal: Refusal::Poisoned, .. }]));
    assert_eq!(replica.result(&read(&["a"])), ".1");
    let elsewhere = Fence { request: request(1, 5), home: blob("z") };
    let events = replica.apply(ShardCommand::Fence(elsewhere));
    assert!(matches!(events[..], [Event::Refused { refusal: Refusal::Moved, .. }]));
}

#[test]
fn nodedb_an_unknown_request_is_not_complete() {
    let replica = Replica::new(low());
    assert_eq!(replica.machine.lookup(&request(5, 5)), None);
}

#[test]
fn a_panic_or_a_stray_write_is_the_same_abort_everywhere() {
    quiet_contained_panics();
    let mut replicas = [Replica::new(low()), Replica::new(low())];
    let stray = Op::Stray { declared: blob("a"), written: blob("b") };
    let ops = [Op::Panic(blobs(&["a"]).into()), stray];
    for replica in &mut replicas {
        for (number, op) in ops.iter().enumerate() {
            let events = replica.direct(request(1, number as u64), op);
            assert!(matches!(decided(&events)[..], [Verdict::Aborted(_)]), "{events:?}");
        }
        let mut txns = Vec::new();
        for (number, op) in ops.iter().enumerate() {
            txns.push(cross(number as u32, request(2, number as u64), op));
        }
        let events = replica.apply(slices(vec![slice(0, 1, txns)]));
        assert!(matches!(decided(&events)[..], [Verdict::Aborted(_), Verdict::Aborted(_)]));
        assert_eq!(replica.result(&read(&["a", "b"])), "-,-");
    }
    assert_eq!(replicas[0].store.digest(), replicas[1].store.digest());
}

#[test]
fn a_command_that_reads_too_much_is_an_abort() {
    let mut replica = Replica::new(low());
    let keys = ["a", "b", "c", "d", "e", "f", "g"];
    let megabyte = "x".repeat(1_000_000);
    for (sequence, key) in keys.iter().enumerate() {
        replica.direct(request(1, sequence as u64), &write(&[key], &megabyte));
    }
    let reads_too_much = Verdict::Aborted(blob("the transaction reads too much"));
    let answer = unlogged(&replica, &keys);
    assert_eq!(answer, ReadOutcome::Answer { verdict: reads_too_much.clone(), position: Epoch(0) });
    let events = replica.direct(request(1, 7), &read(&keys));
    assert_eq!(decided(&events), [&reads_too_much]);
    assert!(matches!(
        unlogged(&replica, &keys[..3]),
        ReadOutcome::Answer { verdict: Verdict::Done(_), .. }
    ));
}

/// Reads at this instant, without the log.
fn unlogged(replica: &Replica, keys: &[&str]) -> ReadOutcome {
    let call = read(keys).call();
    replica.machine.read(&replica.store, &call, replica.machine.epoch(), 0).unwrap()
}

/// Logs the inputs that a leader collects, given what B would contribute.
fn inputs_of(replica: &Replica, txn: TxnId, theirs: &[(&str, &str)]) -> ShardCommand {
    let mut leader = ShardLeader::new(&replica.machine, Duration::ZERO);
    let reads = theirs
        .iter()
        .map(|(key, value)| quorate_calvin::Read {
            key: blob(key),
            version: 1,
            value: Some(blob(value)),
            expires_millis: None,
        })
        .collect();
    let contribution =
        quorate_calvin::Contribution { reads, scans: Seq::new(), is_too_large: false };
    leader.contributed(&replica.machine, txn, B, contribution, Duration::ZERO);
    let proposed = leader.take_outputs().into_iter().find_map(|output| match output {
        LeaderOutput::Propose(command) => Some(command),
        _ => None,
    });
    proposed.expect("with all inputs at hand the leader logs them")
}

fn txn(epoch: u64, position: u32) -> TxnId {
    TxnId { epoch: Epoch(epoch), position }
}

#[test]
fn nodedb_a_restart_loses_no_position_of_an_epoch() {
    let mut replica = Replica::new(low());
    let swap = Op::ReadWrite {
        reads: blobs(&["z"]).into(),
        writes: blobs(&["a"]).into(),
        value: blob("T"),
    };
    // Both wait for B; the second is behind the first on the key.
    let both = vec![cross(0, request(1, 0), &swap), cross(1, request(1, 1), &swap)];
    replica.apply(slices(vec![slice(0, 3, both)]));
    replica.direct(request(2, 0), &append("a", "D"));
    replica.restart();
    assert_eq!(replica.machine.pending_count(), 3);
    for position in 0..2 {
        let inputs = inputs_of(&replica, txn(3, position), &[("z", "9")]);
        let events = replica.apply(inputs.clone());
        assert_eq!(decided(&events)[0], &Verdict::Done(blob("9")));
        assert_eq!(decided(&replica.apply(inputs)), [] as [&Verdict; 0], "again, it is nothing");
        replica.restart();
    }
    assert_eq!(replica.machine.pending_count(), 0);
    assert_eq!(replica.result(&read(&["a"])), "T.D");
}

#[test]
fn early_inputs_are_kept_until_the_grant() {
    let mut replica = Replica::new(low());
    let swap = Op::ReadWrite {
        reads: blobs(&["z"]).into(),
        writes: blobs(&["a"]).into(),
        value: blob("T"),
    };
    let both = vec![cross(0, request(1, 0), &swap), cross(1, request(1, 1), &swap)];
    replica.apply(slices(vec![slice(0, 3, both)]));
    let first = inputs_of(&replica, txn(3, 0), &[("z", "9")]);
    let ShardCommand::Inputs(second) = &first else { panic!("{first:?}") };
    let second = quorate_calvin::TxnInputs { txn: txn(3, 1), ..second.clone() };
    assert_eq!(decided(&replica.apply(ShardCommand::Inputs(second))), [] as [&Verdict; 0]);
    replica.restart();
    assert_eq!(decided(&replica.apply(first)).len(), 2, "both run in order");
}

/// Two entries under one request are nobody's of ours, but a log may hold
/// them. A replica that restarts in between must know what the others know.
#[test]
fn a_request_that_waits_twice_is_known_until_both_have_ended() {
    let mut replica = Replica::new(low());
    let swap = Op::ReadWrite {
        reads: blobs(&["z"]).into(),
        writes: blobs(&["a"]).into(),
        value: blob("T"),
    };
    replica.apply(slices(vec![slice(0, 3, vec![cross(0, request(1, 0), &swap)])]));
    replica.direct(request(2, 0), &append("a", "1"));
    replica.apply(slices(vec![slice(3, 4, vec![cross(0, request(2, 0), &swap)])]));
    replica.apply(inputs_of(&replica, txn(3, 0), &[("z", "9")]));
    assert_eq!(replica.machine.pending_count(), 1, "the direct command has run");
    let known = replica.machine.lookup(&request(2, 0));
    replica.restart();
    assert_eq!(known, replica.machine.lookup(&request(2, 0)));
    assert_eq!(known, Some(FenceOutcome::Pending));
}

#[test]
fn a_new_leader_asks_for_what_is_missing() {
    let mut replica = Replica::new(low());
    let swap = Op::ReadWrite {
        reads: blobs(&["z"]).into(),
        writes: blobs(&["a"]).into(),
        value: blob("T"),
    };
    replica.apply(slices(vec![slice(0, 3, vec![cross(0, request(1, 0), &swap)])]));
    let mut leader = ShardLeader::new(&replica.machine, Duration::ZERO);
    let ask = LeaderOutput::Ask { to: B, txn: txn(3, 0) };
    assert_eq!(leader.take_outputs(), std::slice::from_ref(&ask));
    leader.tick(&replica.machine, Duration::from_millis(1));
    assert_eq!(leader.take_outputs(), []);
    leader.tick(&replica.machine, Duration::from_secs(1));
    assert_eq!(leader.take_outputs(), [ask], "nobody aborts by a clock; it asks again");
}

#[test]
fn contributions_that_come_early_are_kept_within_a_budget_of_bytes() {
    let mut replica = Replica::new(low());
    let mut leader = ShardLeader::new(&replica.machine, Duration::ZERO);
    let keys: Vec<String> = (0..100).map(|place| format!("a{place}")).collect();
    let read = quorate_calvin::Read {
        key: blob("z"),
        version: 1,
        value: Some(vec![7; 1 << 20].into()),
        expires_millis: None,
    };
    for _ in 0..2 {
        for position in 0..100 {
            let reads = vec![read.clone()].into();
            let contribution =
                quorate_calvin::Contribution { reads, scans: Seq::new(), is_too_large: false };
            leader.contributed(&replica.machine, txn(3, position), B, contribution, Duration::ZERO);
        }
    }
    let copies = keys.iter().zip(0..).map(|(key, position)| {
        let writes = blobs(&[key]).into();
        let op = Op::ReadWrite { reads: blobs(&["z"]).into(), writes, value: blob("T") };
        cross(position, request(1, u64::from(position)), &op)
    });
    let copies = copies.collect();
    replica.apply(slices(vec![slice(0, 3, copies)]));
    for position in 0..100 {
        leader.granted(&replica.machine, txn(3, position), &[], Duration::ZERO);
    }
    let is_proposal = |output: &LeaderOutput| matches!(output, LeaderOutput::Propose(_));
    let proposed = leader.take_outputs().iter().filter(|output| is_proposal(output)).count();
    assert_eq!(proposed, 63, "of 100 MiB no more than 64 were kept");
    leader.tick(&replica.machine, Duration::from_millis(200));
    let asks = |output: &LeaderOutput| matches!(output, LeaderOutput::Ask { to: B, .. });
    let asked = leader.take_outputs().iter().filter(|output| asks(output)).count();
    assert_eq!(asked, 37, "the others are asked for");
}

#[test]
fn who_waits_for_a_read_that_was_dropped_is_told_so() {
    let mut replica = Replica::new(low());
    let look = cross(0, request(1, 0), &read(&["a", "z"]));
    replica.apply(slices(vec![slice(0, 3, vec![look])]));
    let mut leader = ShardLeader::new(&replica.machine, Duration::ZERO);
    let ask = LeaderOutput::Ask { to: B, txn: txn(3, 0) };
    assert_eq!(leader.take_outputs(), [ask], "what an earlier leader collected is lost");
    replica.apply(ShardCommand::Floor(Floors { done: Epoch(3), expired: Epoch(0) }));
    leader.tick(&replica.machine, Duration::from_millis(1));
    let gone = LeaderOutput::Gone { request: request(1, 0) };
    assert_eq!(leader.take_outputs(), [gone], "B has dropped what it read, too");
    leader.tick(&replica.machine, Duration::from_secs(1));
    assert_eq!(leader.take_outputs(), []);
}

#[test]
fn nodedb_passive_reads_are_dispatched() {
    let mut replica = Replica::new(low());
    replica.result(&write(&["a"], "1"));
    let copy = Op::ReadWrite {
        reads: blobs(&["a"]).into(),
        writes: blobs(&["z"]).into(),
        value: blob("T"),
    };
    let mut txn = cross(0, request(1, 0), &copy);
    txn.home = B;
    let events = replica.apply(slices(vec![slice(0, 3, vec![txn])]));
    let granted =
        |event: &Event| matches!(event, Event::Granted { needed_by, .. } if *needed_by == [B]);
    assert!(events.iter().any(granted), "{events:?}");
    assert_eq!(replica.machine.pending_count(), 0, "a reader lets go at once");
    replica.restart();
    let mut leader = ShardLeader::new(&replica.machine, Duration::ZERO);
    leader.asked(&replica.machine, self::txn(3, 0), B);
    let outputs = leader.take_outputs();
    assert!(matches!(outputs[..], [LeaderOutput::Contribute { to: B, .. }]), "{outputs:?}");
    replica.apply(ShardCommand::Floor(Floors { done: Epoch(3), expired: Epoch(0) }));
    assert_eq!(replica.machine.contribution(self::txn(3, 0)), None, "done everywhere: let go");
    assert_eq!(replica.store.rows().tagged(b'o'), 0);
}

#[test]
fn a_direct_command_ahead_of_a_split_keeps_its_effect_on_departing_keys() {
    let mut replica = Replica::new(low());
    let swap = Op::ReadWrite {
        reads: blobs(&["z"]).into(),
        writes: blobs(&["k"]).into(),
        value: blob("T"),
    };
    replica.apply(slices(vec![slice(0, 3, vec![cross(0, request(1, 0), &swap)])]));
    // Behind the transaction on k, ahead of the split that takes k away.
    replica.direct(request(2, 0), &append("k", "D"));
    replica.apply(slices(vec![split(3, 4, "f")]));
    assert_eq!(*replica.machine.range(), KeyRange { start: Blob::new(), end: Some(blob("f")) });
    let inputs = inputs_of(&replica, txn(3, 0), &[("z", "9")]);
    let events = replica.apply(inputs);
    assert_eq!(decided(&events), [&Verdict::Done(blob("9")), &Verdict::Done(blob("T"))]);
    let forked = replica.store.take_forked().remove(0);
    let store = MemStore::new(forked.rows, 10, 0);
    let child = ShardMachine::load(ShardId(7), Arc::new(Service), &store).unwrap().unwrap();
    let read = read(&["k"]).call();
    let answer = child.read(&store, &read, child.epoch(), 0).unwrap();
    assert_eq!(
        answer,
        ReadOutcome::Answer { verdict: Verdict::Done(blob("T.D")), position: Epoch(4) }
    );
    // Its request travels with it: a retry at the child finds the result.
    assert!(matches!(child.lookup(&request(2, 0)), Some(FenceOutcome::Decided(_))));
    assert_eq!(replica.machine.lookup(&request(2, 0)), None);
}

#[test]
fn commands_behind_a_split_that_name_departed_keys_get_moved() {
    let mut replica = Replica::new(low());
    let swap = Op::ReadWrite {
        reads: blobs(&["z"]).into(),
        writes: blobs(&["a"]).into(),
        value: blob("T"),
    };
    replica.apply(slices(vec![slice(0, 3, vec![cross(0, request(1, 0), &swap)])]));
    replica.apply(slices(vec![split(3, 4, "f")]));
    assert_eq!(replica.machine.done(), Epoch(2), "the split waits for the transaction");
    let departed = replica.direct(request(2, 0), &append("k", "D"));
    assert!(matches!(departed[..], [Event::Refused { refusal: Refusal::Moved, .. }]));
    let kept = replica.direct(request(2, 1), &append("b", "D"));
    assert_eq!(kept, [], "it waits behind the barrier");
    replica.restart();
    let inputs = inputs_of(&replica, txn(3, 0), &[("z", "9")]);
    let events = replica.apply(inputs);
    assert_eq!(decided(&events).len(), 2);
    assert!(events.iter().any(|event| matches!(event, Event::Forked { .. })));
    assert_eq!(replica.machine.done(), Epoch(4));
}

#[test]
fn change_and_change_back_is_noticed_across_delete_recreate_and_split() {
    let mut replica = Replica::new(low());
    let mut seen = Vec::new();
    for step in 0..4 {
        seen.push(replica.version("k"));
        match step % 2 {
            0 => replica.result(&write(&["k"], "same")),
            _ => replica.result(&Op::Delete(blobs(&["k"]).into())),
        };
    }
    let missing = replica.version("k");
    seen.push(missing);
    let distinct: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!(distinct.len(), seen.len(), "{seen:?}");
    replica.apply(slices(vec![split(0, 4, "f")]));
    let forked = replica.store.take_forked().remove(0);
    let store = MemStore::new(forked.rows, 10, 0);
    let child = ShardMachine::load(ShardId(7), Arc::new(Service), &store).unwrap().unwrap();
    let watch = |machine: &ShardMachine| {
        let call: Call = Op::Watch(blobs(&["k"]).into()).call();
        machine.read(&store, &call, machine.epoch(), 0).unwrap()
    };
    let unchanged = Blob::from(format!("-@{missing}").as_str());
    assert_eq!(
        watch(&child),
        ReadOutcome::Answer { verdict: Verdict::Done(unchanged), position: Epoch(4) }
    );
    let mut child = Replica { machine: child, store, index: 10, now_millis: 0 };
    let condition = Op::WriteIf { keys: blobs(&["k"]).into(), version: missing, value: blob("x") };
    assert_eq!(child.result(&condition), "ok", "nobody changed it");
    child.result(&Op::Delete(blobs(&["k"]).into()));
    assert_eq!(child.result(&condition), "changed");
    // A cleared range changed every key in it.
    let before = replica.version("b");
    replica.result(&Op::Clear(KeyRange::new("a", "c")));
    assert_ne!(replica.version("b"), before);
}

#[test]
fn an_expiry_that_a_read_observes_is_first_logged() {
    let mut replica = Replica::new(low());
    replica.result(&Op::WriteExpiring { key: blob("a"), value: blob("v"), ttl_millis: 100 });
    let call = read(&["a"]).call();
    let unlogged = |replica: &Replica, now_millis| {
        let epoch = replica.machine.epoch();
        replica.machine.read(&replica.store, &call, epoch, now_millis).unwrap()
    };
    let answer = ReadOutcome::Answer { verdict: Verdict::Done(blob("v")), position: Epoch(0) };
    assert_eq!(unlogged(&replica, 1_050), answer);
    assert_eq!(unlogged(&replica, 1_100), ReadOutcome::MustBeLogged);
    assert_eq!(replica.result(&read(&["a"])), "v", "its own entry's time says it lives");
    let version = replica.version("a");
    replica.now_millis = 1_100;
    assert_eq!(replica.result(&read(&["a"])), "-");
    assert_eq!(replica.store.rows().data.len(), 0, "the log deleted it");
    let condition = Op::WriteIf { keys: blobs(&["a"]).into(), version, value: blob("x") };
    assert_eq!(replica.result(&condition), "changed", "expiry is a change");
}

#[test]
fn a_lagging_leaders_clock_does_not_shorten_a_life() {
    let mut replica = Replica::new(low());
    replica.result(&read(&["a"]));
    replica.now_millis = 500; // A new leader's clock is behind.
    replica.result(&Op::WriteExpiring { key: blob("a"), value: blob("v"), ttl_millis: 100 });
    assert_eq!(replica.result(&read(&["a"])), "v");
}

#[test]
fn a_read_waits_behind_queued_writes_and_checks_ownership() {
    let mut replica = Replica::new(low());
    let swap = Op::ReadWrite {
        reads: blobs(&["z"]).into(),
        writes: blobs(&["a"]).into(),
        value: blob("T"),
    };
    replica.apply(slices(vec![slice(0, 3, vec![cross(0, request(1, 0), &swap)])]));
    let outcome = |op: &Op, epoch| {
        replica.machine.read(&replica.store, &op.call(), ShardEpoch(epoch), 0).unwrap()
    };
    assert_eq!(outcome(&read(&["a"]), 1), ReadOutcome::MustBeLogged);
    assert_eq!(outcome(&Op::Count(KeyRange::new("a", "b")), 1), ReadOutcome::MustBeLogged);
    let free = ReadOutcome::Answer { verdict: Verdict::Done(blob("-")), position: Epoch(3) };
    assert_eq!(outcome(&read(&["b"]), 1), free);
    assert_eq!(outcome(&read(&["b"]), 2), ReadOutcome::Moved);
    assert_eq!(outcome(&read(&["z"]), 1), ReadOutcome::Moved);
}

#[test]
fn nodedb_a_replay_leaves_what_the_live_run_left() {
    let mut live = Replica::new(low());
    let swap = Op::ReadWrite {
        reads: blobs(&["z", "a"]).into(),
        writes: blobs(&["a", "z"]).into(),
        value: blob("T"),
    };
    live.direct(request(1, 0), &write(&["a", "b"], "1"));
    live.apply(slices(vec![slice(0, 3, vec![cross(0, request(1, 1), &swap)])]));
    let inputs = inputs_of(&live, txn(3, 0), &[("z", "9")]);
    live.apply(inputs.clone());
    // The same entries as one batch.
    let replay = Replica::new(low());
    let (mut machine, mut writes) = (replay.machine, WriteSet::default());
    let direct = Direct {
        request: request(1, 0),
        epoch: ShardEpoch(1),
        time_millis: 1_000,
        seed: 0,
        call: write(&["a", "b"], "1").call(),
    };
    let log = [
        ShardCommand::Direct(direct),
        slices(vec![slice(0, 3, vec![cross(0, request(1, 1), &swap)])]),
        inputs,
    ];
    for (index, command) in log.iter().enumerate() {
        let bytes = command.to_bytes();
        machine.apply(&replay.store, &mut writes, index as u64 + 1, &bytes).unwrap();
    }
    machine.finish(&mut writes);
    replay.store.commit_at(3, writes);
    assert_eq!(replay.store.rows(), live.store.rows());
}

/// A caller whose map is older than a split would go on where the parent used
/// to end, and never see the child's keys.
#[test]
fn a_list_of_keys_goes_on_where_the_shard_ends_by_its_own_word() {
    let mut replica = Replica::new(KeyRange { start: Blob::new(), end: Some(blob("t")) });
    replica.result(&write(&["a", "b", "m"], "1"));
    let list = |replica: &Replica, from: &str, limit| {
        replica.machine.keys(&replica.store, blob(from), limit).unwrap()
    };
    assert_eq!(list(&replica, "a", 2), (blobs(&["a", "b"]), Some(blob("b\0"))));
    assert_eq!(list(&replica, "b\0", 2), (blobs(&["m"]), Some(blob("t"))));
    replica.apply(slices(vec![split(0, 4, "f")]));
    assert_eq!(list(&replica, "b\0", 2), (Vec::new(), Some(blob("f"))));
    let whole = Replica::new(KeyRange::all());
    assert_eq!(list(&whole, "a", 2), (Vec::new(), None));
}
