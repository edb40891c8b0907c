//! The volatile roles, under messages that nobody of ours would send.

use std::time::Duration;

use quorate_calvin::sequencer::{SequencerLeader, SequencerLimits, SequencerMachine, Watermarks};
use quorate_calvin::shard::{Event, Feeder, LeaderOutput, ShardLeader};
use quorate_calvin::{
    Floors, ReplyGate, SequencerCommand, ShardCommand, Slice, SliceBody, Submission, WriteSet,
};
use quorate_testkit::fuzz;
use quorate_testkit::fuzz::{Choices, Corpus};
use quorate_types::{Epoch, KeyRange, ShardId, TxnId};

use super::story::{Replica, call, request, shard_command, some_contribution};
use crate::support::map_cut_at;
use crate::support::store::MemStore;

fn epoch(choices: &mut Choices<'_>) -> Epoch {
    match choices.byte() {
        250.. => Epoch(choices.edge()),
        byte => Epoch(u64::from(byte % 32)),
    }
}

fn slice(choices: &mut Choices<'_>) -> Slice {
    let (epoch, prev) = (epoch(choices), epoch(choices));
    Slice {
        epoch,
        prev,
        time_millis: 0,
        seed: 0,
        range: KeyRange::all(),
        floors: Floors::default(),
        body: SliceBody::Transactions(Vec::new().into()),
    }
}

#[test]
fn the_feeder_proposes_nothing_but_the_chain() {
    fuzz!(Corpus::random(1_000), |input| {
        let mut choices = Choices::new(input);
        let (mut feeder, mut cursor) = (Feeder::default(), Epoch(0));
        while !choices.is_spent() {
            match choices.below(4) {
                0 | 1 => {
                    let offered: Vec<_> =
                        (0..choices.below(6)).map(|_| slice(&mut choices)).collect();
                    feeder.offer(cursor, offered);
                }
                2 => feeder.landed(),
                _ => {
                    let _ = feeder.has_gap(cursor);
                    let Some(chain) = feeder.next(cursor) else { continue };
                    assert_eq!(feeder.next(cursor), None, "one entry is in flight");
                    for slice in chain {
                        assert!(slice.prev == cursor && slice.epoch > cursor);
                        cursor = slice.epoch;
                    }
                }
            }
        }
    });
}

fn txn(choices: &mut Choices<'_>, replica: &Replica) -> TxnId {
    let waiting: Vec<TxnId> = replica.machine.awaiting_inputs().map(|work| work.id()).collect();
    let any = TxnId { epoch: epoch(choices), position: choices.below(4) as u32 };
    if choices.below(4) == 0 { any } else { choices.pick(&waiting).copied().unwrap_or(any) }
}

#[test]
fn a_shards_leader_proposes_only_what_its_machine_waits_for() {
    fuzz!(Corpus::random(2_000), |input| {
        let mut choices = Choices::new(input);
        let mut replica = Replica::seeded(ShardId(1), KeyRange::all());
        let mut leader = ShardLeader::new(&replica.machine, Duration::ZERO);
        let (mut now, mut index) = (Duration::ZERO, 0);
        while !choices.is_spent() {
            let machine = &replica.machine;
            match choices.below(6) {
                0 | 1 => {
                    index += 1;
                    let entry = shard_command(&mut choices, machine).to_bytes().to_vec();
                    let Ok(events) = replica.apply(index, &[entry]) else { return };
                    for event in events {
                        if let Event::Granted { txn, needed_by } = event {
                            leader.granted(&replica.machine, txn, &needed_by, now);
                        }
                    }
                }
                2 => {
                    let (txn, from) =
                        (txn(&mut choices, &replica), ShardId(choices.below(5) as u64));
                    let contribution = some_contribution(&mut choices);
                    leader.contributed(machine, txn, from, contribution, now);
                }
                3 => leader.asked(machine, txn(&mut choices, &replica), ShardId(choices.edge())),
                4 => leader.awaited(machine, txn(&mut choices, &replica), now),
                _ => {
                    now += Duration::from_millis(choices.below(500) as u64);
                    leader.tick(machine, now);
                }
            }
            if choices.below(40) == 0 {
                leader = ShardLeader::new(&replica.machine, now);
            }
            for output in leader.take_outputs() {
                let LeaderOutput::Propose(command) = output else { continue };
                assert!(matches!(command, ShardCommand::Inputs(_)));
                index += 1;
                replica.apply(index, &[command.to_bytes().to_vec()]).unwrap();
            }
        }
    });
}

#[test]
fn the_sequencers_leader_keeps_its_limits_and_its_word() {
    fuzz!(Corpus::random(2_000), |input| {
        let mut choices = Choices::new(input);
        let store = MemStore::default();
        let mut machine = SequencerMachine::load(&store, 0).unwrap();
        let limits = SequencerLimits {
            inbox_txns_max: 8,
            inbox_bytes_max: 20_000,
            batch_txns_max: 3,
            batch_bytes_max: 2_000,
            undone_slices_max: 40,
            ..SequencerLimits::default()
        };
        let mut index = 0;
        let mut order = |machine: &mut SequencerMachine, command: SequencerCommand| {
            index += 1;
            let mut writes = WriteSet::default();
            machine.apply(&mut writes, index, Some(&command.to_bytes())).unwrap();
            machine.finish(&mut writes);
            store.commit_at(index, writes);
        };
        let map = map_cut_at(&["b", "m"]);
        order(&mut machine, SequencerCommand::Init { map, retention_millis: 3_000 });
        let mut now = Duration::ZERO;
        let mut leader = SequencerLeader::new(&machine, limits, now);
        let (mut before, mut waiting) = (Watermarks::default(), 0);
        let gate = ReplyGate::default();
        while !choices.is_spent() {
            match choices.below(6) {
                0..3 => {
                    let submission =
                        Submission { request: request(&mut choices), call: call(&mut choices) };
                    waiting += usize::from(leader.submit(&machine, submission, now).is_ok());
                    assert!(waiting <= limits.inbox_txns_max);
                }
                3 => {
                    let time_millis = 1_000 * machine.applied().0;
                    let Some(batch) = leader.next_batch(&machine, now, time_millis, 7) else {
                        assert_eq!(waiting, 0, "nothing waits where no batch is made");
                        continue;
                    };
                    assert!((1..=limits.batch_txns_max).contains(&batch.txns.len()));
                    waiting -= batch.txns.len();
                    order(&mut machine, SequencerCommand::Batch(batch));
                    if choices.flag() {
                        leader.catch_up(&machine, now);
                    }
                }
                4 => {
                    let shard = ShardId(choices.below(6) as u64);
                    leader.reported(&machine, shard, epoch(&mut choices), epoch(&mut choices));
                }
                _ => now += Duration::from_millis(choices.below(2_000) as u64),
            }
            let marks = leader.watermarks(&machine);
            assert_eq!(marks.max(before), marks, "(iv): once true, for ever true");
            assert!(marks.done <= marks.logged && marks.logged <= machine.applied());
            before = marks;
            gate.learn(marks);
            assert!(gate.covers(marks.logged));
        }
    });
}
