//! Random runs of the whole model: everything that may be late, lost, doubled,
//! deposed, restarted or split is, at some seed.

use std::time::Duration;

use quorate_calvin::sequencer::SequencerLimits;
use quorate_types::env::{Rng, SplitMix};
use quorate_types::{Blob, KeyRange, ShardId};

use super::checker::is_strictly_serializable;
use super::cluster::client::Step;
use super::cluster::{Cluster, Config, GateRule, Message, NODES};
use super::procedures::Op;
use super::{blob, map_cut_at};

/// What a kind of run is made of.
#[derive(Clone, Copy)]
pub struct Mix {
    pub gate: GateRule,
    pub fences: bool,
    pub clients: u64,
    pub operations: u64,
    pub steps: u64,
    /// Leader changes, restarts and snapshots per thousand steps.
    pub disturbances: u64,
    pub splits: bool,
    /// Only registers, mostly read one by one: where the gate matters most.
    pub hot: bool,
    /// Requests are forgotten after this time of the log.
    pub retention_millis: u64,
}

/// Everything happens.
pub const MIXED: Mix = Mix {
    gate: GateRule::Full,
    fences: true,
    clients: 4,
    operations: 6,
    steps: 700,
    disturbances: 25,
    splits: true,
    hot: false,
    retention_millis: u64::MAX / 2,
};

/// Lists, registers, accounts and watched keys are kept apart by their last
/// letter, since each operation has its own idea of a value. The first letter
/// decides the shard.
struct Generator<'a> {
    rng: &'a mut SplitMix,
    next_value: u64,
    /// Ranges are counted and cleared; nothing expires then, since the
    /// checker cannot tell when a value that nobody reads is gone.
    ranges: bool,
    hot: bool,
}

impl Generator<'_> {
    fn key(&mut self, kind: char) -> Blob {
        let first = ["a", "b", "c", "d"][self.rng.below(4) as usize];
        blob(&format!("{first}{kind}"))
    }

    fn keys(&mut self, kind: char) -> Vec<Blob> {
        let mut keys: Vec<Blob> = (0..1 + self.rng.below(3)).map(|_| self.key(kind)).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    fn value(&mut self) -> Blob {
        self.next_value += 1;
        blob(&self.next_value.to_string())
    }

    /// Registers of some shards, or of none.
    fn range(&mut self) -> KeyRange {
        let letters = ["a", "b", "c", "d", "e"];
        let from = self.rng.below(4) as usize;
        let to = from + 1 + self.rng.below(4 - from as u64) as usize;
        KeyRange::new(letters[from], letters[to])
    }

    fn script(&mut self, operations: u64) -> Vec<Step> {
        let mut script = Vec::new();
        for _ in 0..operations {
            self.steps(&mut script);
        }
        script
    }

    fn steps(&mut self, script: &mut Vec<Step>) {
        let value = self.value();
        let draw = if self.hot { self.rng.below(8) } else { self.rng.below(17) };
        let op = match draw {
            _ if self.hot && draw >= 4 => Op::Read(vec![self.key('r')].into()),
            0..=2 => Op::Read(self.keys('r').into()),
            3 | 4 => Op::Write { keys: self.keys('r').into(), value },
            5 | 6 => {
                let (reads, writes) = (self.keys('r').into(), self.keys('r').into());
                Op::ReadWrite { reads, writes, value }
            }
            7..=9 => Op::Append { keys: self.keys('l').into(), item: value },
            10 => {
                let (from, to) = (self.key('m'), self.key('m'));
                if from == to {
                    return;
                }
                Op::Transfer { from, to, amount: 1 + self.rng.below(80) }
            }
            11 | 12 => {
                let keys = self.keys('w');
                script.push(Step::Do(Op::Watch(vec![keys[0].clone()].into())));
                script.push(Step::WriteIfUnchanged { keys, value });
                return;
            }
            13 => match self.rng.below(2) {
                0 => Op::Write { keys: self.keys('w').into(), value },
                _ => Op::Delete(self.keys('w').into()),
            },
            14 => match self.rng.below(3) {
                0 if !self.ranges => {
                    Op::WriteExpiring { key: self.key('x'), value, ttl_millis: 500 }
                }
                1 => Op::Read(self.keys('x').into()),
                _ => Op::Delete(self.keys('x').into()),
            },
            15 => match self.rng.below(3) {
                0 => Op::Panic(self.keys('r').into()),
                1 => Op::Stray { declared: self.key('r'), written: self.key('l') },
                _ => Op::Transfer { from: blob("am"), to: blob("dm"), amount: 60 },
            },
            _ => match self.rng.below(4) {
                0 if self.ranges => Op::Count(self.range()),
                1 if self.ranges => Op::Clear(self.range()),
                2 => Op::Read(vec![self.key('r')].into()),
                _ => Op::Write { keys: vec![self.key('r')].into(), value },
            },
        };
        script.push(Step::Do(op));
    }
}

/// A cluster and what happens to it.
pub struct Run {
    pub cluster: Cluster,
    rng: SplitMix,
    mix: Mix,
    pub trace: Vec<String>,
}

impl Run {
    /// A run that follows from its seed.
    pub fn new(seed: u64, mix: Mix) -> Self {
        let mut rng = SplitMix::new(seed);
        let mut generator = {
            let ranges = !mix.hot && rng.below(3) == 0;
            Generator { rng: &mut rng, next_value: 0, ranges, hot: mix.hot }
        };
        let scripts =
            (0..mix.clients).map(|_| generator.script(mix.operations)).collect::<Vec<_>>();
        let map = map_cut_at(if rng.below(2) == 0 { &["c"] } else { &["b", "d"] });
        let config = Config {
            gate: mix.gate,
            fences: mix.fences,
            notices_at_once: rng.below(2) == 0,
            keeps_waiters: rng.below(4) == 0,
            retention_millis: mix.retention_millis,
            limits: SequencerLimits { inbox_txns_max: 3, ..SequencerLimits::default() },
            history_max: 4,
        };
        let mut cluster = Cluster::new(config, map, scripts);
        cluster.skew_millis = rng.below(3) * 40;
        Self { cluster, rng, mix, trace: Vec::new() }
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        let place = self.rng.below(choices.len() as u64) as usize;
        choices.get(place).copied()
    }

    fn node(&mut self) -> usize {
        self.rng.below(NODES as u64) as usize
    }

    fn shard(&mut self) -> ShardId {
        let shards = self.cluster.shard_ids();
        self.pick(&shards).unwrap()
    }

    fn note(&mut self, step: String) {
        self.trace.push(step);
    }

    fn step(&mut self) {
        if self.rng.below(1_000) < self.mix.disturbances {
            self.disturb();
            return;
        }
        let node = self.node();
        match self.rng.below(100) {
            0..=34 => self.deliver(),
            35..=46 => {
                let client = self.rng.below(self.mix.clients) as usize;
                if self.cluster.can_step_client(client) {
                    self.note(format!("client {client}"));
                    self.cluster.step_client(client);
                }
            }
            47..=59 => {
                let shard = self.shard();
                let log = &mut self.cluster.shards.get_mut(&shard).unwrap().log;
                if log.commit() {
                    self.note(format!("commit {shard}"));
                }
            }
            60..=74 => {
                let (shard, max) = (self.shard(), 1 + self.rng.below(4));
                self.note(format!("apply {shard} {node} {max}"));
                self.cluster.apply_shard(shard, node, max);
                self.cluster.follow_shard(shard, node);
            }
            75..=79 => {
                let committed = self.cluster.sequencer.log.commit();
                self.note(format!("commit sequencer {committed}"));
            }
            80..=86 => {
                let max = 1 + self.rng.below(3);
                self.note(format!("apply sequencer {node} {max}"));
                self.cluster.apply_sequencer(node, max);
                self.cluster.follow_sequencer(node);
            }
            87..=93 => {
                let shard = self.shard();
                self.note(format!("serve reads {shard} {node}"));
                self.cluster.serve_reads(shard, node);
            }
            94..=96 => {
                let millis = self.rng.below(300);
                self.note(format!("tick {millis}"));
                self.cluster.now += Duration::from_millis(millis);
                self.cluster.tick();
            }
            97 => {
                let client = self.rng.below(self.mix.clients) as usize;
                self.note(format!("client {client} gives up waiting"));
                self.cluster.clients[client].give_up_waiting();
                self.cluster.refresh_map(client);
            }
            98 => {
                self.note("idle batch".into());
                self.cluster.idle_batch();
            }
            _ if self.mix.splits && self.rng.below(8) == 0 => {
                let key = self.pick(&["b", "bl", "c", "d", "dm", "cr"]).unwrap();
                self.note(format!("split at {key}"));
                self.cluster.split(&blob(key));
            }
            _ => {}
        }
    }

    /// A message arrives, in any order; some are lost, some come twice.
    fn deliver(&mut self) {
        let count = self.cluster.net.len();
        if count == 0 {
            return;
        }
        let place = self.rng.below(count as u64) as usize;
        let envelope = self.cluster.net[place].clone();
        let is_reply = matches!(envelope.message, Message::Reply(..));
        match self.rng.below(20) {
            0 => {
                self.note(format!("lose {envelope:?}"));
                self.cluster.net.remove(place);
            }
            1 if !is_reply => {
                self.note(format!("double {envelope:?}"));
                self.cluster.net.push(envelope);
                self.cluster.deliver(place);
            }
            _ => {
                self.note(format!("deliver {envelope:?}"));
                self.cluster.deliver(place);
            }
        }
    }

    fn disturb(&mut self) {
        let (shard, node, leader) = (self.shard(), self.node(), self.node());
        let amount = self.rng.below(4) as usize;
        let which = self.rng.below(10);
        self.note(format!("disturb {which} {shard} {node} {leader} {amount}"));
        match which {
            0..=2 => self.cluster.elect_shard(shard, leader, amount),
            3 => self.cluster.elect_sequencer(leader, amount),
            4 | 5 => self.cluster.restart_shard(shard, node, amount, leader),
            6 => self.cluster.restart_sequencer(node, amount, leader),
            7 => self.cluster.install_shard(shard, node),
            8 => self.cluster.install_sequencer(node),
            _ if leader == 0 => self.cluster.refuse_shard(shard),
            _ => self.cluster.refuse_sequencer(),
        }
    }

    /// Runs to the end of all scripts.
    pub fn finish(&mut self) {
        for _ in 0..self.mix.steps {
            self.step();
        }
        self.cluster.quiesce();
    }

    /// Everything that holds in the end.
    pub fn judge(&mut self) {
        let cluster = &mut self.cluster;
        assert!(
            is_strictly_serializable(&cluster.history),
            "no order explains the history: {:#?}",
            cluster.history
        );
        for shard in cluster.shard_ids() {
            for node in 0..NODES {
                cluster.apply_shard(shard, node, u64::MAX / 2);
            }
            let group = &cluster.shards[&shard];
            let [a, b] = &group.replicas;
            assert_eq!(a.store.digest(), b.store.digest(), "replicas of {shard} differ");
            let machine = a.machine.as_ref().unwrap();
            assert_eq!(machine.pending_count(), 0, "invariant iii: {shard} is stuck");
            let strays =
                a.store.rows().data.keys().filter(|k| !machine.range().contains(k)).count();
            assert_eq!(strays, 0, "invariant vi: {shard} holds keys that it does not own");
        }
        let machine = &cluster.sequencer.replicas[cluster.sequencer.log.leader].machine;
        for entry in &machine.map().unwrap().shards {
            let group = &cluster.shards[&entry.shard];
            let machine = group.replicas[0].machine.as_ref().unwrap();
            assert_eq!(*machine.range(), entry.range, "the map and {} agree", entry.shard);
        }
    }

    /// With nothing left to do, memory returns to its floor.
    pub fn drain(&mut self, retention_millis: u64) {
        let cluster = &mut self.cluster;
        for _ in 0..12 {
            cluster.now += Duration::from_millis(retention_millis / 4 + 1_100);
            cluster.tick();
            cluster.idle_batch();
            cluster.settle(|_| true);
        }
        let leader = cluster.sequencer.log.leader;
        let machine = &cluster.sequencer.replicas[leader].machine;
        assert_eq!(machine.slice_count(), 0, "slices are let go of");
        for group in cluster.shards.values() {
            let replica = &group.replicas[group.log.leader];
            let machine = replica.machine.as_ref().unwrap();
            assert_eq!(machine.remembered_count(), 0, "{}: requests are forgotten", group.shard);
            assert_eq!(replica.store.rows().tagged(b'c'), 0, "marks are forgotten");
            assert_eq!(replica.store.rows().tagged(b'p'), 0, "nothing is pending");
        }
        let sequencer_rows = cluster.sequencer.replicas[leader].store.rows();
        assert_eq!(sequencer_rows.tagged(b'd'), 0, "orders are forgotten");
        assert_eq!(sequencer_rows.tagged(b'c'), 0, "marks are forgotten");
        assert_eq!(sequencer_rows.tagged(b'l'), 0, "slices are let go of");
    }
}
