//! Fuzz targets: what arrives on a wire or stands in a row, and the clock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "fuzz/clock.rs"]
mod clock;
#[path = "fuzz/frames.rs"]
mod frames;
#[path = "fuzz/handshake.rs"]
mod handshake;
#[path = "fuzz/rows.rs"]
mod rows;
#[path = "fuzz/values.rs"]
mod values;

quorate_testkit::fuzz_allocator!();
