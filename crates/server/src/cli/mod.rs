//! The command line of `quorate`.

mod args;
mod client;
mod config;
mod dev;
mod operate;
mod signals;
mod table;

use std::future::Future;
use std::process::ExitCode;

use clap::Parser;

pub use args::{AdminAddress, Cli, Command, DevArgs, NodeCommand, Output, ShardCommand, StartArgs};
pub use client::{AdminClient, ClientError};
pub use config::{ConfigError, ConfigFile, InitialCluster, JoinList, Membership, StartConfig};
pub use dev::{DevError, DevNode, dev_nodes};
use quorate_types::contain;
pub use signals::stop_signal;
use tracing_subscriber::EnvFilter;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The node's configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A node's admin interface did not do what was asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The cluster of `dev` could not be kept up.
    #[error(transparent)]
    Dev(#[from] DevError),
    /// The node ended with an error.
    #[error("{0}")]
    Node(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The operating system refused what the process needs.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// What a node ends with.
pub type NodeResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Runs the command line to its end. `start` runs a node; it is handed the
/// configuration that file and flags amount to.
pub fn main<F, N>(start: F) -> ExitCode
where
    F: FnOnce(StartConfig) -> N,
    N: Future<Output = NodeResult>,
{
    let cli = Cli::parse();
    match run(cli, start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run<F, N>(cli: Cli, start: F) -> Result<(), CliError>
where
    F: FnOnce(StartConfig) -> N,
    N: Future<Output = NodeResult>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Start(args) => {
                let config = StartConfig::resolve(*args)?;
                log_to_stderr();
                silence_contained_panics();
                start(config).await.map_err(CliError::Node)
            }
            Command::Dev(args) => Ok(dev::run(&args).await?),
            command => Ok(operate::run(command).await?),
        }
    })
}

/// A panic that becomes an error is reported as one: a message of its own would
/// hide the one that says what to do.
fn silence_contained_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if contain::is_contained() {
            tracing::debug!(%panic, "a panic was contained");
        } else {
            report(panic);
        }
    }));
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // A second subscriber is refused; the first one then keeps logging.
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
