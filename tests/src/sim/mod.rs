//! Whole clusters, with every layer as it runs in production, on one thread,
//! in virtual time, from a seed. Only the network, the disk and the clock are
//! simulated.

mod cluster;
mod load;
mod operators;
mod port;

pub use cluster::Cluster;
pub use load::{KEYS, Load};
pub use operators::{Operator, eventually, route};
pub use port::{Deafness, Ear};
