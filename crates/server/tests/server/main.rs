//! The server over real sockets, in front of a backend in memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod admin;
mod cli;
mod clients;
mod commands;
mod conformance;
mod differential;
mod limits;
mod memory;
mod pipelining;
mod procedures;
mod scan;
mod support;
mod transactions;
