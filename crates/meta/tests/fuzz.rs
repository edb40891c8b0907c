//! The registry under any bytes and any history.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;
mod fuzz {
    mod decoders;
    mod registry;
    pub(crate) mod story;
}

quorate_testkit::fuzz_allocator!();
