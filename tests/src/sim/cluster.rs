//! Whole nodes in one simulation: three that found a cluster, and a fourth
//! that may join it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use quorate::types::NodeId;
use quorate::types::disk::Disk;
use quorate::{Node, NodeConfig};
use quorate_calvin::kv::KeyValue;
use quorate_testkit::disk::CrashDisk;
use quorate_testkit::sim::{LinkConfig, Sim, SimClock, SimNetwork, SimNode};
use tokio::time::timeout;

use super::ledger::{Ledger, Tap};
use super::model::KeyValueModel;
use super::port::{Deafness, Port, Ways, address};
use super::tap::{Stores, open_stores};

const FOUNDERS: u64 = 3;
/// One more than found the cluster.
const MACHINES: u64 = 4;
/// By then every node serves, in virtual time.
const SERVES_WITHIN: Duration = Duration::from_secs(60);
/// How far the clocks of two neighbours are apart.
const SKEW_MILLIS: i64 = 250;
/// One seed in so many runs its nodes as they are shipped, without taps.
const UNTAPPED_SEEDS: u64 = 4;

/// A machine: its disk and clock outlive the lives of its node.
struct Machine {
    life: Arc<SimNode>,
    disk: CrashDisk,
    clock: SimClock,
    node: Option<Arc<Node>>,
}

/// The cluster; clones are the same one.
#[derive(Clone)]
pub struct Cluster {
    /// The simulation it runs in.
    pub sim: Sim,
    /// What carries its messages.
    pub network: SimNetwork,
    /// Who hears nothing of what.
    pub deafness: Deafness,
    machines: Arc<Vec<Mutex<Machine>>>,
    taking_part: Arc<AtomicUsize>,
    configure: fn(&mut NodeConfig),
    ledger: Option<Ledger>,
}

impl Cluster {
    /// Founds a cluster and waits until every node serves.
    pub async fn found(sim: &Sim) -> Self {
        Self::found_with(sim, |_| {}).await
    }

    /// The same, with another configuration of each node.
    pub async fn found_with(sim: &Sim, configure: fn(&mut NodeConfig)) -> Self {
        let is_tapped = !sim.seed().is_multiple_of(UNTAPPED_SEEDS);
        Self::found_watched(sim, configure, is_tapped).await
    }

    /// The same, with or without taps in its nodes.
    pub async fn found_watched(sim: &Sim, configure: fn(&mut NodeConfig), is_tapped: bool) -> Self {
        let network = SimNetwork::new(sim, LinkConfig::default());
        let machine = |id: u64| {
            let offset_millis = i64::try_from(id).unwrap() * SKEW_MILLIS;
            Mutex::new(Machine {
                life: SimNode::new(NodeId(id), sim.seed()),
                disk: CrashDisk::new(sim.seed() ^ id),
                clock: SimClock::new(sim.begun(), offset_millis),
                node: None,
            })
        };
        let cluster = Self {
            sim: sim.clone(),
            network,
            deafness: Deafness::default(),
            machines: Arc::new((1..=MACHINES).map(machine).collect()),
            taking_part: Arc::new(AtomicUsize::new(usize::try_from(FOUNDERS).unwrap())),
            configure,
            ledger: is_tapped.then(|| {
                let model = Box::<KeyValueModel>::default();
                Ledger::new(sim.begun(), Arc::new(KeyValue), Some(model))
            }),
        };
        for place in 0..cluster.members() {
            cluster.boot(place).await;
        }
        cluster.serving().await;
        cluster
    }

    /// What its nodes were seen to do, if they have taps.
    pub fn ledger(&self) -> Option<&Ledger> {
        self.ledger.as_ref()
    }

    /// How many nodes take part, whether they run or not.
    pub fn members(&self) -> usize {
        self.taking_part.load(Ordering::Relaxed)
    }

    /// Lets the fourth node join, if it has not. It is on its way when this
    /// returns.
    pub async fn join(&self) {
        let place = self.members();
        if place < self.machines.len() {
            self.taking_part.store(place + 1, Ordering::Relaxed);
            self.boot(place).await;
        }
    }

    /// The node at a place.
    pub fn id(&self, place: usize) -> NodeId {
        self.machines[place].lock().life.id()
    }

    /// A node that runs, and the life to run its work in.
    pub fn node(&self, place: usize) -> Option<(Arc<SimNode>, Arc<Node>)> {
        let machine = self.machines[place].lock();
        machine.node.as_ref().map(|node| (Arc::clone(&machine.life), Arc::clone(node)))
    }

    async fn boot(&self, place: usize) {
        let (life, disk, clock) = {
            let machine = self.machines[place].lock();
            (Arc::clone(&machine.life), machine.disk.clone(), machine.clock.clone())
        };
        life.attach(&disk);
        let tap = self.ledger.as_ref().map(|ledger| ledger.tap(life.id(), life.life()));
        let (port, inbound) =
            Port::open(&self.network, &life, &self.deafness, self.sim.trace(), tap.clone());
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let mut builder = Node::builder(self.config(life.id()));
        if let Some(tap) = &tap {
            let (log, engine) = open_tapped(&life, &*disk, tap).await;
            builder = builder.log(log).engine(engine);
        }
        let builder = builder.disk(disk).clock(Arc::new(clock)).network(
            Arc::new(Ways(Arc::clone(&port))),
            Arc::new(Ways(Arc::clone(&port))),
            inbound,
        );
        let node = life.run(builder.start()).await.expect("the node starts");
        if let Some(tap) = &tap {
            // What its disk kept, before the metadata mend it.
            tap.migrations(&node.migrations());
        }
        port.serve(node.service());
        self.sim.trace().record(format_args!("{} lives, {}", life.id(), life.life()));
        self.machines[place].lock().node = Some(Arc::new(node));
    }

    /// Has its nodes' tables of migrations looked at (M3).
    pub fn look_at_migrations(&self) {
        for place in 0..self.members() {
            let Some((life, node)) = self.node(place) else { continue };
            if let Some(ledger) = &self.ledger {
                ledger.tap(life.id(), life.life()).migrations(&node.migrations());
            }
        }
    }

    fn config(&self, node: NodeId) -> NodeConfig {
        let mut config = NodeConfig::new(node, "unused");
        config.address = address(node);
        let founders = (1..=FOUNDERS).map(NodeId);
        if node.0 <= FOUNDERS {
            config.initial_cluster = founders.map(|id| (id, address(id))).collect();
        } else {
            config.join = founders.map(address).collect();
        }
        config.shards = 3;
        config.split_keys = ["h", "p"].map(|key| key.as_bytes().to_vec()).to_vec();
        (self.configure)(&mut config);
        config
    }

    /// Cuts a node's power.
    pub fn crash(&self, place: usize) {
        let mut machine = self.machines[place].lock();
        self.sim.trace().record(format_args!("{} crashes", machine.life.id()));
        machine.life.crash();
        let node = machine.node.take();
        drop(machine);
        drop(node);
    }

    /// Cuts the power of a node's disk during one of its next writes.
    pub fn tear(&self, place: usize, operations: u64, seed: u64) {
        self.machines[place].lock().disk.arm(operations, seed);
    }

    /// Sets a node's clock.
    pub fn jump(&self, place: usize, millis: i64) {
        self.machines[place].lock().clock.jump(millis);
    }

    /// Lets a crashed node come back on what its disk kept.
    pub async fn restart(&self, place: usize) {
        {
            let mut machine = self.machines[place].lock();
            machine.life = machine.life.restarted();
            machine.disk = machine.disk.reboot();
            machine.clock = machine.clock.restarted();
        }
        self.boot(place).await;
    }

    /// Waits until every node serves.
    pub async fn serving(&self) {
        for place in 0..self.members() {
            let (life, node) = self.node(place).expect("the node runs");
            let serving = timeout(SERVES_WITHIN, life.run(node.serving())).await;
            serving.expect("the node serves in time").expect("the cluster takes the node");
        }
    }
}

async fn open_tapped(life: &Arc<SimNode>, disk: &dyn Disk, tap: &Tap) -> Stores {
    life.run(async { open_stores(disk, tap) }).await.expect("the stores open")
}
