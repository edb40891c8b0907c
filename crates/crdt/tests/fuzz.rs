//! Fuzz targets: decoders, the map's merge fed with anything, and the tables.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;
#[path = "fuzz/decoders.rs"]
mod decoders;
#[path = "fuzz/histories.rs"]
mod histories;
#[path = "fuzz/merge.rs"]
mod merge;
#[path = "fuzz/tables.rs"]
mod tables;

quorate_testkit::fuzz_allocator!();
