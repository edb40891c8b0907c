//! Whole histories at random: writes, exchanges cut short, answers that come
//! late and twice, collections, restarts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::BTreeMap;

use common::{LIMITS, PLENTY_BYTES, at, live, settle};
use proptest::collection::vec;
use proptest::prelude::*;
use quorate_crdt::{DeltaMap, Entry, Novelty, Origin, Put};
use quorate_types::{Blob, NodeId};

const REPLICAS: usize = 3;

/// Later than any write.
const NOW_MILLIS: u64 = 1_000;

#[derive(Clone, Debug)]
enum Step {
    Write {
        replica: usize,
        key: u8,
        removes: bool,
        fence: u64,
        millis: u64,
    },
    /// Ask; the answer joins the ones under way.
    Ask {
        target: usize,
        source: usize,
        tight: bool,
    },
    /// Deliver some answer, and keep it for a second delivery or not.
    Deliver {
        pick: prop::sample::Index,
        again: bool,
    },
    Acknowledge {
        source: usize,
        target: usize,
    },
    Collect {
        replica: usize,
    },
    /// Lose the memory; only in histories that allow it.
    Restart {
        replica: usize,
    },
    /// Stop waiting for a member; only in histories that allow it.
    Forget {
        replica: usize,
        member: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let replica = || 0..REPLICAS;
    prop_oneof![
        6 => (replica(), 0..4_u8, any::<bool>(), 0..3_u64, 0..50_u64).prop_map(
            |(replica, key, removes, fence, millis)| Step::Write { replica, key, removes, fence, millis }
        ),
        6 => (replica(), replica(), any::<bool>())
            .prop_map(|(target, source, tight)| Step::Ask { target, source, tight }),
        8 => (any::<prop::sample::Index>(), any::<bool>())
            .prop_map(|(pick, again)| Step::Deliver { pick, again }),
        5 => (replica(), replica()).prop_map(|(source, target)| Step::Acknowledge { source, target }),
        3 => replica().prop_map(|replica| Step::Collect { replica }),
        1 => replica().prop_map(|replica| Step::Restart { replica }),
        1 => (replica(), replica()).prop_map(|(replica, member)| Step::Forget { replica, member }),
    ]
}

struct World {
    replicas: Vec<DeltaMap>,
    /// Answers under way, with their receivers.
    answers: Vec<(usize, Novelty)>,
    /// The greatest entry ever written to each key.
    newest: BTreeMap<Blob, Entry>,
    lives: u64,
    collected: usize,
}

impl World {
    fn new() -> Self {
        let mut replicas: Vec<DeltaMap> = (0..REPLICAS as u64).map(common::replica).collect();
        common::make_members(&mut replicas);
        Self { replicas, answers: Vec::new(), newest: BTreeMap::new(), lives: 1, collected: 0 }
    }

    fn run(&mut self, step: &Step) {
        match step.clone() {
            Step::Write { replica, key, removes, fence, millis } => {
                self.write(replica, key, removes, fence, millis);
            }
            Step::Ask { target, source, tight } if target != source => {
                let source = &self.replicas[source];
                let budget = if tight { source.reset_bytes_needed() } else { PLENTY_BYTES };
                let novelty = source.novelty(&self.replicas[target].summary(), budget).unwrap();
                self.answers.extend(novelty.map(|novelty| (target, novelty)));
            }
            Step::Deliver { pick, again } if !self.answers.is_empty() => {
                let pick = pick.index(self.answers.len());
                let (target, novelty) = self.answers[pick].clone();
                if !again {
                    self.answers.remove(pick);
                }
                self.replicas[target].merge_novelty(&novelty).unwrap();
            }
            Step::Acknowledge { source, target } => {
                let seen = self.replicas[source].summary().acknowledgement();
                self.replicas[target].acknowledge(NodeId(source as u64), seen);
            }
            Step::Collect { replica } => {
                self.collected += self.replicas[replica].collect(NOW_MILLIS, 0).tombstones;
            }
            Step::Restart { replica } => {
                self.lives += 1;
                let origin = Origin::new(NodeId(replica as u64), self.lives);
                self.replicas[replica] = DeltaMap::new(origin, LIMITS);
                self.replicas[replica].retain_members((0..REPLICAS as u64).map(NodeId));
                // Connections die with the process.
                self.answers.retain(|(target, _)| *target != replica);
            }
            Step::Forget { replica, member } => {
                self.replicas[replica].forget_member(NodeId(member as u64));
            }
            _ => {}
        }
    }

    fn write(&mut self, replica: usize, key: u8, removes: bool, fence: u64, millis: u64) {
        let key = Blob::from(vec![b'k', key]);
        let map = &mut self.replicas[replica];
        let hlc = at(millis, replica as u64);
        let put = if removes {
            map.remove(key.clone(), fence, hlc)
        } else {
            map.put(key.clone(), format!("{fence}.{millis}").as_str().into(), fence, hlc)
        };
        if let Put::Written(_) = put.unwrap() {
            let written = map.entry(&key).unwrap().clone();
            let newest = self.newest.entry(key).or_insert_with(|| written.clone());
            *newest = written.max(newest.clone());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    /// The heart of the matter: whatever is collected when, every replica ends
    /// with the newest write of every key, and with nothing that was removed.
    #[test]
    fn members_end_with_the_newest_writes(steps in vec(step(), 0..120)) {
        let mut world = World::new();
        for step in &steps {
            if !matches!(step, Step::Restart { .. } | Step::Forget { .. }) {
                world.run(step);
            }
        }
        let late = std::mem::take(&mut world.answers);
        settle(&mut world.replicas);
        for (target, novelty) in late {
            world.replicas[target].merge_novelty(&novelty).unwrap();
        }
        let expected: Vec<(Blob, Blob)> = world
            .newest
            .into_iter()
            .filter_map(|(key, entry)| Some((key, entry.value?)))
            .collect();
        for replica in &world.replicas {
            prop_assert_eq!(&live(replica), &expected);
        }
    }

    /// Memories are lost and members given up: values may be lost with them,
    /// agreement may not.
    #[test]
    fn survivors_agree(steps in vec(step(), 0..120)) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.run(step));
        common::make_members(&mut world.replicas);
        // Origins of earlier lives fade at each replica by itself; roots are
        // equal when all are done with it.
        for round in 0..20 {
            common::exchange(&mut world.replicas);
            common::acknowledge_all(&mut world.replicas);
            for replica in &mut world.replicas {
                replica.collect(NOW_MILLIS + 10 * round, 20);
            }
        }
        for replica in &world.replicas {
            prop_assert_eq!(live(replica), live(&world.replicas[0]));
            prop_assert_eq!(replica.vector(), world.replicas[0].vector());
            prop_assert_eq!(replica.root(), world.replicas[0].root());
        }
    }
}

/// The histories above are worth little unless they collect.
#[test]
fn random_histories_do_collect() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut collected = 0;
    for _ in 0..200 {
        let mut world = World::new();
        for step in vec(step(), 120).new_tree(&mut runner).unwrap().current() {
            if !matches!(step, Step::Restart { .. } | Step::Forget { .. }) {
                world.run(&step);
            }
        }
        collected += world.collected;
    }
    assert!(collected > 50, "{collected} tombstones collected in 200 histories");
}
