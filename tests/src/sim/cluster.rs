//! Whole nodes in one simulation: those that found a cluster, and spare
//! machines whose nodes may join it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use quorate::types::disk::Disk;
use quorate::types::fault::Canary;
use quorate::types::runtime::BoxFuture;
use quorate::types::{NodeId, ShardId};
use quorate::{Node, NodeConfig};
use quorate_calvin::kv::KeyValue;
use quorate_engine::RedbConfig;
use quorate_raft::LogMedium;
use quorate_testkit::check::Verdict;
use quorate_testkit::disk::{CrashDisk, DiskCounters, DiskImage, Faults};
use quorate_testkit::sim::{Coverage, Sim, SimClock, SimNetwork, SimNode};
use tokio::time::{Instant, sleep, timeout};

use super::faults::Fault;
use super::finding::Findings;
use super::ledger::{Ledger, Tap};
use super::model::{KeyValueModel, Model};
use super::options::{Draw, Options};
use super::port::{Deafness, Medium, Port, Ways, address};
use super::tap::{Stores, open_stores};

/// By then every node serves, in virtual time.
const SERVES_WITHIN: Duration = Duration::from_secs(60);
/// How often the nodes are asked whether they have given up.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// After so long somebody starts a node again that has given up.
const STARTED_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A node that gives up is to tell its operator within so long why it does.
const STOPS_WITHIN: Duration = Duration::from_secs(60);

/// The longest that a sync of a slow disk takes.
const SLOW_SYNC_MAX: Duration = Duration::from_secs(1);

/// A machine: its disk and clock outlive the lives of its node.
struct Machine {
    life: Arc<SimNode>,
    disk: CrashDisk,
    clock: SimClock,
    state: State,
    /// Whether its disk failed in this life, so that its node may give up.
    is_ill: bool,
}

/// What a machine does.
enum State {
    /// Its node has never run.
    Spare,
    /// Its node runs.
    Running(Arc<Node>),
    /// Its node starts.
    Starting,
    /// Its power is off.
    Down,
    /// It is lost, with its disk.
    Lost,
}

/// What a cluster begins with that has worked before.
#[derive(Debug, Clone, Default)]
pub(super) struct Beginning {
    /// The disks of those that take part.
    pub(super) images: Vec<DiskImage>,
    /// What its nodes were seen to do.
    pub(super) ledger: Option<Ledger>,
    /// How far its clocks are behind what they have shown before.
    pub(super) clock_millis: i64,
}

/// How often a fault struck, and how often it found nobody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Struck {
    /// It had an effect.
    pub times: u64,
    /// There was nothing for it to strike.
    pub in_vain: u64,
}

/// The cluster; clones are the same one.
#[derive(Clone)]
pub struct Cluster {
    /// The simulation it runs in.
    pub sim: Sim,
    /// What its seed has decided.
    pub options: Arc<Options>,
    /// What carries its messages.
    pub network: SimNetwork,
    /// Who hears nothing of what.
    pub deafness: Deafness,
    /// What is seen of it.
    pub probes: Probes,
    machines: Arc<Vec<Mutex<Machine>>>,
    taking_part: Arc<AtomicUsize>,
    configure: fn(&mut NodeConfig),
    ledger: Option<Ledger>,
    /// The machines that something befalls.
    held: Arc<Mutex<BTreeSet<usize>>>,
}

/// For as long as it lives nothing else befalls a machine.
#[derive(Debug)]
pub(super) struct Held {
    place: usize,
    all: Arc<Mutex<BTreeSet<usize>>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.lock().remove(&self.place);
    }
}

/// What is seen of a run, and outlasts it. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Probes {
    /// What is wrong.
    pub findings: Findings,
    /// Where the code has been.
    pub coverage: Coverage,
    struck: Arc<Mutex<BTreeMap<Fault, Struck>>>,
    undecided: Arc<AtomicU64>,
}

impl Probes {
    /// How many histories no checker could decide about.
    pub fn undecided(&self) -> u64 {
        self.undecided.load(Ordering::Relaxed)
    }

    /// How often which fault struck.
    pub fn struck(&self) -> BTreeMap<Fault, Struck> {
        self.struck.lock().clone()
    }
}

impl Cluster {
    /// Founds an everyday cluster and waits until every node serves.
    pub async fn found(sim: &Sim) -> Self {
        Self::found_with(sim, |_| {}).await
    }

    /// The same, with another configuration of each node.
    pub async fn found_with(sim: &Sim, configure: fn(&mut NodeConfig)) -> Self {
        Self::found_as(sim, Options::calm(sim.seed()), Probes::default(), configure).await
    }

    /// The same, as the options have it.
    pub async fn found_as(
        sim: &Sim,
        options: Options,
        probes: Probes,
        configure: fn(&mut NodeConfig),
    ) -> Self {
        let cluster = Self::assemble(sim, options, probes, configure, Beginning::default());
        for place in 0..cluster.members() {
            cluster.boot(place).await.expect("a new node starts");
        }
        cluster.serving().await;
        cluster
    }

    /// Puts its machines up; none of them is on.
    pub(super) fn assemble(
        sim: &Sim,
        options: Options,
        probes: Probes,
        configure: fn(&mut NodeConfig),
        beginning: Beginning,
    ) -> Self {
        let machines = (1..=options.machines())
            .map(|id| Mutex::new(Machine::new(sim, &options, id, &probes.coverage, &beginning)))
            .collect();
        let ledger = options.is_tapped.then(|| {
            let model = Some(Box::<KeyValueModel>::default() as Box<dyn Model>);
            let findings = probes.findings.clone();
            match &beginning.ledger {
                Some(ledger) => ledger.continued(sim.begun(), findings, model),
                None => Ledger::new(sim.begun(), findings, Arc::new(KeyValue), model),
            }
        });
        let founders = usize::try_from(options.founders).unwrap();
        let taking_part = founders.max(beginning.images.len());
        Self {
            sim: sim.clone(),
            network: SimNetwork::new(sim, options.link.into()),
            deafness: Deafness::default(),
            probes,
            machines: Arc::new(machines),
            taking_part: Arc::new(AtomicUsize::new(taking_part)),
            options: Arc::new(options),
            configure,
            ledger,
            held: Arc::default(),
        }
    }

    /// Whether something befalls a machine.
    pub(super) fn is_held(&self, place: usize) -> bool {
        self.held.lock().contains(&place)
    }

    /// Keeps a machine for one fault; `None` if it has another.
    pub(super) fn hold(&self, place: usize) -> Option<Held> {
        let is_free = self.held.lock().insert(place);
        is_free.then(|| Held { place, all: Arc::clone(&self.held) })
    }

    /// What its nodes were seen to do, if they have taps.
    pub fn ledger(&self) -> Option<&Ledger> {
        self.ledger.as_ref()
    }

    /// How many machines take part or did, whether they run or not.
    pub fn members(&self) -> usize {
        self.taking_part.load(Ordering::Relaxed)
    }

    /// The places of the machines that are not lost.
    pub fn present(&self) -> impl Iterator<Item = usize> {
        (0..self.members())
            .filter(|place| !matches!(self.machines[*place].lock().state, State::Lost))
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// The places of the nodes that run.
    pub fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.members())
            .filter(|place| self.node(*place).is_some())
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// Lets a further node join, if there is a machine left. It is on its way
    /// when this returns.
    pub async fn join(&self) -> Option<()> {
        let place = self.members();
        if place == self.machines.len() {
            return None;
        }
        self.taking_part.store(place + 1, Ordering::Relaxed);
        self.start(place, "a new node starts").await;
        Some(())
    }

    /// The node at a place.
    pub fn id(&self, place: usize) -> NodeId {
        self.machines[place].lock().life.id()
    }

    /// A node that runs, and the life to run its work in.
    pub fn node(&self, place: usize) -> Option<(Arc<SimNode>, Arc<Node>)> {
        let machine = self.machines[place].lock();
        let State::Running(node) = &machine.state else { return None };
        Some((Arc::clone(&machine.life), Arc::clone(node)))
    }

    /// A machine's clock.
    pub fn clock(&self, place: usize) -> SimClock {
        self.machines[place].lock().clock.clone()
    }

    /// Where some shard has its leader, as some node has it.
    pub(super) fn shard_leader(&self, chance: &mut Draw) -> Option<usize> {
        let running: Vec<usize> = self.running().collect();
        let (_, node) = self.node(chance.choose(&running)?)?;
        let shards: Vec<ShardId> = node.view().shards().map(|(shard, _)| shard).collect();
        self.place(node.shard_leader(chance.choose(&shards)?)?)
    }

    /// Where the sequencer has its leader, as the first node has it that knows.
    pub(super) fn sequencer_leader(&self) -> Option<usize> {
        let leader = |place| self.node(place)?.1.system_leaders().1;
        self.place(self.running().find_map(leader)?)
    }

    /// The same for the metadata.
    pub(super) fn metadata_leader(&self) -> Option<usize> {
        let leader = |place| self.node(place)?.1.system_leaders().0;
        self.place(self.running().find_map(leader)?)
    }

    fn place(&self, id: NodeId) -> Option<usize> {
        self.running().find(|place| self.id(*place) == id)
    }

    /// Turns a machine on that is off.
    pub(super) async fn boot(&self, place: usize) -> Result<(), String> {
        let (life, disk, clock) = {
            let mut machine = self.machines[place].lock();
            machine.state = State::Starting;
            (Arc::clone(&machine.life), machine.disk.clone(), machine.clock.clone())
        };
        life.attach(&disk);
        let tap = self.ledger.as_ref().map(|ledger| ledger.tap(life.id(), life.life()));
        let (port, inbound) = Port::open(self.medium(), &life, tap.clone());
        let config = self.config(life.id());
        let medium = config.log;
        let mut builder = Node::builder(config);
        if let Some(tap) = &tap {
            let engine = self.options.engine_config();
            let (log, engine) = open_tapped(&life, &disk, medium, engine, tap).await?;
            builder = builder.log(log).engine(engine);
        }
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let builder = builder.disk(disk).clock(Arc::new(clock)).network(
            Arc::new(Ways(Arc::clone(&port))),
            Arc::new(Ways(Arc::clone(&port))),
            inbound,
        );
        let node = life.run(builder.start()).await.map_err(|error| error.to_string())?;
        if let Some(tap) = &tap {
            // What its disk kept, before the metadata mend it.
            tap.migrations(&node.migrations());
        }
        port.serve(node.service());
        self.sim.trace().record(format_args!("{} lives, {}", life.id(), life.life()));
        let mut machine = self.machines[place].lock();
        if life.is_alive() {
            machine.state = State::Running(Arc::new(node));
        }
        Ok(())
    }

    fn medium(&self) -> Medium {
        Medium {
            network: self.network.clone(),
            deafness: self.deafness.clone(),
            trace: self.sim.trace().clone(),
            room: self.options.room,
        }
    }

    /// Has its nodes' tables of migrations looked at (M3).
    pub(super) fn look_at_migrations(&self) {
        let Some(ledger) = &self.ledger else { return };
        for place in self.running() {
            let Some((life, node)) = self.node(place) else { continue };
            ledger.tap(life.id(), life.life()).migrations(&node.migrations());
        }
    }

    fn config(&self, node: NodeId) -> NodeConfig {
        let mut config = NodeConfig::new(node, "unused");
        config.address = address(node);
        let founders = (1..=self.options.founders).map(NodeId);
        if node.0 <= self.options.founders {
            config.initial_cluster = founders.map(|id| (id, address(id))).collect();
        } else {
            config.join = founders.map(address).collect();
        }
        self.options.configure(&mut config);
        (self.configure)(&mut config);
        config
    }

    /// Cuts a node's power; nothing happens where it is off.
    pub fn crash(&self, place: usize) {
        self.end(place, State::Down);
    }

    /// Takes a machine away for good.
    pub(super) fn lose(&self, place: usize) {
        self.end(place, State::Lost);
    }

    fn end(&self, place: usize, end: State) {
        let mut machine = self.machines[place].lock();
        if matches!(machine.state, State::Spare | State::Lost) {
            return;
        }
        self.sim.trace().record(format_args!("{} crashes", machine.life.id()));
        machine.life.crash();
        let before = std::mem::replace(&mut machine.state, end);
        drop(machine);
        drop(before);
    }

    /// Ends all nodes and leaves nothing of them behind. (The network and the
    /// nodes hold on to each other, disks included: for a process that goes on.)
    pub(super) fn dismantle(&self) {
        for place in 0..self.members() {
            self.crash(place);
            let life = Arc::clone(&self.machines[place].lock().life);
            let gone = |_, _| -> BoxFuture<_> { Box::pin(ready(Err("gone".to_owned()))) };
            self.network.register(&life, Arc::new(gone));
        }
    }

    /// Tells a node to end, and waits until it has.
    pub(super) async fn stop(&self, place: usize) {
        let Some((life, node)) = self.node(place) else { return };
        let stopping = life.spawn(async move { node.shutdown().await });
        match timeout(STOPS_WITHIN, stopping).await {
            Ok(Ok(Ok(())) | Err(_)) => {}
            Ok(Ok(Err(error))) if self.machines[place].lock().is_ill => {
                self.sim.trace().record(format_args!("{} ends badly: {error}", life.id()));
            }
            Ok(Ok(Err(error))) => self.find("a healthy node ends in good order", error.to_string()),
            Err(_) if life.is_paused() => {}
            Err(_) => self.find("a node that is told to end ends", life.id().to_string()),
        }
        self.crash(place);
    }

    /// Cuts the power of a node's disk during one of its next writes.
    pub fn tear(&self, place: usize, operations: u64, seed: u64) {
        let mut machine = self.machines[place].lock();
        machine.is_ill = true;
        machine.disk.arm(operations, seed);
    }

    /// Lets a node's disk fail, until it is started again.
    pub(super) fn set_disk_faults(
        &self,
        place: usize,
        faults: impl FnOnce(DiskCounters) -> Faults,
    ) {
        let mut machine = self.machines[place].lock();
        machine.is_ill = true;
        let faults = faults(machine.disk.counters());
        machine.disk.set_faults(faults);
    }

    /// Lets a node without power come back on what its disk kept; nothing
    /// happens where it is on.
    pub async fn restart(&self, place: usize) {
        self.restart_on(place, |_| ()).await;
    }

    /// The same after something was done to the disk; what it was is returned.
    pub(super) async fn restart_on<T: Default>(
        &self,
        place: usize,
        treat: impl FnOnce(&CrashDisk) -> T,
    ) -> T {
        if !self.reboot(place) {
            return T::default();
        }
        let treated = treat(&self.disk(place));
        self.start(place, "a node starts on what its disk kept").await;
        treated
    }

    /// Turns a machine on whose disk fails meanwhile, so that its node may
    /// refuse to start, or give up soon. Returns how much was wrong before.
    pub(super) async fn start_ill(
        &self,
        place: usize,
        faults: impl FnOnce(DiskCounters) -> Faults,
    ) -> u64 {
        let ills_before = self.disk(place).counters().ills;
        if self.reboot(place) {
            self.set_disk_faults(place, faults);
            if let Err(error) = self.boot(place).await {
                let id = self.id(place);
                self.sim.trace().record(format_args!("{id} does not start: {error}"));
                self.crash(place);
            }
        }
        ills_before
    }

    /// Turns a machine on, which must not fail unless somebody cuts its power
    /// meanwhile, who then turns it on again.
    async fn start(&self, place: usize, rule: &'static str) {
        let life = Arc::clone(&self.machines[place].lock().life);
        if let Err(error) = self.boot(place).await
            && life.is_alive()
        {
            self.find(rule, format!("{}: {error}", life.id()));
            self.lose(place);
        }
    }

    /// Gives a machine that is off its next life, on what its disk kept; false
    /// if it is not off.
    pub(super) fn reboot(&self, place: usize) -> bool {
        let mut machine = self.machines[place].lock();
        if !matches!(machine.state, State::Down) {
            return false;
        }
        machine.life = machine.life.restarted();
        machine.disk.clear_faults();
        machine.disk = machine.disk.reboot();
        machine.clock = machine.clock.restarted();
        machine.is_ill = false;
        true
    }

    /// A machine's disk, as its present life sees it.
    pub(super) fn disk(&self, place: usize) -> CrashDisk {
        self.machines[place].lock().disk.clone()
    }

    /// Starts nodes again that have given up because their disk failed, for as
    /// long as it is polled. Others have no reason to give up.
    pub(super) async fn watch(&self) {
        let mut disks = BTreeMap::new();
        loop {
            sleep(LOOK_EVERY).await;
            self.look_at_migrations();
            self.trace_disks(&mut disks);
            for place in self.running() {
                let Some((life, node)) = self.node(place) else { continue };
                let Some(failure) = node.failure() else { continue };
                let is_ill = self.machines[place].lock().is_ill;
                self.sim.trace().record(format_args!("{} has given up: {failure}", life.id()));
                if !is_ill {
                    let what = format!("{} gave up: {failure}", life.id());
                    self.find("a node on a healthy disk goes on", what);
                }
                drop(node);
                self.crash(place);
                let cluster = self.clone();
                let harness = Arc::clone(self.sim.harness());
                drop(harness.spawn(async move {
                    sleep(STARTED_AGAIN_AFTER).await;
                    cluster.restart(place).await;
                }));
            }
        }
    }

    /// Records what the disks have done since they were looked at: their calls
    /// are too many for a line each, and a checksum over all tells as well that
    /// two runs part.
    fn trace_disks(&self, before: &mut BTreeMap<usize, u64>) {
        for place in self.present() {
            let DiskCounters { operations, reads, checksum, .. } = self.disk(place).counters();
            if before.insert(place, checksum) != Some(checksum) {
                let id = self.id(place);
                self.sim.trace().record(format_args!(
                    "{id} disk: {operations} changes, {reads} reads, checksum {checksum:016x}"
                ));
            }
        }
    }

    /// Makes the disk slow that is to be slow while faults strike. (A cluster
    /// that cannot do without it might never elect anybody.)
    pub(super) fn slow_down(&self) {
        for place in self.present() {
            let life = &self.machines[place].lock().life;
            if self.options.slow_disk == Some(life.id().0) {
                life.set_sync_delay_max(SLOW_SYNC_MAX);
            }
        }
    }

    /// Ends everything that befell it: what can run runs.
    pub(super) async fn heal(&self) {
        self.network.heal();
        self.network.set_link(self.options.link.healed().into());
        for place in self.present() {
            let machine = self.machines[place].lock();
            machine.life.resume();
            machine.life.set_sync_delay_max(Duration::from_micros(self.options.sync_micros_max));
            machine.disk.clear_faults();
            machine.clock.set_drift_ppm(0);
        }
        for place in self.present() {
            self.restart(place).await;
        }
    }

    /// Waits until every node serves that is not lost.
    pub async fn serving(&self) {
        for place in self.present() {
            let Some((life, node)) = self.running_at(place).await else {
                self.find("a healed cluster serves", format!("{} does not run", self.id(place)));
                continue;
            };
            let serving = timeout(SERVES_WITHIN, life.run(node.serving())).await;
            match serving {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.find("a member is taken", format!("{}: {error}", life.id())),
                Err(_) => {
                    let why = node.readiness().err().unwrap_or_default();
                    self.find("a healed cluster serves", format!("{}: {why}", life.id()));
                }
            }
        }
    }

    /// A node that runs, or is about to.
    async fn running_at(&self, place: usize) -> Option<(Arc<SimNode>, Arc<Node>)> {
        let until = Instant::now() + SERVES_WITHIN;
        while self.node(place).is_none() && Instant::now() < until {
            sleep(LOOK_EVERY).await;
        }
        self.node(place)
    }

    /// Remembers what is wrong.
    pub fn find(&self, rule: &str, what: impl Into<String>) {
        let at_millis = u64::try_from(self.sim.elapsed().as_millis()).unwrap();
        let what = what.into();
        self.sim.trace().record(format_args!("FOUND {rule}: {what}"));
        self.probes.findings.add(rule, at_millis, what);
    }

    /// Remembers that a checker could not tell whether a history is good.
    pub(super) fn leave_open(&self, rule: &str, verdict: &Verdict) {
        self.sim.trace().record(format_args!("UNDECIDED {rule}: {verdict}"));
        self.probes.undecided.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a fault.
    pub(super) fn note(&self, fault: Fault, has_struck: bool) {
        let mut struck = self.probes.struck.lock();
        let count = struck.entry(fault).or_default();
        count.times += u64::from(has_struck);
        count.in_vain += u64::from(!has_struck);
    }

    /// What the disks have done, all together.
    pub(super) fn disk_counters(&self) -> Vec<DiskCounters> {
        self.machines.iter().map(|machine| machine.lock().disk.counters()).collect()
    }
}

async fn open_tapped(
    life: &Arc<SimNode>,
    disk: &CrashDisk,
    medium: LogMedium,
    engine: RedbConfig,
    tap: &Tap,
) -> Result<Stores, String> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    life.run(async { open_stores(&disk, medium, engine, tap) })
        .await
        .map_err(|error| format!("{error:?}"))
}

impl Machine {
    fn new(
        sim: &Sim,
        options: &Options,
        id: u64,
        coverage: &Coverage,
        beginning: &Beginning,
    ) -> Self {
        let sync_delay_max = Duration::from_micros(options.sync_micros_max);
        let mut life = SimNode::with_sync_delay(NodeId(id), sim.seed(), sync_delay_max)
            .with_coverage(coverage.clone());
        if options.stumbles {
            life = life.with_rare_branches(sim.seed());
        }
        if let Some(canary) = options.canary.as_deref() {
            life = life.with_canary(Canary::from_name(canary).expect("a known canary"));
        }
        let offset_millis =
            i64::try_from(id).unwrap() * options.skew_millis + beginning.clock_millis;
        let image = beginning.images.get(usize::try_from(id - 1).unwrap());
        Self {
            life,
            disk: CrashDisk::from_image(&image.cloned().unwrap_or_default(), sim.seed() ^ id),
            clock: SimClock::new(sim.begun(), offset_millis),
            state: State::Spare,
            is_ill: false,
        }
    }
}
