//! The services as they run in production, `NodeServices`, `Client` and
//! `ReplyGate`, over logs, stores and wires in memory: on one thread, on a
//! clock that stands still while anyone has work, and with the power to hold
//! back what one shard is sent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(missing_docs, unreachable_pub, dead_code, reason = "the support is shared between files")]

mod support;
mod services {
    mod admission;
    mod changes;
    mod client;
    mod deposed;
    mod gate;
    mod log;
    mod middle;
    mod reads;
    mod weather;
    mod wires;
    mod world;
}
