#![doc = include_str!("../README.md")]

mod config;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod core;
mod driver;
mod error;
mod member;
mod transport;
mod wire;

pub use crate::core::{Core, Identity, Stats};
pub use config::{Config, TcpConfig};
pub use driver::{Driver, Judge, Setup};
pub use error::GossipError;
pub use member::{Event, Member, Status};
pub use quorate_types::anti_entropy::{State, StateError};
pub use transport::{Connection, Destination, Inbound, Lane, Transmit, Transport};
pub use wire::{ADDRESS_BYTES_MAX, FRAME_BYTES_MAX, RECORDS_MAX};
