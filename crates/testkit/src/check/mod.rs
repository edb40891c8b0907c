//! Judges of histories. Each is a pure function from operations to a
//! [`Verdict`] that names the anomaly and shows the operations that make it.

pub mod bank;
mod cycles;
pub mod durability;
pub mod exactly_once;
mod graph;
pub mod internal;
pub mod linearizable;
pub mod list_append;
pub mod long_fork;
pub mod monotonic;
pub mod oracle;
mod order;
pub mod registers;
mod rising;
mod verdict;

pub use verdict::{ANOMALIES_MAX, Anomaly, AnomalyKind, CycleClass, Through, Verdict};
