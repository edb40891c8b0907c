//! The loop that looks, plans and proposes. It runs on every node and acts on
//! the one that leads the metadata group.

mod checked;
mod config;
mod core;
mod driver;
mod ports;

pub use self::checked::CheckedProposer;
pub use self::config::{SchedulerConfig, SchedulerStatus};
pub use self::core::{Action, SchedulerCore};
pub use self::driver::{Scheduler, SchedulerHandle};
pub use self::ports::{Authority, ClusterSource, Executor, Proposer};
