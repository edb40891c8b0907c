//! The flags. `cargo xtask bench groups` takes the same ones, from this very file.

use std::path::PathBuf;

/// How many groups, how much state, and for how long.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Options {
    /// Groups that nobody uses, each with a replica on all three processes.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) groups: u64,
    /// How long their processor time is measured in each round.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: u64,
    /// Groups that the process leads that is killed, and each other one, too.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) led: u64,
    /// Commands that are under way on each process when it is.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=4_096))]
    pub(crate) clients: u64,
    /// How often each part is measured but the connections. Idle groups and those of
    /// a killed leader are of a new cluster each time; followers, and what clients
    /// call, of one and the same.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) rounds: u32,
    /// The state of the group whose follower falls behind.
    #[arg(long, value_name = "MIB", default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..=16_384))]
    pub(crate) state_mib: u64,
    /// How fast a node sends snapshots, 0 without a bound. [default: the host's]
    #[arg(long, value_name = "MIB")]
    pub(crate) snapshot_mib_per_second: Option<u64>,
    /// How many clients call at a time, each with one request under way.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [1, 64, 256], value_parser = clap::value_parser!(u32).range(1..=512))]
    pub(crate) callers: Vec<u32>,
    /// How long they call in each round.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) call_seconds: u64,
    /// The program with clients of etcd, as built in `benches/peers`.
    #[arg(long, hide = true)]
    pub(crate) etcd_clients: Option<PathBuf>,
    /// What to measure.
    #[arg(long, value_name = "PART,...", value_delimiter = ',', default_values = ["idle", "connections", "killed", "catch-up", "clients"])]
    pub(crate) parts: Vec<String>,
    /// Where the data goes; on a real disk. [default: beside the program]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Also write everything measured to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}
