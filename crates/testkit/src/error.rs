//! What can go wrong in a test's own machinery, and what a test found.

use std::io;
use std::time::Duration;

/// The errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum TestkitError {
    /// A recorder holds all the events it may.
    #[error("the history is full: it may hold {events_max} events")]
    HistoryFull {
        /// Its limit.
        events_max: usize,
    },
    /// A history's events do not pair up.
    #[error("malformed history at event {position}: {reason}")]
    MalformedHistory {
        /// Which event, counted from zero.
        position: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A history file could not be read or written.
    #[error("history file, line {line}: {reason}")]
    HistoryFile {
        /// Which line, counted from one.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A checker found anomalies, or could not decide.
    #[error("{0}")]
    Check(String),
    /// A crash sweep found a crash from which the state did not come back.
    #[error("after a crash at disk operation {operation} of {operations} (seed {seed}): {reason}")]
    Sweep {
        /// At which operation the disk crashed, counted from one.
        operation: u64,
        /// How many operations the workload has without a crash.
        operations: u64,
        /// What decides which unsynced writes survive.
        seed: u64,
        /// What the verification said.
        reason: String,
    },
    /// The workload of a sweep fails without any crash.
    #[error("the workload of a crash sweep fails without a crash: {0}")]
    Workload(String),
    /// Tasks of a simulation panicked.
    #[error("seed {seed}: {}", panics.join("; "))]
    Panicked {
        /// The simulation's seed.
        seed: u64,
        /// Where and why.
        panics: Vec<String>,
    },
    /// A simulation did not end.
    #[error("seed {seed}: not finished after {limit:?} of virtual time")]
    OutOfTime {
        /// The simulation's seed.
        seed: u64,
        /// The limit it ran into.
        limit: Duration,
    },
    /// A child process did not do what was asked of it.
    #[error("process {name}: {reason}")]
    Process {
        /// The process's name.
        name: String,
        /// What it did, or did not.
        reason: String,
    },
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}
