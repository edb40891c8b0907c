//! What clients asked of a system, what they were told, and in which order.
//!
//! A [`Recorder`] collects [`Event`]s while a test runs; a [`History`] pairs
//! them into [`Operation`]s, which the checkers of [`crate::check`] judge, and
//! reads and writes them as JSON lines in the shape that Jepsen uses.

mod event;
mod json;
mod operation;
mod recorder;

pub use event::{Datum, Event, EventKind, Key, MicroOp, ProcessId};
pub use json::{LINE_BYTES_MAX, LINES_MAX};
pub use operation::{History, Moment, Operation, Outcome};
pub use recorder::{EVENTS_MAX_DEFAULT, Invocation, Recorder};
