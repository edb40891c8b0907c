//! The Redis protocol on one connection's bytes: requests in, replies out. No
//! socket in this room.

#[cfg(test)]
mod fuzz;
mod inline;
mod reply;
mod request;

pub use reply::{Protocol, Reply};
pub use request::{ProtocolError, Request, RequestDecoder, RequestLimits};
