//! Clients' connections: from sockets to calls and back, in order.

mod client;
mod connection;
mod info;
mod limits;
mod listener;
mod local;
mod order;
mod pipeline;
mod roster;
mod scan;
mod session;

pub use limits::{GatewayLimits, LimitError};
pub use listener::Gateway;
