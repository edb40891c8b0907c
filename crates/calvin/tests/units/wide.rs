//! Transactions over more shards than their arguments and keys tell.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_calvin::sequencer::{
    NotOrdered, SequencerEvent, SequencerLeader, SequencerLimits, SequencerMachine,
};
use quorate_calvin::{
    Access, Call, Footprint, RangeAccess, SequencedTxn, SequencerBatch, SequencerCommand,
    SliceBody, Space, Store, Submission, WriteSet,
};
use quorate_types::{Blob, Epoch, KeyRange, Seq, ShardId};

use crate::support::procedures::Op;
use crate::support::store::MemStore;
use crate::support::{blob, map_cut_at, request};

/// What an engine stores in a row.
const ROW_BYTES_MAX: usize = 4 << 20;
/// What the slices of one batch hold at the most.
const SLICES_BYTES_MAX: usize = 128 << 20;
const HOME: ShardId = ShardId(1);

struct Replica {
    machine: SequencerMachine,
    store: MemStore,
}

impl Replica {
    fn with_shards(count: usize) -> Self {
        let cuts: Vec<String> = (1..count).map(|cut| format!("{cut:06}")).collect();
        let cuts: Vec<&str> = cuts.iter().map(String::as_str).collect();
        let store = MemStore::default();
        let machine = SequencerMachine::load(&store, 0).unwrap();
        let mut replica = Self { machine, store };
        let map = map_cut_at(&cuts);
        replica.apply(&SequencerCommand::Init { map, retention_millis: 1_000 });
        replica
    }

    fn apply(&mut self, command: &SequencerCommand) -> Vec<SequencerEvent> {
        let index = self.machine.applied().0 + 1;
        let mut writes = WriteSet::default();
        let events = self.machine.apply(&mut writes, index, Some(&command.to_bytes())).unwrap();
        self.machine.finish(&mut writes);
        let sizes = writes.system.values().flatten().map(|row| row.len());
        assert!(sizes.clone().all(|bytes| bytes <= ROW_BYTES_MAX), "a row holds it");
        assert!(sizes.sum::<usize>() <= SLICES_BYTES_MAX + (1 << 20), "a commit holds it");
        self.store.commit(index, Blob::new(), writes).unwrap();
        events
    }

    fn order(&mut self, calls: impl IntoIterator<Item = Call>) -> Vec<Option<NotOrdered>> {
        let client = u128::from(self.machine.applied().0);
        let txns = calls.into_iter().zip(0..);
        let txns =
            txns.map(|(call, sequence)| Submission { request: request(client, sequence), call });
        let batch =
            SequencerBatch { time_millis: 0, seed: 0, done: Epoch(0), txns: txns.collect() };
        let events = self.apply(&SequencerCommand::Batch(batch));
        let places = events.iter().filter_map(|event| match event {
            SequencerEvent::Ordered { .. } => Some(None),
            SequencerEvent::Refused { reason, .. } => Some(Some(*reason)),
            _ => None,
        });
        places.collect()
    }

    fn txns(&self, shard: ShardId, epoch: Epoch) -> Vec<SequencedTxn> {
        match self.machine.slice(shard, epoch).map(|slice| &slice.body) {
            Some(SliceBody::Transactions(txns)) => txns.0.clone(),
            Some(SliceBody::Split(_)) | None => Vec::new(),
        }
    }
}

fn over_all(access: &[Access]) -> Call {
    let ranges =
        access.iter().map(|access| RangeAccess { range: KeyRange::all(), access: *access });
    let footprint = Footprint { ranges: ranges.collect(), ..Footprint::default() };
    Call { procedure: 0, args: Blob::new(), footprint }
}

fn count_all() -> Call {
    Op::Count(KeyRange::all()).call()
}

/// As many shards as a founding may make, and a burst of `DBSIZE`.
#[test]
fn hundreds_of_counts_over_thousands_of_shards_fit_their_slices() {
    const SHARDS: usize = 4_096;
    const COUNTS: u64 = 200;
    let mut replica = Replica::with_shards(SHARDS);
    let limits = SequencerLimits { undone_bytes_max: 1 << 30, ..SequencerLimits::default() };
    let mut leader = SequencerLeader::new(&replica.machine, limits, Duration::ZERO);
    for client in 1..=COUNTS {
        let submission = Submission { request: request(client.into(), 0), call: count_all() };
        leader.submit(&replica.machine, submission, Duration::ZERO).unwrap();
    }
    let mut ordered = 0;
    while let Some(batch) = leader.next_batch(&replica.machine, Duration::ZERO, 0, 0) {
        let names_bytes = 16 * SHARDS * batch.txns.len();
        assert!(names_bytes <= limits.batch_bytes_max, "a batch of {}", batch.txns.len());
        let events = replica.apply(&SequencerCommand::Batch(batch));
        let is_placed = |event: &&SequencerEvent| matches!(event, SequencerEvent::Ordered { .. });
        ordered += events.iter().filter(is_placed).count() as u64;
        // All is done: the test need not keep what nobody reads.
        let done = replica.machine.applied();
        let batch = SequencerBatch { time_millis: 0, seed: 0, done, txns: Seq::new() };
        replica.apply(&SequencerCommand::Batch(batch));
    }
    assert_eq!(ordered, COUNTS, "and none is refused");
}

/// What waits will be cut into slices, too: a shard that stalls must not have the
/// sequencer's replicas hold more than they may.
#[test]
fn what_waits_counts_with_the_slices_that_it_will_make() {
    let replica = Replica::with_shards(1_000);
    let wide = |client: u64| Submission {
        request: request(client.into(), 0),
        call: Call { args: vec![0; 64 << 10].into(), ..over_all(&[Access::Write]) },
    };
    let limits = SequencerLimits::default();
    let mut leader = SequencerLeader::new(&replica.machine, limits, Duration::ZERO);
    let mut submit = |client| leader.submit(&replica.machine, wide(client), Duration::ZERO);
    let admitted = (1..).take_while(|client| submit(*client).is_ok()).count();
    let each_bytes = 1_000 * (64 << 10);
    assert!(admitted > 1 && admitted * each_bytes <= limits.undone_bytes_max, "{admitted}");
    let batch = leader.next_batch(&replica.machine, Duration::ZERO, 0, 0);
    assert_eq!(batch.map(|batch| batch.txns.len()), Some(1), "one commit's worth");
    assert_eq!(leader.submit(&replica.machine, wide(1_000), Duration::ZERO), Ok(()));
}

#[test]
fn a_batch_of_hundreds_of_counts_is_cut_as_far_as_it_fits() {
    let mut replica = Replica::with_shards(2_000);
    let places = replica.order((0..300).map(|_| count_all()));
    let (fit, rest) = places.split_at(places.partition_point(Option::is_none));
    assert!(fit.len() > 50, "{} fit", fit.len());
    assert!(!rest.is_empty() && rest.iter().all(|place| *place == Some(NotOrdered::Crowded)));
    let epoch = replica.machine.applied();
    assert_eq!(replica.txns(HOME, epoch).len(), fit.len());
    assert_eq!(replica.txns(ShardId(2_000), epoch).len(), fit.len());
    assert_eq!(replica.order([count_all()]), [None], "and later there is room");
}

#[test]
fn only_who_collects_or_exchanges_knows_everyone() {
    let known = |call: Call| -> BTreeMap<u64, Vec<u64>> {
        let mut replica = Replica::with_shards(4);
        assert_eq!(replica.order([call]), [None]);
        let names = |shard| {
            let txns = replica.txns(ShardId(shard), replica.machine.applied());
            txns[0].participants.iter().map(|it| it.shard.0).collect()
        };
        (1..=4).map(|shard| (shard, names(shard))).collect()
    };
    let all = vec![1, 2, 3, 4];
    for access in [Access::Read, Access::Write] {
        let [two, three, four] = [vec![1, 2], vec![1, 3], vec![1, 4]];
        let expected = BTreeMap::from([(1, all.clone()), (2, two), (3, three), (4, four)]);
        assert_eq!(known(over_all(&[access])), expected, "{access:?}");
    }
    let exchange = known(over_all(&[Access::Read, Access::Write]));
    assert!(exchange.values().all(|names| *names == all), "{exchange:?}");
}

#[test]
fn what_no_batch_has_room_for_is_refused_and_leaves_no_trace() {
    let mut replica = Replica::with_shards(4_096);
    let exchange = over_all(&[Access::Read, Access::Write]);
    let large = Call { args: vec![0; 512 << 10].into(), ..over_all(&[Access::Read]) };
    assert_eq!(replica.order([exchange, large]), [Some(NotOrdered::TooWide); 2]);
    assert_eq!(replica.machine.slice_count(), 0);
    assert_eq!(replica.machine.remembered_count(), 0);
    assert_eq!(replica.order([count_all()]), [None], "what is narrower is not");
    let large = Call { args: vec![0; 512 << 10].into(), ..count_all() };
    let mut replica = Replica::with_shards(20_000);
    assert_eq!(replica.order([large, count_all()]), [Some(NotOrdered::TooWide), None]);
}

#[test]
fn one_slice_holds_no_more_than_a_row() {
    let mut replica = Replica::with_shards(2);
    let keys = [blob("0"), blob("9")];
    let write = || Op::Write { keys: keys.to_vec().into(), value: vec![0; 700 << 10].into() };
    let places = replica.order((0..6).map(|_| write().call()));
    assert_eq!(places.iter().filter(|place| place.is_none()).count(), 4, "{places:?}");
    assert_eq!(places[5], Some(NotOrdered::Crowded));
    let rows = replica.store.scan(Space::System, &KeyRange::all(), 100).unwrap().0;
    assert!(rows.iter().all(|(_, row)| row.len() <= ROW_BYTES_MAX));
}
