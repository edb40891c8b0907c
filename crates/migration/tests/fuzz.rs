//! Fuzz targets: stored rows, the machine shown anything, and the machine
//! against the model group.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

#[path = "fuzz/coordinators.rs"]
mod coordinators;
#[path = "fuzz/machine.rs"]
mod machine;
mod model;
#[path = "fuzz/rows.rs"]
mod rows;

quorate_testkit::fuzz_allocator!();
