//! Requests and replies between nodes over TCP: the connection layer that raft
//! brings along, and that the composing node shares for its other traffic.

mod frames;
#[cfg(test)]
mod fuzz;
mod link;
mod listen;
mod load;
mod mesh;
mod network;
mod serve;
mod standalone;
mod turns;

pub use listen::Reception;
pub use mesh::{AddressBook, Mesh, MeshConfig, MeshError};
pub use network::RaftService;
pub use serve::Service;
pub use standalone::Standalone;
