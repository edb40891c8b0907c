//! The flags. `cargo xtask bench raft` takes the same ones, from this very file.

use std::path::PathBuf;

/// What to measure, and for how long.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Options {
    /// How often each log is measured, in turns, and later opened after a kill.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) rounds: u32,
    /// How long each time.
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub(crate) millis: u64,
    /// Who appends: bN is one group with N entries at a time, gN N groups with
    /// one entry each, aN N tasks with one entry on its way each.
    #[arg(long, value_name = "SHAPE,...", value_delimiter = ',', default_values = ["b1", "g64", "b256", "a64", "a256"])]
    pub(crate) shapes: Vec<String>,
    /// Leaves out logs whose name, as it stands in the tables, has none of these
    /// words in it. [default: all take part]
    #[arg(long, value_name = "WORD,...", value_delimiter = ',')]
    pub(crate) logs: Option<Vec<String>>,
    /// How much is in the log that is opened after its process was killed; 0
    /// leaves that out.
    #[arg(long, value_name = "MIB", default_value_t = 2_048)]
    pub(crate) open_mib: u64,
    /// Leaves out a group beside openraft and many groups, which `cargo xtask bench
    /// openraft` and `cargo xtask bench groups` measure alone.
    #[arg(long)]
    pub(crate) log_only: bool,
    /// Where the data goes; on a real disk. [default: beside the program]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Also write everything measured to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// The program with logs of others, as built in `benches/peers`.
    #[arg(long, value_name = "FILE")]
    pub(crate) peers: Option<PathBuf>,
}
