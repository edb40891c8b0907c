//! The flags. `cargo xtask bench cluster` takes the same ones, from this very
//! file.

use std::path::PathBuf;

/// What to drive, how hard and for how long.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Options {
    /// How long each kind of work is measured with each number of clients.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: u64,
    /// How many clients at once, each with a connection and one command in
    /// flight.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [1, 64, 256], value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub(crate) clients: Vec<u32>,
    /// Which kinds of work: set, get, incr, mset, transfer.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', default_values = ["set", "get", "incr", "mset", "transfer"])]
    pub(crate) work: Vec<String>,
    /// How many processes the cluster has, each with its own directory.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    pub(crate) nodes: u64,
    /// How many shards the cluster has.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(2..=256))]
    pub(crate) shards: u64,
    /// Where the data goes; on a real disk. [default: beside the program]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Also write everything measured to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Leave out other systems that are installed.
    #[arg(long)]
    pub(crate) no_peers: bool,
    /// The program with clients of etcd, as built in `benches/peers`.
    #[arg(long, hide = true)]
    pub(crate) etcd_clients: Option<PathBuf>,
}
