//! Every limit and every clock of the protocol.

use std::time::Duration;

use crate::error::GossipError;

/// Timings and limits of the [`crate::Core`].
///
/// # How soon a silent member is dead
///
/// With the defaults, in a cluster of up to seven nodes:
///
/// | step | at most | typically |
/// |---|---|---|
/// | some observer's turn to probe it | 1.1 s (a round, +10 % jitter) | 0.3 s |
/// | direct probe times out | 0.4 s | 0.4 s |
/// | indirect probes time out | 0.4 s | 0.3 s (all helpers nack) |
/// | suspicion, confirmed by one more node after 0.8 s | 2.0 s | 2.0 s |
/// | **seen dead by all** | **3.9 s** | **3.0 s** |
///
/// Every node decides on its own suspicion, and the suspicion is spread
/// eagerly (0.1 s ticks), so "all" is within about 0.1 s of "first". Without
/// any confirmation suspicion lasts 3.0 s and the sum is 4.9 s. A *killed*
/// process resets its connections: both probe steps collapse to a round trip
/// and it is dead after a little more than 2 s.
///
/// # How long a healthy member may stall
///
/// To be taken for dead it must miss a direct probe, all indirect ones, and
/// then stay unable to say a single word for the 2 s of suspicion: 2.8 s
/// without being scheduled once. An observer's own stall does not count
/// against others: time in which it did not run is added to all its deadlines
/// ([`Config::stall_tolerance`]), and failures that are rather its own
/// (missing nacks, having been suspected) stretch its timeouts up to
/// [`Config::health_max`] + 1 times.
#[derive(Debug, Clone)]
pub struct Config {
    /// Between two probe ticks, ±10 %; stretched by ill health.
    pub probe_interval: Duration,
    /// Within this time every member is probed once by every other, as long
    /// as `probes_per_tick_max` allows.
    pub probe_round: Duration,
    /// Probes started per tick at most: bounds the load of large clusters,
    /// where many observers make up for each one's rarer probes.
    pub probes_per_tick_max: usize,
    /// How long a direct probe waits for its ack.
    pub probe_timeout: Duration,
    /// How long the indirect probes that follow wait.
    pub indirect_timeout: Duration,
    /// How many peers are asked to probe on this node's behalf.
    pub indirect_probes: usize,
    /// Suspicion with all confirmations in, for up to ten members; grows with
    /// the logarithm of the cluster, as the time does that a refutation needs.
    pub suspicion_min: Duration,
    /// Suspicion without any confirmation.
    pub suspicion_max: Duration,
    /// Between two rounds of rumours while there are any.
    pub gossip_interval: Duration,
    /// How many peers a round of rumours goes to.
    pub gossip_fanout: usize,
    /// A rumour is told this many times the logarithm of the cluster.
    pub retransmit_factor: u32,
    /// How often one dead member is tried, so that partitions heal.
    pub dead_probe_interval: Duration,
    /// How often seeds that are not members are called.
    pub seed_interval: Duration,
    /// How long dead and departed members are remembered. Until then their
    /// incarnations cannot return and the state's tombstones wait for the dead.
    pub forget_after: Duration,
    /// A timer that fires later than this means that this node stood still.
    pub stall_tolerance: Duration,
    /// Lifeguard's cap on the local health score.
    pub health_max: u8,
    /// The largest membership table; further nodes are refused until dead
    /// ones can make room.
    pub members_max: usize,
    /// The most seeds remembered.
    pub seeds_max: usize,
    /// Between two eager pushes of the state: bounds what a busy writer costs.
    pub push_interval: Duration,
    /// How many peers a changed state is pushed to.
    pub push_fanout: usize,
    /// What one delta may take; leaves room in a frame for a state that
    /// overshoots by an entry.
    pub delta_bytes_max: usize,
    /// After this a peer that owes an answer in a state exchange is taken to
    /// have lost it.
    pub sync_timeout: Duration,
    /// Between two exchanges of whole membership views.
    pub exchange_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            probe_interval: Duration::from_millis(500),
            probe_round: Duration::from_secs(1),
            probes_per_tick_max: 3,
            probe_timeout: Duration::from_millis(400),
            indirect_timeout: Duration::from_millis(400),
            indirect_probes: 3,
            suspicion_min: Duration::from_secs(2),
            suspicion_max: Duration::from_secs(3),
            gossip_interval: Duration::from_millis(100),
            gossip_fanout: 3,
            retransmit_factor: 3,
            dead_probe_interval: Duration::from_secs(1),
            seed_interval: Duration::from_secs(1),
            forget_after: Duration::from_secs(24 * 60 * 60),
            stall_tolerance: Duration::from_millis(150),
            health_max: 7,
            members_max: 1024,
            seeds_max: 64,
            push_interval: Duration::from_millis(50),
            push_fanout: 3,
            delta_bytes_max: 128 << 10,
            sync_timeout: Duration::from_secs(2),
            exchange_interval: Duration::from_secs(1),
        }
    }
}

impl Config {
    /// # Errors
    /// [`GossipError::Config`] for settings under which the core would spin
    /// or never speak.
    pub(crate) fn check(&self) -> Result<(), GossipError> {
        let periods = [
            self.probe_interval,
            self.probe_round,
            self.probe_timeout,
            self.indirect_timeout,
            self.gossip_interval,
            self.dead_probe_interval,
            self.seed_interval,
            self.push_interval,
            self.sync_timeout,
            self.exchange_interval,
        ];
        if periods.iter().any(|period| *period < Duration::from_millis(1)) {
            return Err(GossipError::Config("every interval and timeout is at least 1 ms"));
        }
        if self.suspicion_min > self.suspicion_max {
            return Err(GossipError::Config("suspicion_min exceeds suspicion_max"));
        }
        if self.probes_per_tick_max == 0 || self.gossip_fanout == 0 || self.members_max == 0 {
            return Err(GossipError::Config("a limit of zero leaves nothing to do"));
        }
        Ok(())
    }
}

/// Deadlines and limits of the TCP transport.
#[derive(Debug, Clone)]
pub struct TcpConfig {
    /// Connecting and shaking hands together.
    pub dial_deadline: Duration,
    /// One frame, from its first byte to its last, in either direction: a
    /// peer that trickles bytes does not hold a connection.
    pub frame_deadline: Duration,
    /// An outgoing connection unused for this long is closed; an incoming one
    /// after twice this time.
    pub idle_timeout: Duration,
    /// Pause after a failed dial; doubles up to `backoff_max`.
    pub backoff_min: Duration,
    /// The longest pause; bounds how late a returned peer is reached.
    pub backoff_max: Duration,
    /// Frames that wait for one connection.
    pub queue_frames_max: usize,
    /// Bytes that wait for one connection.
    pub queue_bytes_max: usize,
    /// Incoming connections of one peer; a newer one replaces the oldest.
    pub inbound_per_peer_max: usize,
    /// Incoming connections in all.
    pub inbound_max: usize,
    /// Handshakes in progress on a listener of our own.
    pub handshakes_max: usize,
    /// How long a leaving node waits for its goodbye to be written.
    pub leave_deadline: Duration,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            dial_deadline: Duration::from_secs(1),
            frame_deadline: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(60),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            queue_frames_max: 256,
            queue_bytes_max: 4 << 20,
            inbound_per_peer_max: 8,
            inbound_max: 4096,
            handshakes_max: 64,
            leave_deadline: Duration::from_secs(1),
        }
    }
}
