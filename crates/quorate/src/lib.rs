#![doc = include_str!("../README.md")]

mod builder;
mod config;
mod coordinator;
mod directory;
mod error;
mod gossip;
mod hosting;
mod listen;
mod machine;
mod metadata;
mod moves;
mod network;
mod node;
mod placing;
mod projection;
mod status;
mod storage;

pub use builder::NodeBuilder;
pub use config::NodeConfig;
pub use error::{AdminError, NodeError};
pub use node::Node;

pub use quorate_calvin::kv::{Answer, KeyValue, Transaction};
pub use quorate_calvin::{Client, ExecuteError, Procedures, Session};
pub use quorate_raft::tcp::Service;
pub use quorate_raft::{LogMedium, Network, TransportError};
pub use quorate_types as types;
