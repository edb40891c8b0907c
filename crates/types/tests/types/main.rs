//! What two layers say to each other: bounded, checked, and the same on both
//! sides.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod blob;
mod codec;
mod conformance;
mod contain;
mod deferred;
mod disk;
mod env;
mod fault;
mod frame;
mod hello;
mod hlc;
mod membership;
mod owner;
mod range;
mod watch;
