//! Bytes and histories from outside, at random and mutated: nothing panics,
//! replicas agree, and a replica that is opened from its rows goes on as if it
//! had never been away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(missing_docs, unreachable_pub, dead_code, reason = "the support is shared between files")]

mod support;
mod fuzz {
    mod decoders;
    mod leaders;
    mod lock;
    mod order;
    mod sequencer;
    mod shard;
    mod story;
}

quorate_testkit::fuzz_allocator!();
