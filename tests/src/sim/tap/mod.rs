//! Taps: a node's log and engine as they are, and everything that they are
//! asked and answer told to a [`Ledger`](super::ledger::Ledger).

mod engine;
mod log;
pub(crate) mod payload;
pub(crate) mod wire;

use std::sync::Arc;

use quorate::types::disk::Disk;
use quorate_engine::{Engine, EngineError, RedbConfig, RedbEngine};
use quorate_raft::{DurableLog, LogConfig, LogEngine, LogError, LogMedium};

pub use engine::TappedEngine;
pub use log::TappedLog;

use super::ledger::Tap;

/// The engine's file, as a node names it.
const ENGINE_FILE: &str = "engine.redb";
/// What the names of the log's files begin with.
const LOG: &str = "log";

/// Why a node's stores could not be opened.
#[derive(Debug)]
pub enum StoresError {
    /// The log.
    Log(LogError),
    /// The engine.
    Engine(EngineError),
}

/// A log and an engine to give to a node.
pub type Stores = (Arc<dyn LogEngine>, Arc<dyn Engine>);

/// Opens a node's stores on its disk, with taps. Must run as that node, whose
/// tasks they become. (The node would hold back the writes until both are
/// open, and mark the files as its own; neither matters here.)
///
/// # Errors
/// [`StoresError`]
pub fn open_stores(
    disk: &Arc<dyn Disk>,
    medium: LogMedium,
    engine: RedbConfig,
    tap: &Tap,
) -> Result<Stores, StoresError> {
    let config = LogConfig { medium, ..LogConfig::default() };
    let log = DurableLog::open(Arc::clone(disk), LOG, config);
    let log = log.map_err(StoresError::Log)?;
    let engine = RedbEngine::open(&**disk, ENGINE_FILE, engine);
    let engine: Arc<dyn Engine> = Arc::new(engine.map_err(StoresError::Engine)?);
    let log = TappedLog::over(Arc::new(log), Arc::clone(&engine), tap.clone());
    let log = log.map_err(StoresError::Log)?;
    let engine = TappedEngine::over(engine, tap.clone()).map_err(StoresError::Engine)?;
    Ok((Arc::new(log), Arc::new(engine)))
}
