//! What a seed decides.

use std::fmt;
use std::time::Duration;

use quorate::NodeConfig;
use quorate::types::env::{Rng, SplitMix};
use quorate_engine::RedbConfig;
use quorate_raft::{LogMedium, Timing};
use quorate_testkit::sim::LinkConfig;
use serde::{Deserialize, Serialize};

use super::faults::{self, Fault, Strike};

/// So small that a run fills many.
const SEGMENT_BYTES: u64 = 512 << 10;
/// What fits into such a segment, and is more than any command of the load that
/// is not padded.
const COMMAND_BYTES_MAX: usize = 120 << 10;
/// Takes any command.
const LARGE_SEGMENT_BYTES: u64 = 32 << 20;

/// What logs are kept on.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Log {
    /// Segments, as nodes do unless they are told otherwise.
    #[default]
    Segments,
    /// A redb file.
    Redb,
}

impl Log {
    /// Either.
    pub const ALL: [Self; 2] = [Self::Segments, Self::Redb];

    /// A seed with this instead of what it says.
    pub(super) fn with(self, seed: u64) -> String {
        format!("{seed}@{self}")
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Segments => "segments",
            Self::Redb => "redb",
        })
    }
}

/// Between keys of the load: where shards may be cut.
pub(super) const CUTS: [&str; 5] = ["b", "h", "k", "p", "y"];

/// So many clients there are more of where answers are slow.
const CLIENTS_ADDED: u64 = 8;

/// One seed in so many runs its nodes as they are shipped, without taps.
const UNTAPPED_SEEDS: u64 = 4;

/// One seed in so many has a network that now and then loses or repeats a
/// message, besides what strikes.
const NOISY_SEEDS: u64 = 4;
/// Few enough that most exchanges succeed; the faults lose more.
const LOSS_PER_MILLE_MAX: u64 = 5;
/// See [`LOSS_PER_MILLE_MAX`].
const DUPLICATE_PER_MILLE_MAX: u64 = 20;

/// A whole run, drawn from a seed. It is written down with a finding, so that
/// the run can be had again after the drawing has changed, and made smaller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// What chance draws from while it runs.
    pub seed: u64,
    /// The nodes that found the cluster, numbered from 1.
    pub founders: u64,
    /// Machines besides, which may join later.
    pub spares: u64,
    /// How many replicas each shard has.
    pub replicas: u32,
    /// The keys at which shards are cut in the beginning, ascending.
    pub cuts: Vec<String>,
    /// Between heartbeats of a leader.
    pub heartbeat_millis: u64,
    /// The longest silence after which a follower stands for election.
    pub election_millis: u64,
    /// Applied entries at which a log is purged.
    pub purge_after_entries: u64,
    /// Applied entries that a purge leaves.
    pub purge_keeps_entries: u64,
    /// Between two purges of a busy log. Seeds from before there were pauses have none.
    #[serde(default)]
    pub purge_pause_millis: u64,
    /// How long an engine gathers what it commits. Of nodes that are not tapped, as long
    /// as it does by itself: they open it as they are shipped.
    #[serde(default = "former_engine_commit_millis")]
    pub engine_commit_millis: u64,
    /// Whether logs are kept in segments, small ones unless work is padded; else in
    /// a redb file.
    #[serde(default)]
    pub has_segments: bool,
    /// After so long without use a group rests, if ever.
    #[serde(default)]
    pub quiet_millis: Option<u64>,
    /// Whether leaders read on the strength of their leases.
    #[serde(default)]
    pub lease_reads: bool,
    /// Appends on their way to one follower.
    pub appends_in_flight_max: usize,
    /// Transactions that the sequencer takes before it refuses.
    pub inbox_txns_max: usize,
    /// How long requests are remembered.
    pub retention_millis: u64,
    /// How often lost messages of the transaction services are repeated.
    pub tick_millis: u64,
    /// How long the sequencer waits for a shard that logs nothing.
    pub unlogged_wait_millis: u64,
    /// How long a client waits for a call, and for one attempt of it.
    pub deadline_millis: u64,
    /// See [`Options::deadline_millis`].
    pub attempt_millis: u64,
    /// Whether the placement moves replicas on its own.
    pub has_placement: bool,
    /// How the network behaves when nothing strikes.
    pub link: Link,
    /// Requests of one channel of one peer that a node works on.
    pub room: usize,
    /// The longest that a sync takes.
    pub sync_micros_max: u64,
    /// A node whose syncs take up to a second.
    pub slow_disk: Option<u64>,
    /// How far the clocks of two neighbours are apart.
    pub skew_millis: i64,
    /// The clients' work.
    pub load: LoadOptions,
    /// What befalls the cluster.
    pub strikes: Vec<Strike>,
    /// How long clients work while it does.
    pub fire_millis: u64,
    /// Whether logs and engines are watched; otherwise nodes run as they are
    /// shipped, and clients and replicas have to show what is wrong.
    pub is_tapped: bool,
    /// Whether rare branches are taken on purpose.
    pub stumbles: bool,
    /// The bug that is planted, if any.
    pub canary: Option<String>,
}

/// How messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The shortest time.
    pub latency_min_millis: u64,
    /// The longest.
    pub latency_max_millis: u64,
    /// Of a thousand, so many are lost.
    pub loss_per_mille: u16,
    /// Of a thousand that nobody waits for, so many arrive twice.
    pub duplicate_per_mille: u16,
    /// Whether they keep their order.
    pub is_ordered: bool,
}

impl Link {
    /// The same, where nothing is lost and nothing comes twice.
    #[must_use]
    pub(super) fn healed(self) -> Self {
        Self { loss_per_mille: 0, duplicate_per_mille: 0, ..self }
    }
}

impl From<Link> for LinkConfig {
    fn from(link: Link) -> Self {
        Self {
            latency_min: Duration::from_millis(link.latency_min_millis),
            latency_max: Duration::from_millis(link.latency_max_millis),
            loss_per_mille: link.loss_per_mille,
            duplicate_per_mille: link.duplicate_per_mille,
            is_ordered: link.is_ordered,
        }
    }
}

impl Default for Link {
    fn default() -> Self {
        Self {
            latency_min_millis: 1,
            latency_max_millis: 5,
            loss_per_mille: 0,
            duplicate_per_mille: 0,
            is_ordered: true,
        }
    }
}

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadOptions {
    /// How many there are.
    pub clients: u64,
    /// The longest that one rests between two operations.
    pub pause_millis_max: u64,
    /// How many of the accounts and lists are used: the fewer, the more they
    /// get in each other's way.
    pub hot_keys: usize,
    /// Bytes by which written values are padded.
    pub padding_bytes: usize,
    /// Operations that are answered before the clients rest: long histories
    /// take long to judge and say no more.
    pub operations_max: u64,
    /// How often each kind of work is done, in parts.
    pub weights: Weights,
}

/// Parts of the whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// All accounts are read.
    pub audits: u64,
    /// All lists are read.
    pub list_reads: u64,
    /// Money moves between two accounts.
    pub transfers: u64,
    /// An element is appended to two lists.
    pub appends: u64,
    /// A key of its own is written.
    pub puts: u64,
    /// A few registers are written blindly and read.
    #[serde(default)]
    pub registers: u64,
    /// Counters on both sides of a cut are raised.
    #[serde(default)]
    pub counters: u64,
    /// Marks are raised by their owners and read by the others.
    #[serde(default)]
    pub reads: u64,
    /// Slots are claimed and freed, on conditions that may not hold.
    #[serde(default)]
    pub claims: u64,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            clients: 4,
            pause_millis_max: 100,
            hot_keys: 6,
            padding_bytes: 0,
            operations_max: 3_000,
            weights: Weights {
                audits: 1,
                list_reads: 1,
                transfers: 3,
                appends: 3,
                puts: 1,
                registers: 1,
                counters: 1,
                reads: 1,
                claims: 1,
            },
        }
    }
}

/// What engines had when most of the recorded seeds were found that do not say it.
const fn former_engine_commit_millis() -> u64 {
    500
}

impl Default for Options {
    /// Three founders, a spare and three shards, and nothing strikes.
    fn default() -> Self {
        Self {
            seed: 0,
            founders: 3,
            spares: 1,
            replicas: 3,
            cuts: ["h", "p"].map(str::to_owned).to_vec(),
            heartbeat_millis: 200,
            election_millis: 2000,
            purge_after_entries: 10_000,
            purge_keeps_entries: 1_000,
            purge_pause_millis: 2_000,
            engine_commit_millis: 2_000,
            has_segments: false,
            quiet_millis: Some(5_000),
            lease_reads: false,
            appends_in_flight_max: 4,
            inbox_txns_max: 16 << 10,
            retention_millis: 600_000,
            tick_millis: 200,
            unlogged_wait_millis: 3_000,
            deadline_millis: 10_000,
            attempt_millis: 3_000,
            has_placement: true,
            link: Link::default(),
            room: 1,
            sync_micros_max: 5_000,
            slow_disk: None,
            skew_millis: 250,
            load: LoadOptions::default(),
            strikes: Vec::new(),
            fire_millis: 12_000,
            is_tapped: true,
            stumbles: false,
            canary: None,
        }
    }
}

impl Options {
    /// The same for every seed: an everyday cluster that nothing befalls.
    #[must_use]
    pub fn calm(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// A cluster, its work and what befalls it, all by chance.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut chance = Draw(SplitMix::new(seed ^ 0x0073_7761_726d));
        let is_tapped = !seed.is_multiple_of(UNTAPPED_SEEDS);
        let mut options = Self { seed, is_tapped, ..Self::default() };
        options.draw_cluster(&mut chance);
        options.draw_limits(&mut chance);
        options.draw_surroundings(&mut chance);
        options.draw_load(&mut chance);
        options.fire_millis = chance.between(60_000, 100_000);
        options.strikes = faults::plan(&options, &mut chance);
        options.draw_further_work(&mut chance);
        options.draw_noise(&mut chance);
        options.has_segments = chance.one_in(2);
        // The least that is taken, in every other seed.
        let least = options.election_millis * 2;
        options.quiet_millis = chance.pick(&[None, Some(least), Some(least), Some(10_000)]);
        options.lease_reads = chance.one_in(4);
        options.purge_pause_millis = chance.pick(&[0, 200, 2_000]);
        let engine_commit_millis = chance.pick(&[20, 500, 2_000, 2_000]);
        if is_tapped {
            options.engine_commit_millis = engine_commit_millis;
        }
        options.add_clients_where_answers_are_slow();
        options
    }

    fn draw_cluster(&mut self, chance: &mut Draw) {
        self.founders = chance.pick(&[1, 2, 3, 3, 3, 3, 3, 3, 4, 5, 5, 7]);
        self.spares = chance.between(0, 2);
        self.replicas = match self.founders {
            1 => 1,
            2..=4 => chance.pick(&[1, 3, 3, 3, 3, 3]).min(if self.founders == 2 { 1 } else { 3 }),
            _ => chance.pick(&[3, 3, 3, 5]),
        };
        self.cuts = CUTS.into_iter().filter(|_| chance.one_in(2)).map(str::to_owned).collect();
        self.has_placement = !chance.one_in(3);
        if chance.one_in(2) {
            self.heartbeat_millis = chance.between(50, 200);
            // Well above the latency of an append, which is never more than
            // a few times the longest way.
            self.election_millis = self.heartbeat_millis * chance.between(6, 12) + 300;
        }
    }

    fn draw_limits(&mut self, chance: &mut Draw) {
        if chance.one_in(2) {
            self.purge_after_entries = chance.between(30, 2_000);
            self.purge_keeps_entries = chance.between(0, 100);
        }
        self.appends_in_flight_max = chance.pick(&[1, 2, 4, 4, 8]);
        if chance.one_in(8) {
            self.inbox_txns_max = 2;
        }
        if chance.one_in(3) {
            self.retention_millis = chance.between(30_000, 120_000);
        }
        self.tick_millis = chance.pick(&[50, 100, 200, 200, 400]);
        self.unlogged_wait_millis = chance.pick(&[1_000, 3_000, 3_000, 5_000]);
        self.attempt_millis = chance.pick(&[500, 1_000, 3_000, 3_000]);
        self.deadline_millis = self.attempt_millis * chance.between(2, 4);
        self.room = chance.pick(&[1, 4, 16, 64]);
    }

    fn draw_surroundings(&mut self, chance: &mut Draw) {
        let (shortest, longest) = chance.pick(&[(0, 2), (1, 5), (1, 5), (5, 30)]);
        self.link.latency_min_millis = shortest;
        self.link.latency_max_millis = longest;
        self.link.is_ordered = !chance.one_in(4);
        self.sync_micros_max = chance.pick(&[0, 2_000, 5_000, 5_000, 20_000]);
        self.slow_disk = chance.one_in(6).then(|| chance.between(1, self.founders));
        self.skew_millis = chance.pick(&[0, 100, 250]);
        self.stumbles = !chance.one_in(4);
    }

    fn draw_load(&mut self, chance: &mut Draw) {
        self.load.clients = chance.between(3, 10);
        self.load.pause_millis_max = chance.pick(&[20, 100, 100, 200]);
        self.load.hot_keys = chance.pick(&[2, 3, 4, 6, 6]);
        self.load.padding_bytes = if chance.one_in(8) { 2_000 } else { 0 };
        self.load.weights = Weights {
            audits: chance.between(0, 2),
            list_reads: chance.between(1, 3),
            transfers: chance.between(0, 4),
            appends: chance.between(1, 4),
            puts: chance.between(0, 3),
            ..Weights::default()
        };
    }

    /// A client waits for its answer before it asks again: with as few as elsewhere,
    /// half of the runs over a slow disk, and of those in which every fault strikes
    /// a quorum of two, did too little to say anything.
    fn add_clients_where_answers_are_slow(&mut self) {
        if self.slow_disk.is_some() || self.founders == 2 {
            self.load.clients += CLIENTS_ADDED;
        }
    }

    /// Kinds of work of which about half take part. Drawn after everything
    /// else, so that seeds from before these kinds keep what befalls them.
    fn draw_further_work(&mut self, chance: &mut Draw) {
        let weights = &mut self.load.weights;
        let mut part = || if chance.one_in(2) { chance.between(1, 4) } else { 0 };
        weights.registers = part();
        weights.counters = part();
        weights.reads = part();
        weights.claims = part();
    }

    /// In one seed of four the network is never quite well while faults
    /// strike. Drawn last, as above.
    fn draw_noise(&mut self, chance: &mut Draw) {
        if chance.one_in(NOISY_SEEDS) {
            self.link.loss_per_mille =
                u16::try_from(chance.between(1, LOSS_PER_MILLE_MAX)).unwrap();
            self.link.duplicate_per_mille =
                u16::try_from(chance.between(1, DUPLICATE_PER_MILLE_MAX)).unwrap();
        }
    }

    /// The machines that there are.
    #[must_use]
    pub fn machines(&self) -> u64 {
        self.founders + self.spares
    }

    /// Whether so many of the founders can be lost for good without the loss of
    /// a majority of anything.
    #[must_use]
    pub fn can_lose_a_node(&self) -> bool {
        self.founders >= 3 && self.replicas >= 3
    }

    /// What a node is configured with.
    pub(super) fn configure(&self, config: &mut NodeConfig) {
        let millis = Duration::from_millis;
        config.shards = u32::try_from(self.cuts.len()).unwrap() + 1;
        config.replicas = self.replicas;
        config.split_keys = self.cuts.iter().map(|cut| cut.as_bytes().to_vec()).collect();
        config.retention = millis(self.retention_millis);
        let timing = self.timing();
        config.log = self.log_medium();
        let raft = &mut config.raft;
        (raft.metadata, raft.sequencer, raft.shard) = (timing, timing, timing);
        raft.purge_after_entries = self.purge_after_entries;
        raft.purge_keeps_entries = self.purge_keeps_entries;
        raft.purge_pause = millis(self.purge_pause_millis);
        // Half-received snapshots go while the cluster comes to rest.
        raft.snapshot_staging_idle_max = Duration::from_secs(20);
        raft.appends_in_flight_max = self.appends_in_flight_max;
        raft.quiet_after = self.quiet_millis.map(millis);
        raft.lease_reads = self.lease_reads;
        if self.has_segments && self.load.padding_bytes == 0 {
            raft.command_bytes_max = COMMAND_BYTES_MAX;
        }
        config.services.tick = millis(self.tick_millis);
        config.services.sequencer.inbox_txns_max = self.inbox_txns_max;
        config.services.sequencer.unlogged_wait_max = millis(self.unlogged_wait_millis);
        config.client.deadline = millis(self.deadline_millis);
        config.client.attempt_deadline = millis(self.attempt_millis);
        if !self.has_placement {
            config.scheduler = None;
        }
    }

    /// How an engine is opened.
    pub(super) fn engine_config(&self) -> RedbConfig {
        let commit_age_max = Duration::from_millis(self.engine_commit_millis);
        RedbConfig { commit_age_max, ..RedbConfig::default() }
    }

    /// What logs are kept on.
    fn log_medium(&self) -> LogMedium {
        match (self.has_segments, self.load.padding_bytes) {
            (false, _) => LogMedium::REDB,
            (true, 0) => LogMedium::Segments { segment_bytes: SEGMENT_BYTES },
            (true, _) => LogMedium::Segments { segment_bytes: LARGE_SEGMENT_BYTES },
        }
    }

    fn timing(&self) -> Timing {
        let millis = Duration::from_millis;
        let earliest = self.election_millis / 2 + self.heartbeat_millis;
        Timing {
            heartbeat: millis(self.heartbeat_millis),
            election_min: millis((earliest + self.election_millis) / 2),
            election_max: millis(self.election_millis),
        }
    }

    /// The kinds of faults that strike.
    #[must_use]
    pub fn kinds(&self) -> Vec<Fault> {
        let mut kinds: Vec<Fault> = self.strikes.iter().map(|strike| strike.fault).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

/// Chance, as drawings need it.
pub(super) struct Draw(pub(super) SplitMix);

impl Draw {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0.below(end)
    }

    /// Both ends included.
    pub(super) fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.0.below(last - first + 1)
    }

    pub(super) fn one_in(&mut self, count: u64) -> bool {
        self.0.below(count) == 0
    }

    /// One of them, if there is any.
    pub(super) fn choose<T: Copy>(&mut self, among: &[T]) -> Option<T> {
        if among.is_empty() { None } else { Some(self.pick(among)) }
    }

    pub(super) fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[usize::try_from(self.0.below(among.len() as u64)).unwrap()]
    }
}
