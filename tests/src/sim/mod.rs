//! Whole clusters, with every layer as it runs in production, on one thread,
//! in virtual time, from a seed. Only the network, the disk and the clock are
//! simulated.

mod cluster;
mod invariants;
mod ledger;
mod load;
mod model;
mod operators;
mod oracle;
mod port;
mod shadow;
mod tap;

pub use cluster::Cluster;
pub use ledger::{Finding, FoundSpace, Ledger, Tap};
pub use load::{KEYS, Load};
pub use model::{KeyValueModel, Model};
pub use operators::{Operator, eventually, route};
pub use port::{Deafness, Ear};
pub use tap::{Stores, StoresError, TappedEngine, TappedLog, open_stores};
