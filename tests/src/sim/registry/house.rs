//! The nodes, and what may be done to each.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use quorate::types::env::Clock;
use quorate::types::fault::Canary;
use quorate::types::hello::{Hello, Protocol};
use quorate::types::runtime::{self, BoxFuture};
use quorate::types::{Blob, ClusterId, DiskId, NodeId, ShardId};
use quorate_crdt::{
    Entry, Keyspace, NodeLoad, Origin, Registry, RegistryConfig, ShardLoad, VersionVector,
};
use quorate_gossip::{Config, Driver, Setup, TcpConfig, Transmit, Transport};
use quorate_testkit::sim::{Coverage, LinkConfig, Sim, SimClock, SimNetwork, SimNode};
use tokio::time::sleep;

use super::memory::Memory;
use super::plan::{LIMITS, Plan};
use crate::sim::cluster::Struck;
use crate::sim::faults::Fault;
use crate::sim::finding::Findings;
use crate::sim::port::{Deafness, Medium, Port, Ways, address};

/// The keyspaces of a registry, as its format has them.
pub(super) const ALLOCATIONS: Keyspace = Keyspace(b'a');
const LOADS: Keyspace = Keyspace(b'l');

/// What a run of registries aims at. How often it gets there is counted with
/// the places of the code that are reached.
pub(super) const MISSED_REMOVAL: &str = "registry: a member holds what was removed without it";
pub(super) const TIE: &str = "registry: another value has the stamp of a write";
pub(super) const COLLECTED: &str = "registry: tombstones are forgotten";
pub(super) const REFUSED: &str = "registry: a write is refused as stale";

/// `[keyspace u8][id u64 BE]`.
fn key(keyspace: Keyspace, id: u64) -> Blob {
    let mut key = vec![keyspace.0];
    key.extend_from_slice(&id.to_be_bytes());
    Blob::from(key)
}

pub(super) fn allocation_key(shard: ShardId) -> Blob {
    key(ALLOCATIONS, shard.0)
}

pub(super) fn load_key(node: NodeId) -> Blob {
    key(LOADS, node.0)
}

/// The shard of a key of [`allocation_key`].
pub(super) fn shard_of(key: &Blob) -> ShardId {
    ShardId(u64::from_be_bytes(key[1..].try_into().unwrap()))
}

/// What is seen of a run, and outlasts it. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Seen {
    pub(super) findings: Findings,
    pub(super) coverage: Coverage,
    pub(super) struck: Arc<Mutex<BTreeMap<Fault, Struck>>>,
    pub(super) work: Arc<Mutex<Work>>,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Work {
    /// Writes that were taken or refused.
    pub(super) answered: u64,
    /// Writes that were taken.
    pub(super) acknowledged: u64,
    pub(super) power_cuts: u64,
}

/// A machine: its clock, and the mark of it that is durable, outlive the lives
/// of its node.
struct Machine {
    life: Arc<SimNode>,
    clock: SimClock,
    mark_millis: Arc<AtomicU64>,
    node: Option<Node>,
}

/// A node that runs.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) life: Arc<SimNode>,
    pub(super) driver: Arc<Driver>,
    pub(super) registry: Arc<Mutex<Registry>>,
    clock: SimClock,
    mark_millis: Arc<AtomicU64>,
}

impl Node {
    pub(super) fn id(&self) -> NodeId {
        self.life.id()
    }

    /// Whether it can do something now.
    pub(super) fn is_awake(&self) -> bool {
        self.life.is_alive() && !self.life.is_paused()
    }
}

/// All of them; clones are the same.
#[derive(Clone)]
pub(super) struct House {
    pub(super) sim: Sim,
    pub(super) plan: Arc<Plan>,
    pub(super) network: SimNetwork,
    pub(super) memory: Arc<Mutex<Memory>>,
    pub(super) seen: Seen,
    /// Shards that nobody is to write again.
    pub(super) left_alone: Arc<Mutex<BTreeSet<ShardId>>>,
    /// Of a thousand frames, so many are sent twice.
    pub(super) twice_per_mille: Arc<AtomicU64>,
    /// Whether nodes report their load.
    pub(super) reports: Arc<AtomicBool>,
    /// Makes every written value another one.
    numbers: Arc<AtomicU64>,
    machines: Arc<Vec<Mutex<Machine>>>,
}

impl House {
    pub(super) async fn open(sim: &Sim, plan: Plan, canary: Option<Canary>, seen: Seen) -> Self {
        let machine = |id| {
            let mut life =
                SimNode::new(NodeId(id), sim.seed()).with_coverage(seen.coverage.clone());
            if plan.stumbles {
                life = life.with_rare_branches(sim.seed());
            }
            if let Some(canary) = canary {
                life = life.with_canary(canary);
            }
            let clock = SimClock::new(sim.begun(), usual_offset_millis(&plan, NodeId(id)));
            Mutex::new(Machine { life, clock, mark_millis: Arc::default(), node: None })
        };
        let house = Self {
            sim: sim.clone(),
            network: SimNetwork::new(sim, plan.link),
            machines: Arc::new((1..=plan.nodes).map(machine).collect()),
            plan: Arc::new(plan),
            memory: Arc::default(),
            seen,
            left_alone: Arc::default(),
            twice_per_mille: Arc::default(),
            reports: Arc::new(AtomicBool::new(true)),
            numbers: Arc::default(),
        };
        for place in 0..house.machines.len() {
            house.boot(place).await;
        }
        house
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        (1..=self.plan.nodes).map(NodeId).collect()
    }

    /// The places of the nodes that can do something.
    pub(super) fn awake(&self) -> Vec<usize> {
        let is_awake = |place: &usize| self.node(*place).is_some_and(|node| node.is_awake());
        (0..self.machines.len()).filter(is_awake).collect()
    }

    pub(super) fn node(&self, place: usize) -> Option<Node> {
        self.machines[place].lock().node.clone()
    }

    pub(super) fn nodes(&self) -> Vec<Node> {
        (0..self.machines.len()).filter_map(|place| self.node(place)).collect()
    }

    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Starts a node. It has heard of nothing when this returns.
    async fn boot(&self, place: usize) {
        let (life, clock, mark_millis) = {
            let machine = self.machines[place].lock();
            (Arc::clone(&machine.life), machine.clock.clone(), Arc::clone(&machine.mark_millis))
        };
        let registry = Arc::new(Mutex::new(Registry::new(RegistryConfig {
            origin: Origin::new(life.id(), life.life()),
            high_water_millis: mark_millis.load(Ordering::Relaxed),
            limits: LIMITS,
        })));
        let medium = Medium {
            network: self.network.clone(),
            deafness: Deafness::default(),
            trace: self.sim.trace().clone(),
            room: 1,
        };
        let (port, inbound) = Port::open(medium, &life, None);
        let transport = Stutter { ways: Ways(port), per_mille: Arc::clone(&self.twice_per_mille) };
        let setup = Setup {
            hello: hello(&life),
            config: Config { delta_bytes_max: self.plan.delta_bytes_max, ..Config::default() },
            tcp: TcpConfig::default(),
            state: Arc::clone(&registry),
            clock: Arc::new(clock.clone()),
        };
        let driver = life
            .run(async { Driver::start_over(setup, Arc::new(transport), inbound) })
            .await
            .expect("the configuration can work");
        driver.join(&self.ids().into_iter().map(address).collect::<Vec<_>>());
        self.sim.trace().record(format_args!("{} lives, {}", life.id(), life.life()));
        self.memory.lock().begun(&self.vectors());
        let driver = Arc::new(driver);
        let node = Node { life, driver, registry, clock, mark_millis };
        drop(node.life.spawn(self.clone().report(node.clone())));
        self.machines[place].lock().node = Some(node);
    }

    /// What a node does by itself, as long as it lives.
    async fn report(self, node: Node) {
        loop {
            sleep(Duration::from_millis(self.plan.report_millis)).await;
            let age_millis = self.plan.age_millis;
            let held = || node.registry.lock().map().tombstones();
            let before = held();
            if self.reports.load(Ordering::Relaxed) {
                let load = self.load(&node);
                self.write(&node, &load_key(node.id()), |registry, now| {
                    registry.refresh(&load, now, age_millis)
                });
            } else {
                // What is left of earlier lives is forgotten in steps, some of
                // which may still be ahead.
                node.registry.lock().collect(node.clock.wall_millis(), age_millis);
            }
            if held() < before {
                self.seen.coverage.reach(COLLECTED);
            }
        }
    }

    fn load(&self, node: &Node) -> NodeLoad {
        let number = self.number();
        let shard = ShardLoad { shard: ShardId(1), term: number, ..ShardLoad::default() };
        NodeLoad::measured(node.id(), vec![shard], &BTreeMap::new(), Some(number))
    }

    /// Writes as production does, within the scope of the node, and notes what
    /// is acknowledged: the entry that is there after a write that was taken.
    pub(super) fn write(
        &self,
        node: &Node,
        key: &Blob,
        write: impl FnOnce(&mut Registry, u64) -> bool,
    ) -> Option<Entry> {
        if !node.life.is_alive() {
            return None;
        }
        let keep = |mark_millis| {
            node.mark_millis.fetch_max(mark_millis, Ordering::Relaxed);
            Ok::<(), Infallible>(())
        };
        let now = node.clock.wall_millis();
        let Ok(entry) = Registry::write(&node.registry, now, keep, |registry, now| {
            write(registry, now).then(|| registry.map().entry(key).cloned())
        });
        let mut work = self.seen.work.lock();
        work.answered += 1;
        let Some(entry) = entry else {
            self.seen.coverage.reach(REFUSED);
            return None;
        };
        work.acknowledged += 1;
        let entry = entry.expect("a write that was taken is there");
        node.driver.notify_changed();
        let (id, stamp) = (node.id(), entry.stamp);
        let what = if entry.is_tombstone() { "removes" } else { "sets" };
        self.sim.trace().record(format_args!("{id} {what} {key:?} at {stamp:?}"));
        let knows = |other: &Node| other.driver.members().iter().any(|it| it.node == id);
        let is_stranger = !self.nodes().iter().all(knows);
        let mut memory = self.memory.lock();
        if memory.is_tie(key, &entry) {
            self.seen.coverage.reach(TIE);
        }
        memory.wrote(key, entry.clone(), is_stranger);
        Some(entry)
    }

    /// Cuts a node's power: whatever it knew is gone.
    pub(super) fn crash(&self, place: usize) {
        let node = {
            let mut machine = self.machines[place].lock();
            machine.life.crash();
            machine.node.take()
        };
        let Some(node) = node else { return };
        self.sim.trace().record(format_args!("{} crashes", node.id()));
        self.seen.work.lock().power_cuts += 1;
        self.memory.lock().lost(&self.vectors());
    }

    /// What the nodes that run have seen.
    fn vectors(&self) -> Vec<VersionVector> {
        let seen = |node: Node| node.registry.lock().map().summary().acknowledgement();
        self.nodes().into_iter().map(seen).collect()
    }

    /// Lets a node without power come back, with the mark that it kept.
    pub(super) async fn restart(&self, place: usize) {
        {
            let mut machine = self.machines[place].lock();
            if machine.node.is_some() {
                return;
            }
            machine.life = machine.life.restarted();
            machine.clock = machine.clock.restarted();
        }
        self.boot(place).await;
    }

    /// Lets a node without power come back as a machine does that was put back
    /// to an earlier moment: its clock shows that moment, and no mark says that
    /// it was later once.
    pub(super) async fn restart_at(&self, place: usize, wall_millis: u64) {
        {
            let machine = self.machines[place].lock();
            let now = i64::try_from(machine.clock.wall_millis()).unwrap();
            machine.clock.jump(i64::try_from(wall_millis).unwrap() - now);
            machine.mark_millis.store(0, Ordering::Relaxed);
            self.sim.trace().record(format_args!("{} is put back", machine.life.id()));
        }
        self.restart(place).await;
    }

    pub(super) fn jump(&self, place: usize, millis: i64) {
        self.machines[place].lock().clock.jump(millis);
    }

    /// Puts a machine's clock right, as far as it ever was.
    pub(super) fn mend_clock(&self, place: usize) {
        let machine = self.machines[place].lock();
        let usual = usual_offset_millis(&self.plan, machine.life.id());
        machine.clock.jump(usual - machine.clock.offset_millis());
    }

    /// Ends everything that befell the nodes.
    pub(super) async fn mend(&self) {
        self.network.heal();
        self.network.set_link(LinkConfig { loss_per_mille: 0, ..self.plan.link });
        self.twice_per_mille.store(0, Ordering::Relaxed);
        for place in 0..self.machines.len() {
            self.machines[place].lock().life.resume();
            self.mend_clock(place);
            self.restart(place).await;
        }
    }

    /// Remembers what is wrong.
    pub(super) fn find(&self, rule: &str, what: impl Into<String>) {
        let at_millis = u64::try_from(self.sim.elapsed().as_millis()).unwrap();
        let what = what.into();
        self.sim.trace().record(format_args!("FOUND {rule}: {what}"));
        self.seen.findings.add(rule, at_millis, what);
    }

    /// Counts a fault.
    pub(super) fn note(&self, fault: Fault, has_struck: bool) {
        let mut struck = self.seen.struck.lock();
        let count = struck.entry(fault).or_default();
        count.times += u64::from(has_struck);
        count.in_vain += u64::from(!has_struck);
    }
}

fn usual_offset_millis(plan: &Plan, node: NodeId) -> i64 {
    i64::try_from(node.0).unwrap() * plan.skew_millis
}

fn hello(life: &SimNode) -> Hello {
    let node = life.id();
    Hello {
        protocol: Protocol::Gossip,
        lane: 0,
        cluster: Some(ClusterId(1)),
        node,
        disk: DiskId(u128::from(node.0)),
        incarnation: life.life(),
        address: Blob::from(address(node).as_str()),
    }
}

/// A way on which frames may be said twice: the simulated network doubles only
/// what nobody waits for.
struct Stutter {
    ways: Ways,
    per_mille: Arc<AtomicU64>,
}

impl Transport for Stutter {
    fn send(&self, transmit: Transmit) {
        let per_mille = self.per_mille.load(Ordering::Relaxed);
        if per_mille > 0 && runtime::random() % 1_000 < per_mille {
            Transport::send(&self.ways, transmit.clone());
        }
        Transport::send(&self.ways, transmit);
    }

    fn flushed(&self) -> BoxFuture<()> {
        self.ways.flushed()
    }

    fn close(&self) {
        self.ways.close();
    }
}
