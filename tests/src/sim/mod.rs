//! Whole clusters, with every layer as it runs in production, on one thread,
//! in virtual time, from a seed. Only the network, the disk and the clock are
//! simulated.

mod canaries;
mod child;
pub mod cli;
mod cluster;
mod damage;
mod faults;
mod finding;
mod hunt;
mod invariants;
mod ledger;
pub mod life;
mod load;
mod meta;
mod model;
mod operators;
mod options;
mod oracle;
mod places;
mod port;
mod registry;
mod report;
mod rest;
mod run;
mod shadow;
mod shrink;
mod tap;

pub use cluster::{Cluster, Probes, Struck};
pub use faults::{Fault, Strike};
pub use finding::{Finding, Findings};
pub use ledger::{FoundSpace, Ledger, Tap};
pub use load::{KEYS, Load, Work};
pub use model::{KeyValueModel, Model};
pub use operators::{Operator, eventually, route};
pub use options::{Link, LoadOptions, Log, Options, Weights};
pub use port::{Deafness, Ear};
pub use registry::perform as perform_registry;
pub use report::Report;
pub use run::{Record, Run, perform};
pub use tap::{Stores, StoresError, TappedEngine, TappedLog, open_stores};
