//! The chapters of the life.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use quorate::{LogMedium, NodeConfig};
use serde::{Deserialize, Serialize};

use super::script::Script;
use crate::sim::options::{Link, Log, Options};

/// The places of the nodes that the script names.
pub(super) const NODE_1: usize = 0;
pub(super) const NODE_4: usize = 3;
/// Keys below this one are in the first shard, the others in the second.
const CUT: &str = "m";
/// The smallest segments of a log, and what fits into one.
const SEGMENT_BYTES: u64 = 64 << 10;
const COMMAND_BYTES_MAX: usize = 12 << 10;
/// Where the second shard is split.
const SECOND_CUT: &str = "t";

/// A part of the life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Chapter {
    /// Three nodes found a cluster: identities, stores, first elections.
    A,
    /// Puts, transactions over two shards, deletions, a repeated request.
    B,
    /// Puts until logs are flushed, snapshots taken and logs purged, and more.
    C,
    /// A fourth node joins, and the members of groups change.
    D,
    /// A replica moves from node 1 to node 4, and back.
    E,
    /// A shard is split, and both sides are written.
    F,
    /// Node 1 stops in good order and starts again, then all of them stop.
    G,
}

impl Chapter {
    /// All of them, in order.
    pub const ALL: [Self; 7] = [Self::A, Self::B, Self::C, Self::D, Self::E, Self::F, Self::G];

    /// The seed of its runs: no two chapters draw the same, so that no client
    /// of one has the name of a client of another.
    pub(super) const fn seed(self) -> u64 {
        0x6c69_6665_0000 + self as u64
    }

    /// How long after node 1 the others start. The first one that waits in vain
    /// for a leader becomes it: node 1, where it is to coordinate.
    pub(super) const fn others_start_after(self) -> Duration {
        match self {
            Self::E | Self::F => Duration::from_millis(300),
            _ => Duration::ZERO,
        }
    }

    /// Fast timings, so that a death is soon over.
    pub(super) fn options(self, log: Log) -> Options {
        Options {
            seed: self.seed(),
            has_segments: log == Log::Segments,
            founders: 3,
            spares: 1,
            replicas: 3,
            cuts: vec![CUT.to_owned()],
            heartbeat_millis: 50,
            election_millis: 400,
            purge_after_entries: 16,
            purge_keeps_entries: 2,
            purge_pause_millis: 200,
            tick_millis: 50,
            unlogged_wait_millis: 1_000,
            deadline_millis: 1_000,
            attempt_millis: 250,
            has_placement: false,
            link: Link { latency_min_millis: 1, latency_max_millis: 2, ..Link::default() },
            room: 16,
            sync_micros_max: 500,
            skew_millis: 0,
            ..Options::default()
        }
    }

    /// What nodes are configured with besides.
    pub(super) fn configure(config: &mut NodeConfig) {
        let millis = Duration::from_millis;
        config.client.pause = millis(10);
        config.proposal_deadline = millis(500);
        if let LogMedium::Segments { segment_bytes } = &mut config.log {
            // The smallest, so that some are filled.
            *segment_bytes = SEGMENT_BYTES;
            config.raft.command_bytes_max = COMMAND_BYTES_MAX;
        }
    }

    /// Plays it. Every step is repeated until it is done.
    pub(super) async fn play(self, script: &Script) {
        match self {
            Self::A => script.put_all(&["a", "z"]).await,
            Self::B => write(script).await,
            Self::C => purge(script).await,
            Self::D => grow(script).await,
            Self::E => move_about(script).await,
            Self::F => split(script).await,
            Self::G => stop_and_start(script).await,
        }
    }
}

async fn write(script: &Script) {
    script.put_all(&["a", "b", "c", "x", "y", "z"]).await;
    script.count("count", "tally").await;
    script.put("d").await;
    script.count("count", "tally").await;
    script.delete("b").await;
    script.delete("z").await;
    script.repeat().await;
    script.put("b").await;
}

async fn purge(script: &Script) {
    for round in 0..4 {
        let keys = [0, 1, 2, 3].map(|number| format!("c{}", round * 4 + number));
        script.put_all(&keys.each_ref().map(String::as_str)).await;
    }
    script.is_purged().await;
    script.count("count", "tally").await;
}

async fn grow(script: &Script) {
    script.join().await;
    script.put_all(&["a", "x"]).await;
    script.count("count", "tally").await;
}

async fn move_about(script: &Script) {
    script.move_replica("a", NODE_1, NODE_4).await;
    script.put("a").await;
    script.move_replica("a", NODE_4, NODE_1).await;
    script.put("a").await;
}

async fn split(script: &Script) {
    script.split(SECOND_CUT).await;
    script.put_all(&["n", "x"]).await;
    script.count("n-count", "x-count").await;
}

async fn stop_and_start(script: &Script) {
    script.put("a").await;
    script.stop_and_start(NODE_1).await;
    script.count("count", "tally").await;
    script.stop_all().await;
}

impl fmt::Display for Chapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl FromStr for Chapter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_it = |chapter: &Self| chapter.to_string().eq_ignore_ascii_case(text);
        Self::ALL.into_iter().find(is_it).ok_or_else(|| format!("there is no chapter '{text}'"))
    }
}
