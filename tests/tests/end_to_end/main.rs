//! Real processes on real disks, over real sockets: what the service promises
//! from the outside.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod clients;
mod commands;
mod damage;
mod failures;
mod membership;
mod migrations;
mod operators;
mod refusals;
mod serializability;
mod split;
mod starting;
mod torment;
