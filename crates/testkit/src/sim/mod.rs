//! A cluster on one thread, in virtual time, from a seed.
//!
//! [`run`] gives a test a paused tokio runtime; each [`SimNode`] owns the tasks
//! of one life of one node, takes them all along when it crashes, and lets them
//! stand still while it is paused; [`SimClock`] lets nodes disagree about the
//! time of day; [`SimNetwork`] carries, delays and loses their messages;
//! [`Coverage`] counts which places of the code were reached; a [`Trace`] shows
//! that two runs of a seed were the same.

mod clock;
mod coverage;
mod flight;
mod links;
mod network;
mod node;
mod run;
mod trace;

pub use clock::{DRIFT_PPM_MAX, SimClock};
pub use coverage::{Coverage, SiteCounts};
pub use links::{LinkConfig, SwizzleStep, majority_ring_cuts, swizzle};
pub use network::{CallError, Handler, IN_FLIGHT_MAX_DEFAULT, NetworkCounters, SimNetwork};
pub use node::{SYNC_DELAY_MAX_DEFAULT, SimNode};
pub use run::{DURATION_MAX_DEFAULT, Finished, Sim, SimOptions, run, run_with};
pub use trace::{Keep, TRACE_LINES_MAX, Trace};
