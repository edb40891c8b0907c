//! Judges of histories. Each is a pure function from operations to a
//! [`Verdict`] that names the anomaly and shows the operations that make it.

pub mod bank;
pub mod durability;
pub mod exactly_once;
pub mod internal;
pub mod linearizable;
pub mod list_append;
pub mod long_fork;
pub mod monotonic;
pub mod oracle;
mod rising;
mod verdict;

pub use verdict::{ANOMALIES_MAX, Anomaly, AnomalyKind, CycleClass, Through, Verdict};
