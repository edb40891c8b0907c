//! Requests and replies between nodes over TCP: the connection layer that raft
//! brings along, and that the composing node shares for its other traffic.

mod frames;
mod link;
mod mesh;
mod serve;
mod transport;

pub use mesh::{AddressBook, Mesh, MeshConfig, MeshError};
pub use serve::{Judge, Service};
pub use transport::{RaftService, TcpTransport};
