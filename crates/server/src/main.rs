//! The binary `quorate`.

use std::process::ExitCode;

use quorate_server::cli::{self, NodeResult, StartConfig};

fn main() -> ExitCode {
    cli::main(start)
}

/// Runs a node. Whoever wires one builds it from the configuration and hands
/// its ports to [`quorate_server::Doors::serve`].
async fn start(config: StartConfig) -> NodeResult {
    Err(format!("node {} cannot run: this build wires no node", config.node.0).into())
}
