//! Three replicas, whose messages are lost, doubled, late and delivered to the
//! wrong one, agree in the end on the newest writes.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_crdt::{DeltaMap, Entry, Novelty, Put, Summary};
use quorate_testkit::fuzz::{Choices, Corpus};
use quorate_types::{Blob, NodeId};

use crate::common::{LIMITS, PLENTY_BYTES, acknowledge_all, at, exchange, live, replica};

const REPLICAS: usize = 3;
const KEYS: [&str; 6] = ["a", "a1", "b", "b1", "c", "c1"];
/// Fewer than a replica may hold origins of.
const RENEWALS_MAX: usize = 12;
/// Longer than a step takes.
const AGE_MILLIS: u64 = 20;
/// Messages that are under way.
const LATE_MAX: usize = 6;

struct World {
    replicas: Vec<DeltaMap>,
    /// What was told, by whom, and to whom nobody knows.
    asked: Vec<(NodeId, Bytes)>,
    answered: Vec<Bytes>,
    /// The newest write of every key, by the one order that all agree on.
    newest: BTreeMap<Blob, Entry>,
    now_millis: u64,
    renewals: usize,
}

impl World {
    fn new() -> Self {
        let replicas: Vec<DeltaMap> = (1..=REPLICAS as u64).map(replica).collect();
        let nodes: Vec<NodeId> = replicas.iter().map(|map| map.origin().node).collect();
        let mut world = Self {
            replicas,
            asked: Vec::new(),
            answered: Vec::new(),
            newest: BTreeMap::new(),
            now_millis: 1,
            renewals: 0,
        };
        for map in &mut world.replicas {
            map.retain_members(nodes.iter().copied());
        }
        world
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        let who = choices.below(REPLICAS);
        let map = &mut self.replicas[who];
        let node = map.origin().node;
        match choices.below(8) {
            0..=2 => self.write(who, choices),
            3 => {
                self.asked.push((node, map.summary().encode()));
            }
            4 => {
                let Some((asker, bytes)) = choices.pick(&self.asked).cloned() else { return };
                let summary = Summary::decode(&bytes, &LIMITS).unwrap();
                map.acknowledge(asker, summary.acknowledgement());
                let budget_bytes = if choices.flag() {
                    PLENTY_BYTES
                } else {
                    map.reset_bytes_needed().max(DeltaMap::delta_bytes_needed(&LIMITS))
                };
                if let Some(novelty) = map.novelty(&summary, budget_bytes).unwrap() {
                    let bytes = novelty.encode();
                    assert!(bytes.len() <= budget_bytes);
                    self.answered.push(bytes);
                }
            }
            5 => {
                let Some(bytes) = choices.pick(&self.answered).cloned() else { return };
                let novelty = Novelty::decode(&bytes).unwrap();
                // An answer to somebody else comes here only by mistake.
                let own = map.origin();
                let is_own = matches!(&novelty, Novelty::Reset(chunk) if chunk.sender() == own);
                let outcome = map.merge_novelty(&novelty);
                assert!(outcome.is_ok() || is_own, "{outcome:?}");
            }
            6 => {
                let age_millis_min = if choices.flag() { AGE_MILLIS } else { 0 };
                map.collect(self.now_millis, age_millis_min);
            }
            _ if self.renewals < RENEWALS_MAX && choices.flag() => {
                self.renewals += 1;
                map.renew(map.origin().incarnation + 1).unwrap();
            }
            _ => self.assert_order_of_two_deltas_is_nothing(who),
        }
        if self.asked.len() > LATE_MAX {
            self.asked.remove(0);
        }
        if self.answered.len() > LATE_MAX {
            self.answered.remove(0);
        }
    }

    fn write(&mut self, who: usize, choices: &mut Choices<'_>) {
        let map = &mut self.replicas[who];
        let key = Blob::from(*choices.pick(&KEYS).unwrap());
        let fence = u64::from(choices.byte() % 3);
        self.now_millis += u64::from(choices.byte() % 4);
        let hlc = at(self.now_millis, map.origin().node.0);
        let put = match choices.byte() {
            value if value % 3 == 1 => map.remove(key.clone(), fence, hlc),
            value => map.put(key.clone(), Blob::from(&[value]), fence, hlc),
        };
        if let Put::Written(_) = put.unwrap() {
            let written = map.entry(&key).unwrap().clone();
            let newest = self.newest.entry(key).or_insert_with(|| written.clone());
            *newest = written.max(newest.clone());
        }
    }

    /// Everybody hears everything, and earlier lives fade everywhere.
    fn settle(&mut self) {
        let mut now_millis = self.now_millis + AGE_MILLIS;
        for _ in 0..20 {
            exchange(&mut self.replicas);
            if self.replicas.iter().all(|map| map.root() == self.replicas[0].root()) {
                return;
            }
            acknowledge_all(&mut self.replicas);
            now_millis += AGE_MILLIS / 2;
            for map in &mut self.replicas {
                map.collect(now_millis, AGE_MILLIS);
            }
        }
        let summaries: Vec<Summary> = self.replicas.iter().map(DeltaMap::summary).collect();
        panic!("replicas do not converge: {summaries:#?}");
    }

    /// What two others would tell now, in either order.
    fn assert_order_of_two_deltas_is_nothing(&self, who: usize) {
        let target = &self.replicas[who];
        let told = |by: usize| {
            let source = &self.replicas[(who + by) % REPLICAS];
            source.delta(target.vector(), PLENTY_BYTES).ok().flatten()
        };
        let (Some(one), Some(two)) = (told(1), told(2)) else { return };
        let merged = |deltas: [_; 2]| {
            let mut map = target.clone();
            for delta in deltas {
                map.merge(delta).unwrap();
            }
            (map.root(), map.vector().clone(), live(&map))
        };
        assert_eq!(merged([&one, &two]), merged([&two, &one]));
    }
}

#[test]
fn replicas_agree_whatever_becomes_of_their_messages() {
    quorate_testkit::fuzz!(Corpus::random(500), |input| {
        let mut choices = Choices::new(input);
        let mut world = World::new();
        while !choices.is_spent() {
            world.step(&mut choices);
        }
        world.settle();
        let survives = |(key, entry): (Blob, Entry)| Some((key, entry.value?));
        let expected: Vec<(Blob, Blob)> = world.newest.into_iter().filter_map(survives).collect();
        for map in &world.replicas {
            assert_eq!(live(map), expected);
        }
    });
}
