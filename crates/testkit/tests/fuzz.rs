//! Fuzz targets: this crate's own decoder, and the machinery itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "fuzz/history.rs"]
mod history;
#[path = "fuzz/machinery.rs"]
mod machinery;

quorate_testkit::fuzz_allocator!();
