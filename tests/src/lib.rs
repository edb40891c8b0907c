//! What the end-to-end tests stand on: a cluster of real `quorate` processes,
//! clients for its two doors, and load whose history is judged afterwards.
//!
//! It is test code that happens to be shared: what goes wrong here fails the
//! test at once, by a panic that says what was awaited.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod admin;
mod binary;
pub mod chaos;
mod cluster;
mod load;
mod resp;
pub mod sim;
mod wait;

pub use admin::{Admin, Migration, Node, Replica, Shard, Status};
pub use binary::server;
pub use cluster::{Cluster, Housing, Refusal, free_block};
pub use load::{Judgement, Load, LoadReport, Progress, Work};
pub use resp::{Client, Execution, Failure, Reply, Words, words};
pub use wait::eventually;
