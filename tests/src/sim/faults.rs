//! What befalls a cluster, one thing after the other in each of three lanes.

use std::time::Duration;

use quorate::types::NodeId;
use quorate::types::env::{Rng, SplitMix};
use quorate_testkit::disk::{DiskCounters, Faults, SyncFault};
use quorate_testkit::sim::{LinkConfig, swizzle};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, sleep_until};

use super::cluster::Cluster;
use super::damage::damage_migrations;
use super::operators::Operator;
use super::options::{CUTS, Draw, Options};

/// One thing that befalls the cluster, and whatever chance it needs, so that
/// leaving out another one does not change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Strike {
    /// What happens.
    pub fault: Fault,
    /// Not before this time under fire, and not before its lane is free.
    pub at_millis: u64,
    /// How long it lasts.
    pub lasts_millis: u64,
    /// Who is struck, and how, follows from it.
    pub seed: u64,
    /// Machines have two tracks of faults: those of one follow one another,
    /// those of different tracks befall different machines at the same time.
    #[serde(default)]
    pub track: u8,
}

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Fault {
    /// One node does not hear another, which hears it.
    OneWayCut,
    /// Two nodes do not hear each other.
    TwoWayCut,
    /// The nodes fall into two sets that do not hear each other.
    Halves,
    /// One set hears the other, which does not hear it.
    HalfDeaf,
    /// Each node hears a majority, no two the same one.
    MajorityRing,
    /// Nobody hears some node, which hears nobody.
    Isolation,
    /// The same for the leader of some shard.
    LeaderIsolation,
    /// The same for the leader of the sequencer.
    SequencerIsolation,
    /// The same for the leader of the metadata.
    MetadataIsolation,
    /// Nodes are isolated one after the other, and rejoin in another order.
    Swizzle,
    /// Messages are lost.
    Loss,
    /// Messages arrive twice, and in another order.
    Duplication,
    /// Messages to and from a node take long.
    Delay,
    /// A node loses power.
    PowerCut,
    /// The leader of some shard loses power.
    LeaderPowerCut,
    /// The leader of the sequencer loses power.
    SequencerPowerCut,
    /// A node loses power for very long.
    LongOutage,
    /// A node is told to end, and starts again.
    Restart,
    /// A node stands still, and goes on as if nothing had been.
    Pause,
    /// The leader of some shard stands still.
    LeaderPause,
    /// All nodes lose power.
    Blackout,
    /// A node is lost with its disk; another one takes its place under an
    /// identity of its own.
    Replacement,
    /// A node loses power in the middle of a write.
    TornWrite,
    /// A node's disk refuses to write.
    WriteErrors,
    /// A node's disk is full.
    FullDisk,
    /// A node's disk cannot sync any more.
    SyncErrors,
    /// A node's disk fails one sync, and what it should have made durable is
    /// lost.
    LostSync,
    /// A node's disk is slow.
    SlowDisk,
    /// A node's disk now and then returns a flipped bit.
    FlippedReads,
    /// A node loses power, and rows of its migrations are damaged when it comes
    /// back.
    DamagedRow,
    /// A node loses power, and its disk fails while it starts again.
    FailingStart,
    /// A node's clock jumps.
    ClockJump,
    /// A node's clock goes wrong.
    ClockDrift,
    /// A shard gets another leader.
    Transfer,
    /// A shard becomes two.
    Split,
    /// A shard's replica moves to another node.
    Move,
    /// A node is to be emptied.
    Drain,
    /// A further node joins.
    Join,
}

/// Faults of one lane follow one another; those of different lanes coincide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    Network,
    Machines,
    Operators,
}

const LANES: [Lane; 3] = [Lane::Network, Lane::Machines, Lane::Operators];
/// What befalls a cluster one after the other.
const TRACKS: [(Lane, u8); 4] =
    [(Lane::Network, 0), (Lane::Machines, 0), (Lane::Machines, 1), (Lane::Operators, 0)];

impl Fault {
    /// All of them.
    pub const ALL: [Self; 38] = [
        Self::OneWayCut,
        Self::TwoWayCut,
        Self::Halves,
        Self::HalfDeaf,
        Self::MajorityRing,
        Self::Isolation,
        Self::LeaderIsolation,
        Self::SequencerIsolation,
        Self::MetadataIsolation,
        Self::Swizzle,
        Self::Loss,
        Self::Duplication,
        Self::Delay,
        Self::PowerCut,
        Self::LeaderPowerCut,
        Self::SequencerPowerCut,
        Self::LongOutage,
        Self::Restart,
        Self::Pause,
        Self::LeaderPause,
        Self::Blackout,
        Self::Replacement,
        Self::TornWrite,
        Self::WriteErrors,
        Self::FullDisk,
        Self::SyncErrors,
        Self::LostSync,
        Self::SlowDisk,
        Self::FlippedReads,
        Self::ClockJump,
        Self::ClockDrift,
        Self::Transfer,
        Self::Split,
        Self::Move,
        Self::Drain,
        Self::Join,
        Self::DamagedRow,
        Self::FailingStart,
    ];

    fn lane(self) -> Lane {
        match self {
            Self::OneWayCut
            | Self::TwoWayCut
            | Self::Halves
            | Self::HalfDeaf
            | Self::MajorityRing
            | Self::Isolation
            | Self::LeaderIsolation
            | Self::SequencerIsolation
            | Self::MetadataIsolation
            | Self::Swizzle
            | Self::Loss
            | Self::Duplication
            | Self::Delay => Lane::Network,
            Self::PowerCut
            | Self::LeaderPowerCut
            | Self::SequencerPowerCut
            | Self::LongOutage
            | Self::Restart
            | Self::Pause
            | Self::LeaderPause
            | Self::Blackout
            | Self::TornWrite
            | Self::WriteErrors
            | Self::FullDisk
            | Self::SyncErrors
            | Self::LostSync
            | Self::SlowDisk
            | Self::FlippedReads
            | Self::DamagedRow
            | Self::FailingStart
            | Self::ClockJump
            | Self::ClockDrift => Lane::Machines,
            Self::Replacement
            | Self::Transfer
            | Self::Split
            | Self::Move
            | Self::Drain
            | Self::Join => Lane::Operators,
        }
    }

    /// Beyond so many times there is nobody left to strike.
    fn times_max(self, options: &Options) -> u64 {
        match self {
            Self::Split => (CUTS.len() - options.cuts.len()) as u64,
            Self::Join => options.spares,
            Self::Drain | Self::Replacement => 1,
            _ => u64::MAX,
        }
    }

    /// Whether it makes sense in such a cluster.
    fn suits(self, options: &Options) -> bool {
        let is_alone = options.founders == 1;
        match self {
            Self::MajorityRing | Self::Swizzle => options.founders >= 3,
            Self::Transfer => options.replicas > 1,
            Self::Replacement | Self::Drain => {
                options.can_lose_a_node() && options.has_placement && options.spares > 0
            }
            Self::Move => options.founders + options.spares > u64::from(options.replicas),
            Self::Join => options.spares > 0,
            Self::Split => options.cuts.len() < CUTS.len(),
            fault => !is_alone || fault.lane() != Lane::Network,
        }
    }
}

/// The faults of a run, by lane and time: of the kinds that suit it some, and
/// none of the others, because faults of all kinds hide each other.
pub(super) fn plan(options: &Options, chance: &mut Draw) -> Vec<Strike> {
    let left_out_in = chance.pick(&[4, 2, 2]);
    let suitable = Fault::ALL.into_iter().filter(|fault| fault.suits(options));
    let mut enabled: Vec<Fault> = suitable
        .filter(|_| if left_out_in == 4 { chance.one_in(4) } else { chance.one_in(left_out_in) })
        .collect();
    if enabled.len() < 2 {
        enabled.extend([Fault::PowerCut, Fault::Blackout]);
    }
    let gap_millis_max = chance.pick(&[1_000, 4_000, 8_000]);
    let mut strikes = sequence(options, chance, &enabled, gap_millis_max);
    if options.founders > 1 && chance.one_in(3) {
        // With longer rests, or clients get nothing done.
        enabled.retain(|fault| fault.lane() == Lane::Machines);
        let others = sequence(options, chance, &enabled, 8_000);
        strikes.extend(others.into_iter().map(|strike| Strike { track: 1, ..strike }));
    }
    strikes
}

/// Strikes of these kinds, in each lane one after the other, with rests between
/// them of at most so long.
pub(super) fn sequence(
    options: &Options,
    chance: &mut Draw,
    enabled: &[Fault],
    gap_millis_max: u64,
) -> Vec<Strike> {
    let mut strikes: Vec<Strike> = Vec::new();
    for lane in LANES {
        let mut kinds: Vec<Fault> =
            enabled.iter().copied().filter(|fault| fault.lane() == lane).collect();
        let mut at_millis = 1_000;
        while !kinds.is_empty() && at_millis + 3_000 < options.fire_millis {
            let fault = chance.pick(&kinds);
            let lasts_millis = duration_millis(fault, chance);
            let seed = chance.0.next_u64();
            strikes.push(Strike { fault, at_millis, lasts_millis, seed, track: 0 });
            at_millis += lasts_millis + chance.between(200, gap_millis_max);
            let times = strikes.iter().filter(|strike| strike.fault == fault).count() as u64;
            kinds.retain(|kind| *kind != fault || times < fault.times_max(options));
        }
    }
    strikes
}

fn duration_millis(fault: Fault, chance: &mut Draw) -> u64 {
    match fault {
        Fault::LongOutage => chance.between(15_000, 30_000),
        Fault::Transfer | Fault::Split | Fault::Move | Fault::Join | Fault::ClockJump => 0,
        Fault::Drain | Fault::Replacement => chance.between(5_000, 10_000),
        _ if chance.one_in(8) => chance.between(5_000, 12_000),
        _ => chance.between(50, 4_000),
    }
}

/// Lets everything that was planned befall the cluster; done when the last of
/// it is over.
pub(super) async fn befall(cluster: &Cluster, operator: &Operator) {
    let begun = tokio::time::Instant::now();
    let lasts = Duration::from_millis(cluster.options.fire_millis);
    let harness = cluster.sim.harness();
    let lanes = TRACKS.map(|(lane, track)| {
        let all = cluster.options.strikes.iter().copied();
        let own = all.filter(|strike| strike.fault.lane() == lane && strike.track == track);
        let strikes: Vec<Strike> = own.collect();
        let (cluster, operator) = (cluster.clone(), operator.clone());
        harness.spawn(async move {
            for strike in strikes {
                sleep_until(begun + Duration::from_millis(strike.at_millis)).await;
                // Strikes before it may have taken longer than planned.
                if begun.elapsed() > lasts {
                    break;
                }
                strike.befall(&cluster, &operator).await;
            }
        })
    });
    for lane in lanes {
        lane.await.expect("no lane panics");
    }
}

impl Strike {
    async fn befall(self, cluster: &Cluster, operator: &Operator) {
        cluster.sim.trace().record(format_args!("{:?} strikes", self.fault));
        let struck = match self.fault.lane() {
            Lane::Network => self.disturb(cluster).await,
            Lane::Machines => self.harm(cluster).await,
            Lane::Operators => self.ask(cluster, operator).await,
        };
        cluster.note(self.fault, struck.is_some());
        let end = struck.map_or("finds nobody", |()| "is over");
        cluster.sim.trace().record(format_args!("{:?} {end}", self.fault));
    }

    fn lasts(self) -> Duration {
        Duration::from_millis(self.lasts_millis)
    }

    fn chance(self) -> Draw {
        Draw(SplitMix::new(self.seed))
    }

    /// Faults between nodes; `None` if there was nobody to strike.
    async fn disturb(self, cluster: &Cluster) -> Option<()> {
        let mut chance = self.chance();
        let network = &cluster.network;
        let nodes: Vec<NodeId> = cluster.present().map(|place| cluster.id(place)).collect();
        let first = chance.choose(&nodes)?;
        let others: Vec<NodeId> = nodes.iter().copied().filter(|node| *node != first).collect();
        let second = chance.choose(&others)?;
        let usual = LinkConfig::from(cluster.options.link);
        let before = network.counters();
        match self.fault {
            Fault::OneWayCut => network.cut_one_way(first, second),
            Fault::TwoWayCut => network.partition(&[first], &[second]),
            Fault::Halves | Fault::HalfDeaf => {
                let (mut left, mut right): (Vec<_>, Vec<_>) =
                    others.iter().partition(|_| chance.one_in(2));
                left.push(first);
                if right.is_empty() {
                    left.retain(|node| *node != second);
                    right.push(second);
                }
                match self.fault {
                    Fault::Halves => network.partition(&left, &right),
                    _ => network.partition_one_way(&left, &right),
                }
            }
            Fault::MajorityRing => network.majority_ring(&nodes),
            Fault::Isolation => network.isolate(first),
            Fault::LeaderIsolation => {
                network.isolate(cluster.id(cluster.shard_leader(&mut chance)?));
            }
            Fault::SequencerIsolation => network.isolate(cluster.id(cluster.sequencer_leader()?)),
            Fault::MetadataIsolation => network.isolate(cluster.id(cluster.metadata_leader()?)),
            Fault::Swizzle => {
                let steps = swizzle(&nodes, self.seed);
                let pause = self.lasts() / u32::try_from(steps.len().max(1)).unwrap();
                for step in steps {
                    network.swizzle_step(step);
                    sleep(pause).await;
                }
            }
            Fault::Loss => {
                let loss_per_mille = chance.pick(&[10, 50, 200]);
                network.set_link(LinkConfig { loss_per_mille, ..usual });
            }
            Fault::Duplication => {
                let twice = LinkConfig { duplicate_per_mille: 200, is_ordered: false, ..usual };
                network.set_link(twice);
            }
            Fault::Delay => {
                let extra = Duration::from_millis(chance.pick(&[20, 200, 1_000]));
                network.spike_node(first, extra, self.lasts());
            }
            fault => unreachable!("{fault:?} is no fault of the network"),
        }
        if self.fault != Fault::Swizzle {
            sleep(self.lasts()).await;
        }
        network.heal();
        network.set_link(usual);
        let after = network.counters();
        let has_struck = match self.fault {
            Fault::Duplication => after.duplicated > before.duplicated,
            Fault::Delay => after.late > before.late,
            Fault::Loss => after.lost > before.lost,
            _ => after.cut > before.cut,
        };
        has_struck.then_some(())
    }

    /// Faults of machines; `None` if there was nobody to strike.
    async fn harm(self, cluster: &Cluster) -> Option<()> {
        let mut chance = self.chance();
        if self.fault == Fault::Blackout {
            let places: Vec<usize> = cluster.present().collect();
            places.iter().for_each(|place| cluster.crash(*place));
            sleep(self.lasts()).await;
            for place in places {
                cluster.restart(place).await;
            }
            return Some(());
        }
        let running: Vec<usize> =
            cluster.running().filter(|place| !cluster.is_held(*place)).collect();
        let place = match self.fault {
            Fault::LeaderPowerCut | Fault::LeaderPause => cluster.shard_leader(&mut chance)?,
            Fault::SequencerPowerCut => cluster.sequencer_leader()?,
            _ => chance.choose(&running)?,
        };
        let _held = cluster.hold(place)?;
        match self.fault {
            Fault::PowerCut
            | Fault::LeaderPowerCut
            | Fault::SequencerPowerCut
            | Fault::LongOutage => {
                cluster.crash(place);
                sleep(self.lasts()).await;
                cluster.restart(place).await;
            }
            Fault::DamagedRow => {
                cluster.crash(place);
                sleep(self.lasts()).await;
                return cluster.restart_on(place, |disk| damage_migrations(disk)).await;
            }
            Fault::Restart => {
                cluster.stop(place).await;
                sleep(self.lasts()).await;
                cluster.restart(place).await;
            }
            Fault::Pause | Fault::LeaderPause => {
                let (life, _) = cluster.node(place)?;
                life.pause();
                sleep(self.lasts()).await;
                life.resume();
            }
            Fault::TornWrite => {
                let crashes_before = cluster.disk_counters()[place].crashes;
                cluster.tear(place, chance.between(1, 100), self.seed);
                sleep(self.lasts()).await;
                let crashes = cluster.disk_counters()[place].crashes;
                cluster.crash(place);
                cluster.restart(place).await;
                return (crashes > crashes_before).then_some(());
            }
            Fault::WriteErrors
            | Fault::FullDisk
            | Fault::SyncErrors
            | Fault::LostSync
            | Fault::FlippedReads => {
                let ills_before = cluster.disk_counters()[place].ills;
                cluster.set_disk_faults(place, |counters| self.disk_faults(counters));
                sleep(self.lasts()).await;
                cluster.crash(place);
                let ills = cluster.disk_counters()[place].ills;
                cluster.restart(place).await;
                return (ills > ills_before).then_some(());
            }
            Fault::FailingStart => {
                cluster.crash(place);
                sleep(Duration::from_millis(chance.between(1, 500))).await;
                let faults = |counters| self.disk_faults(counters);
                let ills_before = cluster.start_ill(place, faults).await;
                sleep(self.lasts()).await;
                cluster.crash(place);
                let ills = cluster.disk_counters()[place].ills;
                cluster.restart(place).await;
                return (ills > ills_before).then_some(());
            }
            Fault::SlowDisk => {
                let (life, _) = cluster.node(place)?;
                let usual = life.sync_delay_max();
                life.set_sync_delay_max(Duration::from_millis(chance.pick(&[50, 300, 1_000])));
                sleep(self.lasts()).await;
                // Another life may have begun, as slow as this one.
                if let Some((life, _)) = cluster.node(place) {
                    life.set_sync_delay_max(usual);
                }
            }
            Fault::ClockJump => {
                let millis = i64::try_from(chance.below(20_000)).unwrap() - 10_000;
                cluster.clock(place).jump(millis);
            }
            Fault::ClockDrift => {
                let ppm = i32::try_from(chance.below(100_000)).unwrap() - 50_000;
                cluster.clock(place).set_drift_ppm(ppm);
                sleep(self.lasts()).await;
                cluster.clock(place).set_drift_ppm(0);
            }
            fault => unreachable!("{fault:?} is no fault of a machine"),
        }
        Some(())
    }

    /// What a disk that did so much suffers from now on.
    fn disk_faults(self, counters: DiskCounters) -> Faults {
        let mut chance = self.chance();
        let healthy = Faults::default();
        let soon = 1 + chance.below(20);
        match self.fault {
            Fault::WriteErrors => {
                Faults { write_errors_from: Some(counters.writes + soon), ..healthy }
            }
            Fault::FullDisk => Faults { capacity_bytes: Some(0), ..healthy },
            Fault::SyncErrors => {
                Faults { sync: Some((counters.syncs + soon, SyncFault::Permanent)), ..healthy }
            }
            Fault::LostSync => {
                Faults { sync: Some((counters.syncs + soon, SyncFault::Once)), ..healthy }
            }
            Fault::FailingStart => {
                let soon = 1 + chance.below(8);
                match chance.below(4) {
                    0 => Faults { read_error_at: Some(counters.reads + soon), ..healthy },
                    1 => Faults { read_errors_from: Some(counters.reads + soon), ..healthy },
                    2 => Faults { write_errors_from: Some(counters.writes + soon), ..healthy },
                    _ => {
                        Faults { sync: Some((counters.syncs + 1, SyncFault::Permanent)), ..healthy }
                    }
                }
            }
            _ => Faults { flip_one_read_in: chance.between(1, 20), ..healthy },
        }
    }

    /// What operators ask for; `None` if it came to nothing.
    async fn ask(self, cluster: &Cluster, operator: &Operator) -> Option<()> {
        let mut chance = self.chance();
        match self.fault {
            Fault::Transfer => operator.transfer(&mut chance).await?,
            Fault::Split => operator.split(&mut chance).await?,
            Fault::Move => operator.move_replica(&mut chance).await?,
            Fault::Join => cluster.join().await?,
            Fault::Drain => operator.drain(&mut chance).await?,
            Fault::Replacement => operator.replace(&mut chance).await?,
            fault => unreachable!("{fault:?} is nothing to ask for"),
        }
        sleep(self.lasts()).await;
        Some(())
    }
}
