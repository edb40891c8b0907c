//! A cluster on one thread, in virtual time, from a seed.
//!
//! [`run`] gives a test a paused tokio runtime; each [`SimNode`] owns the tasks
//! of one life of one node, and takes them all along when it crashes;
//! [`SimClock`] lets nodes disagree about the time of day; [`SimNetwork`]
//! carries, delays and loses their messages; a [`Trace`] shows that two runs
//! of a seed were the same.

mod clock;
mod flight;
mod network;
mod node;
mod run;
mod trace;

pub use clock::SimClock;
pub use network::{
    CallError, Handler, IN_FLIGHT_MAX_DEFAULT, LinkConfig, NetworkCounters, SimNetwork,
};
pub use node::{SYNC_DELAY_MAX_DEFAULT, SimNode};
pub use run::{DURATION_MAX_DEFAULT, Finished, Sim, SimOptions, run, run_with};
pub use trace::{TRACE_LINES_MAX, Trace};
