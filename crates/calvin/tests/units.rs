//! The parts one by one: locks, rows, formats, the map, the shard machine and
//! the sequencer. Tests named `nodedb_*` are defects of an earlier system that
//! could occur here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(missing_docs, unreachable_pub, dead_code, reason = "the support is shared between files")]

mod support;
mod units {
    mod formats;
    mod kv;
    mod locks;
    mod sequencer;
    mod shard;
    mod store;
    mod wide;
}
