//! Judges of histories. Each is a pure function from operations to a
//! [`Verdict`] that names the anomaly and shows the operations that make it.

pub mod bank;
pub mod durability;
pub mod exactly_once;
pub mod linearizable;
pub mod list_append;
mod verdict;

pub use verdict::{ANOMALIES_MAX, Anomaly, AnomalyKind, CycleClass, Through, Verdict};
