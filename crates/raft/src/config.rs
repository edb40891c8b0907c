//! Limits and timings of a host.

use std::time::Duration;

use quorate_types::frame::FRAME_PAYLOAD_BYTES_MAX;

/// What a group is for; decides its timings.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum GroupClass {
    /// The cluster's registry.
    Metadata,
    /// The order of transactions.
    Sequencer,
    /// A range of keys.
    Shard,
}

impl GroupClass {
    /// Each of them.
    pub(crate) const ALL: [Self; 3] = [Self::Metadata, Self::Sequencer, Self::Shard];
}

/// When a leader shows itself and when followers give up on it.
///
/// A follower that heard its leader votes for nobody else during a
/// [lease](Self::lease), and stands for election itself a while after it, drawn
/// by chance: between `election_min` and `election_max` after the leader's last
/// word, and two leases later if it has seen a longer log than its own. A
/// replica that has heard no leader since it was started has no lease to wait
/// for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// Between a leader's heartbeats. They wait for each other a tenth of that, of the
    /// shortest of all classes, to travel together. At most four fifths of the lease.
    pub heartbeat: Duration,
    /// The shortest silence after which a follower stands for election. Above
    /// the lease by more than a heartbeat.
    pub election_min: Duration,
    /// The longest; twice the lease, which is to be at least ten times the
    /// latency of an append.
    pub election_max: Duration,
}

impl Timing {
    /// How long a follower that heard its leader votes for nobody else.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.election_max / 2
    }

    /// # Errors
    /// What does not fit, in words for who wrote it.
    pub(crate) fn validate(&self) -> Result<(), String> {
        if self.heartbeat.saturating_mul(5) / 4 > self.lease() {
            return Err(format!(
                "heartbeat is {:?}: half of election_max, which is {:?}, has to be longer by a \
                 quarter of it at least",
                self.heartbeat,
                self.lease()
            ));
        }
        let earliest = self.lease() + self.heartbeat;
        if self.election_min > earliest && self.election_min < self.election_max {
            return Ok(());
        }
        Err(format!(
            "election_min is {:?}, and has to be above half of election_max and a heartbeat, \
             which is {earliest:?}, and below election_max, which is {:?}",
            self.election_min, self.election_max
        ))
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(200),
            election_min: Duration::from_millis(1500),
            election_max: Duration::from_millis(2000),
        }
    }
}

/// Limits and timings of a [`Host`](crate::Host).
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Timings of [`GroupClass::Metadata`].
    pub metadata: Timing,
    /// Timings of [`GroupClass::Sequencer`].
    pub sequencer: Timing,
    /// Timings of [`GroupClass::Shard`].
    pub shard: Timing,
    /// The largest command. Several must fit into a frame of the transport.
    pub command_bytes_max: usize,
    /// Proposals of one group that may await their outcome; beyond it a
    /// proposal is refused before admission.
    pub proposals_pending_max: usize,
    /// Reads of one group that may await confirmation, likewise.
    pub reads_pending_max: usize,
    /// Append calls on their way to one follower. Few, because what waits
    /// meanwhile shares the follower's next sync.
    pub appends_in_flight_max: usize,
    /// How many applied entries may be in a group's log before the machine is
    /// flushed and the log purged.
    pub purge_after_entries: u64,
    /// The shortest time between two flushes for the purge of one group's log, unless
    /// the log is longer than `purge_waits_entries` or `purge_waits_bytes`: what a
    /// machine writes seldom it writes at less cost.
    pub purge_pause: Duration,
    /// How many applied entries a purge leaves, so that a follower that is
    /// slightly behind needs no snapshot.
    pub purge_keeps_entries: u64,
    /// How many applied entries a log may hold before it is purged, while it is being
    /// sent to a follower that is slower than its leader, or while a snapshot is:
    /// that needs the entries behind it, and another snapshot if they are gone. A
    /// rate and a size of snapshots that take longer than so many writes never end
    /// under these writes.
    pub purge_waits_entries: u64,
    /// The same in bytes of their payloads, of logs that count them
    /// ([`LogEngine::payload_bytes`](crate::LogEngine::payload_bytes)), and that have
    /// more than [`purge_after_entries`](Self::purge_after_entries).
    pub purge_waits_bytes: u64,
    /// Snapshots this node sends at a time, all groups together: each reads
    /// the disk and fills the network.
    pub snapshots_sending_max: usize,
    /// Bytes of snapshots this node sends in a second, all together, so that they
    /// leave room for what clients write. `None` sends as fast as followers take.
    /// Not so few that a follower would take the sender for gone.
    pub snapshot_bytes_per_second_max: Option<u64>,
    /// Snapshots this node receives at a time.
    pub snapshots_receiving_max: usize,
    /// The time a follower has for one chunk of a snapshot, and to answer
    /// whether a whole one is installed yet, which it does after half of it. The
    /// same on all nodes.
    pub snapshot_chunk_deadline: Duration,
    /// The time a follower has to install a received snapshot.
    pub snapshot_install_deadline: Duration,
    /// A half-received snapshot whose sender stays silent this long is dropped,
    /// and so is what is remembered of an installed one; a sender gives up whose
    /// follower has taken nothing for so long. Longer than the deadline of a chunk.
    /// The same on all nodes.
    pub snapshot_staging_idle_max: Duration,
    /// The time changes of membership and transfers of leadership may take
    /// before the caller hears `Unknown`.
    pub membership_deadline: Duration,
    /// A group that this node leads and that nobody used for so long rests: no
    /// heartbeats, no timers, until it is used again, which then costs one round
    /// trip more. At least twice the longest `election_max`. `None` keeps such
    /// groups awake; replicas here of groups led elsewhere rest when they are asked.
    pub quiet_after: Option<Duration>,
    /// Whether a leader that a quorum answered within nine tenths of a lease
    /// confirms reads without asking it again. The same on all nodes: a replica
    /// that was started again then votes for nobody during a lease, itself
    /// included, so that no restart shortens what a leader counts on. Switch it on
    /// while all nodes are down.
    ///
    /// Read indexes need no clocks; leases need those of any two nodes to run
    /// equally fast, within a tenth, and not to stand still while a machine is
    /// suspended. Where that is not sure, a read may miss a write that was
    /// acknowledged before it.
    pub lease_reads: bool,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            metadata: Timing::default(),
            sequencer: Timing::default(),
            shard: Timing::default(),
            command_bytes_max: 4 << 20,
            proposals_pending_max: 8 << 10,
            reads_pending_max: 64 << 10,
            appends_in_flight_max: 4,
            purge_after_entries: 10_000,
            purge_pause: Duration::from_secs(2),
            purge_keeps_entries: 1_000,
            purge_waits_entries: 1_000_000,
            purge_waits_bytes: 512 << 20,
            snapshots_sending_max: 2,
            snapshot_bytes_per_second_max: Some(32 << 20),
            snapshots_receiving_max: 4,
            snapshot_chunk_deadline: Duration::from_secs(10),
            snapshot_install_deadline: Duration::from_secs(120),
            snapshot_staging_idle_max: Duration::from_secs(60),
            membership_deadline: Duration::from_secs(20),
            quiet_after: Some(Duration::from_secs(5)),
            lease_reads: false,
        }
    }
}

impl HostConfig {
    /// # Errors
    /// What does not fit, in words for who wrote it.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let longest = GroupClass::ALL.map(|class| self.timing(class).election_max);
        let longest = longest.into_iter().max().unwrap_or_default();
        if let Some(quiet) = self.quiet_after.filter(|quiet| *quiet < longest * 2) {
            return Err(format!(
                "quiet_after is {quiet:?}, and has to be twice the longest election_max at least, \
                 which is {longest:?}"
            ));
        }
        let (chunk, idle) = (self.snapshot_chunk_deadline, self.snapshot_staging_idle_max);
        if chunk.is_zero() || idle <= chunk {
            return Err(format!(
                "snapshot_chunk_deadline is {chunk:?}, and has to be above zero and below \
                 snapshot_staging_idle_max, which is {idle:?}"
            ));
        }
        let (rate, least) = (self.snapshot_bytes_per_second_max, self.snapshot_rate_min());
        match rate.filter(|rate| *rate < least) {
            None => Ok(()),
            Some(rate) => Err(format!(
                "snapshot_bytes_per_second_max is {rate}, and has to be {least} at least: with \
                 {} snapshots at a time, a chunk of each would otherwise take most of \
                 snapshot_staging_idle_max, which is {idle:?}",
                self.snapshots_sending_max.max(1),
            )),
        }
    }

    /// A rate that leaves each transfer two chunks, as large as a message carries
    /// them, before its receiver takes it for given up.
    fn snapshot_rate_min(&self) -> u64 {
        const CHUNKS: u64 = 2;
        let chunks = CHUNKS * self.snapshots_sending_max.max(1) as u64;
        let bytes = chunks.saturating_mul(u64::from(FRAME_PAYLOAD_BYTES_MAX));
        let millis = u64::try_from(self.snapshot_staging_idle_max.as_millis()).unwrap_or(u64::MAX);
        bytes.saturating_mul(1_000) / millis.max(1)
    }

    /// The timings of a class.
    #[must_use]
    pub const fn timing(&self, class: GroupClass) -> Timing {
        match class {
            GroupClass::Metadata => self.metadata,
            GroupClass::Sequencer => self.sequencer,
            GroupClass::Shard => self.shard,
        }
    }

    /// openraft's settings for a class.
    pub(crate) fn raft(
        &self,
        class: GroupClass,
    ) -> Result<openraft::Config, openraft::ConfigError> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let timing = self.timing(class);
        // openraft's lease is its longest timeout, and it adds the timeout to
        // the lease.
        let lease = timing.lease();
        openraft::Config {
            cluster_name: "quorate".to_owned(),
            heartbeat_interval: millis(timing.heartbeat),
            election_timeout_min: millis(timing.election_min.saturating_sub(lease)),
            election_timeout_max: millis(lease),
            install_snapshot_timeout: millis(self.snapshot_install_deadline),
            // Purges are ours to trigger, see `group::Observer`.
            snapshot_policy: openraft::SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: self.purge_keeps_entries,
            replication_lag_threshold: self.purge_keeps_entries.max(1),
            enable_pre_vote: Some(true),
            // A restarted leader must win an election again; its lease is void.
            enable_leader_restore: Some(false),
            // Ours to judge, see `consensus::probe`.
            quorum_loss_probe_interval: None,
            ..openraft::Config::default()
        }
        .validate()
    }
}
