//! The flags. `cargo xtask bench openraft` takes the same ones, from this very file.

use std::path::PathBuf;

/// Who writes, and how much.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Options {
    /// How often each of the two is measured; they take turns.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) rounds: u32,
    /// Clients, each with one command on its way.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=4_096))]
    pub(crate) clients: u64,
    /// Commands of a turn, all clients together.
    #[arg(long, value_name = "N", default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) commands: u64,
    /// Threads that the members share.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) member_threads: u16,
    /// Threads that the clients share.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) client_threads: u16,
    /// Measures one of them alone, for a profiler.
    #[arg(long, value_name = "WHO", value_parser = ["quorate", "openraft"])]
    pub(crate) only: Option<String>,
    /// Also write everything measured to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}
