#![doc = include_str!("../README.md")]

mod log;

pub use log::{
    Completion, LogEngine, LogEntry, LogError, LogFuture, LogPosition, LogState, LogStats,
    RedbLog, RedbLogConfig, Vote,
};
