//! Whole clusters, with every layer as it runs in production, on one thread,
//! in virtual time, from a seed. Only the network, the disk and the clock are
//! simulated.

pub mod cli;
mod cluster;
mod faults;
mod finding;
mod load;
mod operators;
mod options;
mod port;
mod report;
mod run;
mod shrink;

pub use cluster::{Cluster, Probes, Struck};
pub use faults::{Fault, Strike};
pub use finding::{Finding, Findings};
pub use load::{KEYS, Load, Work};
pub use operators::{Operator, eventually, route};
pub use options::{Link, LoadOptions, Options, Weights};
pub use port::{Deafness, Ear};
pub use report::Report;
pub use run::{Record, Run, perform};
